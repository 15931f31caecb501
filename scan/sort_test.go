package scan_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestSort(t *testing.T) {
	want := []stages.Finding{
		{Severity: stages.SeverityCritical, ID: "CVE-2", Package: "a"},
		{Severity: stages.SeverityHigh, ID: "CVE-1", Package: "a", Target: "x"},
		{Severity: stages.SeverityHigh, ID: "CVE-1", Package: "a", Target: "y", Installed: "1"},
		{Severity: stages.SeverityHigh, ID: "CVE-1", Package: "a", Target: "y", Installed: "2"},
		{Severity: stages.SeverityHigh, ID: "CVE-1", Package: "b"},
		{Severity: stages.SeverityHigh, ID: "CVE-3", Package: "a"},
		{Severity: stages.SeverityUnknown, ID: "CVE-0", Package: "a", Fixed: "1"},
		{Severity: stages.SeverityUnknown, ID: "CVE-0", Package: "a", Fixed: "2"},
	}
	for range 50 {
		got := append([]stages.Finding(nil), want...)
		rand.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		scan.Sort(got)
		assert.Equal(t, want, got)
	}
}
