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
