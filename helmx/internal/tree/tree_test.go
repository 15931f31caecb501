package tree_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
)

func TestOverlay(t *testing.T) {
	a := map[string]any{"map": map[string]any{"a": 1, "b": 2}, "list": []any{1, 2}, "gone": 1, "shape": map[string]any{"x": 1}}
	b := map[string]any{"map": map[string]any{"b": 3}, "list": []any{map[string]any{"x": 1}}, "gone": nil, "shape": "text"}
	got := tree.Overlay(a, b)
	assert.Equal(t, map[string]any{
		"map": map[string]any{"a": 1, "b": 3}, "list": []any{map[string]any{"x": 1}}, "gone": nil, "shape": "text",
	}, got)

	got["list"].([]any)[0].(map[string]any)["x"] = 2
	got["map"].(map[string]any)["a"] = 2
	assert.Equal(t, 1, b["list"].([]any)[0].(map[string]any)["x"], "nothing is shared")
	assert.Equal(t, 1, a["map"].(map[string]any)["a"], "nothing is shared")
	assert.Equal(t, map[string]any{}, tree.Overlay(nil, nil))
	assert.Equal(t, b, tree.Overlay(nil, b))
}

func TestPlain(t *testing.T) {
	type name string
	given := map[string]any{
		"labels": map[string]string{"a": "b"}, "list": []string{"x"}, "deep": []map[string][]int{{"n": {1}}}, "name": name("n"),
		"named": map[name]any{"k": nil}, "bytes": []byte("b"), "nil": nil, "number": int32(3), "keys": map[int]string{1: "x"},
	}
	got := tree.Plain(given)
	assert.Equal(t, map[string]any{
		"labels": map[string]any{"a": "b"}, "list": []any{"x"}, "deep": []any{map[string]any{"n": []any{1}}}, "name": "n",
		"named": map[string]any{"k": nil}, "bytes": []byte("b"), "nil": nil, "number": int32(3), "keys": map[int]string{1: "x"},
	}, got)
	got["labels"].(map[string]any)["a"] = "c"
	assert.Equal(t, map[string]string{"a": "b"}, given["labels"], "nothing is shared")
}
