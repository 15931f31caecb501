package rollout

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/stages"
)

// A command can be pasted into a shell, whatever the names in it are.
func TestCommandsTakeNamesAsWords(t *testing.T) {
	for name, want := range map[string]string{
		"system:serviceaccount:kube-system:x": "--as=system:serviceaccount:kube-system:x",
		"a b; rm -rf ~ $(id) `id` \" > x":     "--as='a b; rm -rf ~ $(id) `id` \" > x'",
		"it's":                                `--as='it'\''s'`,
		"a\nb":                                "",
		"a\x1b[2Jb":                           "",
		"-v":                                  "",
		"a\u202eb":                            "",
		"{pod}":                               "",
	} {
		commands := AdviceFor(ControllerForbidden).filled(map[string]string{"namespace": "shop", "user": name}).Commands
		if want == "" {
			assert.Empty(t, commands, "%q", name)
			continue
		}
		require.Len(t, commands, 1, "%q", name)
		assert.Equal(t, "kubectl auth can-i create pods -n shop "+want, commands[0])
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+commands[0][strings.Index(commands[0], "--as"):]).Output()
		require.NoError(t, err)
		assert.Equal(t, "--as="+name, string(out), "what a shell makes of it")
	}
}

// What a custom resource's controller, or whoever may write its status, says is
// shown without effect on a terminal, without secrets, and at bounded length.
func TestHostileCustomResource(t *testing.T) {
	widget := func(status, reason, message string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.com/v1", "kind": "Widget",
			"metadata": map[string]any{"namespace": ns, "name": "w", "generation": int64(1)},
			"status":   map[string]any{"conditions": []any{map[string]any{"type": "Stalled", "status": status, "reason": reason, "message": message}}},
		}}
	}
	hostile := "\x1b[2J\u202e\x07 password=hunter2hunter2 " + strings.Repeat("x", 1<<20)
	object := stages.Object{APIVersion: "example.com/v1", Kind: "Widget", Name: "w"}
	harmless := func(t *testing.T, text string) {
		t.Helper()
		assert.NotContains(t, text, "hunter2")
		assert.False(t, strings.ContainsAny(text, "\x1b\u202e\x07"), "%.100q", text)
		assert.Less(t, len(text), 4000)
	}
	t.Run("in a failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, widget("True", hostile, hostile))
			l.config.AllowUnused = true
			f := l.start(t.Context(), release(t, object)).failure(t)
			for _, text := range []string{f.Error(), f.Decisive.Reason, f.Decisive.Message, strings.Join(f.Decisive.Events, "\n")} {
				harmless(t, text)
			}
		})
	})
	t.Run("in a verification", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, widget("False", "", ""))
			l.config.AllowUnused = true
			l.config.Readiness = []Readiness{{Group: "example.com", Kind: "Widget", Check: func(*unstructured.Unstructured) (State, string) {
				return StateReady, hostile
			}}}
			r := l.start(t.Context(), release(t, object))
			require.True(t, r.over())
			require.NoError(t, r.err)
			require.Len(t, r.result.Checks, 1)
			harmless(t, r.result.Checks[0].Message)
		})
	})
}

// However long a message is, the verdict doesn't wait for it.
func TestHugeMessage(t *testing.T) {
	huge := strings.Repeat("a: b ", 8<<20)
	began := time.Now()
	cause, _ := classify(waitingPatterns, "ErrImagePull", huge+"manifest unknown")
	assert.Equal(t, ImageNotFound, cause)
	settingsOf(t, Config{}).clean.line(huge)
	assert.Less(t, time.Since(began), 5*time.Second)
}

func TestHostileScheduling(t *testing.T) {
	w := witness{settings: settingsOf(t, Config{})}
	s, ok := parseScheduling("0/3 nodes are available: " + strings.Repeat("1 node(s) had untolerated taint {a\x1b[2J: token=abcdefgh}, ", 1000) + "1 x.")
	require.True(t, ok)
	shown := w.scheduling(&s)
	assert.LessOrEqual(t, len(shown.Predicates), maxPredicates)
	assert.NotContains(t, shown.Predicates[0].Message, "\x1b")
	assert.NotContains(t, shown.Predicates[0].Message, "abcdefgh")
	assert.Nil(t, w.scheduling(nil))
}

