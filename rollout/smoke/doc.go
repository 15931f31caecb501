// Package smoke asks a release whether it works, in the seconds after its pods
// are ready and before anybody depends on it. Each test is a [stages.Verifier],
// to be put after package rollout's into a pipeline's Verifiers.
//
//	test, err := smoke.NewHTTP(smoke.HTTPConfig{REST: restConfig, Path: "/healthz/ready"})
//	…
//	verification, err := test.Verify(ctx, release)
//
// # Which one
//
//   - [NewPod] fetches a URL with a pod of its own, as the cluster's other pods
//     would: through DNS, the Service, network policies.
//   - [NewJob] runs a program of yours in the cluster to its end.
//   - [NewHTTP], [NewTCP] and, in package grpcprobe, gRPC ask a pod of the release
//     from here by port-forward: nothing is created. [NewDial] does so for any
//     other protocol, with a Go function over the connection.
//   - [NewFunc] is a Go function.
//   - A chart's own tests are run by [github.com/fairlead-dev/fairlead/helmx.Deployer.Tests].
//
// What the answer must be is an [Expect], the same for all of them: status, body,
// JSON path, latency, and how many of how many requests must pass. Text in which
// {{.Release}}, {{.Namespace}} and {{.Revision}} may be used says so.
//
// A failed test is a [rollout.Failure] with the cause [rollout.SmokeFailed], which
// tells the requests that failed, with status, latency, the beginning of the body
// and the assertion. An answer that could not be had is never a pass.
//
// # What is left behind
//
// Nothing. Pods and jobs are deleted before Verify returns, on failure, cancel and
// timeout too, with API errors tried again. Should this process be killed, the
// kubelet ends the pod at the timeout, the cluster deletes a job ten minutes after
// its end, the release's workload owns both where it may be read, and the next
// smoke test of the release deletes what is overdue and bears this package's labels.
//
// # Secrets
//
// Nothing secret is taken in a URL or a plain header, because both end up in
// arguments, objects and logs: the constructors refuse what looks like it. A pod
// gets headers from a Secret, mounted as a file; a probe gets them from a Go
// function, and their values are masked in evidence.
//
// # What each may need
//
//	Pod          pods: create, delete, list, watch; pods/log: get
//	Job          jobs.batch: create, delete, list, watch; pods: list, watch; pods/log: get
//	HTTP, TCP,   pods: list; pods/portforward: create, and get where the API server
//	gRPC, Dial   is to be reached by WebSocket; get on the target: services, or
//	             deployments.apps, statefulsets.apps, daemonsets.apps, pods; list on
//	             what the pods belong to: deployments.apps and replicasets.apps, or
//	             statefulsets.apps, daemonsets.apps
//	Func         what the function needs
//
// All in the namespace where the test runs. With list and watch on events, the
// diagnosis of pods and jobs is better; with get on the release's first workload,
// it owns them. Whoever is refused is told the verb. [Test.RequiredRules] has this as
// rules for a Role.
package smoke
