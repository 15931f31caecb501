package scan

import (
	"cmp"
	"slices"

	"github.com/fairlead-dev/fairlead/stages"
)

// Sort orders findings in place as [stages.Report] wants them: worst first, then
// by ID, package, target and installed version. What still ties is ordered by
// the remaining fields, so that equal sets of findings sort equally.
func Sort(findings []stages.Finding) {
	slices.SortFunc(findings, func(a, b stages.Finding) int {
		return cmp.Or(
			cmp.Compare(b.Severity, a.Severity),
			cmp.Compare(a.ID, b.ID),
			cmp.Compare(a.Package, b.Package),
			cmp.Compare(a.Target, b.Target),
			cmp.Compare(a.Installed, b.Installed),
			cmp.Compare(a.Fixed, b.Fixed),
			cmp.Compare(a.Type, b.Type),
			cmp.Compare(a.Title, b.Title),
			cmp.Compare(a.URL, b.URL),
		)
	})
}
