package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/rollout/smoke"
	"github.com/fairlead-dev/fairlead/stages"
)

// motto is a pod that says what its configuration has it say, and that goes on
// serving for a while when it is deleted.
func motto(name, text string, img stages.Image) corev1.PodTemplateSpec {
	linger := int64(60)
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &linger,
			Containers: []corev1.Container{{
				Name: "answerer", Image: img.String(), Env: []corev1.EnvVar{{Name: "MOTTO", Value: text}},
				Ports:          []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ok", Port: intstr.FromString("http")}}, PeriodSeconds: 1},
				Lifecycle:      &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: linger - 5}}},
			}},
		},
	}
}

// awaitPods waits until the pods of an application are as they should be.
func (w *world) awaitPods(t *testing.T, namespace, app string, as func([]corev1.Pod) bool) {
	t.Helper()
	ctx, selected := labtest.Context(t), metav1.ListOptions{LabelSelector: "app=" + app}
	changes, err := w.kube.CoreV1().Pods(namespace).Watch(ctx, selected)
	require.NoError(t, err)
	defer changes.Stop()
	for {
		list, err := w.kube.CoreV1().Pods(namespace).List(ctx, selected)
		require.NoError(t, err)
		if as(list.Items) {
			return
		}
		if _, open := <-changes.ResultChan(); !open {
			t.Fatalf("the watch of pods of %s ended; last were %v", app, list.Items)
		}
	}
}

// saying counts the ready pods that say text; leaving ones only if they are asked for.
func saying(pods []corev1.Pod, text string, leaving bool) (n int) {
	for _, p := range pods {
		ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		if ready && p.Spec.Containers[0].Env[0].Value == text && (p.DeletionTimestamp != nil) == leaving {
			n++
		}
	}
	return n
}

// TestSmokeAsksTheCurrentRevision changes nothing but the configuration: pods of the
// revision before run the same image, are ready, and some of them take long to end.
func TestSmokeAsksTheCurrentRevision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns, img := w.namespace(t), w.answerer(t)
	two, one, none := int32(2), intstr.FromInt32(1), intstr.FromInt32(0)
	const ever = `"minReadySeconds":500` // until a pod that is ready counts
	apps := w.kube.AppsV1()
	for kind, tc := range map[string]struct {
		create func(ctx context.Context, name string, labels *metav1.LabelSelector, pod corev1.PodTemplateSpec) error
		patch  func(ctx context.Context, name string, patch []byte) error
		hold   string // keeps pods of the revision before
		before int    // how many of them
	}{
		"deployment": {func(ctx context.Context, name string, labels *metav1.LabelSelector, pod corev1.PodTemplateSpec) error {
			_, err := apps.Deployments(ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
				Replicas: &two, Selector: labels, Template: pod,
				Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &one, MaxUnavailable: &none}},
			}}, metav1.CreateOptions{})
			return err
		}, func(ctx context.Context, name string, patch []byte) error {
			_, err := apps.Deployments(ns).Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		}, ever, 2},
		"daemonset": {func(ctx context.Context, name string, labels *metav1.LabelSelector, pod corev1.PodTemplateSpec) error {
			_, err := apps.DaemonSets(ns).Create(ctx, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DaemonSetSpec{
				Selector: labels, Template: pod,
				UpdateStrategy: appsv1.DaemonSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &one, MaxUnavailable: &none}},
			}}, metav1.CreateOptions{})
			return err
		}, func(ctx context.Context, name string, patch []byte) error {
			_, err := apps.DaemonSets(ns).Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		}, ever, 1},
		"statefulset": {func(ctx context.Context, name string, labels *metav1.LabelSelector, pod corev1.PodTemplateSpec) error {
			// The name of a pod is free when that has ended.
			pod.Spec.Containers[0].Lifecycle, pod.Spec.TerminationGracePeriodSeconds = nil, new(int64)
			_, err := apps.StatefulSets(ns).Create(ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.StatefulSetSpec{
				Replicas: &two, Selector: labels, Template: pod, PodManagementPolicy: appsv1.ParallelPodManagement,
			}}, metav1.CreateOptions{})
			return err
		}, func(ctx context.Context, name string, patch []byte) error {
			_, err := apps.StatefulSets(ns).Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		}, `"updateStrategy":{"rollingUpdate":{"partition":1}}`, 1},
	} {
		t.Run(kind, func(t *testing.T) {
			ctx, name := labtest.Context(t), "motto-"+kind
			labels := &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
			require.NoError(t, tc.create(ctx, name, labels, motto(name, "first", img)))
			w.awaitPods(t, ns, name, func(pods []corev1.Pod) bool { return saying(pods, "first", false) == len(pods) && len(pods) > 0 })

			rel := stages.Release{Image: img, Name: name, Namespace: ns, Revision: 2, Objects: []stages.Object{{APIVersion: "apps/v1", Kind: kind, Name: name}}}
			requireOnly := func(text string) {
				t.Helper()
				test := made(t)(smoke.NewHTTP(smoke.HTTPConfig{
					REST: w.rest, Target: smoke.Target{Name: kind + "/" + name, Port: "http"}, Path: "/motto",
					Expect: smoke.Expect{Matches: "^" + text + "$", Attempts: 10},
				}))
				_, err := test.Verify(ctx, rel)
				require.NoError(t, err)
			}
			requireOnly("first")

			require.NoError(t, tc.patch(ctx, name, fmt.Appendf(nil, `{"spec":{%s,"template":{"spec":{"containers":[{"name":"answerer","env":[{"name":"MOTTO","value":"second"}]}]}}}}`, tc.hold)))
			w.awaitPods(t, ns, name, func(pods []corev1.Pod) bool {
				return saying(pods, "second", false) == 1 && saying(pods, "first", false) == tc.before
			})
			requireOnly("second")
			if kind == "statefulset" {
				return
			}

			require.NoError(t, tc.patch(ctx, name, []byte(`{"spec":{"minReadySeconds":0}}`)))
			w.awaitPods(t, ns, name, func(pods []corev1.Pod) bool { return saying(pods, "first", true) > 0 })
			requireOnly("second")
			list, err := w.kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
			require.NoError(t, err)
			assert.NotZero(t, saying(list.Items, "first", true), "one of the former pods still takes long to end")
		})
	}
}
