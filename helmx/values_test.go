package helmx

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestValuesPrecedence(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	given := map[string]any{"m": map[string]any{"b": "map", "c": "map"}}
	v := Values{
		Files: []string{file("1.yaml", "m: {a: one, b: one, c: one, d: one}\nlist: [1, 2]\ngone: x\n"), file("2.yaml", "m: {a: two, b: two}\nlist: [3]\ngone: null\n")},
		Map:   given,
		Overrides: []Override{
			Set("m.c=set,n=3,on=true"), SetString("s=3"), SetJSON(`j={"x":[1]}`), SetLiteral("lit=a,b=c"),
			SetFile("f=" + file("f.txt", "from a file")), {Expression: "list[1]=4"},
		},
	}
	got, err := v.load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]any{
		"m": map[string]any{"a": "two", "b": "map", "c": "set", "d": "one"}, "list": []any{float64(3), int64(4)},
		"gone": nil, "n": int64(3), "on": true, "s": "3", "j": map[string]any{"x": []any{float64(1)}}, "lit": "a,b=c", "f": "from a file",
	}, got.merged)
	assert.Equal(t, map[string]any{"m": map[string]any{"b": "map", "c": "map"}}, given, "the caller's map was changed")
}

func TestShadowKeepsTheOutcome(t *testing.T) {
	defaults := map[string]any{"a": map[string]any{"x": 1}, "b": "scalar", "c": map[string]any{"d": "keep", "e": []any{}}}
	var warned []string
	shadow(defaults, map[string]any{"a": "scalar", "b": map[string]any{"y": 1}, "c": map[string]any{"e": map[string]any{}}, "n": nil}, "", func(p string) { warned = append(warned, p) })
	assert.ElementsMatch(t, []string{"a", "b", "c.e"}, warned)
	assert.Equal(t, map[string]any{"c": map[string]any{"d": "keep"}}, defaults)
}

var testImage = func() stages.Image {
	img, err := stages.ParseImage("registry.example.com/acme/web@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		panic(err)
	}
	return img
}()

func TestInject(t *testing.T) {
	digest := testImage.Digest().String()
	for name, c := range map[string]struct {
		paths ImageValues
		have  map[string]any
		want  map[string]any
	}{
		"reference":  {ImageValues{Reference: "ref"}, map[string]any{}, map[string]any{"ref": testImage.String()}},
		"digest":     {ImageValues{Repository: "i.r", Digest: "i.d"}, map[string]any{"i": map[string]any{"x": 1}}, map[string]any{"i": map[string]any{"x": 1, "r": "registry.example.com/acme/web", "d": digest}}},
		"tag":        {ImageValues{Repository: "r", Tag: "t"}, map[string]any{"t": "latest"}, map[string]any{"r": "registry.example.com/acme/web", "t": "aaaaaaaaaaaa@" + digest}},
		"registry":   {ImageValues{Registry: "h", Repository: "r", Digest: "d"}, map[string]any{}, map[string]any{"h": "registry.example.com", "r": "acme/web", "d": digest}},
		"in a list":  {ImageValues{Reference: "c[0].image"}, map[string]any{}, map[string]any{"c": []any{map[string]any{"image": testImage.String()}}}},
		"collision":  {ImageValues{Reference: "a.b"}, map[string]any{"a": "scalar"}, nil},
		"collision2": {ImageValues{Reference: "a[0].b"}, map[string]any{"a": "scalar"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, c.paths.validate())
			err := c.paths.inject(c.have, testImage)
			if c.want == nil {
				require.ErrorIs(t, err, stages.ErrInvalid)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, c.have)
		})
	}
}

