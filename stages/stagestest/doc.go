// Package stagestest holds what a test of a stage, or of a pipeline, needs: a
// conformance suite for each interface of package stages, and fakes that pass
// them.
//
// An implementation proves that it keeps the contract in a few lines:
//
//	func TestConformance(t *testing.T) {
//		stagestest.TestScanner(t, func(t *testing.T) stagestest.ScannerHarness {
//			return stagestest.ScannerHarness{Scanner: newScanner(t), Image: pushed, Missing: neverPushed}
//		})
//	}
//
// The function is called once for each check, so that checks don't see each
// other's effects. Run the suite with -race: some checks call the
// implementation from several goroutines at once.
package stagestest
