package helmx

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strings"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
)

// source is a chart and the values laid over it, as read by New. Helm changes
// charts and values while it works, so every operation takes copies.
type source struct {
	files  []*loader.BufferedFile
	values map[string]any
	hooks  bool
	// private are the strings among the values that the chart doesn't contain.
	private []string
}

func loadSource(path string, v Values, skipCRDs bool, log *slog.Logger) (*source, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("chart %s does not exist", path)
	}
	loaded, err := loader.Load(path)
	if err != nil {
		return nil, chartProblem(path, err)
	}
	s := &source{files: make([]*loader.BufferedFile, len(loaded.Raw))}
	for i, f := range loaded.Raw {
		s.files[i] = &loader.BufferedFile{Name: f.Name, Data: f.Data}
	}
	switch {
	case loaded.Metadata.Type != "" && loaded.Metadata.Type != "application":
		return nil, fmt.Errorf("chart %s is of type %q; only an application can be released", path, loaded.Metadata.Type)
	case loaded.Metadata.Dependencies != nil:
		if err := action.CheckDependencies(loaded, loaded.Metadata.Dependencies); err != nil {
			return nil, fmt.Errorf("chart %s: %w; run helm dependency build", path, err)
		}
	}
	if crds := loaded.CRDObjects(); len(crds) > 0 && !skipCRDs {
		return nil, fmt.Errorf("chart %s has custom resource definitions (%s), which Helm installs outside the release, never upgrades and never removes: install them on their own and set SkipCRDs", path, crds[0].Filename)
	}
	if loaded.Metadata.Deprecated {
		log.Warn("the chart is deprecated", "chart", loaded.Name())
	}
	if s.values, err = v.load(); err != nil {
		return nil, err
	}
	s.hooks = usesHooks(loaded)
	s.private = privateStrings(s.values, loaded)
	return s, nil
}

var chartFileProblem = regexp.MustCompile(`cannot load ([\w.-]+): `)

func chartProblem(path string, err error) error {
	if m := chartFileProblem.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("chart %s", atLine(strings.TrimSuffix(path, "/")+"/"+m[1], errors.New(strings.Replace(err.Error(), m[0], "", 1))))
	}
	return fmt.Errorf("chart %s: %w", path, err)
}

// instance returns a chart and values that the caller may change.
func (s *source) instance(log *slog.Logger) (*chart.Chart, map[string]any, error) {
	files := make([]*loader.BufferedFile, len(s.files))
	for i, f := range s.files {
		files[i] = &loader.BufferedFile{Name: f.Name, Data: f.Data}
	}
	c, err := loader.LoadFiles(files)
	if err != nil {
		return nil, nil, fmt.Errorf("load the chart again: %w", err)
	}
	values := copyMap(s.values)
	shadowChart(c, values, "", func(path string) {
		log.Warn("a value replaces one of another shape", "path", path)
	})
	return c, values, nil
}

// shadowChart does [shadow] for a chart and its dependencies.
func shadowChart(c *chart.Chart, given map[string]any, path string, warn func(string)) {
	shadow(c.Values, given, path, warn)
	for _, dep := range c.Dependencies() {
		if sub, ok := given[dep.Name()].(map[string]any); ok {
			shadowChart(dep, sub, path+"."+dep.Name(), warn)
		}
		if sub, ok := c.Values[dep.Name()].(map[string]any); ok {
			shadowChart(dep, sub, path+"."+dep.Name(), warn)
		}
	}
}

func usesHooks(c *chart.Chart) bool {
	for _, t := range c.Templates {
		if strings.Contains(string(t.Data), "helm.sh/hook") {
			return true
		}
	}
	for _, dep := range c.Dependencies() {
		if usesHooks(dep) {
			return true
		}
	}
	return false
}
