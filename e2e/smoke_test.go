package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/smoke"
	"github.com/fairlead-dev/fairlead/rollout/smoke/grpcprobe"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

const smokeLabel = "app.kubernetes.io/component=smoke-test"

// smokeLab is a release in a namespace that enforces the restricted level, a limit
// range and a quota.
type smokeLab struct {
	w    *world
	rel  stages.Release
	curl stages.Image
}

func newSmokeLab(t *testing.T) smokeLab {
	w := newWorld(t)
	ns := w.namespace(t)
	w.restrict(t, ns)
	curl, err := stages.ParseImage(w.box.Base.Base)
	require.NoError(t, err)
	_, err = w.kube.CoreV1().Secrets(ns).Create(labtest.Context(t), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "access"}, StringData: map[string]string{"headers": "Authorization: Bearer canary-pod-4711\n", "word": "canary-job-4711"},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return smokeLab{w, w.serve(t, ns, w.answerer(t)), curl}
}

func (l smokeLab) pod(t *testing.T, path string, expect smoke.Expect, changes ...func(*smoke.PodConfig)) *smoke.Test {
	c := smoke.PodConfig{REST: l.w.rest, Image: l.curl, URL: "http://{{.Release}}.{{.Namespace}}.svc" + path, Expect: expect}
	for _, change := range changes {
		change(&c)
	}
	return made(t)(smoke.NewPod(c))
}

func (l smokeLab) http(t *testing.T, path string, expect smoke.Expect, changes ...func(*smoke.HTTPConfig)) *smoke.Test {
	c := smoke.HTTPConfig{REST: l.w.rest, Target: smoke.Target{Port: "http"}, Path: path, Expect: expect}
	for _, change := range changes {
		change(&c)
	}
	return made(t)(smoke.NewHTTP(c))
}

func (l smokeLab) job(t *testing.T, program string, expect smoke.Expect, changes ...func(*smoke.JobConfig)) *smoke.Test {
	c := smoke.JobConfig{REST: l.w.rest, Command: []string{"/answerer", program}, Expect: expect}
	for _, change := range changes {
		change(&c)
	}
	return made(t)(smoke.NewJob(c))
}

func made(t *testing.T) func(*smoke.Test, error) *smoke.Test {
	return func(test *smoke.Test, err error) *smoke.Test {
		t.Helper()
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, test.Close()) })
		return test
	}
}

// requireNothingLeft checks that no pod and no job of a smoke test is left.
func (l smokeLab) requireNothingLeft(t *testing.T) {
	t.Helper()
	ctx := labtest.Context(t)
	jobs, err := l.w.kube.BatchV1().Jobs(l.rel.Namespace).List(ctx, metav1.ListOptions{LabelSelector: smokeLabel})
	require.NoError(t, err)
	require.Empty(t, jobs.Items)
	pods, err := l.w.kube.CoreV1().Pods(l.rel.Namespace).List(ctx, metav1.ListOptions{LabelSelector: smokeLabel})
	require.NoError(t, err)
	for _, pod := range pods.Items { // the cluster deletes a job's pods after it
		require.NotEmpty(t, pod.OwnerReferences, pod.Name)
	}
}

