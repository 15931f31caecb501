package rollout

import (
	"regexp"
	"slices"
	"strings"
)

// pattern is one row of the classifier: which cause a reason of Kubernetes,
// together with its message, stands for. The first row that matches decides.
type pattern struct {
	reasons []string
	message *regexp.Regexp // nil matches any
	cause   Cause
}

func words(expr string) *regexp.Regexp { return regexp.MustCompile(`(?i)` + expr) }

var (
	pullReasons   = []string{"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"}
	createReasons = []string{"CreateContainerError", "PreCreateHookError"}
	startReasons  = []string{"RunContainerError", "StartError", "ContainerCannotRun", "PreStartHookError"}
	runReasons    = slices.Concat(createReasons, startReasons)
)

// noSuchCommand matches what runc and crun say of a process that they can't
// execute, but not what they say of a mount that they can't make.
var noSuchCommand = words(`executable file .*not found|exec:? [^:]*: .*(no such file or directory|permission denied|is a directory)|no command specified`)

// waitingPatterns classify a waiting container's reason. The messages are those
// of containerd, CRI-O and the registries as the kubelet passes them on.
var waitingPatterns = []pattern{
	{[]string{"InvalidImageName"}, nil, ImageNameInvalid},
	{[]string{"ErrImageNeverPull"}, nil, ImageNeverPulled},
	{[]string{"SignatureValidationFailed"}, nil, ImageUnsigned},
	{pullReasons, words(`signature validation failed|SignatureValidationFailed`), ImageUnsigned},
	{pullReasons, words(`no match for platform|no matching manifest|image operating system .* cannot be used|does not match the specified platform|no image found in (image index|manifest list)`), ImageWrongPlatform},
	{pullReasons, words(`toomanyrequests|too many requests|rate limit`), ImageRateLimited},
	{pullReasons, words(`no such host|connection refused|connection reset|i/o timeout|deadline exceeded|handshake timeout|no route to host|network is unreachable|unexpected EOF|: EOF|server misbehaving|temporary failure in name resolution|(status|response)[^0-9"]{0,80}[ =]5\d\d\b|\bcode[:= ]+5\d\d\b|service unavailable|bad gateway|gateway time-?out|internal server error|x509:|server gave HTTP response to HTTPS client|RegistryUnavailable|registry is unavailable`), ImageUnreachable},
	// What the node's own store lacks says nothing about the registry, and the next
	// attempt fetches it.
	{pullReasons, words(`(parent|extraction) snapshot .*(does not exist|not found)|content store: .*not found`), ImagePullFailed},
	{pullReasons, words(`unauthorized|authentication required|authorization failed|access denied|insufficient_scope|forbidden|no basic auth credentials|\bdenied\b`), ImageUnauthorized},
	{pullReasons, words(`not found|manifest unknown|name unknown|does not exist|NotFound|name invalid`), ImageNotFound},
	{pullReasons, words(`invalid reference|failed to apply default image tag|couldn't parse image`), ImageNameInvalid},
	{pullReasons, nil, ImagePullFailed},
	{runReasons, words(`ImageVolumeMountFailed`), ImageVolume},
	{[]string{"CreateContainerConfigError"}, words(`runAsNonRoot|non-root|non-numeric user`), RunsAsRoot},
	{[]string{"CreateContainerConfigError"}, words(`not found|couldn't find key|could not find key|references non-existent`), ConfigMissing},
	{[]string{"CreateContainerConfigError"}, nil, CreateFailed},
	{runReasons, words(`OOM-killed|out of memory`), OutOfMemory},
	{runReasons, words(`exec format error`), ImageWrongPlatform},
	{runReasons, noSuchCommand, CommandNotRunnable},
	{runReasons, words(`no runtime for .* is configured`), NoRuntimeClass},
	{runReasons, words(`user namespace|idmap`), UserNamespace},
	{createReasons, nil, CreateFailed},
	{startReasons, nil, StartFailed},
	{[]string{"PostStartHookError"}, nil, HookFailed},
	{[]string{"ContainerStatusUnknown"}, nil, NodeLost},
	{[]string{"CrashLoopBackOff"}, nil, Crash},
}

// refusalPatterns classify why the API server refused to create a pod.
var refusalPatterns = []pattern{
	{nil, words(`failed calling webhook|failed to call webhook|does not support dry run`), WebhookFailed},
	{nil, words(`ValidatingAdmissionPolicy .* denied`), PolicyDenied},
	{nil, words(`admission webhook .* denied|denied the request`), AdmissionDenied},
	{nil, words(`exceeded quota|failed quota|insufficient quota|status unknown for quota|must specify .* for:`), QuotaExceeded},
	{nil, words(`(maximum|minimum) [\w./-]+ usage per|limit to request ratio`), LimitRange},
	{nil, words(`violates PodSecurity|PodSecurityPolicy`), PodSecurity},
	{nil, words(`serviceaccount .* not found|service account .* not found|error looking up service account|does not reference that (secret|imagePullSecret)`), NoServiceAccount},
	{nil, words(`RuntimeClass .* not found`), NoRuntimeClass},
	{nil, words(`no PriorityClass with name`), NoPriorityClass},
	{nil, words(`User ".*" cannot \w+ (resource|\w+)|cannot set blockOwnerDeletion`), ControllerForbidden},
	{nil, nil, PodRefused},
}

