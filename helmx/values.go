package helmx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/strvals"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
)

// Values are laid over the chart's own, later over earlier: the files in order, then
// the layers in order, then the map, then the overrides in order, and the image over
// all of them.
type Values struct {
	// Files are YAML files.
	Files []string
	// Layers are what others have read, such as a helmfile's values.
	Layers []Layer
	// Map holds values given in Go. It is copied. Maps and lists of any type in it count
	// as maps and lists, so that they are merged and masked like those of a file.
	Map map[string]any
	// Overrides are assignments in the syntax of Helm's command line.
	Overrides []Override
	// Decrypt returns the plain content of a values file that is encrypted with
	// SOPS, in memory. Such a file is refused without it.
	Decrypt func(ctx context.Context, name string, data []byte) ([]byte, error)
	// Hide are strings that are masked as those of an encrypted file are, because they
	// went into other values.
	Hide []string
}

// Layer is a source of values that was read already.
type Layer struct {
	// Name names the source where values are traced to it: a file, or a place in one.
	Name string
	// Values are what it holds.
	Values map[string]any
	// Source is the YAML file as it is on the disk, which tells lines; nil for none.
	Source []byte
	// Encrypted says that Source is encrypted with SOPS. What it doesn't show is masked.
	Encrypted bool
}

// Override is one assignment, such as Set("replicaCount=3").
type Override struct {
	// Mode says how Expression is read; empty is [ModeSet].
	Mode Mode
	// Expression is what the helm command takes after the flag of that mode.
	Expression string
}

// Mode is a flag of the helm command.
type Mode string

// The modes.
const (
	ModeSet        Mode = "set"
	ModeSetString  Mode = "set-string"
	ModeSetJSON    Mode = "set-json"
	ModeSetLiteral Mode = "set-literal"
	ModeSetFile    Mode = "set-file"
)

// Set assigns like helm --set, for example "a.b=1,list[0]=x".
func Set(expression string) Override { return Override{ModeSet, expression} }

// SetString assigns like helm --set-string: every value is a string.
func SetString(expression string) Override { return Override{ModeSetString, expression} }

// SetJSON assigns like helm --set-json, for example `a={"b":1}`.
func SetJSON(expression string) Override { return Override{ModeSetJSON, expression} }

// SetLiteral assigns like helm --set-literal: all after the first '=' is the value.
func SetLiteral(expression string) Override { return Override{ModeSetLiteral, expression} }

// SetFile assigns like helm --set-file: the value is the content of a file.
func SetFile(expression string) Override { return Override{ModeSetFile, expression} }

// given reports whether there are any.
func (v Values) given() bool {
	return len(v.Files)+len(v.Layers)+len(v.Map)+len(v.Overrides) > 0
}

// load merges the sources. Its errors name source, line and path, never a value.
func (v Values) load(ctx context.Context) (*layers, error) {
	out := newLayers()
	for i, file := range v.Files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("values file %s does not exist", file)
		}
		if err != nil {
			return nil, fmt.Errorf("read values file: %w", err)
		}
		plain, encrypted, err := v.decrypt(ctx, file, data)
		if err != nil {
			return nil, err
		}
		layer := map[string]any{}
		if err := yaml.Unmarshal(plain, &layer); err != nil {
			return nil, fmt.Errorf("values file %s", atLine(file, err))
		}
		if encrypted {
			out.hide(layer, data)
		}
		// Encryption leaves keys and lines as they are, so what is on disk tells them.
		out.lay(Origin{Kind: FromFile, Name: file, Index: i + 1}, &lineFinder{data: data}, layer)
	}
	for i, l := range v.Layers {
		values := tree.Plain(l.Values)
		if l.Encrypted {
			out.hide(values, l.Source)
		}
		var doc *lineFinder
		if l.Source != nil {
			doc = &lineFinder{data: l.Source}
		}
		out.lay(Origin{Kind: FromFile, Name: l.Name, Index: len(v.Files) + i + 1}, doc, values)
	}
	for _, s := range v.Hide {
		if len(s) >= shortest {
			out.hidden = append(out.hidden, s)
		}
	}
	if len(v.Map) > 0 {
		out.lay(Origin{Kind: FromMap}, nil, tree.Plain(v.Map))
	}
	for i, o := range v.Overrides {
		origin := Origin{Kind: FromOverride, Name: string(o.mode()), Index: i + 1}
		if err := out.assign(origin, o.apply); err != nil {
			return nil, fmt.Errorf("override %d (%s of %s): %w", i+1, o.mode(), o.path(), err)
		}
	}
	return out, nil
}

