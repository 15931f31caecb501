package archtest

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var repository = sync.OnceValues(loadRepository)

func TestArchitecture(t *testing.T) {
	g, err := repository()
	require.NoError(t, err)
	require.Contains(t, g, module+"/stages", "the repository was not loaded")

	for name, violations := range map[string][]string{
		"imports follow the table":                checkImports(g, imports),
		"tests make no import cycles":             checkCycles(g, imports, testEdgesIgnored),
		"dependencies stay within budget":         checkBudgets(g, imports, budgets),
		"third-party modules have one owner":      checkOwners(g, imports, owners),
		"production code does not import testing": checkTesting(g, imports, testingAllowed),
		"packages load and are documented":        checkDocs(g),
	} {
		t.Run(name, func(t *testing.T) {
			if len(violations) > 0 {
				t.Error(strings.Join(violations, "\n"))
			}
		})
	}
}

func TestRootModuleStaysLight(t *testing.T) {
	modules, err := rootBuildList()
	require.NoError(t, err)
	require.Contains(t, modules, module)
	require.Empty(t, checkModules(modules, rootNever))
}

func TestNoBannedVersion(t *testing.T) {
	sums, err := readSums()
	require.NoError(t, err)
	require.NotEmpty(t, sums)
	for file, text := range sums {
		require.Empty(t, checkSums(file, text, banned))
	}
}
