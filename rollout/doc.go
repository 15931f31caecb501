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
// Deployments, StatefulSets, DaemonSets, ReplicaSets, ReplicationControllers,
// Jobs and Pods are followed until they are rolled out. Only pods of the revision
// being rolled out count: those of the ReplicaSet made from the Deployment's
// current template, of the StatefulSet's update revision, of the DaemonSet's
// current template. Pods of an older revision, or of anything else,
// neither fail nor delay a verification by crashing.
//
// Each container that uses the image's repository, init containers included,
// must run the released digest, and at least one must, unless none is to run: where
// workloads that name the image are scaled to zero or suspended, no node is to run a
// DaemonSet, or a StatefulSet's partition holds all of its pods back, the verification
// says so. The proof is the imageID
// that the kubelet reports: for an image index that is the index's digest, not
// the platform's. Where a runtime knows the same content by several names, it
// reports any of them; then the digest that the pod itself pins decides, and
// the verification says so. See [Config.StrictImageID].
//
// Objects without pods that say how far they are are followed too:
//
//   - a PersistentVolumeClaim until it is bound, unless it waits for its first
//     consumer;
//   - a Service of type LoadBalancer until it has an address, and, with
//     [Config.IngressAddress], an Ingress;
//   - a CustomResourceDefinition until its kind is served, an APIService until it
//     is available;
//   - a Gateway, a ListenerSet and a GatewayClass until their controller has
//     accepted, and programmed, their current generation; a route until each of its
//     parents has accepted it and found its backends;
//   - any other custom resource by its observedGeneration and its conditions Ready,
//     Reconciling and Stalled, as kstatus does. One that has none of them is done
//     when it exists: declare a rule where that is too early.
//
// [Config.Readiness] judges a kind by a function instead; package celrule makes one
// of an expression. A CronJob must name the released image; what its runs do is no
// part of the rollout, because the next one may be days away, unless [Config.CronRuns]
// waits for one. Everything else, such as a ConfigMap, a PodDisruptionBudget or a
// HorizontalPodAutoscaler, has to exist, which is looked up once.
//
// # When it gives up
//
// A classifier maps what Kubernetes reports to a [Cause], and a [Rule] says what
// the cause means: terminal, terminal after a number of times or after a time,
// or transient. An image that the registry doesn't have fails the verification
// at once, a registry that can't be reached only after three attempts, a crash
// the second time. [Config.Rules] changes that for each cause, [Config.Reasons]
// for each reason as Kubernetes names it. Whatever is left is reported at the
// timeout.
//
// A program that crashes while another workload of the release is on its way may wait
// for that: it is given until the sixth crash, and its crashes are counted anew once
// the other is ready; see [Rule]. What is on its way lacks pods to serve others and
// fails of nothing: a Deployment of which no pod is ready, a StatefulSet of which none
// is or more than one is not, a Job or a Pod that isn't done. In an upgrade that
// replaces pod by pod there is usually none.
//
// A Job has a number of tries of its own, and is failed by its controller: with the
// cause, container and log of the pod that failed last, which is remembered because
// the controller deletes pods. What no other try mends, such as an image or a program
// that isn't there, is not waited for. One that Kueue has suspended, by its label
// kueue.x-k8s.io/queue-name, waits for its queue.
//
// A [Failure] tells where it lies, down to the field of the manifest, what the
// program wrote last, and the row of the troubleshooting table that it belongs
// to: see [AdviceFor]. The field is empty where nobody says it: of a webhook that
// is down, or a policy whose message names no field of the pod; of a node that is
// lost, or refuses a pod for its own reasons. What can mend itself is given time to,
// so that a slow start, a crash at the first attempt or a Secret that comes some
// seconds later never fails a rollout. A pod that is older than the release may have
// crashed for what the release mends: of it, only the crashes since then count. A
// [Verifier] that looks at the same deployment again, as a canary's does at each step,
// counts the crashes in between.
//
// Logs and events are collected after the verdict, all at once, for no longer than
// [Config.EvidenceTimeout]. What a slow node or API server has not delivered by then
// is said to be missing: a rollback waits for the verdict.
//
// The verdict comes from watches; nothing is polled. Looking rests for up to a
// quarter of a second in a storm of changes, so that a rollout of a thousand pods
// costs little. Verifications at the same time share one watch of each kind and
// namespace, across verifiers if they share a [Cluster]; as a watch that is shared
// lags behind, each object of the release is then read once by its name, so that none
// is judged as it was before the release. While the API server is out of reach nothing is decided, and if it still is at the timeout the outcome is
// [stages.ErrIndeterminate].
//
// [Verifier.VerifyRestored] does the same after a rollback, for the release that is
// back: only then may that be called done. It also waits, for a while, until the pods
// of the release that failed have ended, so that they answer nobody any more.
//
// # What it may do
//
// A [Verifier] changes nothing. It needs the verbs list and watch on pods, on the
// kinds of workload that the release has, on the kinds that Config.Readiness names,
// and on jobs and cronjobs for Config.CronRuns, in its namespaces. Where it also has
// them on replicasets and events, and get on pods/log, the diagnosis is better; where
// it has not, the diagnosis says so. Where it may not list and watch another kind that
// is followed (services, persistentvolumeclaims, cronjobs, custom resources, and in the
// whole cluster storageclasses, customresourcedefinitions, apiservices), such an object
// has to exist, for which it needs get, and the verification says that more isn't known.
// Objects that only have to exist are read by metadata, so that no Secret's
// content is ever asked for. [Verifier.RequiredRules] has all this as rules for a
// Role.
//
// Smoke tests, which ask the release whether it works, are in package
// [github.com/fairlead-dev/fairlead/rollout/smoke].
//
// Metric gates have their place beside these as a [stages.Gate] of
// [stages.Release].
package rollout
