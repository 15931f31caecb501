package helmx

import (
	"errors"
	"fmt"
	"slices"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
	"github.com/fairlead-dev/fairlead/stages"
)

// tracer merges marks instead of values, with Helm's own code, to find out where
// each effective value comes from.
type tracer struct {
	*layers
	root *tracedChart
	// defaults are the charts' own values, by the file that identifies a chart also
	// after Helm has copied it under an alias.
	defaults map[*chart.File]*tracedDefaults
	// imports says that a chart takes values from a dependency.
	imports bool
}

// tracedChart is a chart that is enabled, reduced to what values depend on.
type tracedChart struct {
	name, version string
	defaults      *tracedDefaults
	requires      []*tracedDependency
	charts        []*tracedChart
}

// tracedDependency is shared between aliases of a chart, as Helm's own are.
type tracedDependency struct {
	name, version string
	imports       []any
}

// tracedDefaults are the values.yaml of a chart.
type tracedDefaults struct {
	origin Origin
	doc    *lineFinder
	marked map[string]any
}

// trace prepares for questions about the values with img, which may be none.
func (s *source) trace(paths ImageValues, img stages.Image) (*tracer, error) {
	c, err := loader.LoadFiles(s.copyFiles())
	if err != nil {
		return nil, fmt.Errorf("load the chart: %w", err)
	}
	t := &tracer{layers: s.layers.clone(), defaults: map[*chart.File]*tracedDefaults{}}
	if err := t.assign(Origin{Kind: FromImage}, func(values map[string]any) error { return paths.inject(values, img) }); err != nil {
		return nil, err
	}
	if img.IsZero() {
		for i := range t.settings {
			if t.settings[i].origin.Kind == FromImage {
				t.settings[i].value = nil
			}
		}
	}
	imports := map[*chart.Dependency][]any{}
	t.readDefaults(c, imports)
	values := tree.Clone(t.merged)
	shadowChart(c, values, "", func(string) {})
	// This settles which dependencies are enabled, and under which names.
	if err := chartutil.ProcessDependenciesWithMerge(c, values); err != nil {
		return nil, fmt.Errorf("process the dependencies: %w", err)
	}
	t.root = t.reduce(c, imports, map[*chart.Dependency]*tracedDependency{})
	return t, nil
}

// readDefaults marks the values of c and its dependencies before Helm changes them.
func (t *tracer) readDefaults(c *chart.Chart, imports map[*chart.Dependency][]any) {
	if len(c.Raw) > 0 {
		d := &tracedDefaults{origin: Origin{Kind: FromChart, Name: c.ChartFullPath()}}
		for _, f := range c.Raw {
			if f.Name == "values.yaml" {
				d.doc = &lineFinder{data: f.Data}
			}
		}
		d.marked = t.mark(d.origin, d.doc, c.Values)
		t.defaults[c.Raw[0]] = d
	}
	for _, want := range c.Metadata.Dependencies {
		if want != nil {
			imports[want] = want.ImportValues
			t.imports = t.imports || len(want.ImportValues) > 0
		}
	}
	for _, dep := range c.Dependencies() {
		t.readDefaults(dep, imports)
	}
}

func (t *tracer) reduce(c *chart.Chart, imports map[*chart.Dependency][]any, seen map[*chart.Dependency]*tracedDependency) *tracedChart {
	out := &tracedChart{name: c.Name(), version: c.Metadata.Version, defaults: &tracedDefaults{}}
	if len(c.Raw) > 0 && t.defaults[c.Raw[0]] != nil {
		out.defaults = t.defaults[c.Raw[0]]
	}
	for _, want := range c.Metadata.Dependencies {
		if seen[want] == nil {
			seen[want] = &tracedDependency{name: want.Name, version: want.Version, imports: imports[want]}
		}
		out.requires = append(out.requires, seen[want])
	}
	for _, dep := range c.Dependencies() {
		out.charts = append(out.charts, t.reduce(dep, imports, seen))
	}
	return out
}

// stack is what a merge starts from; what has been explained is taken out of it.
type stack struct {
	user     map[string]any
	defaults map[*tracedDefaults]map[string]any
}

func (t *tracer) start() *stack {
	s := &stack{user: tree.Clone(t.marked), defaults: map[*tracedDefaults]map[string]any{}}
	for _, d := range t.defaults {
		s.defaults[d] = tree.Clone(d.marked)
	}
	return s
}

// effective returns what Helm makes of s.
func (t *tracer) effective(s *stack) (map[string]any, error) {
	c := t.root.build(s, map[*tracedDependency]*chart.Dependency{})
	values := tree.Clone(s.user)
	shadowChart(c, values, "", func(string) {})
	if err := chartutil.ProcessDependenciesWithMerge(c, values); err != nil {
		return nil, fmt.Errorf("process the dependencies: %w", err)
	}
	out, err := chartutil.CoalesceValues(c, values)
	if err != nil {
		return nil, errors.New("a value stands where a dependency's values have to be a map")
	}
	return out, nil
}

func (c *tracedChart) build(s *stack, made map[*tracedDependency]*chart.Dependency) *chart.Chart {
	out := &chart.Chart{Metadata: &chart.Metadata{Name: c.name, Version: c.version}, Values: tree.Clone(s.defaults[c.defaults])}
	for _, want := range c.requires {
		if made[want] == nil {
			made[want] = &chart.Dependency{Name: want.name, Version: want.version, ImportValues: slices.Clone(want.imports)}
		}
		out.Metadata.Dependencies = append(out.Metadata.Dependencies, made[want])
	}
	for _, dep := range c.charts {
		out.AddDependency(dep.build(s, made))
	}
	return out
}

