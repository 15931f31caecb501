// Package seal lets the engine, and nobody outside this module, issue a
// clearance to deploy. It is the only package that the contract imports.
package seal

// Seal is a permission that code outside this module can't name, and whose zero
// value, should reflection or type inference conjure one, is not valid.
type Seal struct{ valid bool }

// New returns a valid seal.
func New() Seal { return Seal{valid: true} }

// Valid reports whether the seal came from [New].
func (s Seal) Valid() bool { return s.valid }
