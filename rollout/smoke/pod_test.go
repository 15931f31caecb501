package smoke

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	k8stesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

func (l lab) pod(ends stages.Verifier, change func(*PodConfig)) *podTest {
	l.t.Helper()
	c := PodConfig{Image: image(l.t, "curl", "c"), URL: "http://{{.Release}}.{{.Namespace}}.svc/healthz"}
	if change != nil {
		change(&c)
	}
	p, err := newPodTest(c)
	require.NoError(l.t, err)
	p.cluster, p.ended = l.cluster(), ends
	return p
}

func TestPodIsRestrictedAndBounded(t *testing.T) {
	p := newLab(t).pod(nil, func(c *PodConfig) {
		c.Labels = map[string]string{"team": "shop", managedByLabel: "other"}
		c.HeadersFrom, c.CAFrom = KeyRef{"access", "headers"}, KeyRef{"trust", "ca.crt"}
	})
	pod := p.pod(release(t), newScript(p, "http://shop/"))
	other := p.pod(release(t), newScript(p, "http://shop/"))
	assert.NotEqual(t, pod.Name, other.Name)
	assert.Regexp(t, `^smoke-shop-[a-z2-7]{10}$`, pod.Name)
	assert.Equal(t, map[string]string{"team": "shop", managedByLabel: "fairlead", componentLabel: component, instanceLabel: "shop"}, pod.Labels)
	assert.Equal(t, int64(60), *pod.Spec.ActiveDeadlineSeconds)
	assert.Equal(t, corev1.RestartPolicyNever, pod.Spec.RestartPolicy)
	assert.False(t, *pod.Spec.AutomountServiceAccountToken)
	assert.True(t, *pod.Spec.SecurityContext.RunAsNonRoot)
	assert.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.Spec.SecurityContext.SeccompProfile.Type)
	c := pod.Spec.Containers[0]
	assert.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	assert.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
	assert.NotEmpty(t, c.Resources.Limits)
	assert.Equal(t, []string{"curl"}, c.Command)
	assert.Equal(t, "access", pod.Spec.Volumes[0].Secret.SecretName)
	assert.Equal(t, "trust", pod.Spec.Volumes[1].ConfigMap.Name)
	assert.Contains(t, strings.Join(c.Args, " "), "--header @/run/fairlead/headers/headers --cacert /run/fairlead/ca/ca.pem")
}

// TestCurl has the real program do what the pod would.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("SKIPPED, NOTHING PROVEN: curl is not installed")
	}
	require.NoError(t, err)
	var visits atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch visit := visits.Add(1); {
		case r.URL.Path == "/late" && visit == 1, r.URL.Path == "/flaky" && visit == 3:
			http.Error(w, "not now", http.StatusServiceUnavailable)
		case r.URL.Path == "/hangup":
			panic(http.ErrAbortHandler)
		default:
			say(w, "hello\nfairlead-smoke-FORGED 200 0.1 0 \n")
		}
	}))
	t.Cleanup(server.Close)
	server.Config.ErrorLog = nil
	for name, test := range map[string]struct {
		path     string
		expect   Expect
		statuses []int
		failed   bool
	}{
		"fine":            {"/", Expect{Contains: "hello"}, []int{200}, false},
		"brackets":        {"/[1-3]{a,b}", Expect{}, []int{200}, false},
		"comes up":        {"/late", Expect{Attempts: 2}, []int{200, 200}, false},
		"flaky":           {"/flaky", Expect{Attempts: 4, Successes: 3}, []int{200, 503, 200, 200}, false},
		"flaky, all":      {"/flaky", Expect{Attempts: 4}, []int{200, 503, 200, 200}, true},
		"error":           {"/late", Expect{Retries: -1}, []int{503}, true},
		"error expected":  {"/late", Expect{Retries: -1, Status: 503}, []int{503}, false},
		"connection lost": {"/hangup", Expect{Retries: -1, Attempts: 2}, []int{0, 0}, true},
	} {
		t.Run(name, func(t *testing.T) {
			visits.Store(0)
			p := newLab(t).pod(nil, func(c *PodConfig) { c.Expect = test.expect })
			s := newScript(p, server.URL+test.path)
			output, _ := exec.CommandContext(t.Context(), curl, s.arguments...).Output()
			fetched := s.parse(string(output))
			require.Len(t, fetched, len(test.statuses), "%s", output)
			tally := requests(p.expect, "GET", p.clean)
			for i, a := range fetched {
				tally.add(a)
				assert.Equal(t, test.statuses[i], a.Status)
			}
			assert.Equal(t, !test.failed, tally.pass(), "%v", tally.problems)
		})
	}
}

func podVerify(ctx context.Context, t *testing.T, p *podTest) error {
	t.Helper()
	_, err := p.test().Verify(ctx, release(t))
	return err
}

