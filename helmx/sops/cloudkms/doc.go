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
// vaults, and a role assumed only if it is one, that the configuration names. Nor
// does a redirect of Vault lead anywhere else.
//
// The clients are those that sops uses. Credentials, Vault's servers and its
// namespace always come from [Config]; settings such as proxies and certificate
// authorities are read from the environment.
//
// # Rights
//
// The credentials need these, and no others:
//
//   - AWS KMS: kms:Decrypt on the key, and sts:AssumeRole on a role that files name.
//   - Google Cloud KMS: roles/cloudkms.cryptoKeyDecrypter on the key.
//   - Azure Key Vault: the key operation decrypt.
//   - Vault: to update decrypt/KEY below the path of the engine.
//
// For the key shop of the engine at transit, this is the only policy that Vault's token
// has to have:
//
//	path "transit/decrypt/shop" {
//	  capabilities = ["update"]
//	}
//
// # What it is tested with
//
// The real sops command encrypts all files. Vault is a real server. AWS KMS is
// local-kms behind a check of the requests' signatures; Google Cloud KMS and Azure Key
// Vault are stand-ins that follow the documented protocols, with real cryptography,
// and that the SDKs reach by the services' own names. No cloud was ever asked.
package cloudkms
