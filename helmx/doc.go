// Package helmx releases an image with Helm. [Deployer] installs or upgrades a
// chart, tells beforehand what would change, and brings the previous release
// back when a later stage fails.
//
//	d, err := helmx.New(helmx.Config{
//		Chart:      "./chart",
//		Release:    "shop",
//		Namespace:  "prod",
//		Values:     helmx.Values{Files: []string{"chart/values-prod.yaml"}},
//		Image:      helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"},
//		Kubernetes: helmx.Kubernetes{KubeconfigPath: "/etc/deploy/kubeconfig"},
//	})
//
// # What is released
//
// The chart is a folder, an archive, or one in an OCI registry or HTTP repository,
// which [Open] fetches into memory: by digest, within limits, and signed if
// [ChartSource] says so. Dependencies that it doesn't bring along are fetched as
// Chart.lock says. [Deployer.Chart] tells what was found.
//
// The chart and the values files are read once, by [New] or [Open], so that a plan
// and the deployment after it render the same files. What a template asks the
// cluster for (lookup, .Capabilities) may differ between the two; a deployment that
// is bound to a plan is then refused. The image is written into the values last and
// by digest. After rendering, and again on what Helm is about to apply, the
// pinned image must appear in a pod template and no container may name the same
// repository without that digest; a chart that ignores the values, or that has a
// tag of its own, is refused before the cluster is touched.
//
// # Who set what
//
// Values are merged as Helm merges them. [Deployer.Provenance] tells for each
// effective value which file and line, map, override or chart set it, and what that
// overrode. A [SchemaError] points there too. A release whose record would not fit
// into a Secret is refused with a [RecordTooLargeError], by a plan already.
//
// # What would change
//
// [Deployer.Plan] has Helm's own client try every object as a dry run, eight at a
// time, so that the changes of a plan are what the API server says would become of
// the live objects: per field, with the field's owner where that is somebody else,
// with refusals by admission, quota and validation, and with what can't be changed
// in place. It also tells what has drifted since the last release. Objects that
// the account may not try are compared with the last release, and a note says so.
// [RefuseDangers] makes a gate of it, package diff shows it, and a deployment can be
// bound to its digest: [stages.DeployRequest].
//
// # Rights
//
// [Deployer.RequiredRBAC] derives the least rules that an account needs, and
// [RBAC.Manifests] writes them as a Role. With [Config.Rules] they cover the whole
// delivery, because verifiers, smoke tests, routers and a canary's state say what
// they need:
//
//	Rules: []helmx.RuleSource{ready, reachable, router, state},
//
// Before a deployment changes anything, the account is held to them, and a
// [PrivilegeError] has the Role that is lacking. Deploy the two releases of a canary
// with [RBAC.Union] of theirs.
//
// # Removal, and what is left of a failure
//
// [Deployer.Uninstall] removes a release with its delete hooks and waits until its
// objects are gone; what was there before, or is marked to be kept, stays and is
// reported. [Deployer.PlanRemoval] tells beforehand. [Deployer.RecordFailure] writes
// into the record of a revision why it failed, which helm history then shows.
//
// # One at a time
//
// A release is locked by a Lease in its namespace, see [LockConfig]: by
// [Deployer.Lock] for a whole run, else for as long as a call takes. Who finds the
// lock of a process that died takes it over, and the next deployment or restore
// puts right what was left half done. When the lock can't be renewed, all work ends
// before another can have it.
//
// # What it never does
//
//   - It never waits for pods: that is for a [stages.Verifier] to watch. Helm's
//     Wait and Atomic stay off; hooks do run, bounded by [Config.Timeout].
//   - It never goes on after it returned. Every request to the cluster is bound
//     to the context of the call; after a cancel none is sent, except for marking
//     the interrupted revision as failed, which takes five seconds at most and is
//     done before the call returns.
//   - It never undoes what hooks did to the outside world, such as a migration of
//     a database. Objects of hooks are removed where the failed revision made them.
//   - It never reads HELM_* variables, ~/.kube, ~/.docker or Helm's own folders, and
//     it never writes to disk.
//   - It never follows a chart's tag twice, and never sends credentials to a host that
//     they are not for.
//   - It never shows secrets: the data of Secrets is masked in plans and in
//     differences, wherever else it turns up too, and values are masked in errors.
//
// Releases are stored as Helm 3 does, so the helm command can read, upgrade and
// roll back what this package released, and the other way round.
package helmx
