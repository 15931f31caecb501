package rollout

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ns         = "shop"
	repository = "localhost:5001/lab/shop"
)

var (
	digestA = stages.Digest("sha256:" + strings.Repeat("a", 64))
	digestB = stages.Digest("sha256:" + strings.Repeat("b", 64))
)

func image(t testing.TB, d stages.Digest) stages.Image {
	t.Helper()
	img, err := stages.ParseImage(repository + "@" + d.String())
	require.NoError(t, err)
	return img
}

func release(t testing.TB, objects ...stages.Object) stages.Release {
	t.Helper()
	if len(objects) == 0 {
		objects = []stages.Object{{APIVersion: "apps/v1", Kind: "Deployment", Namespace: ns, Name: "shop"}}
	}
	return stages.Release{Image: image(t, digestA), Name: "shop", Namespace: ns, Revision: 1, Objects: objects}
}

// lab is a cluster whose objects the test moves by hand.
type lab struct {
	t       testing.TB
	client  *fake.Clientset
	dynamic *dynamicfake.FakeDynamicClient
	config  Config
	// served are the kinds that the cluster knows beyond those of client-go.
	served map[stages.Object]entry
}

func newLab(t testing.TB, objects ...runtime.Object) *lab {
	l := &lab{t: t, served: map[stages.Object]entry{
		{APIVersion: "example.com/v1", Kind: "Widget"}:              {schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}, true},
		{APIVersion: "example.com/v1", Kind: "Realm"}:               {schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "realms"}, false},
		{APIVersion: gatewayGroup + "/v1", Kind: "Gateway"}:         {schema.GroupVersionResource{Group: gatewayGroup, Version: "v1", Resource: "gateways"}, true},
		{APIVersion: gatewayGroup + "/v1", Kind: "HTTPRoute"}:       {schema.GroupVersionResource{Group: gatewayGroup, Version: "v1", Resource: "httproutes"}, true},
		{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}: {schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}, true},
	}}
	lists := map[schema.GroupVersionResource]string{
		{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}: "CustomResourceDefinitionList",
		{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}:             "APIServiceList",
	}
	for kind, e := range l.served {
		lists[e.resource] = kind.Kind + "List"
	}
	l.client = fake.NewSimpleClientset()
	l.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists)
	for _, o := range objects {
		l.write(o)
	}
	return l
}

func (l *lab) verifier() *Verifier {
	s, err := l.config.complete()
	require.NoError(l.t, err)
	return &Verifier{settings: s, cluster: l.cluster(),
		find: func(_ context.Context, _ string, o []stages.Object) (objectsFound, error) {
			return objectsFound{seen: len(o)}, nil
		}}
}

// cluster returns a connection to the lab that nobody else uses.
func (l *lab) cluster() *Cluster {
	c := &Cluster{client: l.client, dynamic: l.dynamic, kinds: newCatalogue(nothingElse{})}
	c.kinds.known = maps.Clone(l.served)
	c.hub = newHub(c, false)
	return c
}

// nothingElse is the discovery of a cluster that serves no other kinds.
type nothingElse struct {
	discovery.ServerResourcesInterfaceWithContext
}

func (nothingElse) ServerResourcesForGroupVersionWithContext(_ context.Context, version string) (*metav1.APIResourceList, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{}, version)
}

// run is a verification under way.
type run struct {
	mu       sync.Mutex
	progress []string
	done     chan struct{}
	result   stages.Verification
	err      error
	elapsed  time.Duration
}

// start verifies rel beside the test, and returns when the verifier waits.
func (l *lab) start(ctx context.Context, rel stages.Release) *run {
	return l.begin(ctx, rel, (*Verifier).Verify)
}

func (l *lab) begin(ctx context.Context, rel stages.Release, verify func(*Verifier, context.Context, stages.Release) (stages.Verification, error)) *run {
	r := &run{done: make(chan struct{})}
	ctx = stages.WithProgress(ctx, func(p stages.Progress) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.progress = append(r.progress, p.Message)
	})
	v := l.verifier()
	began := time.Now()
	go func() {
		defer close(r.done)
		r.result, r.err = verify(v, ctx, rel)
		r.elapsed = time.Since(began)
	}()
	synctest.Wait()
	return r
}

