package rollout

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// Messages as containerd, CRI-O, the kubelet and registries write them.
func TestClassifyWaiting(t *testing.T) {
	tests := []struct {
		reason, message string
		cause           Cause
	}{
		{"ErrImagePull", `failed to pull and unpack image "ghcr.io/a/b:1": failed to resolve reference "ghcr.io/a/b:1": ghcr.io/a/b:1: not found`, ImageNotFound},
		{"ErrImagePull", "reading manifest 1 in quay.io/a/b: manifest unknown", ImageNotFound},
		{"ErrImagePull", `failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://ghcr.io/token: 403 Forbidden`, ImageUnauthorized},
		{"ErrImagePull", "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed", ImageUnauthorized},
		{"ImagePullBackOff", `Back-off pulling image "x": ErrImagePull: unexpected status from HEAD request: 429 Too Many Requests`, ImageRateLimited},
		{"ErrImagePull", "toomanyrequests: You have reached your pull rate limit.", ImageRateLimited},
		{"ErrImagePull", `failed to do request: Head "https://r.example/v2/": dial tcp: lookup r.example: no such host`, ImageUnreachable},
		{"ErrImagePull", "unexpected status from HEAD request to https://r/v2/a/manifests/1: 503 Service Unavailable", ImageUnreachable},
		{"ErrImagePull", `code = NotFound desc = failed to pull and unpack image "docker.io/acme/shop:542": docker.io/acme/shop:542: not found`, ImageNotFound},
		{"ErrImagePull", `code = NotFound desc = failed to pull and unpack image "docker.io/acme/status:542": docker.io/acme/status:542: not found`, ImageNotFound},
		{"ErrImagePull", "unexpected status code 502", ImageUnreachable},
		{"ErrImagePull", "failed to fetch anonymous token: unexpected status: 500", ImageUnreachable},
		{"ErrImagePull", `code = NotFound desc = failed to pull and unpack image "r/shop@sha256:aa": failed to prepare extraction snapshot "extract-1 sha256:bb": parent snapshot sha256:cc does not exist: not found`, ImagePullFailed},
		{"ErrImagePull", "failed to extract layer sha256:aa: failed to get reader from content store: content digest sha256:bb: not found", ImagePullFailed},
		{"ErrImagePull", "tls: failed to verify certificate: x509: certificate signed by unknown authority", ImageUnreachable},
		{"ErrImagePull", "no match for platform in manifest: not found", ImageWrongPlatform},
		{"ImagePullBackOff", `Back-off pulling image "x"`, ImagePullFailed},
		{"InvalidImageName", "couldn't parse image name", ImageNameInvalid},
		{"ErrImageNeverPull", "Container image is not present with pull policy of Never", ImageNeverPulled},
		{"CreateContainerConfigError", `secret "db" not found`, ConfigMissing},
		{"CreateContainerConfigError", "couldn't find key url in ConfigMap shop/settings", ConfigMissing},
		{"CreateContainerConfigError", "container has runAsNonRoot and image has non-numeric user (node)", RunsAsRoot},
		{"CreateContainerConfigError", "something else", CreateFailed},
		{"CreateContainerError", "failed to reserve container name: name is reserved", CreateFailed},
		{"RunContainerError", `exec: "/app": stat /app: no such file or directory: unknown`, CommandNotRunnable},
		{"StartError", "exec /app: exec format error", ImageWrongPlatform},
		{"RunContainerError", "failed to create shim task: context deadline exceeded", StartFailed},
		{"CrashLoopBackOff", "", Crash},
		{"SignatureValidationFailed", "image pull failed for x because the signature validation failed", ImageUnsigned},
		{"RegistryUnavailable", "image pull failed for x because the registry is unavailable", ImageUnreachable},
		{"ErrImagePull", `failed to pull image "x": denied: requested access to the resource is denied`, ImageUnauthorized},
		{"CreateContainerError", "ImageVolumeMountFailed: no such path", ImageVolume},
		{"RunContainerError", `failed to create containerd task: error mounting "/a" to rootfs: no such file or directory`, StartFailed},
		{"StartError", "container init was OOM-killed (memory limit too low?)", OutOfMemory},
		{"PostStartHookError", "command 'false' exited with 1", HookFailed},
		{"PreStartHookError", "cpu manager", StartFailed},
		{"PreCreateHookError", "memory manager", CreateFailed},
		{"ContainerStatusUnknown", "The container could not be located", NodeLost},
	}
	for _, test := range tests {
		cause, known := classify(waitingPatterns, test.reason, test.message)
		require.True(t, known, test.reason)
		assert.Equal(t, test.cause, cause, "%s: %s", test.reason, test.message)
	}
	_, known := classify(waitingPatterns, "ContainerCreating", "")
	assert.False(t, known)
}

