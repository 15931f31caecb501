package rollout

import (
	"regexp"
	"slices"
)

// pattern is one row of the classifier: which cause a reason of Kubernetes,
// together with its message, stands for. The first row that matches decides.
type pattern struct {
	reasons []string
	message *regexp.Regexp // nil matches any
	cause   Cause
}

func words(expr string) *regexp.Regexp { return regexp.MustCompile(`(?i)` + expr) }

var pullReasons = []string{"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"}

// waitingPatterns classify a waiting container's reason. The messages are those
// of containerd, CRI-O and the registries as the kubelet passes them on.
var waitingPatterns = []pattern{
	{[]string{"InvalidImageName"}, nil, ImageNameInvalid},
	{[]string{"ErrImageNeverPull"}, nil, ImageNeverPulled},
	{pullReasons, words(`no match for platform|no matching manifest|image operating system .* cannot be used|does not match the specified platform`), ImageWrongPlatform},
	{pullReasons, words(`toomanyrequests|too many requests|rate limit`), ImageRateLimited},
	{pullReasons, words(`no such host|connection refused|connection reset|i/o timeout|deadline exceeded|handshake timeout|no route to host|network is unreachable|unexpected EOF|: EOF|server misbehaving|temporary failure in name resolution|(status|code|response)[^0-9]{0,40}5\d\d|service unavailable|bad gateway|gateway time-?out|internal server error|x509:`), ImageUnreachable},
	{pullReasons, words(`unauthorized|authentication required|authorization failed|access denied|insufficient_scope|forbidden|no basic auth credentials`), ImageUnauthorized},
	{pullReasons, words(`not found|manifest unknown|name unknown|does not exist|NotFound|name invalid|invalid reference`), ImageNotFound},
	{pullReasons, nil, ImagePullFailed},
	{[]string{"CreateContainerConfigError"}, words(`runAsNonRoot|non-root|non-numeric user`), RunsAsRoot},
	{[]string{"CreateContainerConfigError"}, words(`not found|couldn't find key|could not find key|references non-existent`), ConfigMissing},
	{[]string{"CreateContainerConfigError"}, nil, CreateFailed},
	{[]string{"CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun"}, words(`executable file not found|no such file or directory|exec format error|permission denied|no command specified|is a directory`), CommandNotRunnable},
	{[]string{"CreateContainerError"}, nil, CreateFailed},
	{[]string{"RunContainerError", "StartError", "ContainerCannotRun", "PostStartHookError"}, nil, StartFailed},
	{[]string{"CrashLoopBackOff"}, nil, Crash},
}

// refusalPatterns classify why the API server refused to create a pod.
var refusalPatterns = []pattern{
	{nil, words(`exceeded quota|failed quota|must specify .* for:`), QuotaExceeded},
	{nil, words(`(maximum|minimum) \w+ usage per|limit to request ratio`), LimitRange},
	{nil, words(`violates PodSecurity|PodSecurityPolicy`), PodSecurity},
	{nil, words(`failed calling webhook`), WebhookFailed},
	{nil, words(`admission webhook .* denied|ValidatingAdmissionPolicy .* denied|denied the request`), AdmissionDenied},
	{nil, words(`serviceaccount .* not found|service account .* not found|error looking up service account`), NoServiceAccount},
	{nil, nil, PodRefused},
}

// eventPatterns classify the warnings about a pod whose containers have not
// been created yet.
var eventPatterns = []pattern{
	{[]string{"FailedMount"}, words(`(configmap|secret) .* not found|references non-existent (config|secret) key`), ConfigMissing},
	{[]string{"FailedMount", "FailedAttachVolume", "FailedMapVolume"}, nil, VolumeMount},
	{[]string{"FailedCreatePodSandBox", "FailedCreatePodContainer", "NetworkNotReady"}, nil, SandboxFailed},
}

// schedulingPatterns classify why the scheduler found no node.
var schedulingPatterns = []pattern{
	{nil, words(`unbound immediate PersistentVolumeClaims|persistentvolumeclaim .* not found`), VolumeUnbound},
	{nil, nil, Unschedulable},
}

// classify returns the cause of the first row that matches.
func classify(rows []pattern, reason, message string) (Cause, bool) {
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
