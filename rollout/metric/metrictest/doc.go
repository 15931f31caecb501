// Package metrictest holds a conformance suite for [metric.Source].
//
// An implementation proves that it keeps the contract in a few lines:
//
//	func TestConformance(t *testing.T) {
//		metrictest.TestSource(t, func(t *testing.T) metrictest.Harness {
//			return metrictest.Harness{Source: newSource(t), Present: "up", Absent: "nothing", Malformed: "up{"}
//		})
//	}
//
// The function is called once for each check. Run the suite with -race: one check
// calls the source from several goroutines at once.
package metrictest
