package smoke

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/util/jsonpath"

	"github.com/fairlead-dev/fairlead/stages"
)

// path is a JSON assertion that was checked.
type path struct {
	text string
	want any // as decode makes it
}

// parsePath checks an assertion. What evaluates a path keeps state, so each
// evaluation parses it again.
func parsePath(j JSON) (path, error) {
	if !strings.HasPrefix(j.Path, "{") || !strings.HasSuffix(j.Path, "}") {
		return path{}, fmt.Errorf("%w: JSON path %q must be in braces, as in {.status}", stages.ErrInvalid, j.Path)
	}
	if _, err := parser(j.Path); err != nil {
		return path{}, err
	}
	raw, err := json.Marshal(j.Want)
	if err != nil {
		return path{}, fmt.Errorf("%w: what JSON path %s is to be: %w", stages.ErrInvalid, j.Path, err)
	}
	want, err := decode(raw)
	if err != nil {
		return path{}, fmt.Errorf("%w: what JSON path %s is to be: %w", stages.ErrInvalid, j.Path, err)
	}
	return path{j.Path, want}, nil
}

func parser(text string) (p *jsonpath.JSONPath, err error) {
	defer func() {
		if recovered := recover(); recovered != nil {
			err = fmt.Errorf("%w: JSON path %q: %v", stages.ErrInvalid, text, recovered)
		}
	}()
	p = jsonpath.New("path")
	if err := p.Parse(text); err != nil {
		return nil, fmt.Errorf("%w: JSON path %q: %w", stages.ErrInvalid, text, err)
	}
	return p, nil
}

// decode reads one JSON value, with whole numbers as int64, as JSONPath's filters
// want them.
func decode(raw []byte) (any, error) {
	var v any
	if err := utiljson.Unmarshal(raw, &v); err != nil {
		return nil, fmt.Errorf("decode JSON: %w", err)
	}
	return v, nil
}

// judgeJSON returns what is wrong with a body's values, "" for nothing.
func (e expectation) judgeJSON(body []byte, whole bool, mask func(string) string) string {
	if len(e.paths) == 0 {
		return ""
	}
	if !whole {
		return fmt.Sprintf("the body is longer than %d bytes, too long to look for JSON paths", maxBody)
	}
	v, err := decode(body)
	if err != nil {
		return fmt.Sprintf("the body is not JSON: %v", err)
	}
	for _, p := range e.paths {
		if problem := p.judge(v, mask); problem != "" {
			return problem
		}
	}
	return ""
}

func (p path) judge(body any, mask func(string) string) (problem string) {
	defer func() {
		if recovered := recover(); recovered != nil {
			problem = fmt.Sprintf("JSON path %s can't be evaluated: %v", p.text, recovered)
		}
	}()
	parsed, err := parser(p.text)
	if err != nil {
		return err.Error()
	}
	found, err := parsed.FindResults(body)
	if err != nil {
		return fmt.Sprintf("JSON path %s: %v", p.text, err)
	}
	values := 0
	for _, group := range found {
		for _, value := range group {
			values++
			if got := plain(value); !equal(got, p.want) {
				return fmt.Sprintf("JSON path %s is %s, expected %s", p.text, compact(got, mask), compact(p.want, mask))
			}
		}
	}
	if values == 0 {
		return fmt.Sprintf("JSON path %s finds nothing, expected %s", p.text, compact(p.want, mask))
	}
	return ""
}

// plain is the value that a path found; null is found as no value.
func plain(v reflect.Value) any {
	if !v.IsValid() || (v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer) && v.IsNil() || !v.CanInterface() {
		return nil
	}
	return v.Interface()
}

func compact(v any, mask func(string) string) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return shorten(mask(fmt.Sprint(v)), 120)
	}
	return shorten(mask(string(raw)), 120)
}

// equal compares decoded JSON, numbers by value: 1 is 1.0 and 1e0.
func equal(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, equal)
	case int64:
		if b, ok := b.(float64); ok {
			return float64(a) == b
		}
	case float64:
		if b, ok := b.(int64); ok {
			return a == float64(b)
		}
	}
	return a == b
}
