package helmx

import (
	"fmt"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chartutil"
)

// hollowWinner is [tracer.winner] for what can't be marked. It looks where Helm
// would find such a thing first.
func (t *tracer) hollowWinner(s *stack, steps []string, value any) (setting, func(), bool) {
	if won, remove, ok := t.hollowUser(s, steps); ok {
		return won, remove, true
	}
	if won, remove, ok := t.hollowDefault(s, t.root, steps, value); ok {
		return won, remove, true
	}
	// A global has come from any of the charts on the way down, the uppermost first.
	for n := range slices.Index(steps, chartutil.GlobalKey) {
		at := slices.Concat(steps[:n], steps[slices.Index(steps, chartutil.GlobalKey):])
		if won, remove, ok := t.hollowUser(s, at); ok {
			return won, remove, true
		}
		if won, remove, ok := t.hollowDefault(s, t.root, at, value); ok {
			return won, remove, true
		}
	}
	return setting{}, nil, false
}

func (t *tracer) hollowUser(s *stack, steps []string) (setting, func(), bool) {
	if at, ok := lookup(s.user, steps); ok && hollow(at) {
		return t.hollow[joinPath(steps)], func() { remove(s.user, steps, true) }, true
	}
	return setting{}, nil, false
}

// hollowDefault looks in the defaults of c, of the dependency that steps lead into,
// and of those that c imports from.
func (t *tracer) hollowDefault(s *stack, c *tracedChart, steps []string, value any) (setting, func(), bool) {
	if won, remove, ok := c.defaults.hollow(s, steps, value); ok {
		return won, remove, true
	}
	for _, dep := range c.charts {
		if len(steps) < 2 || dep.name != steps[0] {
			continue
		}
		if won, remove, ok := t.hollowDefault(s, dep, steps[1:], value); ok {
			return won, remove, true
		}
		if steps[1] != chartutil.GlobalKey {
			continue
		}
		if won, remove, ok := t.hollowUser(s, steps[1:]); ok {
			return won, remove, true
		}
		if won, remove, ok := c.defaults.hollow(s, steps[1:], value); ok {
			return won, remove, true
		}
	}
	for _, want := range c.requires {
		for _, entry := range want.imports {
			from, ok := importedFrom(entry, steps)
			if !ok {
				continue
			}
			if won, remove, ok := c.defaults.hollow(s, append([]string{want.name}, from...), value); ok {
				return won, remove, true
			}
			for _, dep := range c.charts {
				if dep.name != want.name {
					continue
				}
				if won, remove, ok := t.hollowDefault(s, dep, from, value); ok {
					return won, remove, true
				}
			}
		}
	}
	return setting{}, nil, false
}

// hollow returns what d itself sets at steps, if that is no scalar.
func (d *tracedDefaults) hollow(s *stack, steps []string, value any) (setting, func(), bool) {
	if at, ok := lookup(s.defaults[d], steps); !ok || !hollow(at) {
		return setting{}, nil, false
	}
	return setting{origin: d.origin, doc: d.doc, path: steps, value: value}, func() { remove(s.defaults[d], steps, false) }, true
}

// importedFrom returns what an entry of import-values takes the value at steps from.
func importedFrom(entry any, steps []string) ([]string, bool) {
	var from, to []string
	switch entry := entry.(type) {
	case string:
		from = []string{"exports", entry}
	case map[string]any:
		from = strings.Split(fmt.Sprint(entry["child"]), ".")
		if parent := fmt.Sprint(entry["parent"]); parent != "." {
			to = strings.Split(parent, ".")
		}
	}
	if len(from) == 0 || len(steps) <= len(to) || !slices.Equal(steps[:len(to)], to) {
		return nil, false
	}
	return append(from, steps[len(to):]...), true
}

// hollow reports whether v is a leaf that is no scalar.
func hollow(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}
