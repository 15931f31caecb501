// Package address shows where charts and files come from without the passwords that
// people write into that.
package address

import (
	"regexp"
	"strings"
)

// OCI begins the reference of a chart in an OCI registry.
const OCI = "oci://"

// digest matches the one at the end of an OCI reference, well-formed or not.
var digest = regexp.MustCompile(`@sha\d+:[^@/]*$`)

// Redacted puts mask in the place of the user and password that may be in a URL, or in
// an OCI reference, of any quality.
func Redacted(text, mask string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	pinned := Digest(text)
	rest = strings.TrimSuffix(rest, pinned)
	if at := strings.LastIndexByte(rest, '@'); ok && at >= 0 {
		return scheme + "://" + mask + rest[at:] + pinned
	}
	return text
}

// Digest returns the digest that an OCI reference ends with, and the @ before it; ""
// where there is none.
func Digest(text string) string {
	if !strings.HasPrefix(text, OCI) {
		return ""
	}
	return digest.FindString(text)
}
