package helmx

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// Apply says how objects are written. Its zero value does as Helm 3 does.
type Apply struct {
	// Mode is how; empty is [ClientSide].
	Mode ApplyMode
	// Conflicts says for each field manager what becomes of a field that it owns
	// and that the chart wants to have another value. [AnyManager] is for those not
	// named; they are refused by default. Only with [ServerSide], or for the
	// definitions of [CRDsApply], which are always written that way.
	Conflicts map[string]ConflictPolicy
}

// ApplyMode is how objects are written.
type ApplyMode string

// The modes.
const (
	// ClientSide sends what differs between the last revision, the live object and
	// the chart. Fields that the chart sets are overwritten, whoever owns them, if
	// the chart changed them.
	ClientSide ApplyMode = "client-side"
	// ServerSide sends the whole object and lets the API server merge it. Fields
	// that somebody else owns are a conflict. Objects that were written by
	// [ClientSide], or by the helm command, are taken over.
	ServerSide ApplyMode = "server-side"
)

// AnyManager stands for the field managers that [Apply] doesn't name.
const AnyManager = "*"

// ConflictPolicy is what becomes of a field that somebody else owns.
type ConflictPolicy string

// The policies.
const (
	// Refuse fails the deployment with an [OwnershipError].
	Refuse ConflictPolicy = "refuse"
	// Overwrite takes the field over.
	Overwrite ConflictPolicy = "overwrite"
	// Yield leaves the field to its owner, such as replicas to an autoscaler.
	Yield ConflictPolicy = "yield"
)

// validate is told whether there may be definitions to apply.
func (a Apply) validate(definitions bool) error {
	switch a.Mode {
	case "", ClientSide:
		if len(a.Conflicts) > 0 && !definitions {
			return errors.New("Apply: Conflicts need the mode ServerSide; ClientSide knows no owners")
		}
	case ServerSide:
	default:
		return fmt.Errorf("Apply: unknown mode %q; use %q or %q", a.Mode, ClientSide, ServerSide)
	}
	for _, manager := range slices.Sorted(maps.Keys(a.Conflicts)) {
		switch policy := a.Conflicts[manager]; policy {
		case Refuse, Overwrite, Yield:
		default:
			return fmt.Errorf("Apply: unknown policy %q for field manager %q; use %q, %q or %q", policy, manager, Refuse, Overwrite, Yield)
		}
	}
	return nil
}

func (a Apply) policy(manager string) ConflictPolicy {
	if p, ok := a.Conflicts[manager]; ok {
		return p
	}
	if p, ok := a.Conflicts[AnyManager]; ok {
		return p
	}
	return Refuse
}

// OwnedField is a field that somebody else owns.
type OwnedField struct {
	// Path is the field, such as ".spec.replicas".
	Path string
	// Manager owns it.
	Manager string
}

// OwnershipError is an object that the chart wants to have other values in fields
// that somebody else owns. The object was not changed. It satisfies
// [stages.IsPermanent].
type OwnershipError struct {
	Object stages.Object
	Fields []OwnedField
}

func (e *OwnershipError) Error() string {
	var fields []string
	for _, f := range e.Fields {
		fields = append(fields, fmt.Sprintf("%s (owned by %s)", f.Path, f.Manager))
	}
	return fmt.Sprintf("%s: fields that the chart sets belong to others: %s; take them out of the chart, or say with Apply.Conflicts whether to yield or to overwrite",
		e.Object, strings.Join(fields, ", "))
}

// Unwrap marks the error as permanent.
func (e *OwnershipError) Unwrap() error { return stages.Permanent(errOwned) }

var errOwned = errors.New("field ownership conflict")