func TestSmokePasses(t *testing.T) {
	t.Parallel()
	l := newSmokeLab(t)
	fine := smoke.Expect{Status: 200, Contains: "ok", Matches: `"name":"(db|cache)"`, JSON: []smoke.JSON{{Path: "{.status}", Want: "ok"}}, MaxLatency: 3 * time.Second, Attempts: 5}
	flaky := smoke.Expect{Attempts: 10, Successes: 8}
	secret := func(c *smoke.PodConfig) { c.HeadersFrom = smoke.KeyRef{Name: "access", Key: "headers"} }
	secretly := func(c *smoke.HTTPConfig) {
		c.SecretHeaders = func(context.Context) (http.Header, error) {
			return http.Header{"Authorization": {"Bearer canary-http-4711"}}, nil
		}
	}
	for name, test := range map[string]struct {
		test    *smoke.Test
		message string
	}{
		"pod":                   {l.pod(t, "/ok", fine), "5 of 5 requests passed, status 200"},
		"pod, flaky endpoint":   {l.pod(t, "/flaky", flaky), "of 10 requests passed"},
		"pod, header of Secret": {l.pod(t, "/private", smoke.Expect{Contains: "welcome"}, secret), "status 200"},
		"pod, expected error":   {l.pod(t, "/private", smoke.Expect{Status: 401}), "status 401"},
		"HTTP":                  {l.http(t, "/ok", fine), "5 of 5 requests passed, status 200"},
		"HTTP, flaky endpoint":  {l.http(t, "/flaky", flaky), "requests passed"},
		"HTTP, secret header":   {l.http(t, "/private", smoke.Expect{Contains: "welcome"}, secretly), "status 200"},
		"HTTP, deployment":      {l.http(t, "/ok", fine, func(c *smoke.HTTPConfig) { c.Target.Name = "deployment/shop" }), "status 200"},
		"job":                   {l.job(t, "pass", smoke.Expect{Matches: `(?m)^all \d+ checks passed$`}), "bytes"},
		"job, 2 of 3":           {l.job(t, "second", smoke.Expect{Attempts: 3, Successes: 2}), "2 of 3 runs passed"},
		"job, environment of Secret": {l.job(t, "secret", smoke.Expect{Contains: "15 characters"}, func(c *smoke.JobConfig) {
			c.Env = []corev1.EnvVar{{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "access"}, Key: "word"}}}}
		}), "bytes"},
		"TCP": {made(t)(smoke.NewTCP(smoke.TCPConfig{REST: l.w.rest, Target: smoke.Target{Port: "tcp"}})), "connected"},
		"TCP, answer": {made(t)(smoke.NewTCP(smoke.TCPConfig{
			REST: l.w.rest, Target: smoke.Target{Port: "9000"}, Send: "PING\r\n", Expect: smoke.Expect{Contains: "+PONG PING"},
		})), "bytes"},
		"gRPC":              {made(t)(grpcprobe.New(grpcprobe.Config{REST: l.w.rest, Target: smoke.Target{Port: "grpc"}, Expect: smoke.Expect{Attempts: 3}})), "SERVING"},
		"gRPC, one service": {made(t)(grpcprobe.New(grpcprobe.Config{REST: l.w.rest, Target: smoke.Target{Port: "grpc"}, Service: "shop.Orders"})), "SERVING"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := test.test.Verify(labtest.Context(t), l.rel)
			require.NoError(t, err)
			require.Len(t, v.Checks, 1)
			t.Logf("%s: %s (%s)", v.Checks[0].Name, v.Checks[0].Message, v.Checks[0].Elapsed)
			assert.Contains(t, v.Checks[0].Message, test.message)
			assert.NotContains(t, v.Checks[0].Message, "canary")
			l.requireNothingLeft(t)
		})
	}
}

