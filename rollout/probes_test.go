package rollout

import (
	"testing"

	"github.com/stretchr/testify/assert"
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
