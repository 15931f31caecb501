package helmx

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/stages"
)

// describe returns the change of one object as unified text, with secrets masked.
// from and to are the names of the two sides.
func describe(v veil, id stages.Object, before, after *object, from, to string) (string, error) {
	content := func(o *object) map[string]any {
		if o == nil {
			return nil
		}
		return o.content
	}
	text := func(o *object, other map[string]any, tag string) (string, error) {
		if o == nil {
			return "", nil
		}
		return yamlText(o.masked(v, other, tag))
	}
	left, err := text(before, content(after), "(before)")
	if err != nil {
		return "", err
	}
	right, err := text(after, content(before), "(after)")
	if err != nil {
		return "", err
	}
	diff, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: lines(left), B: lines(right),
		FromFile: from + " " + id.String(), ToFile: to + " " + id.String(), Context: 3,
	})
	if err != nil {
		return "", fmt.Errorf("compare %s: %w", id, err)
	}
	return diff, nil
}

// show turns differences into what may be shown of them.
func (o object) show(v veil, differences []difference, live *unstructured.Unstructured) []stages.FieldChange {
	out := make([]stages.FieldChange, 0, len(differences))
	for _, d := range differences {
		change := stages.FieldChange{Path: d.path.masked(v).String()}
		if live != nil {
			change.Owner = owner(live, d.path)
		}
		leaf := ""
		if n := len(d.path); n > 0 {
			leaf = d.path[n-1].field
			if n > 1 {
				leaf = fieldIn(d.path[n-2].field, leaf)
			}
		}
		from, to := v.tree(d.from, nil, "", leaf), v.tree(d.to, nil, "", leaf)
		if o.isSecret() && len(d.path) > 0 && (d.path[0].field == "data" || d.path[0].field == "stringData") {
			from, to = hidden(d.from), hidden(d.to)
		}
		change.Secret = !reflect.DeepEqual(from, d.from) || !reflect.DeepEqual(to, d.to)
		change.From, change.To = jsonText(from), jsonText(to)
		out = append(out, change)
	}
	return out
}

func hidden(v any) any {
	if v == nil {
		return nil
	}
	return Redacted
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	all := strings.SplitAfter(text, "\n")
	return all[:len(all)-1] // Text ends in a newline, so the last part is empty.
}

func yamlText(content map[string]any) (string, error) {
	data, err := yaml.Marshal(content)
	if err != nil {
		return "", fmt.Errorf("render as YAML: %w", err)
	}
	return string(data), nil
}
