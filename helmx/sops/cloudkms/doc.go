// Package cloudkms opens the data keys of SOPS files whose master key is in AWS KMS,
// Google Cloud KMS, Azure Key Vault or HashiCorp Vault. It is a module of its own,
// because it compiles in the SDKs of all four.
//
//	source, err := cloudkms.New(cloudkms.Config{Vault: &cloudkms.Vault{
//		Addresses: []string{"https://vault.example.com"},
//		Token:     token,
//	}})
//	...
//	d, err := sops.New(sops.Config{KeySource: source})
//
// A service that isn't configured is never contacted. Addresses, roles and profiles
// in a file are not trusted: a credential is sent only to the Vault servers and key
// vaults, and a role assumed only if it is one, that the configuration names.
//
// The SDKs are those that sops uses. Beyond credentials, which always come from
// [Config], they read settings such as proxies, regions and certificate authorities
// from the environment.
package cloudkms
