package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/celrule"
	"github.com/fairlead-dev/fairlead/stages"
)

// kindLab makes objects of every kind in a namespace, and verifies them.
type kindLab struct {
	*testing.T
	w        *world
	ctx      context.Context //nolint:containedctx // the test's own
	ns       string
	dynamic  dynamic.Interface
	verifier *rollout.Verifier
	image    stages.Image
}

func newKindLab(t *testing.T) *kindLab {
	w := newWorld(t)
	k := &kindLab{T: t, w: w, ctx: labtest.Context(t), ns: w.namespace(t), image: w.baseImage(t)}
	var err error
	k.dynamic, err = dynamic.NewForConfig(w.rest)
	require.NoError(t, err)
	rule, err := celrule.New(celrule.Config{
		Group: "fairlead.test", Kind: "Gadget", Ready: "object.status.phase == 'Running'", Failed: "object.status.phase == 'Broken'",
		Message: "'phase ' + object.status.phase",
	})
	require.NoError(t, err)
	k.verifier = k.newVerifier(rollout.Config{Timeout: 2 * time.Minute, Readiness: []rollout.Readiness{rule}})
	return k
}

func (k *kindLab) newVerifier(c rollout.Config) *rollout.Verifier {
	k.Helper()
	c.REST, c.AllowUnused = k.w.rest, true
	v, err := rollout.New(c)
	require.NoError(k, err)
	k.Cleanup(func() { assert.NoError(k, v.Close()) })
	return v
}

func (k *kindLab) release(objects ...stages.Object) stages.Release {
	return stages.Release{Image: k.image, Name: "kinds", Namespace: k.ns, Objects: objects}
}

// verdict verifies objects, does something that decides about them once the
// verification waits, and measures from there to the verdict.
func (k *kindLab) verdict(t *testing.T, v *rollout.Verifier, decide func(), objects ...stages.Object) (stages.Verification, error) {
	t.Helper()
	type outcome struct {
		v   stages.Verification
		err error
		at  time.Time
	}
	waits := make(chan struct{}, 1)
	ctx := stages.WithProgress(k.ctx, func(stages.Progress) {
		select {
		case waits <- struct{}{}:
		default:
		}
	})
	done := make(chan outcome, 1)
	go func() {
		verified, err := v.Verify(ctx, k.release(objects...))
		done <- outcome{verified, err, time.Now()}
	}()
	select {
	case <-waits:
	case o := <-done:
		require.Fail(t, "decided too early", "%+v %v", o.v, o.err)
	}
	fact := time.Now()
	decide()
	o := <-done
	took := o.at.Sub(fact)
	t.Logf("MEASURED %s: %.0f ms from the fact to the verdict", objects[0].Kind, float64(took.Microseconds())/1000)
	assert.Less(t, took, time.Second)
	return o.v, o.err
}

var (
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	gadgetGroup = schema.GroupVersion{Group: "fairlead.test", Version: "v1"}
)

// define makes a kind of custom resource with a status, which is deleted with the
// test.
func (k *kindLab) define(kind string) stages.Object {
	k.Helper()
	plural := strings.ToLower(kind) + "s"
	name := plural + "." + gadgetGroup.Group
	open := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	crd := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"group": gadgetGroup.Group, "scope": "Namespaced", "names": map[string]any{"kind": kind, "plural": plural, "singular": strings.ToLower(kind)},
			"versions": []any{map[string]any{
				"name": gadgetGroup.Version, "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": map[string]any{"spec": open, "status": open}}},
			}},
		},
	}}
	_, err := k.dynamic.Resource(definitions).Create(k.ctx, crd, metav1.CreateOptions{})
	require.NoError(k, err)
	k.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		assert.NoError(k, k.dynamic.Resource(definitions).Delete(ctx, name, metav1.DeleteOptions{}))
	})
	return stages.Object{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition", Name: name}
}

func (k *kindLab) gadgets(kind string) dynamic.ResourceInterface {
	return k.dynamic.Resource(gadgetGroup.WithResource(strings.ToLower(kind) + "s")).Namespace(k.ns)
}

func (k *kindLab) gadget(kind, name string) stages.Object {
	k.Helper()
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(gadgetGroup.String())
	u.SetKind(kind)
	u.SetName(name)
	_, err := k.gadgets(kind).Create(k.ctx, u, metav1.CreateOptions{})
	require.NoError(k, err)
	return stages.Object{APIVersion: gadgetGroup.String(), Kind: kind, Name: name}
}

