package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/fairlead-dev/fairlead/stages"
)

// The classes of failure that callers tell apart. All of them are permanent.
var (
	// ErrNotFound is an image, tag or repository that the registry doesn't have.
	ErrNotFound = errors.New("not found in the registry")
	// ErrUnauthorized is a registry that wants other credentials, or more rights.
	ErrUnauthorized = errors.New("not authorized by the registry")
	// ErrDigestMismatch is content that doesn't have the digest it was asked for
	// by, or that the registry promised.
	ErrDigestMismatch = errors.New("content does not match its digest")
)

// Error is an operation on a registry that failed. Its text holds no secret, no
// query and no answer of unknown form, and so does what it unwraps to.
type Error struct {
	// Op says what was being done, to what.
	Op string
	// Status is the HTTP status that the registry answered with; 0 if it didn't.
	Status int
	// Code is the registry's own name for the failure, such as "MANIFEST_UNKNOWN";
	// empty if it gave none.
	Code string
	// Reason is why it failed.
	Reason string
	// Remedy is what to do; empty where only trying again can help.
	Remedy string
	causes []error
}

// Error returns all fields as one line.
func (e *Error) Error() string {
	text := "could not " + e.Op + ": " + e.Reason
	if e.Status != 0 {
		text += fmt.Sprintf(" (HTTP %d)", e.Status)
	}
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Unwrap returns the classes of the failure and, where it is free of secrets,
// its cause.
func (e *Error) Unwrap() []error { return e.causes }

// fail turns whatever go-containerregistry returned into an [Error].
func (r *request) fail(ctx context.Context, err error) error {
	e := &Error{Op: r.what}
	if ctx.Err() != nil {
		e.Reason = context.Cause(ctx).Error()
		e.causes = []error{context.Cause(ctx), ctx.Err()}
		return e
	}
	permanent := e.classify(err)
	e.Reason = clean(r.secrets.remove(e.Reason))
	if permanent {
		return stages.Permanent(e)
	}
	return e
}

// classify fills e from err and reports whether a retry is pointless.
func (e *Error) classify(err error) (permanent bool) {
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		return e.fromAnswer(answer)
	}
	for _, class := range []error{stages.ErrInvalid, stages.ErrNotPinned, ErrDigestMismatch, ErrNotFound, errTooLarge} {
		if errors.Is(err, class) {
			e.Reason, e.causes = reason(err), []error{class}
			return true
		}
	}
	if failed, ok := errors.AsType[*authError](err); ok {
		e.Reason = failed.Error()
		e.Remedy = "see that the keychain in registry.Config.Auth works for this registry"
		return true
	}
	if remedy := insecureRemedy(err); remedy != "" {
		e.Reason, e.Remedy = reason(err), remedy
		return true
	}
	e.Reason = reason(err)
	if op, ok := errors.AsType[*net.OpError](err); ok {
		e.causes = []error{op}
	}
	return false
}

// fromAnswer reads what a registry, or its token service, answered. The body is
// only used where it has the form that the specification gives it.
func (e *Error) fromAnswer(answer *transport.Error) (permanent bool) {
	e.Status = answer.StatusCode
	e.Reason = strings.ToLower(http.StatusText(e.Status))
	var said []string
	for _, d := range answer.Errors {
		if e.Code == "" && codePattern.MatchString(string(d.Code)) {
			e.Code = string(d.Code)
		}
		said = append(said, strings.TrimSuffix(string(d.Code)+": "+d.Message, ": "))
	}
	if len(said) > 0 {
		e.Reason = "the registry says " + strings.Join(said, "; ")
	}
	ping := answer.Request != nil && strings.TrimSuffix(answer.Request.URL.Path, "/") == "/v2"
	switch {
	case e.Code == string(transport.TooManyRequestsErrorCode), e.Status == http.StatusTooManyRequests:
		e.Remedy = "wait, or log in to be allowed more"
		return false
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		e.Remedy = "give registry.Config.Auth credentials with the right to do this in this repository"
		e.causes = []error{ErrUnauthorized}
		return true
	case e.Status == http.StatusNotFound && ping:
		e.Reason, e.Remedy = "there is no OCI registry at this address", "correct the host and port"
		return true
	case e.Status == http.StatusNotFound:
		e.Remedy = "push it first, or correct the reference"
		e.causes = []error{ErrNotFound}
		return true
	case e.Status == http.StatusRequestTimeout, e.Status == http.StatusTooEarly, e.Status >= 500:
		return false
	}
	return true
}

// insecureRemedy tells what to do where no trusted connection can be had.
func insecureRemedy(err error) string {
	const plain = "add the registry to registry.Config.Insecure if plain HTTP is meant"
	if errors.Is(err, errPlain) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return plain
	}
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, other := errors.AsType[x509.HostnameError](err)
	if unverified || unknown || other {
		return "give registry.Config.Transport a TLS configuration that trusts the registry's certificate"
	}
	return ""
}

// reason is an error's text without the URL, which may carry a signed query.
func reason(err error) string {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err.Error()
	}
	return err.Error()
}

var (
	codePattern     = regexp.MustCompile(`^[A-Z_]{1,40}$`)
	userinfoPattern = regexp.MustCompile(`//[^/\s"'@]*@`)
	queryPattern    = regexp.MustCompile(`\?[^\s"']*=[^\s"']*`)
)

// clean makes one bounded line of printable text out of what others wrote.
func clean(text string) string {
	// What follows a line break is a body that was appended to the message.
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = userinfoPattern.ReplaceAllString(text, "//")
	text = queryPattern.ReplaceAllString(text, "")
	text = strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return -1
	}, text)
	const limit = 500
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return strings.TrimRight(text, " :;")
}

func notFound(err error) bool {
	answer, ok := errors.AsType[*transport.Error](err)
	return ok && answer.StatusCode == http.StatusNotFound
}
