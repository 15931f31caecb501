package environment

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// FuzzParse checks that a file is either refused, with a line, or understood.
func FuzzParse(f *testing.F) {
	seed, err := os.ReadFile("testdata/seed/environments.yaml")
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte("environments:\n- {name: a, namespace: 'a-{{.Branch}}', branches: ['**', 'a*']}"))
	f.Add([]byte("approvals: [{by: a, denied: true}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		declared, err := parse("x.yaml", data)
		if err == nil {
			_, err = newSet("x.yaml", declared)
		}
		check(t, err)
		_, err = parseApprovals("x.yaml", data)
		check(t, err)
	})
}

func check(t *testing.T, err error) {
	if err == nil {
		return
	}
	require.ErrorIs(t, err, stages.ErrInvalid)
	mistake, ok := errors.AsType[*ConfigError](err)
	require.True(t, ok)
	require.Positive(t, mistake.Line)
}
