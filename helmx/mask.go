package helmx

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// lastApplied is where kubectl apply keeps a copy of the whole object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// longPart is the length from which on a secret is masked within a longer text as
// well: shorter ones are found in too many that have nothing to do with them.
const longPart = 8

// veil masks known secrets in objects that are shown. Its zero value masks no more
// than what Secrets hold.
type veil struct {
	whole map[string]bool
	parts *strings.Replacer
	// blocks are the lines of secrets of several, without their indentation.
	blocks [][]string
}

// newVeil returns a veil over secrets, and over what they come to in base64, within
// JSON and indented.
func newVeil(secrets []string) veil {
	v := veil{whole: map[string]bool{}}
	var parts []string
	for _, s := range secrets {
		trimmed := strings.TrimSpace(s)
		if lines := strings.Split(trimmed, "\n"); len(lines) > 1 && len(trimmed) >= longPart {
			for i, line := range lines {
				lines[i] = strings.TrimSpace(line)
			}
			v.blocks = append(v.blocks, lines)
		}
		for _, form := range []string{s, trimmed, base64.StdEncoding.EncodeToString([]byte(s)), withinJSON(s), withinJSON(trimmed), withinScript(trimmed)} {
			if len(form) < shortest || v.whole[form] {
				continue
			}
			v.whole[form] = true
			if len(form) >= longPart {
				parts = append(parts, form)
			}
		}
	}
	// Longer ones go first, lest one that contains another survive in part.
	slices.SortFunc(parts, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(parts))
	for _, p := range parts {
		pairs = append(pairs, p, Redacted)
	}
	v.parts = strings.NewReplacer(pairs...)
	return v
}

// text masks secrets in a line that is shown.
func (v veil) text(s string) string {
	if v.parts == nil {
		return s
	}
	s = v.parts.Replace(s)
	for _, lines := range v.blocks {
		s = maskBlock(s, lines)
	}
	return s
}

// withinJSON returns s as it stands between the quotes of a JSON string.
func withinJSON(s string) string {
	quoted := quoteJSON(s)
	return quoted[1 : len(quoted)-1]
}

// withinScript is [withinJSON] for an encoder that minds HTML, as that of templates does.
func withinScript(s string) string {
	return strings.NewReplacer("<", `\u003c`, ">", `\u003e`, "&", `\u0026`).Replace(withinJSON(s))
}

// maskBlock masks lines that follow each other in text with any indentation, as they
// do where one file was put into another.
func maskBlock(text string, lines []string) string {
	var out strings.Builder
	for {
		at := strings.Index(text, lines[0])
		if at < 0 {
			out.WriteString(text)
			return out.String()
		}
		first := at + len(lines[0])
		end, found := first, true
		for _, line := range lines[1:] {
			_, next, _ := strings.Cut(text[end:], "\n")
			next = strings.TrimLeft(next, " \t")
			if strings.TrimSpace(text[end:len(text)-len(next)]) != "" || !strings.HasPrefix(next, line) {
				found = false
				break
			}
			end = len(text) - len(next) + len(line)
		}
		if !found {
			out.WriteString(text[:first])
			text = text[first:]
			continue
		}
		out.WriteString(text[:at] + Redacted)
		text = text[end:]
	}
}

func (v veil) scalar(s string) string {
	if v.whole[s] {
		return Redacted
	}
	return v.text(s)
}

// plain reports the fields of which an object is made out, and which gates decide
// by. They are shown even if a secret happens to hold the same word.
func plain(field string) bool {
	switch field {
	case "apiVersion", "kind", "name", "namespace", "image", "labels", "matchLabels", "selector":
		return true
	}
	return false
}

// fieldIn returns the name by which a field of a map is judged: none where the names
// are those of files or variables, such as in the data of a ConfigMap.
func fieldIn(parent, field string) string {
	if parent == "data" {
		return ""
	}
	return field
}

