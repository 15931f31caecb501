package rollout

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// newSmoke returns a smoke test on the lab's cluster, whose logs say "fake logs".
func (l *lab) newSmoke(change func(*SmokeConfig)) *Smoke {
	l.t.Helper()
	c := SmokeConfig{Image: image(l.t, digestB), URL: "http://{{.Release}}.{{.Namespace}}.svc/healthz"}
	if change != nil {
		change(&c)
	}
	s, err := prepareSmoke(c)
	require.NoError(l.t, err)
	s.cluster = l.cluster()
	return s
}

// smoke runs s beside the test and returns when its pod waits.
func (l *lab) smoke(ctx context.Context, s *Smoke) (*run, *corev1.Pod) {
	l.t.Helper()
	r := &run{done: make(chan struct{})}
	rel := release(l.t)
	go func() {
		defer close(r.done)
		r.result, r.err = s.Verify(ctx, rel)
	}()
	synctest.Wait()
	all := l.pods()
	require.Len(l.t, all, 1)
	return r, &all[0]
}

func (l *lab) pods() []corev1.Pod {
	list, err := l.client.CoreV1().Pods(ns).List(context.Background(), metav1.ListOptions{})
	require.NoError(l.t, err)
	return list.Items
}

// finish gives the pod's only container an end.
func finish(code int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodSucceeded
		if code != 0 {
			p.Status.Phase = corev1.PodFailed
		}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: smokeContainer, ImageID: p.Spec.Containers[0].Image, State: corev1.ContainerState{Terminated: ended(code, "Error")},
		}}
	}
}

func TestSmokePodIsRestrictedAndBounded(t *testing.T) {
	s := newLab(t).newSmoke(func(c *SmokeConfig) { c.Labels = map[string]string{"team": "shop", managedByLabel: "other"} })
	p := s.pod(release(t), "http://shop/")
	q := s.pod(release(t), "http://shop/")
	assert.NotEqual(t, p.Name, q.Name)
	assert.Regexp(t, `^smoke-shop-[a-z2-7]{10}$`, p.Name)
	assert.Equal(t, map[string]string{"team": "shop", managedByLabel: "fairlead", componentLabel: smokeComponent, instanceLabel: "shop"}, p.Labels)
	assert.Equal(t, int64(60), *p.Spec.ActiveDeadlineSeconds)
	assert.Equal(t, corev1.RestartPolicyNever, p.Spec.RestartPolicy)
	assert.False(t, *p.Spec.AutomountServiceAccountToken)
	assert.True(t, *p.Spec.SecurityContext.RunAsNonRoot)
	assert.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, p.Spec.SecurityContext.SeccompProfile.Type)
	c := p.Spec.Containers[0]
	assert.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	assert.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
	assert.Equal(t, pinnedTo(digestB), c.Image)
	assert.Equal(t, []string{"curl"}, c.Command)
	assert.Equal(t, []string{
		"--silent", "--show-error", "--max-time", "5", "--retry", "4", "--retry-delay", "1", "--retry-all-errors",
		"--write-out", `\nfairlead-smoke: %{http_code} %{time_total}\n`, "--fail", "--", "http://shop/",
	}, c.Args)
}

func TestSmokePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		s := l.newSmoke(func(c *SmokeConfig) { c.Body = "fake" })
		r, pod := l.smoke(t.Context(), s)
		assert.Equal(t, "http://shop.shop.svc/healthz", pod.Spec.Containers[0].Args[len(pod.Spec.Containers[0].Args)-1])
		l.put(as(pod, finish(0)))
		require.True(t, r.over())
		require.NoError(t, r.err)
		assert.Equal(t, image(t, digestA), r.result.Image)
		assert.Equal(t, "smoke GET http://shop.shop.svc/healthz", r.result.Checks[0].Name)
		assert.Empty(t, l.pods(), "the pod is cleaned up")
	})
}

func TestSmokeFails(t *testing.T) {
	tests := map[string]struct {
		config func(*SmokeConfig)
		pod    func(*corev1.Pod)
		cause  Cause
		text   string
	}{
		"connection refused": {nil, finish(7), SmokeFailed, "GET http://shop.shop.svc/healthz: exit code 7 (connection refused)"},
		"wrong body":         {func(c *SmokeConfig) { c.Body = "healthy" }, finish(0), SmokeFailed, `doesn't contain "healthy"`},
		"wrong status":       {func(c *SmokeConfig) { c.Status = 204 }, finish(0), SmokeFailed, "returned status unknown, expected 204"},
		"image not found": {nil, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: smokeContainer}}
			waiting("ErrImagePull", "manifest unknown: not found")(p)
		}, ImageNotFound, "manifest unknown"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				r, pod := l.smoke(t.Context(), l.newSmoke(test.config))
				l.put(as(pod, test.pod))
				require.True(t, r.over())
				f := r.failure(t)
				assert.Equal(t, test.cause, f.Cause)
				assert.Contains(t, f.Error(), test.text)
				assert.Contains(t, f.Error(), "release shop/shop: Smoke shop/shop: pod shop/smoke-shop-")
				if test.cause == SmokeFailed {
					assert.Equal(t, []string{"fake logs"}, f.Decisive.Logs)
				}
				assert.Empty(t, l.pods(), "the pod is cleaned up")
			})
		})
	}
}

func TestSmokeIsCleanedUpOnCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		r, _ := l.smoke(ctx, l.newSmoke(nil))
		cancel(stop)
		require.True(t, r.over())
		require.ErrorIs(t, r.err, stop)
		assert.Empty(t, l.pods())
	})
}

func TestSmokeSweepsOnlyOldEndedPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		s := l.newSmoke(nil)
		for name, age := range map[string]time.Duration{"stale": time.Hour, "recent": time.Second} {
			p := s.pod(release(t), "http://shop/")
			p.Name, p.Status.Phase, p.CreationTimestamp = name, corev1.PodSucceeded, metav1.NewTime(time.Now().Add(-age))
			l.put(p)
		}
		s.sweep(t.Context(), s.pod(release(t), "http://shop/"))
		all := l.pods()
		require.Len(t, all, 1)
		assert.Equal(t, "recent", all[0].Name)
	})
}

func TestSmokeRefusesBadConfig(t *testing.T) {
	good := SmokeConfig{Image: image(t, digestA), URL: "http://shop/"}
	for name, change := range map[string]func(*SmokeConfig){
		"no image":        func(c *SmokeConfig) { c.Image = stages.Image{} },
		"no URL":          func(c *SmokeConfig) { c.URL = "" },
		"relative URL":    func(c *SmokeConfig) { c.URL = "/healthz" },
		"other scheme":    func(c *SmokeConfig) { c.URL = "file:///etc/passwd" },
		"credentials":     func(c *SmokeConfig) { c.URL = "http://u:p@shop/" },
		"broken template": func(c *SmokeConfig) { c.URL = "http://{{.Release" },
		"unknown field":   func(c *SmokeConfig) { c.URL = "http://{{.Revision}}/" },
		"status":          func(c *SmokeConfig) { c.Status = 42 },
		"root":            func(c *SmokeConfig) { c.User = -1 },
		"timeout":         func(c *SmokeConfig) { c.Timeout = time.Millisecond },
		"no cluster":      func(*SmokeConfig) {},
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			change(&c)
			_, err := NewSmoke(c)
			require.ErrorIs(t, err, stages.ErrInvalid)
		})
	}
}
