package stages

import (
	"fmt"
	"strings"
	"time"
)

// Severity ranks a vulnerability. Values are ordered: a higher one is worse.
type Severity int

// The severities, as vulnerability databases name them.
const (
	SeverityUnknown Severity = iota
	SeverityLow
	SeverityMedium
	SeverityHigh
	SeverityCritical
)

var severityNames = [...]string{
	SeverityUnknown: "UNKNOWN", SeverityLow: "LOW", SeverityMedium: "MEDIUM",
	SeverityHigh: "HIGH", SeverityCritical: "CRITICAL",
}

// ParseSeverity returns the severity named s, in any case, or an error matching
// [ErrInvalid].
func ParseSeverity(s string) (Severity, error) {
	for i, name := range severityNames {
		if strings.EqualFold(name, s) {
			return Severity(i), nil
		}
	}
	return 0, fmt.Errorf("%w: severity %s is none of %s", ErrInvalid, quote(s), strings.Join(severityNames[:], ", "))
}

// String returns the severity's name in capitals.
func (s Severity) String() string {
	if s < 0 || int(s) >= len(severityNames) {
		return fmt.Sprintf("SEVERITY(%d)", int(s))
	}
	return severityNames[s]
}

// MarshalText returns the severity's name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText parses a severity's name.
func (s *Severity) UnmarshalText(text []byte) error {
	parsed, err := ParseSeverity(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// Finding is one vulnerability of one package in an image.
type Finding struct {
	// ID is the advisory, such as "CVE-2024-3094".
	ID string `json:"id"`
	// Severity is the rank that the scanner's chosen source gives it.
	Severity Severity `json:"severity"`
	// Package is the affected package.
	Package string `json:"package"`
	// Installed is the version in the image.
	Installed string `json:"installed"`
	// Fixed is the version, or versions, that mend it; empty while there is none.
	Fixed string `json:"fixed,omitempty"`
	// Target is where the package is: an operating system or a path in the image.
	Target string `json:"target,omitempty"`
	// Type is the kind of package, such as "debian" or "gobinary".
	Type string `json:"type,omitempty"`
	// Title says in a line what is wrong.
	Title string `json:"title,omitempty"`
	// URL leads to the advisory.
	URL string `json:"url,omitempty"`
}

// Report is what a scanner found in an image. Treat it as immutable.
type Report struct {
	// Image is what was scanned.
	Image Image `json:"image"`
	// Scanner is the tool and its version.
	Scanner string `json:"scanner"`
	// Database is when the vulnerability database was made.
	Database time.Time `json:"database"`
	// OS is the detected distribution, such as "debian 12.5"; empty for none.
	OS string `json:"os,omitempty"`
	// Packages counts the packages that were compared with the database.
	// None means that the scanner recognised nothing, not that all is well.
	Packages int `json:"packages"`
	// Findings are ordered worst first, then by ID, package and target.
	Findings []Finding `json:"findings"`
}

// Signature is proof that a key signed an image. Treat it as immutable.
type Signature struct {
	// Image is what was signed.
	Image Image `json:"image"`
	// KeyID is the hexadecimal SHA-256 of the public key's DER encoding.
	KeyID string `json:"keyID"`
	// Reference is where the signature is stored, pinned by digest.
	Reference string `json:"reference"`
}
