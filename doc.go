// Package fairlead is the tour of an embeddable library that takes a commit to
// a verified Kubernetes release, or takes the cluster back to where it was.
// The package holds no code; start with [pipeline].
//
// A delivery is a chain of stages that share one image digest:
//
//	build → scan ∥ (plan → policy) → gates → sign → verify signature → deploy → verify rollout
//
// The packages:
//
//   - [github.com/fairlead-dev/fairlead/stages] is the contract: the stage
//     interfaces and the values that flow between them.
//   - [github.com/fairlead-dev/fairlead/pipeline] is the engine: it runs
//     independent stages side by side, retries, gates, journals, and restores
//     the cluster when a later stage fails.
//   - [github.com/fairlead-dev/fairlead/stages/buildkit] builds Dockerfiles.
//   - [github.com/fairlead-dev/fairlead/registry] pins, tags and serves images.
//   - [github.com/fairlead-dev/fairlead/scan] decides on vulnerability reports;
//     github.com/fairlead-dev/fairlead/scan/trivy, a module of its own, makes them.
//   - [github.com/fairlead-dev/fairlead/sign] signs and verifies as cosign does.
//   - [github.com/fairlead-dev/fairlead/stages/policy] gates rendered manifests with Rego.
//   - [github.com/fairlead-dev/fairlead/helmx] renders, diffs, deploys and restores Helm releases.
//   - [github.com/fairlead-dev/fairlead/rollout] watches a release until it runs, or says why it can't;
//     [github.com/fairlead-dev/fairlead/rollout/smoke] tries it out.
//   - [github.com/fairlead-dev/fairlead/rollout/metric] gates a release by its metrics, with the
//     statistics of [github.com/fairlead-dev/fairlead/rollout/sequential].
//   - [github.com/fairlead-dev/fairlead/rollout/traffic] shifts traffic to a canary, and takes it back.
//   - [github.com/fairlead-dev/fairlead/notify] tells people and machines what a run does.
//
// Adapters meet in [stages] and don't import each other (sign, which needs a
// registry, excepted), so a program compiles only what it uses.
package fairlead
