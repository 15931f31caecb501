package releaseset

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// Selection chooses members of a set.
type Selection struct {
	// Selectors are label expressions such as "app=shop,tier!=backend": all parts of
	// an expression must hold, and one expression must. None choose everything. A
	// label that a member lacks differs from every value.
	Selectors []string
	// IncludeNeeds adds what the chosen members need, and what that needs. Without
	// it, needs that are not chosen are taken as deployed already; what is chosen is
	// still deployed after what it needs by way of them.
	IncludeNeeds bool
}

// Select returns the set of the chosen members. It refuses malformed selectors,
// and a selection of nothing, with errors matching [stages.ErrInvalid].
func (s *Set) Select(sel Selection) (*Set, error) {
	filters := make([]Selector, len(sel.Selectors))
	for i, text := range sel.Selectors {
		var err error
		if filters[i], err = ParseSelector(text); err != nil {
			return nil, err
		}
	}
	chosen := make([]bool, len(s.members))
	for i, m := range s.members {
		chosen[i] = len(filters) == 0 || slices.ContainsFunc(filters, func(f Selector) bool { return f.Matches(m.labels()) })
	}
	if sel.IncludeNeeds {
		// Backwards, so that a member's own needs are reached after it.
		for _, i := range slices.Backward(s.order()) {
			for _, need := range s.members[i].needs {
				chosen[need] = chosen[need] || chosen[i]
			}
		}
	}
	out := &Set{concurrency: s.concurrency, rollback: s.rollback}
	moved := make([]int, len(s.members))
	for i, m := range s.members {
		if chosen[i] {
			moved[i] = len(out.members)
			out.members = append(out.members, m)
		}
	}
	if len(out.members) == 0 {
		return nil, fmt.Errorf("%w: release set: no member matches %s", stages.ErrInvalid, strings.Join(sel.Selectors, " or "))
	}
	// stands is what stands for a member as a need: itself, or where it is left out,
	// what stands for its own needs, so that the order stays.
	stands := make([][]int, len(s.members))
	for _, i := range s.order() {
		var needs []int
		for _, need := range s.members[i].needs {
			needs = append(needs, stands[need]...)
		}
		slices.Sort(needs)
		stands[i] = slices.Compact(needs)
		if chosen[i] {
			out.members[moved[i]].needs, stands[i] = stands[i], []int{moved[i]}
		}
	}
	return out, nil
}

func (m member) labels() map[string]string {
	out := make(map[string]string, len(m.Labels)+2)
	for k, v := range m.Labels {
		out[k] = v
	}
	out["name"], out["namespace"] = m.Name, m.Namespace
	return out
}

// Selector is a parsed label expression.
type Selector struct{ terms []term }

type term struct {
	key, value string
	differs    bool
}

var termPattern = regexp.MustCompile(`^([a-zA-Z0-9_./+-]+)(!?=)([a-zA-Z0-9_./+-]+)$`)

// ParseSelector parses an expression such as "app=shop,tier!=backend", or returns
// an error matching [stages.ErrInvalid].
func ParseSelector(text string) (Selector, error) {
	var s Selector
	for part := range strings.SplitSeq(text, ",") {
		m := termPattern.FindStringSubmatch(part)
		if m == nil {
			return Selector{}, fmt.Errorf("%w: selector %q: %q is neither key=value nor key!=value", stages.ErrInvalid, text, part)
		}
		s.terms = append(s.terms, term{key: m[1], value: m[3], differs: m[2] == "!="})
	}
	return s, nil
}

// Matches reports whether every part of the expression holds.
func (s Selector) Matches(labels map[string]string) bool {
	for _, t := range s.terms {
		value, ok := labels[t.key]
		if (ok && value == t.value) == t.differs {
			return false
		}
	}
	return true
}
