// Package rollout verifies that a Kubernetes release runs: that the pods of the
// revision being rolled out are ready and run the image that was released, by
// digest. It is a [stages.Verifier] on client-go.
//
//	verifier, err := rollout.New(rollout.Config{REST: restConfig})
//	…
//	verification, err := verifier.Verify(ctx, release)
//	if failure, ok := errors.AsType[*rollout.Failure](err); ok {
//		fmt.Println(failure) // which container of which pod, why, and what to do
//	}
//
// # What it waits for
//
// Deployments, StatefulSets, DaemonSets, Jobs and Pods are followed until they
// are rolled out; every other object has to exist. Only pods of the revision
// being rolled out count: those of the ReplicaSet made from the Deployment's
// current template, of the StatefulSet's update revision, of the DaemonSet's
// current template generation. Pods of an older revision, or of anything else,
// neither fail nor delay a verification by crashing.
//
// Each container that uses the image's repository, init containers included,
// must run the released digest, and at least one must. The proof is the imageID
// that the kubelet reports: for an image index that is the index's digest, not
// the platform's. Where a runtime knows the same content by several names, it
// reports any of them; then the digest that the pod itself pins decides, and
// the verification says so. See [Config.StrictImageID].
//
// # When it gives up
//
// A classifier maps what Kubernetes reports to a [Cause], and a [Rule] says what
// the cause means: terminal, terminal after a number of times or after a time,
// or transient. An image that the registry doesn't have fails the verification
// at once, a registry that can't be reached only after three attempts, a crash
// the second time. [Config.Rules] changes that for each cause. Whatever is left
// is reported at the timeout.
//
// The verdict comes from watches; nothing is polled. While the API server is out
// of reach nothing is decided, and if it still is at the timeout the outcome is
// [stages.ErrIndeterminate].
//
// # What it may do
//
// A [Verifier] changes nothing. It needs the verbs list and watch on pods and on
// the kinds of workload that the release has, in its namespaces. Where it also
// has them on replicasets and events, and get on pods/log, the diagnosis is
// better; where it has not, the diagnosis says so. Other objects are read by
// metadata only, so that no Secret's content is ever asked for.
//
// Smoke tests, which ask the release whether it works, are in package
// [github.com/fairlead-dev/fairlead/rollout/smoke].
//
// Metric gates have their place beside these as a [stages.Gate] of
// [stages.Release].
package rollout