// An image may be called anything.
func TestImageNamesAreNoCauses(t *testing.T) {
	for image, test := range map[string]struct {
		message string
		cause   Cause
	}{
		"acme/access-denied:1":                               {`failed to resolve reference "docker.io/acme/access-denied:1": docker.io/acme/access-denied:1: not found`, ImageNotFound},
		"r.example.com:5000/forbidden/bad-gateway@sha256:aa": {`failed to pull and unpack image "r.example.com:5000/forbidden/bad-gateway@sha256:aa": not found`, ImageNotFound},
		"acme/not-found":                                     {"pull access denied for acme/not-found, repository may require 'docker login'", ImageUnauthorized},
		"denied":                                             {`failed to pull image "denied": denied: requested access to the resource is denied`, ImageUnauthorized},
		"":                                                   {"manifest unknown", ImageNotFound},
	} {
		cause, _ := classify(waitingPatterns, "ErrImagePull", unnamed(test.message, image))
		assert.Equal(t, test.cause, cause, image)
	}
}

func TestStartsAreNoCauses(t *testing.T) {
	_, known := classify(waitingPatterns, "ContainerCreating", "")
	assert.False(t, known)
}

func TestClassifyRefusals(t *testing.T) {
	for message, want := range map[string]Cause{
		`pods "x" is forbidden: exceeded quota: q, requested: cpu=2, used: cpu=1, limited: cpu=2`:                                                              QuotaExceeded,
		`pods "x" is forbidden: failed quota: q: must specify limits.cpu for: app`:                                                                             QuotaExceeded,
		`pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi`:                                                                   LimitRange,
		`pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false`:                                                   PodSecurity,
		`admission webhook "validate.kyverno.svc" denied the request: no latest tag`:                                                                           AdmissionDenied,
		`Internal error occurred: failed calling webhook "v.example": Post "https://v.svc": dial tcp: connect refused`:                                         WebhookFailed,
		`pods "x" is forbidden: error looking up service account shop/bot: serviceaccount "bot" not found`:                                                     NoServiceAccount,
		`pods "x" is forbidden: minimum cpu usage per Pod is 100m, but request is 50m`:                                                                         LimitRange,
		`pods "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: name an owner`:                                                  PolicyDenied,
		`pods "x" is forbidden: pod rejected: RuntimeClass "gvisor" not found`:                                                                                 NoRuntimeClass,
		`pods "x" is forbidden: no PriorityClass with name high was found`:                                                                                     NoPriorityClass,
		`pods is forbidden: User "system:serviceaccount:kube-system:replicaset-controller" cannot create resource "pods" in API group "" in the namespace "x"`: ControllerForbidden,
		`pods "x" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on`:                           ControllerForbidden,
		`Pod "x" is invalid: spec.containers: Required value`:                                                                                                  PodRefused,
	} {
		got, _ := classify(refusalPatterns, "FailedCreate", message)
		assert.Equal(t, want, got, message)
	}
}

