package scan_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestPolicyConforms(t *testing.T) {
	stagestest.TestGate(t, func(t *testing.T) stagestest.GateHarness[stages.Report] {
		policy, err := scan.NewPolicy(scan.PolicyConfig{})
		require.NoError(t, err)
		return stagestest.GateHarness[stages.Report]{
			Gate: policy, Good: report(tar), Bad: report(lodash), Empty: stages.Report{Image: image},
		}
	})
}
