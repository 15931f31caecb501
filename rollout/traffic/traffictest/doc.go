// Package traffictest holds what a test of a canary needs: a conformance suite
// for each interface of package traffic, and fakes that pass them.
//
//	func TestConformance(t *testing.T) {
//		traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
//			return traffictest.RouterHarness{Router: newRouter(t), Foreign: editRoute, Settle: actAsController}
//		})
//	}
//
// The function is called once for each check, so that checks don't see each
// other's effects.
package traffictest