func TestClassifyEndings(t *testing.T) {
	for _, test := range []struct {
		reason, message string
		cause           Cause
	}{
		{"Evicted", "The node was low on resource: memory. ", Evicted},
		{"Evicted", "The node had condition: [DiskPressure]. ", Evicted},
		{"Evicted", `Usage of EmptyDir volume "tmp" exceeds the limit "1Mi". `, EphemeralStorage},
		{"Evicted", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ", EphemeralStorage},
		{"PreemptionByScheduler", "preempting to accommodate a higher priority pod", Preempted},
		{"NodeLost", "", NodeLost},
		{"Terminated", "Pod was terminated in response to imminent node shutdown.", NodeShutdown},
		{"TerminationByKubelet", "Pod was terminated in response to imminent node shutdown.", NodeShutdown},
		{"OutOfexample.com/gpu", "", NodeRefused},
		{"TopologyAffinityError", "Resources cannot be allocated with Topology locality", NodeRefused},
		{"DeadlineExceeded", "Pod was active on the node longer than the specified deadline", DeadlineExceeded},
		{"Failed", "", PodFailed},
	} {
		assert.Equal(t, test.cause, ending(test.reason, test.message), "%s: %s", test.reason, test.message)
	}
}

func TestClassifyEvents(t *testing.T) {
	for _, test := range []struct {
		reason, message string
		cause           Cause
	}{
		{"FailedMount", `MountVolume.SetUp failed for volume "tls" : secret "tls" not found`, ConfigMissing},
		{"FailedMount", `MountVolume.SetUp failed for volume "cfg" : references non-existent config key: a`, ConfigMissing},
		{"FailedMount", `MountVolume.MountDevice failed for volume "data" : driver not found`, VolumeMount},
		{"FailedAttachVolume", `Multi-Attach error for volume "pvc-1"`, VolumeAttach},
		{"FailedCreatePodSandBox", `no runtime for "gvisor" is configured`, NoRuntimeClass},
		{"FailedCreatePodSandBox", "user namespaces are not supported", UserNamespace},
		{"FailedCreatePodSandBox", "failed to allocate for range 0: no IP addresses available", SandboxFailed},
		{"FailedPrepareDynamicResources", "driver not registered", DeviceUnprepared},
		{"ResizeInfeasible", "Node didn't have enough capacity", ResizeImpossible},
	} {
		cause, known := classify(eventPatterns, test.reason, test.message)
		assert.True(t, known)
		assert.Equal(t, test.cause, cause, "%s: %s", test.reason, test.message)
	}
}

func TestClassifyScheduling(t *testing.T) {
	for message, want := range map[string]Cause{
		"0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.":                     VolumeUnbound,
		`0/1 nodes are available: persistentvolumeclaim "d" not found.`:                                  VolumeMissing,
		`0/1 nodes are available: persistentvolumeclaim "d" bound to non-existent persistentvolume "v".`: VolumeLost,
		"0/1 nodes are available: 1 Insufficient cpu.":                                                   Unschedulable,
	} {
		got, _ := classify(schedulingPatterns, "Unschedulable", message)
		assert.Equal(t, want, got, message)
	}
	got, _ := classify(schedulingPatterns, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
	assert.Equal(t, SchedulingGated, got)
}

func TestEveryCauseOfTheClassifierHasARuleAndARemedy(t *testing.T) {
	for _, rows := range [][]pattern{waitingPatterns, refusalPatterns, eventPatterns, schedulingPatterns, endingPatterns} {
		for _, p := range rows {
			assert.NotEmpty(t, p.cause.remedy(), p.cause)
		}
	}
	for _, c := range Causes() {
		assert.NotEmpty(t, c.remedy(), c)
		assert.NoError(t, DefaultRule(c).validate(string(c)))
	}
}

func TestRules(t *testing.T) {
	_, err := New(Config{Rules: map[Cause]Rule{"Nonsense": {}}})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = New(Config{Rules: map[Cause]Rule{Crash: {Class: TerminalAfter}}})
	require.ErrorIs(t, err, stages.ErrInvalid)
	for _, r := range []Rule{{Class: TerminalAfter, Count: 1, Grace: -1}, {Class: TerminalAfter, After: 1, Grace: 1}, {Class: Terminal, Count: 1, Grace: 1}} {
		_, err = New(Config{Rules: map[Cause]Rule{Crash: r}})
		require.ErrorIs(t, err, stages.ErrInvalid)
	}
	_, err = New(Config{})
	require.ErrorIs(t, err, stages.ErrInvalid)
	rules, err := rulesWith(map[Cause]Rule{ImageNotFound: {Class: Transient}}, nil)
	require.NoError(t, err)
	assert.Equal(t, Transient, rules.causes[ImageNotFound].Class)
	assert.Equal(t, Terminal, rules.causes[ImageNeverPulled].Class)
}

func TestProve(t *testing.T) {
	want := image(t, digestA)
	tests := map[string]struct {
		spec, imageID string
		strict        bool
		want          proof
	}{
		"pinned and reported":               {pinnedTo(digestA), pinnedTo(digestA), false, proven},
		"tag and reported":                  {repository + ":v1", pinnedTo(digestA), false, proven},
		"reported by another repository":    {pinnedTo(digestA), "localhost:5001/other@" + digestA.String(), false, proven},
		"reported as Docker does":           {pinnedTo(digestA), "docker-pullable://" + pinnedTo(digestA), false, proven},
		"pinned, known by another manifest": {pinnedTo(digestA), pinnedTo(digestB), false, pinned},
		"the same, strictly":                {pinnedTo(digestA), pinnedTo(digestB), true, foreign},
		"pinned, loaded into the node":      {pinnedTo(digestA), digestB.String(), false, pinned},
		"tag, another digest":               {repository + ":v1", pinnedTo(digestB), false, foreign},
		"tag, loaded into the node":         {repository + ":v1", digestB.String(), false, foreign},
		"pinned to another digest":          {pinnedTo(digestB), "", false, foreign},
		"not reported yet":                  {pinnedTo(digestA), "", false, unknown},
		"a mirror of the same digest":       {"mirror.example/shop@" + digestA.String(), "mirror.example/shop@" + digestA.String(), false, proven},
		"a sidecar":                         {"docker.io/library/envoy:1", "docker.io/library/envoy@" + digestB.String(), false, unconcerned},
	}
	for name, test := range tests {
		got, _ := prove(want, test.spec, corev1.ContainerStatus{ImageID: test.imageID}, test.strict)
		assert.Equal(t, test.want, got, name)
	}
}

func TestSplitReference(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx": "docker.io/library/nginx", "nginx:1.2": "docker.io/library/nginx", "acme/shop": "docker.io/acme/shop",
		"index.docker.io/library/nginx": "docker.io/library/nginx", "localhost/shop": "localhost/shop",
		"localhost:5001/a/b:v1": "localhost:5001/a/b", "ghcr.io/a/b:v1@sha256:c": "ghcr.io/a/b",
	} {
		got, _ := splitReference(ref)
		assert.Equal(t, want, got, ref)
	}
}
