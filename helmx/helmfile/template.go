package helmfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	yaml "go.yaml.in/yaml/v3"
)

// environmentData and releaseData are what templates see.
type environmentData struct {
	Name, KubeContext string
	Values            map[string]any
}

type documentData struct {
	Environment environmentData
	Namespace   string
	Values      map[string]any
	StateValues *map[string]any
}

type releaseData struct {
	documentData
	KubeContext, Chart string
	Release            releaseFields
}

type releaseFields struct {
	Name, Namespace, Chart, ChartVersion, KubeContext string
	Labels                                            map[string]string
}

// engine renders templates. It runs nothing and asks nobody.
type engine struct {
	// dir is what paths are relative to, root what nothing outside of is read.
	dir, root string
	env       func(string) (string, bool)
}

// funcError is an error of a function whose text holds no value.
type funcError struct{ text string }

func (e *funcError) Error() string { return e.text }

func problem(format string, args ...any) error { return &funcError{fmt.Sprintf(format, args...)} }

// render executes text, which begins at the given place.
func (e engine) render(at place, text string, data any) (string, error) {
	t, err := e.parse(text)
	if err != nil {
		return "", at.templateError(err)
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return "", at.templateError(err)
	}
	return b.String(), nil
}

func (e engine) parse(text string) (*template.Template, error) {
	t := template.New("document").Option("missingkey=error")
	t.Funcs(e.functions(t))
	helpers, err := e.matches(filepath.Join(e.dir, "_*.tpl"))
	if err != nil {
		return nil, fmt.Errorf("look for helper templates: %w", err)
	}
	for _, file := range helpers {
		data, err := inRoot(e, file, (*os.Root).ReadFile)
		if err != nil {
			return nil, fmt.Errorf("read helper template: %w", err)
		}
		if _, err := t.New(filepath.Base(file)).Parse(string(data)); err != nil {
			return nil, err
		}
	}
	return t.Parse(text)
}

const deepestInclude = 100

func (e engine) functions(t *template.Template) template.FuncMap {
	f := sprig.TxtFuncMap()
	f["sprigGet"] = f["get"]
	f["env"] = func(name string) string { v, _ := e.env(name); return v }
	f["expandenv"] = func(text string) string {
		return os.Expand(text, func(name string) string { v, _ := e.env(name); return v })
	}
	f["requiredEnv"] = func(name string) (string, error) {
		if v, ok := e.env(name); ok && v != "" {
			return v, nil
		}
		return "", problem("the environment variable %s is not set; give it with Config.Env", name)
	}
	f["required"] = func(message string, v any) (any, error) {
		if v == nil || v == "" {
			return nil, problem("%s", message)
		}
		return v, nil
	}
	f["fail"] = func(message string) (string, error) { return "", problem("%s", message) }
	f["toYaml"] = func(v any) (string, error) {
		data, err := yaml.Marshal(v)
		return string(data), err
	}
	f["fromYaml"] = func(text string) (any, error) {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			return nil, problem("the text is not YAML: %s", yamlProblem(err))
		}
		return v, nil
	}
	f["get"], f["getOrNil"], f["setValueAtPath"] = get, getOrNil, setValueAtPath
	f["readFile"] = e.readFile
	f["isFile"] = func(name string) (bool, error) {
		return e.is(name, func(info fs.FileInfo) bool { return !info.IsDir() })
	}
	f["isDir"] = func(name string) (bool, error) { return e.is(name, fs.FileInfo.IsDir) }
	depth := 0
	nested := func(execute func() (string, error)) (string, error) {
		if depth++; depth > deepestInclude {
			return "", problem("templates include each other too deep")
		}
		defer func() { depth-- }()
		return execute()
	}
	f["include"] = func(name string, data any) (string, error) {
		return nested(func() (string, error) {
			var b strings.Builder
			err := t.ExecuteTemplate(&b, name, data)
			return b.String(), err
		})
	}
	f["tpl"] = func(text string, data any) (string, error) {
		return nested(func() (string, error) {
			inner, err := t.Clone()
			if err == nil {
				inner, err = inner.New("text").Parse(text)
			}
			if err != nil {
				return "", problem("the text given to tpl is not a template")
			}
			var b strings.Builder
			err = inner.Execute(&b, data)
			return b.String(), err
		})
	}
	for name, advice := range map[string]string{ //nolint:gosec // These are names of functions.
		"exec": byCommand, "envExec": byCommand, "getHostByName": "it asks the network",
		"fetchSecretValue": "list an encrypted file under secrets", "expandSecretRefs": "list an encrypted file under secrets",
		"readDir": "name the files", "readDirEntries": "name the files",
	} {
		f[name] = func(...any) (string, error) { return "", problem("%s is not supported: %s", name, advice) }
	}
	return f
}