// eventPatterns classify the warnings about a pod whose containers have not
// been created yet.
var eventPatterns = []pattern{
	{[]string{"FailedMount"}, words(`(configmap|secret) .*not found|references non-existent (config|secret) key`), ConfigMissing},
	{[]string{"FailedMount"}, words(`persistentvolumeclaim .*not found`), VolumeMissing},
	{[]string{"FailedAttachVolume"}, nil, VolumeAttach},
	{[]string{"FailedMount", "FailedMapVolume", "FailedMountOnFilesystemMismatch"}, nil, VolumeMount},
	{[]string{"FailedPrepareDynamicResources"}, nil, DeviceUnprepared},
	{[]string{"FailedCreatePodSandBox"}, words(`no runtime for .* is configured|failed to get sandbox runtime`), NoRuntimeClass},
	{[]string{"FailedCreatePodSandBox", "FailedCreatePodContainer"}, words(`user namespace|userns|idmap`), UserNamespace},
	{[]string{"FailedCreatePodSandBox", "FailedCreatePodContainer", "NetworkNotReady"}, nil, SandboxFailed},
	{[]string{"ResizeInfeasible", "ResizeDeferred", "ResizeError"}, nil, ResizeImpossible},
}

// schedulingPatterns classify why the scheduler found no node.
var schedulingPatterns = []pattern{
	{[]string{"SchedulingGated"}, nil, SchedulingGated},
	{nil, words(`bound to non-existent (persistentvolume|pv)`), VolumeLost},
	{nil, words(`unbound immediate PersistentVolumeClaims|didn't find available persistent volumes`), VolumeUnbound},
	{nil, words(`persistentvolumeclaim .* not found`), VolumeMissing},
	{nil, nil, Unschedulable},
}

// endingPatterns classify why a pod as a whole has failed.
var endingPatterns = []pattern{
	{[]string{"Evicted"}, words(`ephemeral[- ](local )?storage (usage|limit)|EmptyDir volume|local ephemeral storage limit`), EphemeralStorage},
	{[]string{"Evicted"}, nil, Evicted},
	{[]string{"Preempting", "PreemptionByScheduler"}, nil, Preempted},
	{[]string{"NodeLost", "DeletionByTaintManager", "DeletionByPodGC"}, nil, NodeLost},
	{[]string{"NodeShutdown", "Shutdown", "Terminated"}, nil, NodeShutdown},
	{[]string{"TerminationByKubelet"}, words(`shutdown`), NodeShutdown},
	{[]string{"TerminationByKubelet"}, words(`ephemeral[- ](local )?storage (usage|limit)|EmptyDir volume`), EphemeralStorage},
	{[]string{"TerminationByKubelet"}, words(`preempt`), Preempted},
	{[]string{"TerminationByKubelet", "EvictionByEvictionAPI"}, nil, Evicted},
	{[]string{"DeadlineExceeded"}, nil, DeadlineExceeded},
	{[]string{
		"UnexpectedAdmissionError", "TopologyAffinityError", "EmptyPodSharedPoolError", "NodeAffinity", "NodeName", "NodePorts",
		"SysctlForbidden", "AppArmor", "PodLevelResourcesNotSupported", "PodOSSelectorNodeLabelDoesNotMatch", "PodOSNotSupported",
		"InvalidNodeInfo", "InitContainerRestartPolicyForbidden", "SupplementalGroupsPolicyNotSupported",
		"UnknownReason", "UnexpectedPredicateFailureType", "FailedNodeDeclaredFeaturesCheck", "TaintToleration",
	}, nil, NodeRefused},
}

// ending returns why a pod as a whole has failed.
func ending(reason, message string) Cause {
	if strings.HasPrefix(reason, "OutOf") { // OutOfcpu, OutOfpods, OutOfexample.com/gpu
		return NodeRefused
	}
	if cause, known := classify(endingPatterns, reason, message); known {
		return cause
	}
	return PodFailed
}

// classify returns the cause of the first row that matches.
func classify(rows []pattern, reason, message string) (Cause, bool) {
	if len(message) > maxForeign { // what matters is said first or last
		message = message[:maxForeign/2] + " … " + message[len(message)-maxForeign/2:]
	}
	for _, p := range rows {
		if p.reasons != nil && !slices.Contains(p.reasons, reason) {
			continue
		}
		if p.message == nil || p.message.MatchString(message) {
			return p.cause, true
		}
	}
	return "", false
}

// jobCause says why a Job failed, by its condition's reason.
func jobCause(reason string) Cause {
	if reason == "DeadlineExceeded" {
		return DeadlineExceeded
	}
	return JobFailed
}
