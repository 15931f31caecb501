// Package k8s is a name that Vault uses.
package k8s

type Provider struct{}