// explain tells about every leaf at or below steps.
func (t *tracer) explain(steps []string) ([]Provenance, error) {
	s := t.start()
	now, err := t.effective(s)
	if err != nil {
		return nil, err
	}
	at, exists := lookup(now, steps)
	if !exists {
		return t.explainRemoved(s, steps)
	}
	var wanted [][]string
	walk(at, steps, func(leaf []string, _ any) {
		if len(leaf) > 0 {
			wanted = append(wanted, leaf)
		}
	})
	if !t.imports {
		return t.explainAll(s, now, wanted)
	}
	// One value may have effect in two places here, so that taking it out for the
	// one would hide it from the other.
	var out []Provenance
	for _, leaf := range wanted {
		found, err := t.explainAll(t.start(), now, [][]string{leaf})
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// explainAll finds the winners, takes them out of s, finds those who win then, and
// so on.
func (t *tracer) explainAll(s *stack, now map[string]any, wanted [][]string) ([]Provenance, error) {
	out := make([]Provenance, len(wanted))
	open := make([]int, len(wanted))
	for i, leaf := range wanted {
		out[i].Path = formatPath(now, leaf)
		open[i] = i
	}
	last := make([]Origin, len(wanted))
	for first := true; len(open) > 0; first = false {
		var still []int
		var takeOut []func()
		for _, i := range open {
			value, exists := lookup(now, wanted[i])
			if !exists {
				continue
			}
			won, remove, ok := t.winner(s, wanted[i], value)
			if !ok || won.at() == last[i] {
				continue
			}
			if last[i] = won.at(); first {
				out[i].Origin, out[i].value = last[i], func() any { return won.value }
			} else {
				out[i].Overrode = append(out[i].Overrode, last[i])
			}
			for over := won.over; over != 0; over = t.settings[over].over {
				out[i].Overrode = append(out[i].Overrode, t.settings[over].at())
			}
			takeOut, still = append(takeOut, remove), append(still, i)
		}
		for _, f := range takeOut {
			f()
		}
		if open = still; len(open) == 0 {
			break
		}
		var err error
		if now, err = t.effective(s); err != nil {
			return nil, err
		}
	}
	// Helm makes empty maps of its own, for dependencies and their globals.
	return slices.DeleteFunc(out, func(p Provenance) bool { return p.Origin.Kind == "" }), nil
}

// winner returns what set the effective value at steps, and how to take it out.
func (t *tracer) winner(s *stack, steps []string, value any) (setting, func(), bool) {
	m, ok := value.(mark)
	if !ok {
		return t.hollowWinner(s, steps, value)
	}
	won := t.settings[m]
	if won.origin.Kind != FromChart {
		return won, func() { remove(s.user, userPath(s.user, m, steps), true) }, true
	}
	return won, func() {
		for d, values := range s.defaults {
			if d.origin == won.origin {
				remove(values, won.path, false) // Helm warns of an import that isn't there.
			}
		}
	}, true
}

// userPath returns where m is among the user's values, which is where it has effect
// unless it is a global or imported.
func userPath(user map[string]any, m mark, steps []string) []string {
	if at, ok := lookup(user, steps); ok && at == m {
		return steps
	}
	found := steps
	walk(user, nil, func(at []string, leaf any) {
		if leaf == m {
			found = at
		}
	})
	return found
}

// locate returns what set the effective value at steps, or for a map or list what
// set most of it that outranks the rest.
func (t *tracer) locate(now map[string]any, steps []string) Origin {
	at, exists := lookup(now, steps)
	if !exists {
		return Origin{}
	}
	var best setting
	var depth int
	s := t.start() // Nothing is taken out of it, so that it serves for all.
	walk(at, nil, func(below []string, leaf any) {
		won, _, ok := t.winner(s, append(slices.Clone(steps), below...), leaf)
		if ok && (best.origin.Kind == "" || rank(won.origin) > rank(best.origin)) {
			best, depth = won, len(below)
		}
	})
	if depth > len(best.path) {
		return best.origin
	}
	best.path = best.path[:len(best.path)-depth]
	return best.at()
}

// rank orders origins by precedence.
func rank(o Origin) int {
	return slices.Index([]OriginKind{FromChart, FromFile, FromMap, FromOverride, FromImage}, o.Kind)*1000 + o.Index
}

// explainRemoved tells about a value that a null has removed.
func (t *tracer) explainRemoved(s *stack, steps []string) ([]Provenance, error) {
	for n := len(steps); n > 0; n-- {
		by, ok := t.hollow[joinPath(steps[:n])]
		if at, exists := lookup(s.user, steps[:n]); !ok || !exists || at != nil {
			continue
		}
		remove(s.user, steps[:n], true)
		now, err := t.effective(s)
		if err != nil {
			return nil, err
		}
		at, exists := lookup(now, steps)
		if !exists {
			return nil, nil
		}
		var leaves [][]string
		walk(at, steps, func(leaf []string, _ any) { leaves = append(leaves, leaf) })
		under, err := t.explainAll(s, now, leaves)
		if err != nil {
			return nil, err
		}
		p := Provenance{Path: formatPath(now, steps), Origin: by.at(), Removed: true}
		for over := by.over; over != 0; over = t.settings[over].over {
			p.Overrode = append(p.Overrode, t.settings[over].at())
		}
		for _, u := range under {
			for _, o := range append([]Origin{u.Origin}, u.Overrode...) {
				if !slices.Contains(p.Overrode, o) {
					p.Overrode = append(p.Overrode, o)
				}
			}
		}
		return []Provenance{p}, nil
	}
	return nil, nil
}
