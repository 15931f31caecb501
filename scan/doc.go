// Package scan decides what a vulnerability report means, and runs the Trivy
// command line as a [stages.Scanner].
//
// [Policy] is the gate: it refuses an image with findings at or above a
// severity, naming each with the installed and the fixed version, and it is
// inconclusive where the report proves nothing: no recognised package, or a
// database that is old or of unknown age. No data is never a pass.
//
// [Command] runs a trivy binary. The scanner that needs no binary is in the
// module github.com/fairlead-dev/fairlead/scan/trivy; both return the same
// [stages.Report] for the same image and database. Trivy's JSON is the format
// that its maintainers keep stable; [ParseTrivyJSON] reads it.
//
// The package never resolves a tag, never changes an image or a registry, and
// keeps credentials out of arguments, files and errors.
//
//	policy, err := scan.NewPolicy(scan.PolicyConfig{Threshold: stages.SeverityHigh, IgnoreUnfixed: true})
//	...
//	decision, err := policy.Decide(ctx, report)
package scan
