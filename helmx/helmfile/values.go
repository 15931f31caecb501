package helmfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	k8syaml "sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
)

// releaseValues returns what a release lists under values and secrets, and turns its
// assignments into those of Helm, in the order in which the helm command would
// apply them.
func (l *loader) releaseValues(ctx context.Context, rel release) (helmx.Values, error) {
	values := helmx.Values{Hide: l.hidden}
	data, handler := l.releaseData(rel), cmp.Or(rel.missing, l.missing)
	for i, e := range rel.values {
		layer, err := l.releaseEntry(e, data)
		if l.skipped(ctx, handler, err) {
			continue
		}
		if err != nil {
			return helmx.Values{}, err
		}
		if path, ok := reference(layer.Values, ""); ok {
			return helmx.Values{}, e.place.error(e.line, fmt.Sprintf("%s.values[%d]", rel.field, i), "%s refers to a secret of vals, which is not resolved; list an encrypted file under secrets", path)
		}
		values.Layers = append(values.Layers, layer)
	}
	for _, e := range rel.secrets {
		layer, err := l.secret(ctx, e)
		if l.skipped(ctx, handler, err) {
			continue
		}
		if err != nil {
			return helmx.Values{}, err
		}
		values.Layers = append(values.Layers, layer)
	}
	var files []helmx.Override
	for _, a := range rel.set {
		switch {
		case a.file != "":
			file, err := l.setFile(rel, a)
			if err != nil {
				return helmx.Values{}, err
			}
			files = append(files, file)
		default:
			values.Overrides = append(values.Overrides, helmx.Set(a.expression()))
		}
	}
	for _, a := range rel.setString {
		values.Overrides = append(values.Overrides, helmx.SetString(a.expression()))
	}
	values.Overrides = append(values.Overrides, files...)
	var problems []error
	for _, a := range append(rel.set, rel.setString...) {
		if slices.ContainsFunc(append(slices.Clone(a.values), a.value), secretReference.MatchString) {
			problems = append(problems, rel.error(a.line, a.field, "refers to a secret of vals, which is not resolved; list an encrypted file under secrets"))
		}
	}
	return values, errors.Join(problems...)
}

// setFile is an assignment from a file, which is read when the release is its turn.
func (l *loader) setFile(rel release, a assignment) (helmx.Override, error) {
	refuse := func(format string, args ...any) (helmx.Override, error) {
		return helmx.Override{}, rel.error(a.line, a.field, format, args...)
	}
	// They could end the name early, and the rest would be the path of another file.
	if strings.ContainsAny(a.name, `=\`) {
		return refuse(`a name with = or \ can't be set from a file`)
	}
	if remote(a.file) {
		return refuse("%s", onlyLocal(a.file))
	}
	file := l.path(a.file)
	switch found, err := l.is(a.file, func(info fs.FileInfo) bool { return info.Mode().IsRegular() }); {
	case err != nil:
		return refuse("%v", err)
	case !found:
		return refuse("there is no file %s", file)
	}
	return helmx.SetFile(escape(a.name) + "=" + escape(strings.ReplaceAll(file, `\`, `\\`))), nil
}

// releaseEntry reads one entry of values, with the types that Helm gives it.
func (l *loader) releaseEntry(e entry, data releaseData) (helmx.Layer, error) {
	layer := helmx.Layer{Name: e.place.at(e.line)}
	var text []byte
	var err error
	at := e.place
	if e.file {
		layer.Name = l.path(e.text)
		at = place{file: layer.Name, shifted: filepath.Ext(layer.Name) == ".gotmpl"}
		text, err = l.read(e, layer.Name, data)
		if !at.shifted {
			layer.Source = text
		}
	} else {
		// Through values and back, as helmfile does: it decides what 010 and yes are.
		r := &reader{place: e.place}
		m := r.mapping(e.node, "values")
		if err = errors.Join(r.problems...); err == nil {
			text, err = yaml.Marshal(m)
		}
	}
	if err != nil {
		return helmx.Layer{}, err
	}
	layer.Values = map[string]any{}
	if err := at.values(text, func(text []byte, into any) error { return k8syaml.Unmarshal(text, into) }, &layer.Values); err != nil {
		return helmx.Layer{}, err
	}
	if tree.Encrypted(layer.Values) {
		return helmx.Layer{}, e.encrypted()
	}
	return layer, nil
}

// encrypted refuses an entry of values that would be taken as it is on the disk.
func (e entry) encrypted() error {
	return e.place.error(e.line, "values", "%s is encrypted with SOPS; list it under secrets", e.text)
}

// secretReference is what vals replaces, "ref+" or "secretref+" with a URL, wherever
// in a string it is.
var secretReference = regexp.MustCompile(`ref\+[^+:]*://`)

// reference returns the path of a value that helmfile would have vals replace.
func reference(v any, path string) (string, bool) {
	switch v := v.(type) {
	case string:
		return path, secretReference.MatchString(v)
	case map[string]any:
		for key, item := range v {
			if at, ok := reference(item, strings.TrimPrefix(path+"."+key, ".")); ok {
				return at, true
			}
		}
	case []any:
		for i, item := range v {
			if at, ok := reference(item, fmt.Sprintf("%s[%d]", path, i)); ok {
				return at, true
			}
		}
	}
	return "", false
}

// expression is the assignment as the helm command takes it.
func (a assignment) expression() string {
	if len(a.values) == 0 {
		return escape(a.name) + "=" + escape(a.value)
	}
	items := make([]string, len(a.values))
	for i, v := range a.values {
		items[i] = escape(v)
	}
	return escape(a.name) + "={" + strings.Join(items, ",") + "}"
}

// escape does what the helmfile command does.
func escape(text string) string {
	return strings.NewReplacer("{", `\{`, "}", `\}`, ",", `\,`).Replace(text)
}