func TestPodReportsWhatTheWatcherSaw(t *testing.T) {
	l := newLab(t)
	pull := stages.Permanent(&rollout.Failure{Cause: rollout.ImageNotFound, Decisive: stages.Evidence{Subject: "pod shop/x", Reason: "ErrImagePull", Message: "manifest unknown"}})
	f := requireFailure(t, podVerify(t.Context(), t, l.pod(outcome(pull), nil)))
	assert.Equal(t, rollout.ImageNotFound, f.Cause)
	assert.Equal(t, "release shop/shop: Smoke shop/shop: pod shop/x: ErrImagePull: manifest unknown", f.Error())
	assert.Empty(t, l.pods(), "the pod is cleaned up")

	f = requireFailure(t, podVerify(t.Context(), t, l.pod(outcome(ended(rollout.Crash, 2)), nil)))
	assert.Equal(t, rollout.Crash, f.Cause, "a program that is no curl tells by its own output")

	err := podVerify(t.Context(), t, l.pod(outcome(nil), nil))
	f = requireFailure(t, err)
	assert.Equal(t, rollout.SmokeFailed, f.Cause)
	assert.Contains(t, err.Error(), "the pod wrote no result", "no data is never a pass")
}

func TestPodIsCleanedUpOnCancelAndTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		test, rel := l.pod(waiting, nil).test(), release(t)
		go func() {
			_, err := test.Verify(ctx, rel)
			done <- err
		}()
		synctest.Wait()
		require.Len(t, l.pods(), 1)
		cancel(stop)
		require.ErrorIs(t, <-done, stop)
		assert.Empty(t, l.pods())

		err := podVerify(t.Context(), t, l.pod(waiting, nil))
		require.ErrorIs(t, err, stages.ErrIndeterminate)
		assert.Empty(t, l.pods())
	})
}

func TestPodCleanupSurvivesAPIErrors(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		failures := 3
		l.client.PrependReactor("delete", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
			failures--
			return failures >= 0, nil, apierrors.NewInternalError(errors.New("etcd is away"))
		})
		requireFailure(t, podVerify(t.Context(), t, l.pod(outcome(ended(rollout.Crash, 2)), nil)))
		assert.Empty(t, l.pods())
	})
}

func TestPodThatCanNotBeDeleted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		away := func(err error) thing {
			return thing{resource: "pods", meta: &metav1.ObjectMeta{Namespace: ns, Name: "x"}, deadline: time.Minute, remove: func(context.Context, metav1.DeleteOptions) error { return err }}
		}
		passed := stages.Check{Message: "fine"}
		check, err := cleanUp(t.Context(), away(errors.New("etcd is away")), time.Second, cleaner{}, passed, nil)
		require.NoError(t, err, "a release that passed is not to blame")
		assert.Contains(t, check.Message, "fine; left shop/x behind, which ends by itself within 1m0s")
		_, err = cleanUp(t.Context(), away(apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errors.New("no"))), time.Second, cleaner{}, passed, nil)
		require.ErrorContains(t, err, "grant the verb delete on pods in namespace shop")
	})
}

func TestPodThatIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		message string
		cause   rollout.Cause
		text    string
	}{
		"quota":        {"exceeded quota: pods, requested: pods=1", rollout.QuotaExceeded, "raise the ResourceQuota"},
		"pod security": {`violates PodSecurity "restricted:latest"`, rollout.PodSecurity, "meet the namespace's Pod Security level"},
		"rights":       {`User "bot" cannot create resource "pods"`, "", "grant the verb create on pods in namespace shop"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.client.PrependReactor("create", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New(test.message))
			})
			err := podVerify(t.Context(), t, l.pod(outcome(nil), nil))
			require.ErrorContains(t, err, test.text)
			assert.True(t, stages.IsPermanent(err))
			if test.cause != "" {
				assert.Equal(t, test.cause, requireFailure(t, err).Cause)
			}
		})
	}
}

func TestPodBelongsToTheRelease(t *testing.T) {
	l := newLab(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "deployment"}})
	owners := l.cluster().owner(t.Context(), release(t), ns)
	assert.Equal(t, []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "shop", UID: "deployment"}}, owners)
	assert.Empty(t, l.cluster().owner(t.Context(), release(t), "elsewhere"), "no owner in another namespace")
	assert.Empty(t, newLab(t).cluster().owner(t.Context(), release(t), ns))
}