// decrypt returns the plain content of a values file, and whether it was encrypted.
func (v Values) decrypt(ctx context.Context, file string, data []byte) (plain []byte, encrypted bool, _ error) {
	var content map[string]any
	// What isn't YAML is for the caller to refuse.
	err := yaml.Unmarshal(data, &content)
	if err != nil || !tree.Encrypted(content) {
		return data, false, nil //nolint:nilerr // See above.
	}
	if v.Decrypt == nil {
		return nil, false, fmt.Errorf("values file %s is encrypted with SOPS; set Values.Decrypt", file)
	}
	if plain, err = v.Decrypt(ctx, file, data); err != nil {
		return nil, false, fmt.Errorf("decrypt values file %s: %w", file, err)
	}
	return plain, true, nil
}

func (o Override) mode() Mode {
	if o.Mode == "" {
		return ModeSet
	}
	return o.Mode
}

// path is what may be shown of an expression: what is assigned to, without the value.
func (o Override) path() string {
	path, _, ok := strings.Cut(o.Expression, "=")
	if !ok {
		return "an expression without '='"
	}
	return fmt.Sprintf("%q", path)
}

func (o Override) apply(into map[string]any) error {
	var err error
	switch o.mode() {
	case ModeSet:
		err = strvals.ParseInto(o.Expression, into)
	case ModeSetString:
		err = strvals.ParseIntoString(o.Expression, into)
	case ModeSetJSON:
		err = strvals.ParseJSON(o.Expression, into)
	case ModeSetLiteral:
		err = strvals.ParseLiteralInto(o.Expression, into)
	case ModeSetFile:
		err = strvals.ParseIntoFile(o.Expression, into, func(name []rune) (any, error) {
			data, readErr := os.ReadFile(string(name))
			return string(data), readErr
		})
	default:
		return fmt.Errorf("unknown mode %q", o.Mode)
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr
	}
	if err != nil {
		// The parser quotes its input, and with it the value.
		return errors.New("malformed, or it assigns into something that is not a map or list; see the helm documentation of --" + string(o.mode()))
	}
	return nil
}

// shadow deletes from defaults what given replaces by something of another
// shape. The outcome of Helm's own merge is the same, but Helm would print a
// warning, with the value, through the global logger. Globals are left alone: Helm
// copies their defaults to dependencies, where they aren't replaced.
func shadow(defaults, given map[string]any, path string, warn func(path string)) {
	for key, value := range given {
		under, exists := defaults[key]
		if !exists || value == nil || under == nil || key == chartutil.GlobalKey {
			continue
		}
		at := strings.TrimPrefix(path+"."+key, ".")
		over, isMap := value.(map[string]any)
		table, wasMap := under.(map[string]any)
		switch {
		case isMap && wasMap:
			shadow(table, over, at, warn)
		case isMap != wasMap:
			warn(at)
			delete(defaults, key)
		}
	}
}

var (
	yamlLine = regexp.MustCompile(`line (\d+)(?:, column \d+)?: *`)
	// A value that is quoted may hold the same quotes.
	quotedText = regexp.MustCompile("(?s)`.*`|\"(?:[^\"\\\\]|\\\\.)*\"|'[^']*'")
	// mapKey begins what the parsers say of a key that is no text, which goes on with
	// the key, or the value, as Go writes it.
	mapKey = regexp.MustCompile(`(?s)((?:invalid|unsupported) map key).*`)
)

// yamlProblem returns what a YAML parser says without the text it quotes.
func yamlProblem(err error) string {
	text := err.Error()
	for _, noise := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "yaml: unmarshal errors:\n", "yaml: "} {
		text = strings.ReplaceAll(text, noise, "")
	}
	text = mapKey.ReplaceAllString(text, "$1; a key must be a text, a number, true or false")
	return strings.Join(strings.Fields(quotedText.ReplaceAllString(text, "…")), " ")
}

// atLine returns "file:line: problem", or "file: problem" where no line is known.
func atLine(file string, err error) string {
	text := yamlProblem(err)
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("%s:%s: %s", file, m[1], strings.Replace(text, m[0], "", 1))
	}
	return file + ": " + text
}
