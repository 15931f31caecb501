package e2e_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
)

func TestMain(m *testing.M) {
	if spec, ok := os.LookupEnv(victimEnv); ok {
		fmt.Fprintln(os.Stderr, "victim:", beVictim(spec))
		os.Exit(1)
	}
	if spec, ok := os.LookupEnv(doomedEnv); ok {
		if err := beDoomed(spec); err != nil {
			fmt.Fprintln(os.Stderr, "doomed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if spec, ok := os.LookupEnv(smokerEnv); ok {
		fmt.Fprintln(os.Stderr, "smoker:", beSmoker(spec))
		os.Exit(1)
	}
	if spec, ok := os.LookupEnv(pilotEnv); ok {
		fmt.Fprintln(os.Stderr, "pilot:", bePilot(spec))
		os.Exit(1)
	}
	labtest.Main(m)
}
