// Package sealedsecrets seals Kubernetes Secrets for the sealed-secrets
// controller, offline, and checks sealed ones before they are deployed.
//
//	manifest, err := sealedsecrets.Seal(certificate, sealedsecrets.Secret{
//		Name:      "shop",
//		Namespace: "prod",
//		Data:      map[string][]byte{"password": password},
//	}, sealedsecrets.Strict)
//
// The certificate is the controller's, as kubeseal --fetch-cert prints it. What
// [Seal] writes is what kubeseal writes, and may be committed. [Validate] finds,
// without a key, what would keep the controller from unsealing a manifest where it
// is about to be deployed: a name or namespace that it was not sealed for, data
// that was cut or is not encrypted, misspelt fields. [Gate] does so for all that a
// plan would deploy.
//
// # What it never does
//
// It never contacts a cluster, reads the environment or touches the disk, and never
// repeats a value in an error. It can't unseal: the private key stays with the
// controller. For the same reason [Validate] can't tell whether a manifest was
// sealed with the right certificate, nor for which name: it goes by the scope that
// the manifest claims.
package sealedsecrets
