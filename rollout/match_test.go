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
	}
	for _, test := range tests {
		cause, known := classify(waitingPatterns, test.reason, test.message)
		require.True(t, known, test.reason)
		assert.Equal(t, test.cause, cause, "%s: %s", test.reason, test.message)
	}
	_, known := classify(waitingPatterns, "ContainerCreating", "")
	assert.False(t, known)
}

func TestClassifyRefusals(t *testing.T) {
	for message, want := range map[string]Cause{
		`pods "x" is forbidden: exceeded quota: q, requested: cpu=2, used: cpu=1, limited: cpu=2`:                      QuotaExceeded,
		`pods "x" is forbidden: failed quota: q: must specify limits.cpu for: app`:                                     QuotaExceeded,
		`pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi`:                           LimitRange,
		`pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false`:           PodSecurity,
		`admission webhook "validate.kyverno.svc" denied the request: no latest tag`:                                   AdmissionDenied,
		`Internal error occurred: failed calling webhook "v.example": Post "https://v.svc": dial tcp: connect refused`: WebhookFailed,
		`pods "x" is forbidden: error looking up service account shop/bot: serviceaccount "bot" not found`:             NoServiceAccount,
		`Pod "x" is invalid: spec.containers: Required value`:                                                          PodRefused,
	} {
		got, _ := classify(refusalPatterns, "FailedCreate", message)
		assert.Equal(t, want, got, message)
	}
}

func TestEveryCauseOfTheClassifierHasARuleAndARemedy(t *testing.T) {
	for _, rows := range [][]pattern{waitingPatterns, refusalPatterns, eventPatterns, schedulingPatterns} {
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