func TestSplitReference(t *testing.T) {
	for ref, want := range map[string][2]string{
		"nginx":                              {"docker.io/library/nginx", ""},
		"nginx:1.27":                         {"docker.io/library/nginx", ""},
		"yourname/yourapp:latest":            {"docker.io/yourname/yourapp", ""},
		"index.docker.io/nginx":              {"docker.io/library/nginx", ""},
		"docker.io/acme/web@sha256:00":       {"docker.io/acme/web", "sha256:00"},
		"localhost/web:1":                    {"localhost/web", ""},
		"localhost:5001/web":                 {"localhost:5001/web", ""},
		"host:5000/a/b:tag@sha256:11":        {"host:5000/a/b", "sha256:11"},
		" registry.example.com/acme/web:v1 ": {"registry.example.com/acme/web", ""},
		"[::1]:5000/a:1":                     {"[::1]:5000/a", ""},
	} {
		repository, digest := splitReference(ref)
		assert.Equal(t, want, [2]string{repository, digest}, ref)
	}
}

func FuzzOverride(f *testing.F) {
	for _, seed := range []string{"a=1", "a.b[2].c=x", "a={1,2}", "a[99999999999]=1", "=", "a.b", `a\.b=1`, "a=null", "[0]=1"} {
		for _, mode := range []string{"set", "set-string", "set-json", "set-literal", "nonsense"} {
			f.Add(mode, seed)
		}
	}
	f.Fuzz(func(t *testing.T, mode, expression string) {
		if Mode(mode) == ModeSetFile {
			return
		}
		into := map[string]any{"a": "scalar", "list": []any{1}}
		if err := (Override{Mode(mode), expression}).apply(into); err == nil {
			return
		} else if _, value, ok := strings.Cut(expression, "="); ok && len(value) > 12 {
			assert.NotContains(t, err.Error(), value, "an error quotes the value")
		}
	})
}

func FuzzSplitReference(f *testing.F) {
	f.Add("a/b:c@sha256:d")
	f.Add("localhost:5001/x")
	f.Fuzz(func(t *testing.T, ref string) {
		repository, _ := splitReference(ref)
		again, _ := splitReference(repository + "@sha256:00")
		if img, err := stages.ParseImage(ref); err == nil {
			assert.Equal(t, familiar(img.Repository()), repository)
			assert.Equal(t, repository, again)
		}
	})
}

func TestEncryptedValues(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.yaml")
	require.NoError(t, os.WriteFile(path, []byte("plain: 1\npassword: ENC[abc]\nsops:\n  mac: ENC[x]\n"), 0o600))
	v := Values{Files: []string{path}}
	_, err := v.load(t.Context())
	require.ErrorContains(t, err, "is encrypted with SOPS; set Values.Decrypt")
	v.Decrypt = func(ctx context.Context, name string, data []byte) ([]byte, error) {
		assert.Equal(t, t.Context(), ctx)
		assert.Equal(t, path, name)
		assert.Contains(t, string(data), "ENC[abc]")
		return []byte("plain: 1\npassword: hunter2\n"), nil
	}
	got, err := v.load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"plain": float64(1), "password": "hunter2"}, got.merged)
	denied := errors.New("no key")
	v.Decrypt = func(context.Context, string, []byte) ([]byte, error) { return nil, denied }
	_, err = v.load(t.Context())
	require.ErrorIs(t, err, denied)
}

// Parsers quote keys and values in ways of their own.
func TestYAMLErrorsHoldNoValues(t *testing.T) {
	for _, text := range []string{
		"~: 'ab\"canary'\n", "null: 12345678901\n", "? {a: 12345678901}\n: canary\n", "? [12345678901]\n: canary\n", "a: !!float 'x`canary'\n", "a: canary: x\n", "- canary\n",
	} {
		file := filepath.Join(t.TempDir(), "values.yaml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, err := Values{Files: []string{file}}.load(t.Context())
		require.Error(t, err, text)
		assert.NotContains(t, err.Error(), "canary", text)
		assert.NotContains(t, err.Error(), "12345678901", text)
	}
}

func TestTypedMapsAreMerged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "values.yaml")
	require.NoError(t, os.WriteFile(file, []byte("labels: {a: file, b: file}\n"), 0o600))
	given := map[string]string{"a": "map"}
	got, err := Values{Files: []string{file}, Map: map[string]any{"labels": given, "list": []string{"x"}}}.load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"labels": map[string]any{"a": "map", "b": "file"}, "list": []any{"x"}}, got.merged)
}