// tree returns value with secrets masked, copying what it changes. Where other is
// the same value at another time, what differs between the two is marked by tag,
// so that a difference still shows.
func (v veil) tree(value, other any, tag, field string) any {
	hide := func(masked any) any {
		if tag != "" && other != nil && !reflect.DeepEqual(value, other) {
			return fmt.Sprint(masked, " ", tag)
		}
		return masked
	}
	switch value := value.(type) {
	case string:
		switch {
		case field == lastApplied:
			return hide(Redacted)
		case plain(field):
			return value
		}
		if masked := v.scalar(value); masked != value {
			return hide(masked)
		}
	case map[string]any:
		if field == "labels" || field == "matchLabels" || field == "selector" {
			return value
		}
		over, _ := other.(map[string]any)
		out := make(map[string]any, len(value))
		for key, item := range value {
			out[key] = v.tree(item, over[key], tag, fieldIn(field, key))
		}
		return out
	case []any:
		over, _ := other.([]any)
		out := make([]any, len(value))
		for i, item := range value {
			out[i] = v.tree(item, element(over, step{index: i}), tag, field)
		}
		return out
	}
	return value
}

// masked returns content with known secrets and the values of a Secret replaced,
// copying what it changes. See [veil.tree] for other and tag.
func (o object) masked(v veil, other map[string]any, tag string) map[string]any {
	var before any
	if other != nil {
		before = other
	}
	content := o.content
	out, _ := v.tree(content, before, tag, "").(map[string]any)
	if !o.isSecret() {
		return out
	}
	for _, field := range []string{"data", "stringData"} {
		values, ok := content[field].(map[string]any)
		if !ok {
			if content[field] != nil {
				out[field] = Redacted
			}
			continue
		}
		hidden := make(map[string]any, len(values))
		was, _ := other[field].(map[string]any)
		for key, value := range values {
			hidden[key] = Redacted
			if old, known := was[key]; known && !reflect.DeepEqual(old, value) {
				hidden[key] = Redacted + " " + tag
			}
		}
		out[field] = hidden
	}
	return out
}

// maskManifest returns the YAML stream of a manifest with the values of Secrets
// replaced, those in lists included, and known secrets in all else. Documents
// without any stay as rendered.
func maskManifest(manifest string, v veil) (string, error) {
	docs, err := parseDocuments(manifest)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, doc := range docs {
		text := doc.text
		masked := maskTree(doc.content, v)
		if holdsSecret(doc.content) || v.text(text) != text || !reflect.DeepEqual(masked, doc.content) {
			if text, err = maskedText(doc, masked); err != nil {
				return "", err
			}
		}
		fmt.Fprintf(&out, "---\n%s\n", text)
	}
	return out.String(), nil
}

// maskedText renders a document anew, without its comments, which may hold a
// secret as well as its values.
func maskedText(doc document, masked map[string]any) (string, error) {
	data, err := yaml.Marshal(masked)
	if err != nil {
		return "", fmt.Errorf("render the masked %s: %w", doc.template, err)
	}
	return "# Source: " + doc.template + "\n" + strings.TrimSpace(string(data)), nil
}

// bareObject names an object by what its content says alone.
func bareObject(content map[string]any) object {
	o := object{content: content}
	o.id.APIVersion, _ = content["apiVersion"].(string)
	o.id.Kind, _ = content["kind"].(string)
	return o
}

// holdsSecret reports whether a document is a Secret, or a list that has one.
func holdsSecret(content map[string]any) bool {
	items, ok := content["items"].([]any)
	if o := bareObject(content); o.isSecret() || !ok {
		return o.isSecret()
	}
	return slices.ContainsFunc(items, func(item any) bool {
		m, ok := item.(map[string]any)
		return ok && holdsSecret(m)
	})
}

func maskTree(content map[string]any, v veil) map[string]any {
	items, ok := content["items"].([]any)
	if o := bareObject(content); o.isSecret() || !ok {
		return o.masked(v, nil, "")
	}
	out, _ := v.tree(content, nil, "", "").(map[string]any)
	list := make([]any, len(items))
	for i, item := range items {
		list[i] = item
		if m, ok := item.(map[string]any); ok {
			list[i] = maskTree(m, v)
		}
	}
	out["items"] = list
	return out
}