func TestSweepTakesOnlyWhatIsOursAndOverdue(t *testing.T) {
	l := newLab(t)
	p := l.pod(nil, nil)
	made := p.pod(release(t), script{})
	made.CreationTimestamp = metav1.Now()
	for name, age := range map[string]time.Duration{"overdue": 2 * time.Minute, "perhaps-alive": 80 * time.Second} {
		old := p.pod(release(t), script{})
		old.Name, old.CreationTimestamp = name, metav1.NewTime(made.CreationTimestamp.Add(-age))
		require.NoError(t, l.client.Tracker().Add(old))
	}
	others := release(t)
	others.Name = "cart"
	for name, change := range map[string]func(*corev1.Pod){
		"somebody-elses": func(p *corev1.Pod) { p.Labels = map[string]string{"app": "shop"} },
		"no-deadline":    func(p *corev1.Pod) { p.Annotations = nil },
		"of-a-job": func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "Job", Name: "x", Controller: new(bool)}}
			*p.OwnerReferences[0].Controller = true
		},
		"of-another-release": func(pod *corev1.Pod) { pod.Labels[instanceLabel] = labelValue(others.Name) },
	} {
		old := p.pod(release(t), script{})
		old.Name, old.CreationTimestamp = name, metav1.NewTime(made.CreationTimestamp.Add(-time.Hour))
		change(old)
		require.NoError(t, l.client.Tracker().Add(old))
	}
	l.cluster().sweepPods(t.Context(), release(t), made)
	var left []string
	for _, pod := range l.pods() {
		left = append(left, pod.Name)
	}
	assert.ElementsMatch(t, []string{"perhaps-alive", "somebody-elses", "no-deadline", "of-a-job", "of-another-release"}, left)
}

func TestPodRefusesBadConfig(t *testing.T) {
	good := PodConfig{REST: &rest.Config{Host: "https://kubernetes.example"}, Image: image(t, "curl", "c"), URL: "http://shop/"}
	_, err := NewPod(good)
	require.NoError(t, err)
	for name, change := range map[string]func(*PodConfig){
		"no cluster":          func(c *PodConfig) { c.REST = nil },
		"no image":            func(c *PodConfig) { c.Image = stages.Image{} },
		"no URL":              func(c *PodConfig) { c.URL = "" },
		"relative URL":        func(c *PodConfig) { c.URL = "/healthz" },
		"other scheme":        func(c *PodConfig) { c.URL = "file:///etc/passwd" },
		"user and password":   func(c *PodConfig) { c.URL = "http://u:canary@shop/" },
		"token in the query":  func(c *PodConfig) { c.URL = "http://shop/?access_token=canary" },
		"escaped token":       func(c *PodConfig) { c.URL = "http://shop/?access%5Ftoken=canary" },
		"broken URL":          func(c *PodConfig) { c.URL = "http://u:canary@shop:x/%zz" },
		"secret header":       func(c *PodConfig) { c.Headers = map[string]string{"Authorization": "canary"} },
		"header as secret":    func(c *PodConfig) { c.Headers = map[string]string{"X-Shop": "Bearer canary-canary"} },
		"two headers":         func(c *PodConfig) { c.Headers = map[string]string{"X": "a\r\nCookie: canary"} },
		"broken template":     func(c *PodConfig) { c.URL = "http://{{.Release" },
		"unknown field":       func(c *PodConfig) { c.URL = "http://{{.Digest}}/" },
		"status":              func(c *PodConfig) { c.Expect.Status = 42 },
		"root":                func(c *PodConfig) { c.User = -1 },
		"timeout":             func(c *PodConfig) { c.Timeout = time.Millisecond },
		"half a reference":    func(c *PodConfig) { c.HeadersFrom.Name = "access" },
		"redirected secrets":  func(c *PodConfig) { c.HeadersFrom, c.Redirects = KeyRef{"a", "b"}, 1 },
		"more than all":       func(c *PodConfig) { c.Expect.Attempts, c.Expect.Successes = 3, 4 },
		"too many":            func(c *PodConfig) { c.Expect.Attempts = 1 << 20 },
		"pattern":             func(c *PodConfig) { c.Expect.Matches = "(" },
		"path without braces": func(c *PodConfig) { c.Expect.JSON = []JSON{{Path: ".status"}} },
		"broken path":         func(c *PodConfig) { c.Expect.JSON = []JSON{{Path: "{.status[}"}} },
		"value that is no JSON": func(c *PodConfig) {
			c.Expect.JSON = []JSON{{Path: "{.status}", Want: func() {}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			change(&c)
			_, err := NewPod(c)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.NotContains(t, err.Error(), "canary")
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("\nM reached\nhello\nM 200 0.01 0 \n")
	f.Add("\nM reached\n\nM 000 0.000 7 Failed to connect\n\nM 200 1,5 0 \n")
	f.Add("\nM reached\n\nM -1 NaN 0")
	f.Fuzz(func(t *testing.T, output string) {
		for _, a := range (script{mark: "M", reaching: true}).parse(output) {
			assert.True(t, a.err != nil || a.Status > 0)
			assert.GreaterOrEqual(t, a.Latency, time.Duration(0))
		}
	})
}
