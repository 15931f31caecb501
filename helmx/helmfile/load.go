package helmfile

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/internal/address"
	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
	"github.com/fairlead-dev/fairlead/stages"
)

// loader collects what the documents say, one after the other.
type loader struct {
	engine
	cfg Config
	// defaults are the values at the root, chosen those of the environment.
	defaults, chosen map[string]any
	environments     map[string]bool
	kubeContext      located
	namespace        string
	settings         settings
	repositories     []Repository
	commonLabels     map[string]string
	templates        map[string]release
	releases         []release
	missing          string // what is done about missing files where nothing else is said
	// hidden are the secrets of the environment, which templates put anywhere.
	hidden []string
}

func newLoader(cfg Config) *loader {
	return &loader{
		cfg: cfg, engine: engine{dir: filepath.Dir(cfg.Path), root: cmp.Or(cfg.Root, filepath.Dir(cfg.Path)), env: cfg.Env}, defaults: map[string]any{}, chosen: map[string]any{},
		environments: map[string]bool{}, commonLabels: map[string]string{}, templates: map[string]release{},
	}
}

// values are what templates see.
func (l *loader) values() map[string]any {
	return layer(layer(l.defaults, l.chosen), l.cfg.Values)
}

func (l *loader) data() documentData {
	values := l.values()
	return documentData{
		Environment: environmentData{Name: l.cfg.Environment, KubeContext: l.kubeContext.text, Values: tree.Clone(l.chosen)},
		Namespace:   l.namespace, Values: values, StateValues: &values,
	}
}

// load reads the file and, before each document, the bases that it names.
func (l *loader) load(ctx context.Context) error {
	if err := l.file(ctx, l.cfg.Path, false); err != nil {
		return err
	}
	if name := l.cfg.Environment; name != DefaultEnvironment && !l.environments[name] {
		return fmt.Errorf("%w: %s does not define the environment %q", stages.ErrInvalid, l.cfg.Path, name)
	}
	return nil
}