// say writes a custom resource's status.
func (k *kindLab) say(kind, name string, status map[string]any) {
	k.Helper()
	patch, err := json.Marshal(map[string]any{"status": status})
	require.NoError(k, err)
	_, err = k.gadgets(kind).Patch(k.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	require.NoError(k, err)
}

func readiness(status string, generation int64) map[string]any {
	return map[string]any{"observedGeneration": generation, "conditions": []any{map[string]any{
		"type": "Ready", "status": status, "reason": "Tested", "message": "says the test", "observedGeneration": generation,
	}}}
}

// TestWorkloadKinds rolls out one of each workload and waits for them together.
func TestWorkloadKinds(t *testing.T) {
	k := newKindLab(t)
	apps, batch := k.w.kube.AppsV1(), k.w.kube.BatchV1()
	selector := func(name string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	}
	two := int32(2)
	set, err := apps.StatefulSets(k.ns).Create(k.ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "set"}, Spec: appsv1.StatefulSetSpec{
		Replicas: &two, Selector: selector("set"), Template: k.w.idle("set"), PodManagementPolicy: appsv1.ParallelPodManagement,
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = apps.Deployments(k.ns).Create(k.ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Selector: selector("web"), Template: k.w.idle("web"), MinReadySeconds: 2,
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = apps.ReplicaSets(k.ns).Create(k.ctx, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "bare"}, Spec: appsv1.ReplicaSetSpec{
		Selector: selector("bare"), Template: k.w.idle("bare"),
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = apps.DaemonSets(k.ns).Create(k.ctx, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "agent"}, Spec: appsv1.DaemonSetSpec{
		Selector: selector("agent"), Template: k.w.idle("agent"),
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	once := k.w.idle("once")
	once.Spec.RestartPolicy, once.Spec.Containers[0].Command = corev1.RestartPolicyNever, []string{"true"}
	_, err = batch.Jobs(k.ns).Create(k.ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "migrate"}, Spec: batchv1.JobSpec{
		Template: once, TTLSecondsAfterFinished: new(int32),
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = batch.CronJobs(k.ns).Create(k.ctx, &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "nightly"}, Spec: batchv1.CronJobSpec{
		Schedule: "0 3 * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: once}},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = k.w.kube.CoreV1().Services(k.ns).Create(k.ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)

	began := time.Now()
	verified, err := k.verifier.Verify(k.ctx, k.release(
		stages.Object{APIVersion: "batch/v1", Kind: "Job", Name: "migrate"},
		stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "set"}, stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
		stages.Object{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "agent"}, stages.Object{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "bare"},
		stages.Object{APIVersion: "batch/v1", Kind: "CronJob", Name: "nightly"}, stages.Object{APIVersion: "v1", Kind: "Service", Name: "web"},
		stages.Object{APIVersion: "v1", Kind: "ServiceAccount", Name: "default"},
	))
	require.NoError(t, err)
	t.Logf("MEASURED all workload kinds: %.1f s", time.Since(began).Seconds())
	for _, c := range verified.Checks {
		t.Logf("%s: %s (%s)", c.Name, c.Message, c.Elapsed.Round(time.Millisecond))
	}
	require.Len(t, verified.Checks, 6)
	assert.Equal(t, "3 other objects exist", verified.Checks[5].Message)

	one := int32(1)
	set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: &one}}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{
		"updateStrategy": set.Spec.UpdateStrategy, "template": map[string]any{"metadata": map[string]any{"annotations": map[string]string{"version": "2"}}},
	}})
	require.NoError(t, err)
	_, err = apps.StatefulSets(k.ns).Patch(k.ctx, "set", types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
	verified, err = k.verifier.Verify(k.ctx, k.release(stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "set"}))
	require.NoError(t, err)
	assert.Contains(t, verified.Checks[0].Message, "1 of 1 ready", "the partition holds the other pod back")
	second, err := k.w.kube.CoreV1().Pods(k.ns).Get(k.ctx, "set-1", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, "2", second.Annotations["version"])
}

func (k *kindLab) storage(name string, mode storagev1.VolumeBindingMode) {
	k.Helper()
	_, err := k.w.kube.StorageV1().StorageClasses().Create(k.ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &mode,
	}, metav1.CreateOptions{})
	require.NoError(k, err)
	k.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		assert.NoError(k, k.w.kube.StorageV1().StorageClasses().Delete(ctx, name, metav1.DeleteOptions{}))
	})
}

func (k *kindLab) claim(name, class string) stages.Object {
	k.Helper()
	_, err := k.w.kube.CoreV1().PersistentVolumeClaims(k.ns).Create(k.ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
	}}, metav1.CreateOptions{})
	require.NoError(k, err)
	return stages.Object{APIVersion: "v1", Kind: "PersistentVolumeClaim", Name: name}
}

