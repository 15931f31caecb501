package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
)

// roles are what the test binary plays in place of tests, each if the environment
// variable of its name has its part: most of them until they are killed.
var roles = map[string]func(part string) error{
	victimEnv: beVictim,
	doomedEnv: beDoomed,
	smokerEnv: beSmoker,
	pilotEnv:  bePilot,
}

func TestMain(m *testing.M) {
	for env, play := range roles {
		part, ok := os.LookupEnv(env)
		if !ok {
			continue
		}
		if err := play(part); err != nil {
			fmt.Fprintln(os.Stderr, env+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	labtest.Main(m)
}

// player is the command of a process that plays a role.
func player(ctx context.Context, t *testing.T, env string, part any) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(part)
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), env+"="+string(text))
	cmd.Stderr = os.Stderr
	return cmd
}