func (l *loader) file(ctx context.Context, path string, base bool) error {
	data, err := inRoot(l.engine, path, (*os.Root).ReadFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: helmfile %s does not exist", stages.ErrInvalid, path)
	}
	if err != nil {
		return fmt.Errorf("%w: read helmfile: %w", stages.ErrInvalid, err)
	}
	for _, part := range split(path, string(data)) {
		d, err := l.document(part)
		if err != nil {
			return err
		}
		if base && (len(d.bases) > 0 || d.hasReleases > 0) {
			return d.error(d.hasReleases, "", "a base has neither bases nor releases; put them into the helmfile itself")
		}
		for _, b := range d.bases {
			if remote(b) {
				return d.error(0, "bases", "%s", onlyLocal(b))
			}
			if err := l.file(ctx, l.path(b), true); err != nil {
				return err
			}
		}
		if err := l.take(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// part is a document as it is written.
type part struct {
	place
	text string
}

// split cuts a file at its lines of three dashes.
func split(file, text string) []part {
	var parts []part
	first := 0
	var current strings.Builder
	n := 0
	for line := range strings.Lines(strings.ReplaceAll(text, "\r\n", "\n")) {
		n++
		if strings.TrimRight(line, " \t\n") == "---" {
			parts = append(parts, part{place{file: file, first: first}, current.String()})
			current.Reset()
			first = n
			continue
		}
		current.WriteString(line)
	}
	return append(parts, part{place{file: file, first: first}, current.String()})
}

// document renders and reads one document.
func (l *loader) document(p part) (document, error) {
	text, err := l.render(p.place, p.text, l.data())
	if err != nil {
		return document{}, err
	}
	p.shifted = strings.Count(text, "\n") != strings.Count(p.text, "\n")
	decoder := yaml.NewDecoder(strings.NewReader(text))
	var root yaml.Node
	switch err := decoder.Decode(&root); {
	case errors.Is(err, io.EOF):
		return document{place: p.place}, nil
	case err != nil:
		return document{}, p.yamlError(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return document{}, p.error(0, "", "the template makes several documents of one; write --- outside of it")
	}
	r := &reader{place: p.place}
	d := r.document(root.Content[0])
	return d, errors.Join(r.problems...)
}

// take adds what a document says to what those before it said.
func (l *loader) take(ctx context.Context, d document) error {
	if d.hasReleases > 0 && len(l.releases) > 0 {
		return d.error(d.hasReleases, "releases", "an earlier document has releases as well, which helmfile would drop; put them together")
	}
	l.releases = append(l.releases, d.releases...)
	l.repositories = append(l.repositories, d.repositories...)
	for k, v := range d.commonLabels {
		l.commonLabels[k] = v
	}
	for k, v := range d.templates {
		l.templates[k] = v
	}
	if d.namespace != "" {
		l.namespace = d.namespace
	}
	l.missing = cmp.Or(d.missing, l.missing)
	l.settings = l.settings.under(d.defaults)
	data := l.data()
	for name, e := range d.environments {
		l.environments[name] = true
		if name != l.cfg.Environment {
			continue
		}
		if err := l.context(d.place, "environments."+name, e.kubeContext); err != nil {
			return err
		}
		values, err := l.entries(ctx, e.missing, e.values, data)
		if err != nil {
			return err
		}
		for _, secret := range e.secrets {
			decrypted, err := l.secret(ctx, secret)
			if l.skipped(ctx, cmp.Or(e.missing, l.missing), err) {
				continue
			}
			if err != nil {
				return err
			}
			tree.EachString(decrypted.Values, func(text string) {
				if !bytes.Contains(decrypted.Source, []byte(text)) {
					l.hidden = append(l.hidden, text)
				}
			})
			values = tree.Overlay(values, decrypted.Values)
		}
		l.chosen = layer(l.chosen, values)
	}
	defaults, err := l.entries(ctx, handlerError, d.values, data)
	if err != nil {
		return err
	}
	l.defaults = tree.Overlay(l.defaults, defaults)
	return errors.Join(
		l.context(d.place, "kubeContext", d.kubeContext),
		l.context(d.place, "helmDefaults", d.defaults.kubeContext),
	)
}

// context refuses a context that is not connected to.
func (l *loader) context(at place, field string, c located) error {
	switch c.text {
	case "":
		return nil
	case l.cfg.KubeContext:
		l.kubeContext = c
		return nil
	}
	return at.error(c.line, field, "names the context %q, but %q is connected to; connect to it, and say so with Config.KubeContext", c.text, l.cfg.KubeContext)
}

// under returns s with what over sets in its stead.
func (s settings) under(over settings) settings {
	for _, p := range []struct{ to, from **bool }{
		{&s.wait, &over.wait}, {&s.waitForJobs, &over.waitForJobs}, {&s.createNamespace, &over.createNamespace}, {&s.skipCRDs, &over.skipCRDs},
		{&s.takeOwnership, &over.takeOwnership},
	} {
		if *p.from != nil {
			*p.to = *p.from
		}
	}
	if over.timeout != nil {
		s.timeout = over.timeout
	}
	if over.deleteTimeout != nil {
		s.deleteTimeout = over.deleteTimeout
	}
	if over.historyMax != nil {
		s.historyMax = over.historyMax
	}
	if over.kubeContext.text != "" {
		s.kubeContext = over.kubeContext
	}
	return s
}

// entries merges a list of values for templates.
func (l *loader) entries(ctx context.Context, handler string, list []entry, data documentData) (map[string]any, error) {
	merged := map[string]any{}
	for _, e := range list {
		if !e.file {
			r := &reader{place: e.place}
			merged = tree.Overlay(merged, r.mapping(e.node, "values"))
			if err := errors.Join(r.problems...); err != nil {
				return nil, err
			}
			continue
		}
		files, err := l.glob(e)
		if err != nil && !l.skipped(ctx, handler, err) {
			return nil, err
		}
		for _, file := range files {
			text, err := l.read(e, file, data)
			if l.skipped(ctx, handler, err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			m := map[string]any{}
			if err := (place{file: file}).values(text, yaml.Unmarshal, &m); err != nil {
				return nil, err
			}
			if tree.Encrypted(m) {
				return nil, e.encrypted()
			}
			merged = tree.Overlay(merged, m)
		}
	}
	return merged, nil
}

// glob returns the files of an entry.
func (l *loader) glob(e entry) ([]string, error) {
	if remote(e.text) {
		return nil, e.place.error(e.line, "values", "%s", onlyLocal(e.text))
	}
	if !strings.ContainsAny(e.text, "*?[") {
		return []string{l.path(e.text)}, nil
	}
	files, err := l.matches(l.path(e.text))
	if own, ok := errors.AsType[*funcError](err); ok {
		return nil, e.place.error(e.line, "values", "%v", own)
	}
	if len(files) == 0 {
		return nil, &missingError{e.place.error(e.line, "values", "no file matches %s", e.text), e, l.path(e.text)}
	}
	return files, nil
}

func remote(path string) bool { return strings.Contains(path, "://") || strings.Contains(path, "::") }

func onlyLocal(path string) string {
	return shown(path) + ": only local files are read; fetch it beforehand"
}

// shown is the address of a chart or file without what may be secret in it: user and
// password, and the parameters that say how it is fetched.
func shown(text string) string {
	if !remote(text) {
		return text
	}
	text, _, _ = strings.Cut(text, "?")
	if way, rest, ok := strings.Cut(text, "::"); ok && !strings.Contains(rest, "://") {
		if at := strings.LastIndexByte(rest, '@'); at >= 0 { // As in git::user@host:path.
			return way + "::" + helmx.Redacted + rest[at:]
		}
	}
	return address.Redacted(text, helmx.Redacted)
}

// read returns the content of a file, rendered if its name says that it is a
// template.
func (l *loader) read(e entry, file string, data any) ([]byte, error) {
	if remote(e.text) {
		return nil, e.place.error(e.line, "", "%s", onlyLocal(e.text))
	}
	if strings.HasSuffix(file, ".hcl") {
		return nil, e.place.error(e.line, "", "%s: HCL is not supported; write it as YAML", e.text)
	}
	content, err := inRoot(l.engine, file, (*os.Root).ReadFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &missingError{e.place.error(e.line, "", "the file %s does not exist", file), e, file}
	}
	if err != nil {
		return nil, e.place.error(e.line, "", "%v", err)
	}
	if filepath.Ext(file) != ".gotmpl" {
		return content, nil
	}
	engine := l.engine
	engine.dir = filepath.Dir(file)
	text, err := engine.render(place{file: file}, string(bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))), data)
	return []byte(text), err
}

// secret decrypts a file in memory.
func (l *loader) secret(ctx context.Context, e entry) (helmx.Layer, error) {
	file := l.path(e.text)
	data, err := l.read(e, file, nil)
	if err != nil {
		return helmx.Layer{}, err
	}
	if l.cfg.Decrypt == nil {
		return helmx.Layer{}, e.place.error(e.line, "secrets", "nothing decrypts %s; give Config.Decrypt", e.text)
	}
	plain, err := l.cfg.Decrypt(ctx, file, data)
	if err != nil {
		return helmx.Layer{}, fmt.Errorf("decrypt %s: %w", file, err)
	}
	m := map[string]any{}
	if err := (place{file: file}).values(plain, yaml.Unmarshal, &m); err != nil {
		return helmx.Layer{}, err
	}
	return helmx.Layer{Name: file, Values: m, Source: data, Encrypted: true}, nil
}