func TestClaims(t *testing.T) {
	k := newKindLab(t)
	now, late := k.ns+"-now", k.ns+"-late"
	k.storage(now, storagev1.VolumeBindingImmediate)
	k.storage(late, storagev1.VolumeBindingWaitForFirstConsumer)

	verified, err := k.verifier.Verify(k.ctx, k.release(k.claim("late", late)))
	require.NoError(t, err)
	assert.Equal(t, "waits for its first consumer", verified.Checks[0].Message)

	data := k.claim("data", now)
	bound := make(chan time.Time, 1)
	go func() { bound <- k.boundAt("data") }()
	done := make(chan error, 1)
	go func() {
		_, err := k.verifier.Verify(k.ctx, k.release(data))
		done <- err
	}()
	_, err = k.w.kube.CoreV1().PersistentVolumes().Create(k.ctx, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: k.ns}, Spec: corev1.PersistentVolumeSpec{
		StorageClassName: now, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")},
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp/" + k.ns}},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		assert.NoError(t, k.w.kube.CoreV1().PersistentVolumes().Delete(ctx, k.ns, metav1.DeleteOptions{}))
	})
	require.NoError(t, <-done)
	took := time.Since(<-bound)
	t.Logf("MEASURED PersistentVolumeClaim: %.0f ms from the fact to the verdict", float64(took.Microseconds())/1000)
	assert.Less(t, took, time.Second)

	stuck := k.newVerifier(rollout.Config{Timeout: time.Minute, Rules: map[rollout.Cause]rollout.Rule{
		rollout.VolumeUnbound: {Class: rollout.TerminalAfter, After: 2 * time.Second},
	}})
	began := time.Now()
	_, err = stuck.Verify(k.ctx, k.release(k.claim("stuck", k.ns+"-none")))
	var failure *rollout.Failure
	require.ErrorAs(t, err, &failure)
	t.Logf("MEASURED claim of a class that isn't there: %.1f s: %v", time.Since(began).Seconds(), err)
	assert.Equal(t, rollout.VolumeUnbound, failure.Cause)
	assert.Contains(t, failure.Decisive.Message, k.ns+"-none")
}

// boundAt watches for the moment at which a claim is bound.
func (k *kindLab) boundAt(name string) time.Time {
	watch, err := k.w.kube.CoreV1().PersistentVolumeClaims(k.ns).Watch(k.ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if !assert.NoError(k, err) {
		return time.Time{}
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		if c, ok := event.Object.(*corev1.PersistentVolumeClaim); ok && c.Status.Phase == corev1.ClaimBound {
			break
		}
	}
	return time.Now()
}

func TestLoadBalancer(t *testing.T) {
	k := newKindLab(t)
	services := k.w.kube.CoreV1().Services(k.ns)
	front, err := services.Create(k.ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "front"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	object := stages.Object{APIVersion: "v1", Kind: "Service", Name: "front"}

	_, err = k.newVerifier(rollout.Config{Timeout: 3 * time.Second}).Verify(k.ctx, k.release(object))
	var failure *rollout.Failure
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, rollout.TimedOut, failure.Cause)
	assert.Equal(t, string(rollout.NoAddress), failure.Decisive.Reason)

	verified, err := k.verdict(t, k.verifier, func() {
		front.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
		_, err := services.UpdateStatus(k.ctx, front, metav1.UpdateOptions{})
		require.NoError(t, err)
	}, object)
	require.NoError(t, err)
	assert.Equal(t, "has the address 192.0.2.1", verified.Checks[0].Message)
}

func TestCustomResources(t *testing.T) {
	k := newKindLab(t)
	crd := k.define("Gizmo")
	_, err := k.verifier.Verify(k.ctx, k.release(crd, k.define("Gadget")))
	require.NoError(t, err)
	verified, err := k.verifier.Verify(k.ctx, k.release(k.gadget("Gizmo", "quiet")))
	require.NoError(t, err)
	assert.Equal(t, "1 other objects exist", verified.Checks[0].Message)

	for name, test := range map[string]struct {
		kind         string
		before, then map[string]any
		cause        rollout.Cause
	}{
		"by conditions":              {"Gizmo", readiness("False", 1), readiness("True", 1), ""},
		"stalled":                    {"Gizmo", readiness("False", 1), map[string]any{"conditions": []any{map[string]any{"type": "Stalled", "status": "True"}}}, rollout.ResourceFailed},
		"by an expression":           {"Gadget", map[string]any{"phase": "Starting"}, map[string]any{"phase": "Running"}, ""},
		"by an expression, broken":   {"Gadget", map[string]any{"phase": "Starting"}, map[string]any{"phase": "Broken"}, rollout.ResourceFailed},
		"by an expression, from nil": {"Gadget", map[string]any{"other": "x"}, map[string]any{"phase": "Running"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			id := fmt.Sprintf("g-%d", time.Now().UnixNano())
			object := k.gadget(test.kind, id)
			k.say(test.kind, id, test.before)
			_, err := k.verdict(t, k.verifier, func() { k.say(test.kind, id, test.then) }, object)
			if test.cause == "" {
				require.NoError(t, err)
				return
			}
			var failure *rollout.Failure
			require.ErrorAs(t, err, &failure)
			assert.Equal(t, test.cause, failure.Cause)
		})
	}
}
