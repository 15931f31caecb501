package helmx

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/stages"
)

// compare returns what turns before into after, in the order in which Helm does
// it: creations and updates in the order of after, then deletions.
func compare(before, after []object) ([]stages.Change, error) {
	old, wanted := index(before), index(after)
	var changes []stages.Change
	add := func(action stages.Action, from, to *object) error {
		change, err := describe(action, from, to)
		if err == nil && (action != stages.Update || change.Diff != "") {
			changes = append(changes, change)
		}
		return err
	}
	for _, o := range after {
		var err error
		if was, ok := old[o.identity()]; !ok {
			err = add(stages.Create, nil, &o)
		} else if !reflect.DeepEqual(was.content, o.content) {
			err = add(stages.Update, &was, &o)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, o := range before {
		if _, ok := wanted[o.identity()]; ok || o.kept() {
			continue
		}
		if err := add(stages.Delete, &o, nil); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

func describe(action stages.Action, from, to *object) (stages.Change, error) {
	var left, right, name string
	var id stages.Object
	var err error
	if from != nil {
		var other map[string]any
		if to != nil {
			other = to.content
		}
		id, name = from.id, from.id.String()
		if left, err = yamlText(from.masked(other, "(before)")); err != nil {
			return stages.Change{}, err
		}
	}
	if to != nil {
		var other map[string]any
		if from != nil {
			other = from.content
		}
		id, name = to.id, to.id.String()
		if right, err = yamlText(to.masked(other, "(after)")); err != nil {
			return stages.Change{}, err
		}
	}
	diff, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: lines(left), B: lines(right),
		FromFile: "deployed " + name, ToFile: "rendered " + name, Context: 3,
	})
	if err != nil {
		return stages.Change{}, fmt.Errorf("compare %s: %w", name, err)
	}
	return stages.Change{Action: action, Object: id, Diff: diff}, nil
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