// What else is wrong points at its own workload, not at the one that failed first.
func TestOtherWorkloadsAreCalledByTheirNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop, blog := newApp(t, ns, "shop"), newApp(t, ns, "blog")
		shop.deployment.Spec.Template.Spec.Containers[0].Name = "web"
		blog.set.Status.Conditions = append(blog.set.Status.Conditions, refusedBy("exceeded quota: compute, requested: cpu=1, used: cpu=1, limited: cpu=1"))
		shop.set.Spec.Template.Spec.Containers[0].Name = "web"
		pod := as(shop.pod, waiting("InvalidImageName", "no"))
		pod.Spec.Containers[0].Name, pod.Status.ContainerStatuses[0].Name = "web", "web"
		l := newLab(t, shop.deployment, shop.set, pod, blog.deployment, blog.set)
		r := release(t, shop.release.Objects[0], blog.release.Objects[0])
		f := l.start(t.Context(), r).failure(t)
		assert.Equal(t, "shop", f.Workload.Name)
		var quota *stages.Evidence
		for i, e := range f.Others {
			if strings.Contains(e.Message, "exceeded quota") {
				quota = &f.Others[i]
			}
		}
		require.NotNil(t, quota, "%+v", f.Others)
		assert.Equal(t, "spec.template.spec.containers[name=app].resources.requests.cpu", quota.Field)
		found := AdviceFor(QuotaExceeded).filled(map[string]string{"namespace": ns, "workload": "deployment/blog"})
		assert.Equal(t, found.Commands[0], quota.Command)
	})
}

// A container that a webhook put into the pod has no place in the manifest.
func TestInjectedContainerHasNoField(t *testing.T) {
	f := finding{cause: Crash, container: "proxy", pod: &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}, {Name: "proxy"}}}}}
	f.template = &corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}
	assert.Empty(t, field("Deployment", f, f.spec()))
	f.container = "app"
	assert.Equal(t, "spec.template.spec.containers[name=app]", field("Deployment", f, f.spec()))
}

func TestReconsideredWithoutAField(t *testing.T) {
	f := &Failure{Cause: Crash, Decisive: stages.Evidence{Logs: []string{"exec format error"}}}
	f.reconsider()
	assert.Equal(t, ImageWrongPlatform, f.Cause)
	assert.Empty(t, f.Decisive.Field)
}

// A failure that was written down and read again is the same failure.
func TestFailureAsJSON(t *testing.T) {
	code := int32(3)
	for _, f := range []*Failure{
		{
			Release: "shop/shop", Workload: stages.Object{Kind: "Deployment", Name: "shop"}, Cause: ImageMismatch, Role: "sidecar", Signal: 9, Restarts: 2,
			Probe: &Probe{Kind: ProbeLiveness, Target: "tcp :80", Response: "refused"}, Scheduling: &Scheduling{Nodes: 1, Predicates: []Predicate{{Kind: PredicateTaint, Nodes: 1, Message: "m"}}},
			Decisive: stages.Evidence{Subject: "pod shop/a", Reason: "r", ExitCode: &code, Logs: []string{"l"}}, Advice: AdviceFor(ImageMismatch),
			Others: []stages.Evidence{{Subject: "pod shop/b"}}, Elapsed: time.Minute,
		},
		{Cause: TimedOut, Pending: ImageMismatch},
		{Cause: TimedOut, Pending: Crash},
	} {
		data, err := json.Marshal(f)
		require.NoError(t, err)
		var again Failure
		require.NoError(t, json.Unmarshal(data, &again))
		assert.Equal(t, *f, again)
		assert.Equal(t, f.Error(), again.Error())
		mismatch := f.Cause == ImageMismatch || f.Pending == ImageMismatch
		assert.Equal(t, mismatch, errors.Is(&again, stages.ErrSubjectMismatch))
	}
}

// Pods of a former revision that somebody has deleted need nobody to delete them.
func TestOnDeleteWhilePodsLeave(t *testing.T) {
	now := metav1.Now()
	old, current := &corev1.Pod{}, &corev1.Pod{}
	assert.True(t, leftAlone([]*corev1.Pod{old, current}, []*corev1.Pod{current}))
	old.DeletionTimestamp = &now
	assert.False(t, leftAlone([]*corev1.Pod{old, current}, []*corev1.Pod{current}))
}

func refusedBy(message string) appsv1.ReplicaSetCondition {
	return appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: message}
}
