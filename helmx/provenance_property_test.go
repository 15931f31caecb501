package helmx

import (
	"fmt"
	"io"
	"log" //nolint:depguard // Helm warns through it.
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	helmvalues "helm.sh/helm/v3/pkg/cli/values"
	"helm.sh/helm/v3/pkg/getter"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/stages"
)

// randomValues makes values out of few keys, so that layers collide often.
func randomValues(r *rand.Rand, depth int) map[string]any {
	out := map[string]any{}
	for range r.IntN(5) {
		key := string(rune('a' + r.IntN(4)))
		if r.IntN(6) == 0 {
			key = []string{"sub", "global", "alias", "import"}[r.IntN(4)]
		}
		out[key] = randomValue(r, depth)
		if _, table := out[key].(map[string]any); !table && len(key) > 1 {
			out[key] = randomValues(r, depth-1)
		}
	}
	return out
}

func randomValue(r *rand.Rand, depth int) any {
	switch n := r.IntN(10); {
	case n < 4 && depth > 0:
		return randomValues(r, depth-1)
	case n == 4:
		return nil
	case n == 5:
		list := make([]any, r.IntN(3))
		for i := range list {
			list[i] = fmt.Sprint(r.IntN(1000))
		}
		return list
	case n == 6:
		return r.IntN(2) == 0
	default:
		return fmt.Sprint("v", r.IntN(1000))
	}
}

func randomOverride(r *rand.Rand) (Override, func(*helmvalues.Options)) {
	path := string(rune('a' + r.IntN(4)))
	switch r.IntN(5) {
	case 0:
		path += "." + string(rune('a'+r.IntN(4)))
	case 1:
		path += "[1]"
	case 2:
		path = "sub." + path
	case 3:
		path = "global." + path
	}
	value := []string{"1", "true", "null", "text", "{x,y}", "0012"}[r.IntN(6)]
	text := path + "=" + value
	return Set(text), func(o *helmvalues.Options) { o.Values = append(o.Values, text) }
}

// scenario is a random chart, with a dependency that is also there under an alias,
// and random values for it.
type scenario struct {
	dir     string
	values  Values
	options helmvalues.Options
}

