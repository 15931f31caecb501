package helmfile

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// effective returns the releases that are to be, with their templates, defaults
// and labels applied. Those whose condition does not hold are left out.
func (l *loader) effective() ([]release, error) {
	var out []release
	var problems []error
	for _, rel := range l.releases {
		rel, err := l.inherited(rel, nil)
		if err == nil {
			rel.settings = l.settings.under(rel.settings)
			maps.Copy(rel.labels, l.commonLabels)
			rel, err = l.expand(rel)
		}
		wanted := false
		if err == nil {
			wanted, err = l.wanted(rel)
		}
		if err != nil {
			problems = append(problems, err)
		} else if wanted {
			out = append(out, rel)
		}
	}
	return out, errors.Join(problems...)
}

// inherited returns rel laid over the templates that it inherits. Lists are put
// one after the other.
func (l *loader) inherited(rel release, path []string) (release, error) {
	merged := release{place: rel.place, line: rel.line, field: rel.field, labels: map[string]string{}}
	for _, in := range rel.inherit {
		template, ok := l.templates[in.text]
		switch {
		case !ok:
			return rel, rel.error(in.line, rel.field+".inherit", "there is no template %q", in.text)
		case slices.Contains(path, in.text):
			return rel, rel.error(in.line, rel.field+".inherit", "templates inherit each other in a circle: %s", strings.Join(append(path, in.text), " from "))
		}
		template, err := l.inherited(template, append(slices.Clone(path), in.text))
		if err != nil {
			return rel, err
		}
		for _, field := range in.except {
			switch field {
			case "labels":
				template.labels = nil
			case "values":
				template.values = nil
			case "set":
				template.set = nil
			case "setString":
				template.setString = nil
			case "secrets":
				template.secrets = nil
			default:
				return rel, rel.error(in.line, rel.field+".inherit", "except %q is not supported: only labels, values, set, setString and secrets are", field)
			}
		}
		merged = merged.under(template)
	}
	return merged.under(rel), nil
}

// under returns r with what over says added, or in its stead.
func (r release) under(over release) release {
	for _, p := range []struct{ to, from *string }{
		{&r.name, &over.name}, {&r.namespace, &over.namespace}, {&r.chart, &over.chart}, {&r.version, &over.version}, {&r.missing, &over.missing},
	} {
		if *p.from != "" {
			*p.to = *p.from
		}
	}
	if over.condition.text != "" {
		r.condition = over.condition
	}
	if over.installed != nil {
		r.installed = over.installed
	}
	r.settings = r.settings.under(over.settings)
	r.labels = maps.Clone(r.labels)
	maps.Copy(r.labels, over.labels)
	r.needs = slices.Concat(r.needs, over.needs)
	r.values = slices.Concat(r.values, over.values)
	r.secrets = slices.Concat(r.secrets, over.secrets)
	r.set = slices.Concat(r.set, over.set)
	r.setString = slices.Concat(r.setString, over.setString)
	return r
}

// expand renders the templates that are left in a release's strings, which know
// the release.
func (l *loader) expand(rel release) (release, error) {
	var problems []error
	render := func(text *string, line int) {
		if !strings.Contains(*text, "{{") {
			return
		}
		at := rel.place
		at.shifted = true // The template was a string of the document.
		rendered, err := l.render(at, *text, l.releaseData(rel))
		if err != nil {
			problems = append(problems, rel.error(line, rel.field, "%s", reason(err)))
			return
		}
		*text = strings.TrimSpace(rendered)
	}
	render(&rel.name, rel.line)
	if l.namespace != "" {
		rel.namespace = l.namespace
	}
	render(&rel.namespace, rel.line)
	render(&rel.chart, rel.line)
	render(&rel.version, rel.line)
	for _, key := range slices.Sorted(maps.Keys(rel.labels)) {
		value := rel.labels[key]
		render(&value, rel.line)
		rel.labels[key] = value
	}
	rel.needs, rel.values, rel.secrets = slices.Clone(rel.needs), slices.Clone(rel.values), slices.Clone(rel.secrets)
	for i := range rel.needs {
		render(&rel.needs[i].text, rel.needs[i].line)
	}
	for _, list := range [][]entry{rel.values, rel.secrets} {
		for i := range list {
			if list[i].file {
				render(&list[i].text, list[i].line)
			}
		}
	}
	return rel, errors.Join(problems...)
}

