package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

func TestReadObjects(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"
	for name, tc := range map[string]struct {
		stream string
		want   []string
	}{
		"nothing":                  {stream: ""},
		"comments":                 {stream: "# a\n---\n# b\n---\n"},
		"one":                      {stream: pod, want: []string{"Pod a"}},
		"several":                  {stream: pod + "...\n---\n" + pod + "--- # comment\n" + pod, want: []string{"Pod a", "Pod a", "Pod a"}},
		"carriage returns":         {stream: strings.ReplaceAll(pod+"---\n"+pod, "\n", "\r\n"), want: []string{"Pod a", "Pod a"}},
		"document end":             {stream: pod + "...\n---\n" + pod, want: []string{"Pod a", "Pod a"}},
		"unicode line separator":   {stream: pod + "# \u2028---\n" + pod, want: []string{"Pod a", "Pod a"}},
		"separator in a text":      {stream: pod + "text: |\n  ---\n  kind: no\n", want: []string{"Pod a"}},
		"JSON":                     {stream: `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"n"}}`, want: []string{"Pod n/a"}},
		"byte order mark":          {stream: "\ufeff" + pod, want: []string{"Pod a"}},
		"generated name":           {stream: "apiVersion: v1\nkind: Pod\nmetadata: {generateName: job-}\n", want: []string{"Pod job-*"}},
		"metadata of another type": {stream: "apiVersion: v1\nkind: Pod\nmetadata: x\n", want: []string{"Pod (unnamed)"}},
		"merge keys":               {stream: "x: &x {kind: Pod}\napiVersion: v1\n<<: *x\n", want: []string{"Pod (unnamed)"}},
		"list in list":             {stream: "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod}]}]", want: []string{"Pod (unnamed)"}},
		"typed list":               {stream: "apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: a}}]", want: []string{"Pod a"}},
		"items of something else":  {stream: "apiVersion: x/v1\nkind: Menu\nitems: [{apiVersion: v1, kind: Pod}]", want: []string{"Pod (unnamed)", "Menu (unnamed)"}},
		"items that are no list":   {stream: "apiVersion: x/v1\nkind: Menu\nitems: 3", want: []string{"Menu (unnamed)"}},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := readObjects(t.Context(), []byte(tc.stream), limits{bytes: 1 << 20, objects: 10})
			require.NoError(t, err)
			var got []string
			for _, o := range objects {
				got = append(got, o.Object.String())
			}
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestReadObjectsRefuses(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 9), ","))
	}
	pod := "apiVersion: v1\nkind: Pod\n"
	for name, tc := range map[string]struct {
		stream string
		is     error
	}{
		"aliases that multiply":  {stream: pod + bomb, is: ErrTooLarge},
		"alias of itself":        {stream: pod + "a: &a [*a]\n", is: ErrManifests},
		"too many bytes":         {stream: pod + "#" + strings.Repeat("x", 1<<20), is: ErrTooLarge},
		"too many objects":       {stream: strings.Repeat(pod+"---\n", 11), is: ErrTooLarge},
		"too many items":         {stream: "apiVersion: v1\nkind: PodList\nitems: [" + strings.Repeat("{},", 11) + "]", is: ErrTooLarge},
		"too deep":               {stream: pod + "a: " + strings.Repeat("[", 300) + strings.Repeat("]", 300), is: ErrTooLarge},
		"far too deep":           {stream: pod + "a: " + strings.Repeat("[", 100_000), is: ErrManifests},
		"not YAML":               {stream: "a: b: c", is: ErrManifests},
		"second document broken": {stream: pod + "---\n{", is: ErrManifests},
		"a list":                 {stream: "- a\n", is: ErrManifests},
		"a text":                 {stream: "hello", is: ErrManifests},
		"no kind":                {stream: "apiVersion: v1\n", is: ErrManifests},
		"no apiVersion":          {stream: "kind: Pod\n", is: ErrManifests},
		"kind of another type":   {stream: "apiVersion: v1\nkind: [Pod]\n", is: ErrManifests},
		"item without kind":      {stream: "apiVersion: v1\nkind: List\nitems: [{}]\n", is: ErrManifests},
		"item that is a text":    {stream: "apiVersion: v1\nkind: List\nitems: [x]\n", is: ErrManifests},
		"not a number":           {stream: pod + "a: .nan\n", is: ErrManifests},
		"key that is a list":     {stream: pod + "? [a]\n: b\n", is: ErrManifests},
		"keys that collide":      {stream: pod + "a: {1: x, \"1\": y}\n", is: ErrManifests},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readObjects(t.Context(), []byte(tc.stream), limits{bytes: 1 << 20, objects: 10})
			require.ErrorIs(t, err, tc.is)
		})
	}
}

// FuzzReadObjects checks that no stream exceeds the limits or crashes, and that
// the first object is what Kubernetes' own reader makes of it.
func FuzzReadObjects(f *testing.F) {
	for _, seed := range []string{
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Service\n",
		"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod}]",
		"apiVersion: v1\nkind: ConfigMap\ndata: {a: yes, 1: 0x10, 1.5: 1e3, true: 2001-01-01, b: !!binary aGk=}\n",
		"a: &a [x]\nb: [*a, *a]\napiVersion: v1\nkind: X\n<<: {c: d}\n",
		"--- # c\r\n{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}\r\n...\r\n",
	} {
		f.Add([]byte(seed))
	}
	bounds := limits{bytes: 1 << 16, objects: 100}
	f.Fuzz(func(t *testing.T, stream []byte) {
		objects, err := readObjects(t.Context(), stream, bounds)
		if err != nil {
			require.True(t, isManifestError(err), "%v", err)
			return
		}
		require.LessOrEqual(t, len(objects), bounds.objects)
		if len(objects) != 1 {
			return
		}
		var theirs map[string]any
		if yaml.Unmarshal(stream, &theirs) != nil || theirs["items"] != nil || theirs["kind"] == nil {
			return // more than one document, or a list
		}
		ours, err := ast.JSON(objects[0].input)
		require.NoError(t, err)
		want, err := json.Marshal(theirs)
		require.NoError(t, err)
		got, err := json.Marshal(ours)
		require.NoError(t, err)
		require.JSONEq(t, string(want), string(got))
	})
}

func isManifestError(err error) bool {
	return errors.Is(err, ErrManifests) || errors.Is(err, ErrTooLarge)
}