func (r *run) over() bool {
	synctest.Wait()
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// failure waits for the verification's failure.
func (r *run) failure(t *testing.T) *Failure {
	t.Helper()
	<-r.done
	var f *Failure
	require.ErrorAs(t, r.err, &f)
	require.True(t, stages.IsPermanent(r.err))
	return f
}

// write makes or changes an object.
func (l *lab) write(o runtime.Object) {
	l.t.Helper()
	tracker := l.client.Tracker()
	if _, untyped := o.(*unstructured.Unstructured); untyped {
		tracker = l.dynamic.Tracker()
	}
	accessor, err := meta.Accessor(o)
	require.NoError(l.t, err)
	if tracker.Update(resourceOf(o), o, accessor.GetNamespace()) != nil {
		require.NoError(l.t, tracker.Create(resourceOf(o), o, accessor.GetNamespace()))
	}
}

// put writes objects and returns when everybody has taken notice.
func (l *lab) put(objects ...runtime.Object) {
	l.t.Helper()
	for _, o := range objects {
		l.write(o)
	}
	synctest.Wait()
}

func (l *lab) remove(o runtime.Object) {
	l.t.Helper()
	accessor := o.(metav1.Object)
	require.NoError(l.t, l.client.Tracker().Delete(resourceOf(o), ns, accessor.GetName()))
	synctest.Wait()
}

// deployment returns a Deployment that its controller has seen.
func deployment(image string, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "deployment", Generation: 2, Annotations: map[string]string{revisionAnnotation: "2"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}},
			Template: podTemplate(image),
		},
		Status: appsv1.DeploymentStatus{ObservedGeneration: 2},
	}
}

func podTemplate(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "shop"}},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{
			Name: "app", Image: image, ReadinessProbe: &corev1.Probe{PeriodSeconds: 1},
		}}},
	}
}

// replicaSet returns d's ReplicaSet number revision, made from a template.
func replicaSet(d *appsv1.Deployment, revision int, template corev1.PodTemplateSpec) *appsv1.ReplicaSet {
	name := fmt.Sprintf("%s-%d", d.Name, revision)
	template = *template.DeepCopy()
	template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = name
	return &appsv1.ReplicaSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ns, Name: name, UID: types.UID(name), Annotations: map[string]string{revisionAnnotation: fmt.Sprint(revision)},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Template: template},
	}
}

// podOf returns a pod of an owner that has just been scheduled.
func podOf(owner metav1.Object, kind, name string, template corev1.PodTemplateSpec) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(name), Labels: map[string]string{}, CreationTimestamp: metav1.Now()},
		Spec:       *template.Spec.DeepCopy(),
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	if owner != nil {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, appsv1.SchemeGroupVersion.WithKind(kind))}
	}
	for _, c := range p.Spec.Containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
		})
	}
	return p
}

// as returns a copy of p after change.
func as(p *corev1.Pod, change func(*corev1.Pod)) *corev1.Pod {
	p = p.DeepCopy()
	change(p)
	return p
}

func waiting(reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
}

func running(imageID string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodRunning
		p.Status.ContainerStatuses[0].ImageID = imageID
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
	}
}

func ready(imageID string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		running(imageID)(p)
		p.Status.ContainerStatuses[0].Ready = true
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	}
}

// ended is a container's process that ran for a second.
func ended(code int32, reason string) *corev1.ContainerStateTerminated {
	now := metav1.Now()
	return &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, StartedAt: metav1.NewTime(now.Add(-time.Second)), FinishedAt: now}
}

func crashed(code int32, reason string, restarts int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		s := &p.Status.ContainerStatuses[0]
		s.RestartCount = restarts
		if restarts == 0 {
			s.State = corev1.ContainerState{Terminated: ended(code, reason)}
			return
		}
		waiting("CrashLoopBackOff", "back-off 10s restarting failed container")(p)
		s.LastTerminationState = corev1.ContainerState{Terminated: ended(code, reason)}
	}
}

// limited has a pod whose container may use only so much memory.
func limited(state func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: *apiresource.NewQuantity(24<<20, apiresource.BinarySI)}
		state(p)
	}
}

func event(about metav1.Object, kind, reason, message string) *corev1.Event {
	name := fmt.Sprintf("%s.%s.%x", about.GetName(), strings.ToLower(reason), len(message))
	return &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(name)},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Namespace: ns, Name: about.GetName(), UID: about.GetUID()},
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message, LastTimestamp: metav1.Now(),
	}
}

func pinnedTo(d stages.Digest) string { return repository + "@" + d.String() }

// complete is d's status when all of its pods are of the newest revision.
func complete(d *appsv1.Deployment) *appsv1.Deployment {
	d = d.DeepCopy()
	n := *d.Spec.Replicas
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
	return d
}
