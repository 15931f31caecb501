// Package celrule makes a readiness rule of package rollout from expressions in
// the Common Expression Language, for kinds that follow no convention:
//
//	rule, err := celrule.New(celrule.Config{
//		Group: "example.com", Kind: "Database",
//		Ready:  "object.status.phase == 'Running' && object.status.replicas >= object.spec.replicas",
//		Failed: "object.status.phase == 'Failed'",
//	})
//	…
//	verifier, err := rollout.New(rollout.Config{REST: config, Readiness: []rollout.Readiness{rule}})
//
// An expression sees the whole object as the variable object, and nothing else:
// no clock, no cluster, no environment. What it costs is bounded. A field that
// the object doesn't have (yet) means that it is not ready yet; use has() to say
// something else about it.
//
// An object that says, by an observedGeneration, that its status is about an earlier
// generation is not ready yet, whatever the expressions would say; see
// [rollout.ReadinessCheck]. Where a kind has no observedGeneration, its status may still
// be a former release's when the verification begins: then compare it with what the
// release asks for, as above with object.spec.replicas.
//
// The package is one of its own so that whoever needs no expressions doesn't
// link an interpreter for them.
package celrule
