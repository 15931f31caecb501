package pipeline_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(victimVariable) != "" {
		victim() // never returns
	}
	goleak.VerifyTestMain(m)
}
