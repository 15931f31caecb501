package stages

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/internal/seal"
)

// Clearance says that an image may be deployed, and why. Only the engine can
// issue one, after every gate has passed and the signature has verified, and
// [BypassGates] in its stead. The zero value clears nothing.
type Clearance struct {
	image  Image
	grants *grants
}

// grants is behind a pointer so that a clearance stays small and comparable.
type grants struct {
	Decisions []Decision `json:"decisions,omitempty"`
	Signature Signature  `json:"signature,omitzero"`
	Bypass    string     `json:"bypass,omitempty"`
}

// Grounds are what the engine clears an image on.
type Grounds struct {
	// Image is what is to be deployed.
	Image Image
	// Report is what the scanner found.
	Report Report
	// Decisions are all gates' decisions; at least one, each a pass.
	Decisions []Decision
	// Signature is what the signature verifier found.
	Signature Signature
}

// Clear issues a clearance. Its first argument keeps it to the engine: no code
// outside this module can make a valid one. It refuses grounds that are
// incomplete, that are about another image, or that hold anything but passes.
func Clear(s seal.Seal, g Grounds) (Clearance, error) {
	switch {
	case !s.Valid():
		return Clearance{}, fmt.Errorf("%w: only the engine issues clearances; see BypassGates", ErrNotCleared)
	case g.Image.IsZero():
		return Clearance{}, fmt.Errorf("%w: there is no image", ErrNotCleared)
	case g.Report.Image.Digest() != g.Image.Digest():
		return Clearance{}, mismatch("scan report", g.Report.Image, g.Image)
	case g.Signature.Image != g.Image:
		return Clearance{}, mismatch("signature", g.Signature.Image, g.Image)
	case len(g.Decisions) == 0:
		return Clearance{}, fmt.Errorf("%w: no gate has decided on %s", ErrNotCleared, g.Image)
	}
	for _, d := range g.Decisions {
		if d.Verdict != Pass {
			return Clearance{}, fmt.Errorf("%w: gate %s said %s on %s", ErrNotCleared, d.Gate, d.Verdict, g.Image)
		}
	}
	return Clearance{image: g.Image, grants: &grants{Decisions: slices.Clone(g.Decisions), Signature: g.Signature}}, nil
}

func mismatch(what string, got, want Image) error {
	return errors.Join(ErrNotCleared, fmt.Errorf("%w: the %s is about %s, to be deployed is %s", ErrSubjectMismatch, what, describe(got), want))
}

func describe(i Image) string {
	if i.IsZero() {
		return "no image"
	}
	return i.String()
}

// BypassGates clears img without scan, policy or signature. The reason is
// required and is written into the release record, where an auditor finds it.
func BypassGates(img Image, reason string) (Clearance, error) {
	reason = strings.TrimSpace(reason)
	switch {
	case img.IsZero():
		return Clearance{}, fmt.Errorf("%w: bypassing the gates needs an image", ErrInvalid)
	case reason == "":
		return Clearance{}, fmt.Errorf("%w: bypassing the gates for %s needs a reason", ErrInvalid, img)
	}
	return Clearance{image: img, grants: &grants{Bypass: reason}}, nil
}

// Image returns what is cleared, or no image for the zero value.
func (c Clearance) Image() Image { return c.image }

// Bypass returns the reason given to [BypassGates], or "" if the gates passed.
func (c Clearance) Bypass() string {
	if c.grants == nil {
		return ""
	}
	return c.grants.Bypass
}

// Decisions returns what the gates decided, each of them a pass; none if they were
// bypassed.
func (c Clearance) Decisions() []Decision {
	if c.grants == nil {
		return nil
	}
	return slices.Clone(c.grants.Decisions)
}

// Check returns an error matching [ErrNotCleared] unless c clears an image.
// Every [Deployer] calls it first.
func (c Clearance) Check() error {
	if c.grants == nil || c.image.IsZero() {
		return fmt.Errorf("%w: run it through a pipeline, or see stages.BypassGates", ErrNotCleared)
	}
	return nil
}

// MarshalJSON writes the image and the grounds, for the record.
func (c Clearance) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Image Image `json:"image"`
		*grants
	}{c.image, c.grants})
}
