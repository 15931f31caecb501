package rollout

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestParseProbe(t *testing.T) {
	for message, want := range map[string]Probe{
		"Readiness probe failed: HTTP probe failed with statuscode: 503": {Kind: ProbeReadiness, Response: "HTTP probe failed with statuscode: 503"},
		"Liveness probe failed: ": {Kind: ProbeLiveness},
		"Startup probe errored and resulted in unknown state: rpc error: code = NotFound":  {Kind: ProbeStartup, Response: "rpc error: code = NotFound"},
		"Startup probe errored: rpc error":                                                 {Kind: ProbeStartup, Response: "rpc error"},
		"Readiness probe failed: Get \"http://10.0.0.1/\": dial tcp: connection refused\n": {Kind: ProbeReadiness, Response: `Get "http://10.0.0.1/": dial tcp: connection refused`},
	} {
		got, ok := parseProbe(message)
		assert.True(t, ok, message)
		assert.Equal(t, want, got, message)
	}
	_, ok := parseProbe("Back-off restarting failed container")
	assert.False(t, ok)
}

func FuzzParseProbe(f *testing.F) {
	f.Add("Readiness probe failed: HTTP probe failed with statuscode: 503")
	f.Fuzz(func(t *testing.T, message string) {
		if p, ok := parseProbe(message); ok && p.Kind == "" {
			t.Fatal("a probe of no kind")
		}
	})
}

func TestProbeKilling(t *testing.T) {
	assert.Equal(t, "liveness", probeKilling("Container app failed liveness probe, will be restarted"))
	assert.Equal(t, "startup", probeKilling("Init container proxy failed startup probe, will be restarted"))
	assert.Empty(t, probeKilling("Stopping container liveness-probe"))
}

func TestProbeTarget(t *testing.T) {
	service := "shop"
	for want, handler := range map[string]corev1.ProbeHandler{
		"GET http://:8080/healthz": {HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}},
		"GET https://h:web/":       {HTTPGet: &corev1.HTTPGetAction{Scheme: "HTTPS", Host: "h", Port: intstr.FromString("web")}},
		"tcp :5432":                {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(5432)}},
		"grpc :9000/shop":          {GRPC: &corev1.GRPCAction{Port: 9000, Service: &service}},
		"exec test -f /ready":      {Exec: &corev1.ExecAction{Command: []string{"test", "-f", "/ready"}}},
		"":                         {},
	} {
		assert.Equal(t, want, probeTarget(&corev1.Probe{ProbeHandler: handler}))
	}
	assert.Empty(t, probeTarget(nil))
}

// A probe with a long period that failed once, during the start, must not hold up a pod
// that is ready until the timeout.
func TestAProbeThatIsSeldomHoldsUpNothingForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, _, _ := upgrade()
		for _, template := range []*corev1.PodTemplateSpec{&d.Spec.Template, &updated.Spec.Template} {
			template.Spec.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 120, FailureThreshold: 3}
		}
		pod := podOf(updated, "ReplicaSet", "shop-2-x", d.Spec.Template)
		pod = as(pod, running(pinnedTo(digestA)))
		l := newLab(t, d, old, updated, pod)
		r := l.start(t.Context(), release(t))
		time.Sleep(5 * time.Second)
		l.put(about(pod, "app", "Unhealthy", "Liveness probe failed: connection refused"))
		time.Sleep(5 * time.Second)
		l.put(as(pod, func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].Ready = true
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}))
		l.put(complete(d))
		<-r.done
		require.NoError(t, r.err)
		assert.Equal(t, maxDoubt+10*time.Second, r.elapsed)
	})
}