// reason is the problem of a field error without its place.
func reason(err error) string {
	if e, ok := errors.AsType[*FieldError](err); ok {
		return e.Problem
	}
	return err.Error()
}

func (l *loader) releaseData(rel release) releaseData {
	d := releaseData{documentData: l.data(), Release: releaseFields{
		Name: rel.name, Namespace: rel.namespace, Chart: rel.chart, ChartVersion: rel.version,
		KubeContext: rel.kubeContext.text, Labels: maps.Clone(rel.labels),
	}}
	d.StateValues = &d.Values
	return d
}

// wanted checks a release, and tells whether its condition holds.
func (l *loader) wanted(rel release) (bool, error) {
	if holds, err := l.holds(rel); err != nil || !holds {
		return false, err
	}
	refuse := func(field, problem string) error {
		return rel.error(rel.line, rel.field+field, "%s", problem)
	}
	switch {
	case rel.name == "":
		return false, refuse("", "has no name")
	case rel.namespace == "":
		return false, refuse("", "has no namespace; none is taken from a kubeconfig")
	case rel.removed():
	case rel.chart == "":
		return false, refuse("", "has no chart")
	case rel.wait != nil && *rel.wait && l.cfg.Verify == nil:
		return false, refuse(".wait", "needs a verifier; give Config.Verify")
	case rel.waitForJobs != nil && *rel.waitForJobs && (rel.wait == nil || *rel.wait):
		return false, refuse(".waitForJobs", "is not supported: no verifier waits for jobs; make the job a hook of the chart, which is waited for")
	}
	return true, l.context(rel.place, rel.field+".kubeContext", rel.kubeContext)
}

// holds evaluates a condition: true, false, or the path of a value that is called
// enabled.
func (l *loader) holds(rel release) (bool, error) {
	switch strings.ToLower(rel.condition.text) {
	case "", "true":
		return true, nil
	case "false":
		return false, nil
	}
	refuse := func(format string, args ...any) error {
		return rel.error(rel.condition.line, rel.field+".condition", format, args...)
	}
	path, ok := strings.CutSuffix(rel.condition.text, ".enabled")
	if !ok {
		return false, refuse("must be true, false, or a path that ends in .enabled")
	}
	found, ok := lookup(path, l.values())
	table, isMap := found.(map[string]any)
	if !ok || !isMap {
		return false, refuse("there is no map at %q in the values of the environment", path)
	}
	enabled, isBool := table["enabled"].(bool)
	if table["enabled"] != nil && !isBool {
		return false, refuse("the value is neither true nor false")
	}
	return enabled, nil
}

// chart resolves the name of a chart: to a local path, or to what is to be
// fetched.
func (l *loader) chart(rel release) (path string, far *Chart, err error) {
	if strings.HasPrefix(rel.chart, "oci://") {
		return "", &Chart{Reference: rel.chart, Version: rel.version}, nil
	}
	if remote(rel.chart) {
		return "", nil, rel.error(rel.line, rel.field+".chart", "only local charts, oci:// and charts of repositories are supported")
	}
	repo, name, two := strings.Cut(rel.chart, "/")
	if at := slices.IndexFunc(l.repositories, func(r Repository) bool { return r.Name == repo }); two && at >= 0 {
		found := l.repositories[at]
		if found.OCI {
			return "", &Chart{Reference: "oci://" + strings.TrimSuffix(found.URL, "/") + "/" + name, Repository: found, Version: rel.version}, nil
		}
		return "", &Chart{Reference: name, Repository: found, Version: rel.version}, nil
	}
	if path = rel.chart; !filepath.IsAbs(path) {
		path = filepath.Join(l.dir, path)
	}
	return path, nil, nil
}