func TestSmokeFails(t *testing.T) {
	t.Parallel()
	l := newSmokeLab(t)
	foreign, err := stages.ParseImage(l.rel.Image.Repository() + "@sha256:" + strings.Repeat("0", 64))
	require.NoError(t, err)
	other := l.rel
	other.Image = foreign
	json := func(want any) smoke.Expect {
		return smoke.Expect{JSON: []smoke.JSON{{Path: "{.checks[*].status}", Want: want}}}
	}
	none := smoke.Expect{Retries: -1}
	for name, test := range map[string]struct {
		test *smoke.Test
		rel  stages.Release
		text string
	}{
		"pod, status":        {l.pod(t, "/ok", smoke.Expect{Status: 204}), l.rel, "GET http://shop." + l.rel.Namespace + ".svc/ok: returned status 200, expected 204"},
		"pod, server error":  {l.pod(t, "/broken", none), l.rel, "returned status 500, expected one below 400"},
		"pod, body":          {l.pod(t, "/ok", smoke.Expect{Contains: "splendid"}), l.rel, `doesn't contain "splendid"`},
		"pod, JSON":          {l.pod(t, "/ok", json("ok")), l.rel, `JSON path {.checks[*].status} is "stale", expected "ok"`},
		"pod, latency":       {l.pod(t, "/slow", smoke.Expect{MaxLatency: 100 * time.Millisecond}), l.rel, "more than 100ms"},
		"pod, no such name":  {l.pod(t, "/", none, func(c *smoke.PodConfig) { c.URL = "http://nobody.invalid/" }), l.rel, "the host's name doesn't resolve"},
		"pod, no HTTP":       {l.pod(t, "/", none, func(c *smoke.PodConfig) { c.URL = "http://{{.Release}}:9090/" }), l.rel, "exit code"},
		"pod, flaky":         {l.pod(t, "/flaky", smoke.Expect{Attempts: 10}), l.rel, "of 10 requests passed, 10 required; request"},
		"HTTP, status":       {l.http(t, "/ok", smoke.Expect{Status: 204}), l.rel, "GET /ok: returned status 200, expected 204"},
		"HTTP, server error": {l.http(t, "/broken", none), l.rel, "returned status 500, expected one below 400"},
		"HTTP, body":         {l.http(t, "/ok", smoke.Expect{Matches: "^splendid"}), l.rel, `doesn't match "^splendid"`},
		"HTTP, JSON":         {l.http(t, "/ok", json("ok")), l.rel, `JSON path {.checks[*].status} is "stale", expected "ok"`},
		"HTTP, latency":      {l.http(t, "/slow", smoke.Expect{MaxLatency: 100 * time.Millisecond}), l.rel, "more than 100ms"},
		"HTTP, time-out":     {l.http(t, "/stuck", none, func(c *smoke.HTTPConfig) { c.RequestTimeout = 3 * time.Second }), l.rel, "no answer within 3s"},
		"HTTP, flaky":        {l.http(t, "/flaky", smoke.Expect{Attempts: 10}), l.rel, "10 required; request"},
		"HTTP, old pods":     {l.http(t, "/ok", none), other, "that runs " + foreign.String()},
		"job, exit code":     {l.job(t, "fail", smoke.Expect{}), l.rel, "container smoke ended with exit code 3"},
		"job, output":        {l.job(t, "pass", smoke.Expect{Contains: "4 checks"}), l.rel, `doesn't contain "4 checks"`},
		"job, 3 of 3":        {l.job(t, "second", smoke.Expect{Attempts: 3}), l.rel, "3 required; run 2: container smoke ended with exit code 3"},
		"job, deadline":      {l.job(t, "hang", smoke.Expect{}, func(c *smoke.JobConfig) { c.Timeout = 4 * time.Second }), l.rel, "job /answerer hang: did not end: "},
		"TCP, closed":        {made(t)(smoke.NewTCP(smoke.TCPConfig{REST: l.w.rest, Target: smoke.Target{Name: "deployment/shop", Port: "9999"}, Expect: none})), l.rel, "refused"},
		"gRPC, not serving":  {made(t)(grpcprobe.New(grpcprobe.Config{REST: l.w.rest, Target: smoke.Target{Port: "grpc"}, Service: "shop.Returns"})), l.rel, "the health is NOT_SERVING"},
		"gRPC, no service":   {made(t)(grpcprobe.New(grpcprobe.Config{REST: l.w.rest, Target: smoke.Target{Port: "grpc"}, Service: "shop.None"})), l.rel, `doesn't know the service "shop.None"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.test.Verify(labtest.Context(t), test.rel)
			require.Error(t, err)
			t.Log(err)
			var f *rollout.Failure
			require.ErrorAs(t, err, &f)
			assert.True(t, stages.IsPermanent(err))
			assert.Contains(t, err.Error(), test.text)
			all := err.Error() + strings.Join(f.Decisive.Logs, "\n") + strings.Join(f.Decisive.Events, "\n")
			t.Log(strings.Join(f.Decisive.Logs, "\n"))
			assert.NotContains(t, all, "canary")
			l.requireNothingLeft(t)
		})
	}
}

func TestSmokeConforms(t *testing.T) {
	t.Parallel()
	l := newSmokeLab(t)
	bad := l.rel
	bad.Name = "nothing"
	for name, test := range map[string]func(t *testing.T) *smoke.Test{
		"pod":  func(t *testing.T) *smoke.Test { return l.pod(t, "/ok", smoke.Expect{Retries: 1}) },
		"HTTP": func(t *testing.T) *smoke.Test { return l.http(t, "/ok", smoke.Expect{Retries: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			stagestest.TestVerifier(t, func(t *testing.T) stagestest.VerifierHarness {
				return stagestest.VerifierHarness{Verifier: test(t), Good: l.rel, Bad: bad}
			})
		})
	}
}

func TestSmokeIsCleanedUpOnCancel(t *testing.T) {
	l := newSmokeLab(t)
	stop := errors.New("stop")
	for name, test := range map[string]*smoke.Test{
		"pod": l.pod(t, "/", smoke.Expect{}, func(c *smoke.PodConfig) { c.Command = []string{"sleep", "3600", "--"} }),
		"job": l.job(t, "hang", smoke.Expect{}),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(labtest.Context(t))
			pods, err := l.w.kube.CoreV1().Pods(l.rel.Namespace).Watch(ctx, metav1.ListOptions{LabelSelector: smokeLabel})
			require.NoError(t, err)
			go func() {
				<-pods.ResultChan()
				cancel(stop)
			}()
			_, err = test.Verify(ctx, l.rel)
			require.ErrorIs(t, err, stop)
			l.requireNothingLeft(t)
		})
	}
}

// TestSmokeOfAKilledProcess kills the process of a pod's and of a job's test. The
// cluster ends both; what is left of the pod is swept by the next test.
func TestSmokeOfAKilledProcess(t *testing.T) {
	t.Parallel()
	l := newSmokeLab(t)
	ctx := labtest.Context(t)
	for _, s := range []smoker{{Curl: l.curl.String()}, {}} {
		s.Kubeconfig, s.Release = l.w.box.Kubeconfig, l.rel
		pods, err := l.w.kube.CoreV1().Pods(l.rel.Namespace).Watch(ctx, metav1.ListOptions{LabelSelector: smokeLabel})
		require.NoError(t, err)
		cmd := player(ctx, t, smokerEnv, s)
		require.NoError(t, cmd.Start())
		running := func(e watch.Event) bool { return e.Object.(*corev1.Pod).Status.Phase == corev1.PodRunning }
		until(t, pods, running)
		require.NoError(t, cmd.Process.Kill())
		require.ErrorContains(t, cmd.Wait(), "killed")
		until(t, pods, func(e watch.Event) bool {
			return e.Type == watch.Deleted || e.Object.(*corev1.Pod).Status.Phase == corev1.PodFailed
		})
		pods.Stop()
	}
	jobs, err := l.w.kube.BatchV1().Jobs(l.rel.Namespace).List(ctx, metav1.ListOptions{LabelSelector: smokeLabel})
	require.NoError(t, err)
	require.Len(t, jobs.Items, 1)
	assert.NotNil(t, jobs.Items[0].Spec.TTLSecondsAfterFinished)
	assert.Equal(t, "Deployment", jobs.Items[0].OwnerReferences[0].Kind)

	left, err := l.w.kube.CoreV1().Pods(l.rel.Namespace).List(ctx, metav1.ListOptions{LabelSelector: smokeLabel + ",!" + batchv1.JobNameLabel})
	require.NoError(t, err)
	require.Len(t, left.Items, 1)
	assert.Equal(t, "Deployment", left.Items[0].OwnerReferences[0].Kind)
	due := time.NewTimer(time.Until(jobs.Items[0].CreationTimestamp.Add(smokerTimeout + 32*time.Second)))
	defer due.Stop()
	<-due.C // the server's clock is what counts, so it can't be turned
	for _, test := range []*smoke.Test{l.pod(t, "/ok", smoke.Expect{}), l.job(t, "pass", smoke.Expect{})} {
		_, err = test.Verify(ctx, l.rel)
		require.NoError(t, err)
	}
	l.requireNothingLeft(t)
}

func until(t *testing.T, w watch.Interface, found func(watch.Event) bool) {
	t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		select {
		case e, open := <-w.ResultChan():
			require.True(t, open)
			if found(e) {
				return
			}
		case <-timeout.C:
			require.FailNow(t, "the watch has not shown it within a minute")
		}
	}
}

// TestSmokeRights takes each right that the package's documentation names, and
// checks that its want is named.
func TestSmokeRights(t *testing.T) {
	t.Parallel()
	l := newSmokeLab(t)
	ns := l.rel.Namespace
	rule := func(group, resource string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
	}
	logs := rule("", "pods/log", "get")
	for name, test := range map[string]struct {
		rules []rbacv1.PolicyRule
		test  func(t *testing.T, l smokeLab) *smoke.Test
	}{
		"pod":  {[]rbacv1.PolicyRule{rule("", "pods", "create", "delete", "list", "watch"), logs}, func(t *testing.T, l smokeLab) *smoke.Test { return l.pod(t, "/ok", smoke.Expect{}) }},
		"job":  {[]rbacv1.PolicyRule{rule("batch", "jobs", "create", "delete", "list", "watch"), rule("", "pods", "list", "watch"), logs}, func(t *testing.T, l smokeLab) *smoke.Test { return l.job(t, "pass", smoke.Expect{}) }},
		"HTTP": {[]rbacv1.PolicyRule{rule("", "services", "get"), rule("", "pods", "list"), rule("apps", "replicasets", "list"), rule("apps", "deployments", "list"), rule("", "pods/portforward", "create")}, func(t *testing.T, l smokeLab) *smoke.Test { return l.http(t, "/ok", smoke.Expect{}) }},
	} {
		t.Run(name, func(t *testing.T) {
			for i, r := range test.rules {
				for j, verb := range r.Verbs {
					if verb == "watch" {
						continue // without it, what is watched is listed again and again
					}
					rules := make([]rbacv1.PolicyRule, len(test.rules))
					for k := range rules {
						rules[k] = *test.rules[k].DeepCopy()
					}
					if rules[i].Verbs = slices.Delete(rules[i].Verbs, j, j+1); len(rules[i].Verbs) == 0 {
						rules = slices.Delete(rules, i, i+1)
					}
					as := l
					as.w = l.w.withRights(t, ns, rules)
					_, err := test.test(t, as).Verify(labtest.Context(t), l.rel)
					require.Error(t, err, "%s %s", verb, r.Resources)
					assert.Contains(t, err.Error(), verb)
					assert.Contains(t, err.Error(), r.Resources[0])
					assert.True(t, stages.IsPermanent(err), err)
				}
			}
			as := l
			as.w = l.w.withRights(t, ns, test.rules)
			_, err := test.test(t, as).Verify(labtest.Context(t), l.rel)
			require.NoError(t, err)
		})
	}
}
