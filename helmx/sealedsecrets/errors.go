package sealedsecrets

import (
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// The classes of failure. Match them with [errors.Is]; all of them come with
// [stages.ErrInvalid].
var (
	// ErrCertificate is a certificate that must not be sealed with.
	ErrCertificate = errors.New("certificate is not fit for sealing")
	// ErrSecret is a Secret that Kubernetes or the controller would refuse.
	ErrSecret = errors.New("secret can't be sealed")
	// ErrManifest is a SealedSecret that the controller can't have been meant to unseal.
	ErrManifest = errors.New("malformed SealedSecret")
	// ErrScope is a SealedSecret that was sealed for another name or namespace.
	ErrScope = errors.New("SealedSecret is sealed for another place")
)

// CertificateProblem says what is wrong with a certificate.
type CertificateProblem string

// The problems.
const (
	// Unreadable: it is not one PEM-encoded X.509 certificate.
	Unreadable CertificateProblem = "unreadable"
	// NotYetValid: its period has not begun.
	NotYetValid CertificateProblem = "not yet valid"
	// Expired: its period is over.
	Expired CertificateProblem = "expired"
	// NotRSA: its key is of another kind, which the controller can't open.
	NotRSA CertificateProblem = "not RSA"
	// Weak: its RSA key is shorter than 2048 bits.
	Weak CertificateProblem = "weak"
)

// CertificateError is a certificate that must not be sealed with.
type CertificateError struct {
	Problem CertificateProblem
	// NotBefore and NotAfter are the certificate's period; zero if unreadable.
	NotBefore, NotAfter time.Time
	// Bits is the length of an RSA key.
	Bits int
}

// Error says what is wrong and what to do.
func (e *CertificateError) Error() string {
	const fetch = "; fetch the controller's current one with kubeseal --fetch-cert"
	switch e.Problem {
	case NotYetValid:
		return fmt.Sprintf("%s: it is not valid before %s; check the clock", ErrCertificate, e.NotBefore.UTC().Format(time.RFC3339))
	case Expired:
		return fmt.Sprintf("%s: it expired at %s%s", ErrCertificate, e.NotAfter.UTC().Format(time.RFC3339), fetch)
	case NotRSA:
		return fmt.Sprintf("%s: its key is not RSA%s", ErrCertificate, fetch)
	case Weak:
		return fmt.Sprintf("%s: its RSA key has %d bits, of which 2048 are required%s", ErrCertificate, e.Bits, fetch)
	case Unreadable:
		return fmt.Sprintf("%s: it is not a PEM-encoded certificate%s", ErrCertificate, fetch)
	default:
		return fmt.Sprintf("%s: %s", ErrCertificate, e.Problem)
	}
}

// Unwrap returns [ErrCertificate] and [stages.ErrInvalid].
func (e *CertificateError) Unwrap() []error { return []error{ErrCertificate, stages.ErrInvalid} }

// ScopeError is a SealedSecret that was sealed for another name or namespace than
// the one where it is to be deployed.
type ScopeError struct {
	Scope Scope
	// SealedName and SealedNamespace are what the manifest says; Name and Namespace
	// are where it is to be deployed.
	SealedName, SealedNamespace string
	Name, Namespace             string
}

// Error names both places and what to do.
func (e *ScopeError) Error() string {
	return fmt.Sprintf("%s: its %s scope allows %s/%s only, not %s/%s; seal it again for that place, or with a wider scope",
		ErrScope, e.Scope, e.SealedNamespace, e.sealedName(), e.Namespace, e.Name)
}

func (e *ScopeError) sealedName() string {
	if e.Scope == NamespaceWide {
		return "*"
	}
	return e.SealedName
}

// Unwrap returns [ErrScope] and [stages.ErrInvalid].
func (e *ScopeError) Unwrap() []error { return []error{ErrScope, stages.ErrInvalid} }

// FieldError is a field of a SealedSecret, or of a Secret to be sealed, that was
// refused.
type FieldError struct {
	// Field is its path, such as "spec.encryptedData.password"; empty for the
	// object as a whole.
	Field string
	// Reason says what is wrong.
	Reason string
	// Class is [ErrManifest] or [ErrSecret].
	Class error
}

// Error names the field and what is wrong with it.
func (e *FieldError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %s", e.Class, e.Reason)
	}
	return fmt.Sprintf("%s: %s: %s", e.Class, e.Field, e.Reason)
}

// Unwrap returns the class and [stages.ErrInvalid].
func (e *FieldError) Unwrap() []error { return []error{e.Class, stages.ErrInvalid} }
