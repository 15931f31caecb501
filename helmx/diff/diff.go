package diff

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// Summary counts what a plan would do.
type Summary struct {
	// Added, Changed, Removed, Recreated and Adopted count objects.
	Added     int `json:"added"`
	Changed   int `json:"changed"`
	Removed   int `json:"removed"`
	Recreated int `json:"recreated"`
	Adopted   int `json:"adopted"`
	// Refused counts changes that would fail.
	Refused int `json:"refused"`
	// Drifted counts objects that differ from the release that is deployed.
	Drifted int `json:"drifted"`
	// Hooks counts objects of hooks that differ from those of the release that is
	// deployed.
	Hooks int `json:"hooks"`
	// Dangers counts reasons to look twice.
	Dangers int `json:"dangers"`
}

// Count counts what plan would do.
func Count(plan stages.Plan) Summary {
	s := Summary{Drifted: len(plan.Drift), Hooks: len(plan.Hooks), Dangers: len(plan.AllDangers())}
	for _, c := range plan.Changes {
		switch c.Action {
		case stages.Create:
			s.Added++
		case stages.Update:
			s.Changed++
		case stages.Delete:
			s.Removed++
		case stages.Recreate:
			s.Recreated++
		case stages.Adopt:
			s.Adopted++
		}
		if c.Refusal != nil {
			s.Refused++
		}
	}
	return s
}

// String returns for example "1 added, 2 changed, 0 removed, 1 recreated, 3 dangers":
// the first three always, the others where there are any.
func (s Summary) String() string {
	text := fmt.Sprintf("%d added, %d changed, %d removed", s.Added, s.Changed, s.Removed)
	for _, more := range []struct {
		count int
		what  string
	}{
		{s.Recreated, "recreated"}, {s.Adopted, "adopted"}, {s.Refused, "refused"}, {s.Hooks, "in hooks"}, {s.Drifted, "drifted"}, {s.Dangers, "dangers"},
	} {
		if more.count > 0 {
			text += fmt.Sprintf(", %d %s", more.count, more.what)
		}
	}
	return text
}

// report is what JSON writes.
type report struct {
	Summary Summary `json:"summary"`
	stages.Plan
	// Manifests hides the plan's: they are long, and no difference.
	Manifests []byte `json:"manifests,omitempty"`
}

// JSON writes the plan as one indented JSON object: the fields of [stages.Plan]
// without the manifests, and "summary" with those of [Summary]. The characters that
// mean something in HTML are escaped.
func JSON(w io.Writer, plan stages.Plan) error {
	if plan.Changes == nil {
		plan.Changes = []stages.Change{}
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(report{Summary: Count(plan), Plan: plan}); err != nil {
		return fmt.Errorf("write the plan of release %s as JSON: %w", inline(plan.Release), err)
	}
	return nil
}

// phrases say what becomes of an object, in helm-diff's words where it has any.
func phrase(action stages.Action) string {
	switch action {
	case stages.Create:
		return "has been added"
	case stages.Update:
		return "has changed"
	case stages.Delete:
		return "has been removed"
	case stages.Recreate:
		return "can't be changed in place"
	case stages.Adopt:
		return "is to be adopted"
	default:
		return "would fail"
	}
}

// title names an object as helm-diff does: "shop, web, Deployment (apps)".
func title(o stages.Object) string {
	group, _, grouped := strings.Cut(o.APIVersion, "/")
	if !grouped {
		group = o.APIVersion
	}
	return inline(fmt.Sprintf("%s, %s, %s (%s)", o.Namespace, o.Name, o.Kind, group))
}

// remarks are what there is to say of a change beside its difference.
func remarks(c stages.Change) []string {
	var out []string
	for _, d := range c.Dangers {
		out = append(out, inline(fmt.Sprintf("danger (%s): %s", d.Class, d.Why)))
	}
	if c.Refusal != nil {
		out = append(out, inline(fmt.Sprintf("would be refused (%s): %s", c.Refusal.Reason, c.Refusal.Message)))
	}
	for _, f := range c.Fields {
		if f.Owner != "" {
			out = append(out, inline(fmt.Sprintf("%s: %s, held by %s, would be overwritten", f.Path, arrow(f), f.Owner)))
		}
	}
	if c.Basis == stages.BasisRelease {
		out = append(out, "compared with the last release only")
	}
	return out
}

func arrow(f stages.FieldChange) string {
	if f.Secret && f.From == f.To {
		return "changed"
	}
	unset := func(s string) string {
		if s == "" {
			return "(none)"
		}
		return s
	}
	return unset(f.From) + " -> " + unset(f.To)
}

// drifts says what somebody has changed.
func drifts(d stages.Drift) []string {
	if d.Missing {
		return []string{"it is gone"}
	}
	var out []string
	for _, f := range d.Fields {
		text := f.Path + ": " + arrow(f)
		if f.Owner != "" {
			text += ", by " + f.Owner
		}
		if !f.Overwritten {
			text += "; it would stay so"
		}
		out = append(out, inline(text))
	}
	return out
}
