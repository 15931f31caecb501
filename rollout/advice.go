package rollout

import (
	"regexp"
	"strings"
	"time"
)

// Advice is one row of the troubleshooting table: what a cause looks like, how
// to look closer, where it usually comes from, and what mends it.
type Advice struct {
	// Symptom is what Kubernetes shows.
	Symptom string `json:"symptom"`
	// Commands look closer. Those of a [Failure] have the names filled in; those of
	// [AdviceFor] have {namespace}, {pod}, {container}, {workload} and {release}
	// in their place.
	Commands []string `json:"commands,omitempty"`
	// Usual is where it usually comes from.
	Usual string `json:"usual"`
	// Remedy is what usually mends it.
	Remedy string `json:"remedy"`
}

// AdviceFor returns the row of a cause; zero for an unknown one.
func AdviceFor(c Cause) Advice { return causeTable[c].Advice }

func (c Cause) remedy() string { return causeTable[c].Remedy }

// Commands that several causes share.
var (
	describePod      = "kubectl describe pod {pod} -n {namespace}"
	previousLogs     = "kubectl logs {pod} -n {namespace} -c {container} --previous"
	logs             = "kubectl logs {pod} -n {namespace} -c {container}"
	describeWorkload = "kubectl describe {workload} -n {namespace}"
	rolloutStatus    = "kubectl rollout status {workload} -n {namespace}"
	listEvents       = "kubectl get events -n {namespace} --sort-by=.lastTimestamp"
	listConfig       = "kubectl get configmaps,secrets -n {namespace}"
	listClaims       = "kubectl get pvc,storageclass -n {namespace}"
	listQuotas       = "kubectl describe quota,limitrange -n {namespace}"
	describeNodes    = "kubectl describe nodes"
	listNodes        = "kubectl get nodes -o wide"
	listWebhooks     = "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"
	manifest         = "helm get manifest {release} -n {namespace}"
	values           = "helm get values {release} -n {namespace} --all"
)

// causeRow is one row of the table: the default rule, and the advice.
type causeRow struct {
	rule Rule
	Advice
}

func row(rule Rule, symptom, usual, remedy string, commands ...string) causeRow {
	return causeRow{rule, Advice{Symptom: symptom, Commands: commands, Usual: usual, Remedy: remedy}}
}

