package helmfile

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// outside makes two folders: the returned configuration's helmfile is in one, and
// the other, beside it, has a file. Links in the first lead to the second.
func outside(t *testing.T, helmfile string) Config {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"in/helmfile.yaml": helmfile, "in/v.yaml": "a: in", "in/sub/v.yaml": "a: sub",
		"out/v.yaml": "a: hunter2", "out/_h.tpl": "hunter2",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o750))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	for from, to := range map[string]string{"link.yaml": "../out/v.yaml", "far": "../out", "near.yaml": "sub/v.yaml"} {
		require.NoError(t, os.Symlink(to, filepath.Join(dir, "in", from)))
	}
	return Config{
		Path: filepath.Join(dir, "in", "helmfile.yaml"), Cluster: connect(t), AllowUnscanned: "test",
		Decrypt: func(_ context.Context, _ string, data []byte) ([]byte, error) { return data, nil },
	}
}

func TestFilesOutsideOfTheRoot(t *testing.T) {
	for name, text := range map[string]string{
		"values":             releaseA + "  values: [%s]\n",
		"secrets":            releaseA + "  secrets: [%s]\n",
		"set":                releaseA + "  set: [{name: a, file: %s}]\n",
		"environment values": "environments: {default: {values: [%s]}}\n---\n" + releaseA,
		"root values":        "values: [%s]\n---\n" + releaseA,
		"bases":              "bases: [%s]\n---\n" + releaseA,
		"readFile":           "# {{ readFile \"%s\" }}\n" + releaseA,
		"isFile":             "# {{ isFile \"%s\" }}\n" + releaseA,
		"isDir":              "# {{ isDir \"%s\" }}\n" + releaseA,
	} {
		for _, path := range []string{"../out/v.yaml", "sub/../../out/v.yaml", "link.yaml", "far/v.yaml", "/etc/hostname", "../out/*.yaml", "../out/none.yaml"} {
			t.Run(name+" "+path, func(t *testing.T) {
				_, err := Load(t.Context(), outside(t, strings.ReplaceAll(text, "%s", path)))
				require.ErrorIs(t, err, stages.ErrInvalid)
				assert.ErrorContains(t, err, "Config.Root")
				assert.NotContains(t, err.Error(), "hunter2")
			})
		}
	}
}

func TestPatternsSeeNothingOutsideOfTheRoot(t *testing.T) {
	_, err := Load(t.Context(), outside(t, "values: ['far/*.yaml']\n---\n"+releaseA))
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, err, "helmfile.yaml:1: values: no file matches far/*.yaml")
}

func TestHelperTemplatesOutsideOfTheRoot(t *testing.T) {
	cfg := outside(t, releaseA)
	require.NoError(t, os.Symlink("../out/_h.tpl", filepath.Join(filepath.Dir(cfg.Path), "_h.tpl")))
	_, err := Load(t.Context(), cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, err, "Config.Root")
}

func TestLinksWithinTheRoot(t *testing.T) {
	_, configs, err := load(t.Context(), outside(t, releaseA+"  values: [near.yaml]\n  set: [{name: b, file: sub/../near.yaml}]\n"))
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"a": "sub", "b": "a: sub"}, effective(t, configs["ns/a"].Values))
}

func TestWiderRoot(t *testing.T) {
	cfg := outside(t, releaseA+"  values: [../out/v.yaml]\n")
	cfg.Root = filepath.Dir(filepath.Dir(cfg.Path))
	_, configs, err := load(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"a": "hunter2"}, layered(configs["ns/a"].Values))

	cfg.Root = filepath.Join(cfg.Root, "out")
	_, err = Load(t.Context(), cfg)
	require.ErrorIs(t, err, stages.ErrInvalid, "the helmfile itself must be in it")
}

// What helm would read another file for, because of how it reads an assignment.
func TestSetFileCannotBeTwoAssignments(t *testing.T) {
	for _, name := range []string{`b=/etc/hostname`, `b\=/x`, `b\`} {
		_, err := Load(t.Context(), outside(t, releaseA+"  set: [{name: '"+name+"', file: v.yaml}]\n"))
		require.ErrorIs(t, err, stages.ErrInvalid, name)
		assert.ErrorContains(t, err, "can't be set from a file")
	}
	for _, file := range []string{"v,b=v.yaml", "{v.yaml}", `v\,b=v.yaml`} {
		cfg := outside(t, releaseA+"  set: [{name: a, file: '"+file+"'}]\n")
		path := filepath.Join(filepath.Dir(cfg.Path), file)
		require.NoError(t, os.WriteFile(path, []byte("the one"), 0o600))
		_, configs, err := load(t.Context(), cfg)
		require.NoError(t, err, file)
		assert.Equal(t, map[string]any{"a": "the one"}, effective(t, configs["ns/a"].Values), file)
	}
}
