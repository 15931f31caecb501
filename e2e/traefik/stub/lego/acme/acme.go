// Package acme has an account's types.
package acme

// Account is an ACME account.
type Account struct{}

// ExtendedAccount is one with its location.
type ExtendedAccount struct {
	Account
	Location string
}