func (e engine) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(e.dir, name)
}

func (e engine) readFile(name string) (string, error) {
	data, err := inRoot(e, e.path(name), (*os.Root).ReadFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", problem("the file %s does not exist", shown(name))
	}
	return string(data), err
}

// get returns what is at a dotted path, or a default: get "a.b" [default] map.
func get(path string, args ...any) (any, error) {
	if len(args) != 1 && len(args) != 2 {
		return nil, problem("get takes a path, perhaps a default, and a map")
	}
	v, ok := lookup(path, args[len(args)-1])
	switch {
	case ok:
		return v, nil
	case len(args) == 2:
		return args[0], nil
	}
	return nil, problem("there is nothing at %q", path)
}

func getOrNil(path string, v any) any {
	found, _ := lookup(path, v)
	return found
}

func lookup(path string, v any) (any, bool) {
	for key := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[key]; !ok {
			return nil, false
		}
	}
	return v, true
}

func setValueAtPath(path string, value any, values map[string]any) (map[string]any, error) {
	under, key := values, path
	if dot := strings.LastIndexByte(path, '.'); dot >= 0 {
		found, _ := lookup(path[:dot], values)
		m, ok := found.(map[string]any)
		if !ok {
			return nil, problem("there is no map at %q", path[:dot])
		}
		under, key = m, path[dot+1:]
	}
	under[key] = value
	return values, nil
}

var (
	templatePlace = regexp.MustCompile(`^template: ([^:]*):(\d+)(?::\d+)?: `)
	executing     = regexp.MustCompile(`^executing "[^"]*" at <(.*?)>: `)
	calling       = regexp.MustCompile(`^error calling (\w+): `)
	harmless      = regexp.MustCompile(`^(map has no entry for key "[^"]*"|function "[^"]*" not defined|unclosed action|unexpected EOF|nil pointer evaluating .*|can't evaluate field \w+ in type .*)$`)
)

// templateError says what package template says, without the values in it.
func (p place) templateError(err error) error {
	text, line := err.Error(), 0
	if m := templatePlace.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[2]) // Digits, and 0 does no harm.
		text = text[len(m[0]):]
		if m[1] != "document" && m[1] != "text" {
			return p.error(0, "", "%s:%d: %s", m[1], line, harmlessPart(text, err))
		}
	}
	return p.error(line, "", "template: %s", harmlessPart(text, err))
}

func harmlessPart(text string, err error) string {
	what := ""
	if m := executing.FindStringSubmatch(text); m != nil {
		what, text = " at {{"+unquote(m[1])+"}}", text[len(m[0]):]
	}
	if own, ok := errors.AsType[*funcError](err); ok {
		return own.text + what
	}
	if m := calling.FindStringSubmatch(text); m != nil {
		return m[1] + " failed" + what
	}
	if harmless.MatchString(text) {
		return text + what
	}
	if strings.HasPrefix(text, "range can't iterate over") {
		return "range can't iterate over it" + what
	}
	return unquote(text) + what
}
