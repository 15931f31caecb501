package policy

import (
	"io/fs"
	"path"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/stretchr/testify/require"
)

// TestBaselineRego runs the baseline's own tests, as opa test does.
func TestBaselineRego(t *testing.T) {
	modules := map[string]*ast.Module{}
	require.NoError(t, fs.WalkDir(Baseline(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".rego" {
			return err
		}
		text, err := fs.ReadFile(Baseline(), name)
		if err != nil {
			return err
		}
		modules[name], err = ast.ParseModule(name, string(text))
		return err
	}))
	compiler := ast.NewCompiler().WithStrict(true)
	results, err := tester.NewRunner().
		SetCompiler(compiler).
		SetStore(inmem.New()).
		CapturePrintOutput(true).
		EnableTracing(true).
		SetModules(modules).
		RaiseBuiltinErrors(true).
		RunTests(t.Context(), nil)
	require.NoError(t, err)
	ran := 0
	for result := range results {
		ran++
		if !result.Pass() {
			t.Errorf("%s: %s: %v\n%s", result.Location, result, result.Error, result.Output)
		}
	}
	require.Greater(t, ran, 20, "the tests were not found")
}