func newScenario(t *testing.T, r *rand.Rand) scenario {
	t.Helper()
	s := scenario{dir: t.TempDir()}
	file := func(name string, v any) string {
		data, err := yaml.Marshal(v)
		require.NoError(t, err)
		path := filepath.Join(s.dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	deps := []*chart.Dependency{
		{Name: "sub", Version: "1.x.x", Condition: "sub.a,a", ImportValues: []any{map[string]any{"child": "b", "parent": "import"}, "data"}},
		{Name: "sub", Version: "1.x.x", Alias: "alias", Condition: "b"},
	}[:r.IntN(3)]
	file("c/Chart.yaml", chart.Metadata{APIVersion: "v2", Name: "c", Version: "1.0.0", Dependencies: deps})
	file("c/values.yaml", randomValues(r, 3))
	file("c/charts/sub/Chart.yaml", chart.Metadata{APIVersion: "v2", Name: "sub", Version: "1.0.0"})
	file("c/charts/sub/values.yaml", randomValues(r, 3))
	for i := range r.IntN(3) {
		s.values.Files = append(s.values.Files, file(fmt.Sprint(i, ".yaml"), randomValues(r, 3)))
	}
	s.options.ValueFiles = s.values.Files
	for range r.IntN(3) {
		o, add := randomOverride(r)
		s.values.Overrides = append(s.values.Overrides, o)
		add(&s.options)
	}
	return s
}

// helmEffective is what templates get from Helm itself.
func (s scenario) helmEffective(t *testing.T) (map[string]any, error) {
	t.Helper()
	user, err := s.options.MergeValues(getter.Providers{})
	if err != nil {
		return nil, err
	}
	return s.coalesced(t, user)
}

func (s scenario) coalesced(t *testing.T, user map[string]any) (map[string]any, error) {
	t.Helper()
	c, err := loader.LoadDir(filepath.Join(s.dir, "c"))
	require.NoError(t, err)
	if err := chartutil.ProcessDependenciesWithMerge(c, user); err != nil {
		return nil, err
	}
	return chartutil.CoalesceValues(c, user)
}

// unmarked puts the values back for their marks.
func (l *layers) unmarked(v any) any {
	switch v := v.(type) {
	case mark:
		return l.settings[v].value
	case map[string]any:
		out := map[string]any{}
		for key, item := range v {
			out[key] = l.unmarked(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = l.unmarked(v[i])
		}
		return out
	}
	return v
}

// The values that are merged by origin are those that Helm merges, value by value,
// and whatever is said to have set one has: without it the value is another.
func TestProvenanceAgreesWithHelm(t *testing.T) {
	log.SetOutput(io.Discard) // Helm warns of what doesn't fit, which is the point here.
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	refused, explained, removals := 0, 0, 0
	for seed := range uint64(250) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newScenario(t, r)
		want, helmErr := s.helmEffective(t)
		if _, err := s.values.load(t.Context()); err != nil {
			require.Error(t, helmErr, seed)
			refused++
			continue
		}
		cfg := Config{Chart: filepath.Join(s.dir, "c"), Values: s.values, Logger: slog.New(slog.DiscardHandler)}
		src, err := loadSource(t.Context(), &cfg, false)
		require.NoError(t, err, seed)
		// Ours, on values.
		c, values, err := src.instance(cfg.Logger)
		require.NoError(t, err, seed)
		tr, err := src.trace(ImageValues{}, stages.Image{})
		if helmErr != nil {
			refused++
			continue
		}
		require.NoError(t, err, seed)
		require.NoError(t, chartutil.ProcessDependenciesWithMerge(c, values), seed)
		have, err := chartutil.CoalesceValues(c, values)
		require.NoError(t, err, seed)
		require.True(t, reflect.DeepEqual(want, map[string]any(have)), "seed %d: values\nwant %v\nhave %v", seed, want, have)
		// Ours, on marks.
		marks, err := tr.effective(tr.start())
		require.NoError(t, err, seed)
		require.Equal(t, want, tr.unmarked(marks), "seed %d", seed)

		all, err := tr.explain(nil)
		require.NoError(t, err, seed)
		told := map[string]bool{}
		for _, p := range all {
			told[p.Path] = true
			explained++
			steps, err := parsePath(p.Path)
			require.NoError(t, err, p.Path)
			value, ok := lookup(want, steps)
			require.True(t, ok, "seed %d: %s is not effective", seed, p.Path)
			assert.Equal(t, value, p.Value(), "seed %d: %s", seed, p.Path)
			if p.Origin.Kind == FromFile || p.Origin.Kind == FromChart {
				assert.NotZero(t, p.Origin.Line, "seed %d: %s", seed, p)
			}
			m, _ := lookup(marks, steps)
			if id, ok := m.(mark); ok && tr.settings[id].origin.Kind == FromFile {
				s.assertDecides(t, tr.settings[id], steps, value, seed)
				removals++
			}
		}
		walk(want, nil, func(steps []string, leaf any) {
			if table, ok := leaf.(map[string]any); !ok || len(table) > 0 { // Helm makes empty ones.
				assert.True(t, told[formatPath(want, steps)], "seed %d: %s is not told of", seed, formatPath(want, steps))
			}
		})
	}
	t.Logf("%d values explained, %d of them proven by removal, %d scenarios refused by Helm too", explained, removals, refused)
	assert.Greater(t, removals, 300)
	assert.Less(t, refused, 50)
}

// assertDecides changes the value where it is said to be set, and sees it change.
func (s scenario) assertDecides(t *testing.T, won setting, steps []string, value any, seed uint64) {
	t.Helper()
	file := won.origin.Name
	before, err := os.ReadFile(file)
	require.NoError(t, err)
	defer func() { require.NoError(t, os.WriteFile(file, before, 0o600)) }()
	var v any
	require.NoError(t, yaml.Unmarshal(before, &v))
	parent, ok := lookup(v, won.path[:len(won.path)-1])
	require.True(t, ok)
	switch parent := parent.(type) {
	case map[string]any:
		parent[won.path[len(won.path)-1]] = "CHANGED"
	case []any:
		for i := range parent {
			if fmt.Sprint(i) == won.path[len(won.path)-1] {
				parent[i] = "CHANGED"
			}
		}
	}
	after, err := yaml.Marshal(v)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, after, 0o600))
	if _, isBool := value.(bool); isBool {
		return // It may switch a dependency.
	}
	now, err := s.helmEffective(t)
	require.NoError(t, err, seed)
	got, _ := lookup(now, steps)
	assert.Equal(t, "CHANGED", got, "seed %d: %v is not what sets %v", seed, won.at(), steps)
}