// causeTable is the whole table. The rules weigh two evils: a verdict that comes
// late, and one that fails a rollout that would have come up. So what can mend
// itself, such as an object that another controller makes a moment later, gets
// a time, and what may be an accident, such as one crash, a number: a larger one for
// a program that may crash for want of another workload.
var causeTable = map[Cause]causeRow{
	ImageNotFound: row(atOnce(), "ErrImagePull, ImagePullBackOff: not found, manifest unknown",
		"a typo in repository, tag or digest, or an image that was never pushed or has been deleted",
		"push the image, or correct the repository or digest", describePod, manifest),
	ImageUnauthorized: row(times(2), "ErrImagePull, ImagePullBackOff: unauthorized, denied, 401, 403",
		"no imagePullSecret, an expired one, or one for another registry; many registries say so of a repository that doesn't exist, too",
		"give the pods an imagePullSecret that may read the repository, and check that the repository exists", describePod, "kubectl get secrets -n {namespace} --field-selector type=kubernetes.io/dockerconfigjson"),
	ImageRateLimited: row(after(2*time.Minute), "ErrImagePull, ImagePullBackOff: toomanyrequests, 429",
		"anonymous pulls by many nodes behind one address", "pull with credentials, or through a mirror, to raise the registry's rate limit", describePod),
	ImageUnreachable: row(timesOrAfter(3, time.Minute), "ErrImagePull, ImagePullBackOff, RegistryUnavailable: no such host, connection refused, time-out, 5xx, x509",
		"the registry is down, or the nodes lack a route, a proxy or its certificate", "check that the nodes reach the registry: name, port, proxy, TLS", describePod, listNodes),
	ImageWrongPlatform: row(atOnce(), "no match for platform in manifest, exec format error",
		"an image built on another architecture than the nodes'", "build the image for the nodes' architecture too", listNodes, describePod),
	ImageNameInvalid: row(atOnce(), "InvalidImageName", "upper case, spaces or an empty tag in the reference, often from an empty value",
		"correct the image reference in the manifest", manifest, values),
	ImageNeverPulled: row(atOnce(), "ErrImageNeverPull", "imagePullPolicy Never, and the node doesn't have the image",
		"set imagePullPolicy to IfNotPresent, or load the image onto the nodes", describePod),
	ImageUnsigned: row(atOnce(), "SignatureValidationFailed", "the node's policy wants a signature that the image doesn't have",
		"sign the image with a key that the nodes' policy trusts", describePod),
	ImagePullFailed: row(timesOrAfter(3, time.Minute), "ErrImagePull, ImagePullBackOff, ImageInspectError", "the container runtime could not fetch or unpack the image",
		"see the message of the container runtime; check the nodes' disks", describePod, describeNodes),
	ImageVolume: row(after(30*time.Second), "CreateContainerError: ImageVolumeMountFailed", "the image of a volume has no such path, or the runtime can't mount images",
		"correct the volume's image and subPath, or use a runtime that mounts images", describePod),
	ImageMismatch: row(atOnce(), "another image runs than the one that was released", "values that override the image, or a template that ignores it",
		"make the chart use the delivered image by digest", manifest, values),

	Crash: row(timesWithGrace(2), "CrashLoopBackOff, Error, Completed", "a missing variable, a wrong argument, a dependency that does not answer, or too little memory",
		"see the logs; check arguments, environment and dependencies", previousLogs, describePod),
	InitCrash: row(timesWithGrace(3), "Init:Error, Init:CrashLoopBackOff", "a migration that fails, or a wait for a dependency that doesn't come",
		"see the init container's logs; check what it waits for", previousLogs, describePod),
	OutOfMemory: row(times(2), "OOMKilled, exit code 137", "a memory limit below what the program needs at its start",
		"raise resources.limits.memory or lower the program's use of memory", describePod, previousLogs),
	ProbeKilled: row(timesWithGrace(2), "Killing: failed liveness probe, will be restarted", "a liveness probe of a wrong path or port, or one that is too strict for a slow start",
		"give a slow start a startupProbe, or correct the livenessProbe's path and port", describePod, previousLogs),
	StartupKilled: row(timesWithGrace(2), "Killing: failed startup probe, will be restarted", "a start that takes longer than failureThreshold times periodSeconds",
		"raise the startupProbe's failureThreshold, or correct its path and port", describePod, previousLogs),
	HookFailed: row(timesWithGrace(2), "PostStartHookError, FailedPostStartHook", "a postStart command that fails, or that comes before the program listens",
		"correct lifecycle.postStart, or move its work into an init container", describePod, previousLogs),
	CommandNotRunnable: row(atOnce(), "RunContainerError, StartError: executable file not found, permission denied", "a command that the image doesn't have, or a file that is not executable",
		"correct command and args; the file must exist in the image, be executable and fit the platform", describePod),
	StartFailed: row(timesOrAfter(3, 30*time.Second), "RunContainerError, StartError", "a mount, a capability or a cgroup that the node refuses",
		"see the message of the container runtime", describePod, describeNodes),
	ConfigMissing: row(after(30*time.Second), "CreateContainerConfigError, FailedMount: not found, couldn't find key", "a ConfigMap, a Secret or a key with another name, or one that is made elsewhere and was not",
		"create the ConfigMap, Secret or key that the pod refers to, or mark it optional", listConfig, describePod),
	RunsAsRoot: row(atOnce(), "CreateContainerConfigError: runAsNonRoot", "an image whose USER is root or a name, under runAsNonRoot",
		"set a numeric non-root USER in the image or runAsUser in the pod", describePod),
	CreateFailed: row(after(30*time.Second), "CreateContainerError, CreateContainerConfigError", "a volume mount or a security setting that the container runtime can't fulfil",
		"see the message of the container runtime", describePod),

	Unschedulable: row(after(30*time.Second), "FailedScheduling: 0/N nodes are available", "requests larger than any node has left, or a selector, affinity or taint that excludes them all",
		"lower the requests, add nodes, or relax node selectors, affinities and tolerations", describePod, describeNodes),
	SchedulingGated: row(never(), "SchedulingGated", "a scheduling gate that its controller hasn't lifted",
		"see what should lift spec.schedulingGates", describePod),
	VolumeUnbound: row(after(time.Minute), "FailedScheduling: unbound immediate PersistentVolumeClaims", "no such StorageClass, no default one, or a provisioner that doesn't work",
		"check that the StorageClass exists and that its provisioner works", listClaims, listEvents),
	VolumeMissing: row(after(30*time.Second), "FailedScheduling: persistentvolumeclaim not found", "a claim with another name, or one that was never made",
		"create the PersistentVolumeClaim that the pod names", listClaims, describePod),
	VolumeLost: row(atOnce(), "a claim bound to a persistentvolume that does not exist", "a volume that was deleted under its claim",
		"restore the volume, or delete the claim and make it anew", listClaims, "kubectl get pv"),
	VolumeAttach: row(after(3*time.Minute), "FailedAttachVolume, Multi-Attach error", "another node still holds the volume, or the cloud refuses",
		"wait for the other pod to leave, or use a volume that many nodes can attach", describePod, "kubectl get volumeattachments"),
	VolumeMount: row(after(2*time.Minute), "FailedMount, FailedMapVolume", "a driver that isn't installed, a server out of reach, or a wrong option",
		"check the volume, its driver, and whether another node still holds it", describePod, listEvents),
	DeviceUnprepared: row(after(time.Minute), "FailedPrepareDynamicResources", "a resource claim that the node's driver can't prepare",
		"check the driver of the resource claim on the node", describePod, "kubectl get resourceclaims -n {namespace}"),
	SandboxFailed: row(after(time.Minute), "FailedCreatePodSandBox, NetworkNotReady", "the node's network plugin: no addresses left, or not running",
		"check the nodes' network plugin and container runtime", describePod, listNodes),
	UserNamespace: row(after(30*time.Second), "FailedCreatePodSandBox: user namespaces, idmap", "hostUsers: false on a node or a file system that has no user namespaces",
		"leave out hostUsers: false, or use nodes that support user namespaces", describePod, listNodes),
	ResizeImpossible: row(never(), "ResizeInfeasible, ResizeDeferred", "resources raised in place beyond what the node has",
		"lower the resources, or let the pod be made anew on another node", describePod, describeNodes),
	NoRuntimeClass: row(after(10*time.Second), "RuntimeClass not found, no runtime for it is configured", "a RuntimeClass that the cluster or the node doesn't have",
		"create the RuntimeClass and configure its handler on the nodes, or leave out runtimeClassName", "kubectl get runtimeclasses", describePod),

	Evicted: row(times(3), "Evicted: the node was low on resource, had condition", "a node short of memory, disk or process ids, and pods without requests",
		"give the pods requests that say what they use, and the nodes more of what was short", describePod, describeNodes),
	EphemeralStorage: row(times(2), "Evicted: ephemeral storage limit, EmptyDir exceeds the limit", "logs, temporary files or an emptyDir that grow beyond their limit",
		"raise the limit of ephemeral-storage or the emptyDir's sizeLimit, or write less", describePod),
	Preempted: row(times(3), "Preempting, PreemptionByScheduler", "pods of a higher priority took the node",
		"give the pods a priority, or the cluster more nodes", describePod, describeNodes),
	NodeLost: row(never(), "NodeLost, ContainerStatusUnknown", "the node stopped answering", "see the node; its pods are made anew elsewhere after some minutes", listNodes, describePod),
	NodeShutdown: row(times(3), "NodeShutdown, Terminated: imminent node shutdown", "the node is shutting down, as spot nodes do",
		"see why the nodes shut down; other nodes take the pods if there are any", listNodes, describePod),
	NodeRefused: row(times(3), "UnexpectedAdmissionError, TopologyAffinityError, OutOfcpu, NodeAffinity, SysctlForbidden", "the node disagrees with the scheduler: resources taken meanwhile, topology, a sysctl that isn't allowed",
		"see the node's message; relax the topology policy, or allow the sysctl", describePod, describeNodes),
	PodFailed: row(times(3), "Failed", "the pod ended, and something other than its program ended it",
		"see why the pods failed", describePod, listEvents),

	QuotaExceeded: row(after(5*time.Second), "FailedCreate: exceeded quota, failed quota", "a namespace whose ResourceQuota is used up, or that wants limits on each container",
		"raise the ResourceQuota or lower requests, limits or replicas", listQuotas, describeWorkload),
	LimitRange: row(after(5*time.Second), "FailedCreate: maximum or minimum usage per Container", "requests or limits outside of the namespace's LimitRange",
		"bring requests and limits within the namespace's LimitRange", listQuotas, describeWorkload),
	PodSecurity: row(after(5*time.Second), "FailedCreate: violates PodSecurity", "a namespace that enforces a level which the pod's securityContext doesn't meet",
		"meet the namespace's Pod Security level: see the fields that the message names", "kubectl get namespace {namespace} --show-labels", describeWorkload),
	AdmissionDenied: row(after(5*time.Second), "FailedCreate: admission webhook denied the request", "a policy engine that objects to the pod",
		"meet the policy that the admission webhook enforces", describeWorkload, listWebhooks),
	PolicyDenied: row(after(5*time.Second), "FailedCreate: ValidatingAdmissionPolicy denied request", "a policy of the cluster that objects to the pod",
		"meet the expression that the message names", describeWorkload, "kubectl get validatingadmissionpolicies,validatingadmissionpolicybindings"),
	WebhookFailed: row(after(time.Minute), "FailedCreate: failed calling webhook", "a webhook whose service is down, with failurePolicy Fail",
		"bring the admission webhook's service back, or correct its configuration", listWebhooks, describeWorkload),
	NoServiceAccount: row(after(10*time.Second), "FailedCreate: error looking up service account", "a serviceAccountName that nobody created",
		"create the service account that the pods name", "kubectl get serviceaccounts -n {namespace}", describeWorkload),
	NoPriorityClass: row(after(10*time.Second), "FailedCreate: no PriorityClass with name", "a priorityClassName that the cluster doesn't have",
		"create the PriorityClass, or leave out priorityClassName", "kubectl get priorityclasses", describeWorkload),
	ControllerForbidden: row(after(10*time.Second), "FailedCreate: User cannot create resource", "a controller that lost its role, or an owner reference that it may not set",
		"grant the controller the verb that the message names (least privilege: a Role for it)", "kubectl auth can-i create pods -n {namespace} --as={user}", describeWorkload),
	PodRefused: row(after(30*time.Second), "FailedCreate", "the API server refuses the pods",
		"see the message of the API server", describeWorkload, listEvents),

	DeadlineExceeded: row(atOnce(), "ProgressDeadlineExceeded, DeadlineExceeded", "pods that don't become ready, or work that takes longer than allowed",
		"see why the pods don't become ready, or raise progressDeadlineSeconds (activeDeadlineSeconds of a Job)", rolloutStatus, describeWorkload),
	JobFailed: row(atOnce(), "BackoffLimitExceeded, PodFailurePolicy, FailedIndexes", "the job's program fails each time",
		"see the logs of the job's pods", logs, describeWorkload),
	Paused: row(atOnce(), "spec.paused or spec.suspend is true", "somebody paused it, or the chart does",
		"resume it: spec.paused or spec.suspend is set, so nothing is rolled out", describeWorkload, manifest),
	ManualUpdate: row(atOnce(), "OnDelete", "the update strategy OnDelete, which replaces nothing by itself",
		"delete the old pods, or use the RollingUpdate strategy: OnDelete replaces nothing by itself", "kubectl get pods -n {namespace}"),
	Missing: row(after(5*time.Second), "NotFound", "somebody deleted it, or a template left it out",
		"check whether somebody deleted it", manifest, listEvents),
	GateClosed: row(never(), "a readiness gate is not met", "a controller, such as a load balancer's, that hasn't set the condition",
		"see the controller that should set the pod's condition", describePod),
	NotReady: row(never(), "Unhealthy: Readiness probe failed", "a wrong path or port, a dependency that doesn't answer, or a start that takes its time",
		"see the probe's response: path, port, dependencies, and how long the start takes", rolloutStatus, logs, describePod),
	Starting: row(never(), "Pending, ContainerCreating, PodInitializing", "a large image, a slow node, or a volume that is not there yet", "see the pod's events", describePod),
	TimedOut: row(never(), "not rolled out within the timeout", "what the pods wait for", "see what is not ready, or raise the timeout", rolloutStatus, describePod),
	NoAddress: row(never(), "no address in the status of a Service, an Ingress or a Gateway", "no controller that serves its class, or a quota of the cloud's",
		"check that a controller serves objects of this class, its quota, and its events", describeWorkload, listEvents),
	NotAccepted: row(after(time.Minute), "Accepted or ResolvedRefs is False", "a parent, a listener or a back end with another name, or one that doesn't allow it",
		"see the controller's message: names, references and what it allows", describeWorkload),
	NotReconciled: row(never(), "a condition that its controller hasn't set", "a controller that isn't running, or that waits for something else",
		"see the object's conditions and the logs of its controller", describeWorkload, listEvents),
	ResourceFailed: row(atOnce(), "a condition that says that it failed", "what its controller says in the condition's message",
		"see the object's conditions and the logs of its controller", describeWorkload, listEvents),
	SmokeFailed: row(atOnce(), "the smoke test got another answer", "a route, a port or a policy that keeps the request from the pods",
		"see the response: service, port, path and network policies", logs),
}

// filled returns the advice with names in place of the placeholders, quoted where a
// shell would take them for more than a word. Commands that need a name which isn't
// known, or can't be shown, are left out.
func (a Advice) filled(names map[string]string) Advice {
	var pairs []string
	for name, value := range names {
		if word, ok := shellWord(value); ok {
			pairs = append(pairs, "{"+name+"}", word)
		}
	}
	replacer := strings.NewReplacer(pairs...)
	var commands []string
	for _, c := range a.Commands {
		if c = replacer.Replace(c); !strings.ContainsAny(c, "{}") {
			commands = append(commands, c)
		}
	}
	a.Commands = commands
	return a
}

// plainWord is what no shell takes for anything but itself.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_.:/@%+=,-]+$`)

// shellWord returns a name as one word for a shell, or false for one that a command
// would take for an option, or that nobody can read.
func shellWord(name string) (string, bool) {
	switch {
	case name == "" || name[0] == '-' || strings.Contains(name, "\n") || printable(name) != name:
		return "", false
	case plainWord.MatchString(name):
		return name, true
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'", true
}