// Defaults that are replaced by something of another shape are taken away beforehand,
// without a difference to Helm: also where a null takes away what replaces them, and
// among globals.
func TestShadowedDefaultsAgreeWithHelm(t *testing.T) {
	log.SetOutput(io.Discard) // Helm warns of what doesn't fit, which is the point here.
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	for name, files := range map[string][3]string{
		"null over replaced default": {"sub: {a: text, b: text}\n", "a: {x: 1}\nb: {x: 1}\n", "sub: {a: null}\n"},
		"null deeper":                {"sub: {t: {a: text}}\n", "t: {a: {x: 1}}\n", "sub: {t: {a: null}}\n"},
		"global":                     {"global: {a: {x: 1}}\n", "global: {a: {y: 1}}\n", "global: {a: text}\n"},
		"global of the dependency":   {"sub: {global: {a: {x: 1}}}\n", "global: {a: text}\n", "global: {a: text}\nsub: {global: {a: other}}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := scenario{dir: t.TempDir()}
			for path, text := range map[string]string{
				"c/Chart.yaml": "{apiVersion: v2, name: c, version: 1.0.0, dependencies: [{name: sub, version: 1.x.x}]}", "c/charts/sub/Chart.yaml": "{apiVersion: v2, name: sub, version: 1.0.0}",
				"c/values.yaml": files[0], "c/charts/sub/values.yaml": files[1], "given.yaml": files[2],
			} {
				path = filepath.Join(s.dir, path)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			}
			s.values.Files = []string{filepath.Join(s.dir, "given.yaml")}
			s.options.ValueFiles = s.values.Files
			want, err := s.helmEffective(t)
			require.NoError(t, err)
			cfg := Config{Chart: filepath.Join(s.dir, "c"), Values: s.values, Logger: slog.New(slog.DiscardHandler)}
			src, err := loadSource(t.Context(), &cfg, false)
			require.NoError(t, err)
			c, values, err := src.instance(cfg.Logger)
			require.NoError(t, err)
			require.NoError(t, chartutil.ProcessDependenciesWithMerge(c, values))
			have, err := chartutil.CoalesceValues(c, values)
			require.NoError(t, err)
			assert.Equal(t, want, map[string]any(have))
		})
	}
}

// What can't be marked is told of also where it gets as a global from one chart to a
// dependency of its dependency.
func TestHollowGlobals(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{
		"Chart.yaml": "{apiVersion: v2, name: c, version: 1.0.0}", "values.yaml": "global: {list: []}\n",
		"charts/sub/Chart.yaml": "{apiVersion: v2, name: sub, version: 1.0.0}", "charts/sub/charts/deep/Chart.yaml": "{apiVersion: v2, name: deep, version: 1.0.0}",
		"given.yaml": "sub: {global: {none: null}}\n",
	} {
		path = filepath.Join(dir, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	cfg := Config{Chart: dir, Values: Values{Files: []string{filepath.Join(dir, "given.yaml")}}, Logger: slog.New(slog.DiscardHandler)}
	src, err := loadSource(t.Context(), &cfg, false)
	require.NoError(t, err)
	tr, err := src.trace(ImageValues{}, stages.Image{})
	require.NoError(t, err)
	all, err := tr.explain(nil)
	require.NoError(t, err)
	told := map[string]string{}
	for _, p := range all {
		told[p.Path] = string(p.Origin.Kind)
	}
	assert.Equal(t, map[string]string{
		"global.list": "chart", "sub.global.list": "chart", "sub.deep.global.list": "chart",
		"sub.global.none": "file", "sub.deep.global.none": "file",
	}, told)
}

func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"a.b[0].c", `a\.b`, "[0]", "", "a..b", "a[01]", `\`, "a.[0]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		steps, err := parsePath(text)
		if err != nil {
			require.ErrorIs(t, err, stages.ErrInvalid)
			return
		}
		for _, step := range steps {
			assert.NotEmpty(t, step)
		}
	})
}

func TestLines(t *testing.T) {
	f := &lineFinder{data: []byte("a: &x\n  b: 1\nc: *x\nd:\n  <<: [*x, {e: 2}]\n  f: 3\nlist:\n- 1\n- g: 2\n")}
	for path, want := range map[string]int{"a": 1, "a.b": 2, "c": 3, "c.b": 2, "d.b": 2, "d.e": 5, "d.f": 6, "list[0]": 8, "list[1].g": 9, "nowhere": 0, "list[9]": 0} {
		steps, err := parsePath(path)
		require.NoError(t, err)
		assert.Equal(t, want, f.line(steps), path)
	}
	assert.Zero(t, (&lineFinder{data: []byte("a: [")}).line([]string{"a"}))
	loop := &lineFinder{data: []byte("a: &x\n  <<: *x\n")}
	assert.Zero(t, loop.line([]string{"a", "b"}))
}
