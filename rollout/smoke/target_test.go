package smoke

import (
	"errors"
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	k8stesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/stages"
)

// shopPod is a ready pod of the Service and Deployment "shop" that runs img.
func shopPod(name string, img stages.Image, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": "shop"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "shop", Image: img.String(), Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "grpc", ContainerPort: 9090}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}},
		}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "shop", ImageID: img.String(), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		},
	}
	if change != nil {
		change(p)
	}
	return p
}

func shop(t *testing.T, pods ...runtime.Object) lab {
	labels := map[string]string{"app": "shop"}
	service := func(name string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{Selector: labels, Ports: ports}}
	}
	headless, elsewhere := service("headless"), service("elsewhere")
	headless.Spec.Selector, elsewhere.Spec.Type = nil, corev1.ServiceTypeExternalName
	return newLab(t, append(pods,
		service("shop", corev1.ServicePort{Name: "web", Port: 80, TargetPort: intstr.FromString("http")}, corev1.ServicePort{Name: "rpc", Port: 90, TargetPort: intstr.FromInt32(9090)}, corev1.ServicePort{Name: "same", Port: 7000}),
		service("one", corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("http")}, corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}),
		headless, elsewhere,
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop"}, Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}}},
		&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop"}, Spec: appsv1.StatefulSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}}},
		&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop"}, Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}}},
	)...)
}

func TestTargetPorts(t *testing.T) {
	l := shop(t, shopPod("shop-1", release(t).Image, nil))
	for name, test := range map[string]struct {
		target Target
		port   int32
		text   string
	}{
		"service's name":      {Target{Port: "web"}, 8080, ""},
		"service's number":    {Target{Port: "90"}, 9090, ""},
		"same number":         {Target{Port: "7000"}, 7000, ""},
		"only one":            {Target{Name: "svc/one"}, 8080, ""},
		"deployment's name":   {Target{Name: "deployment/{{.Release}}", Port: "grpc"}, 9090, ""},
		"statefulset's name":  {Target{Name: "sts/shop", Port: "http"}, 8080, ""},
		"daemonset's number":  {Target{Name: "daemonset/shop", Port: "1234"}, 1234, ""},
		"pod's":               {Target{Name: "pod/shop-1", Port: "http"}, 8080, ""},
		"one of many":         {Target{}, 0, "has the TCP ports [web 80, rpc 90, same 7000]"},
		"unknown":             {Target{Port: "https"}, 0, `Target.Port "https"`},
		"deployment's, none":  {Target{Name: "deploy/shop"}, 0, "has the ports [http 8080, grpc 9090]"},
		"service for nobody":  {Target{Name: "service/headless"}, 0, "selects no pods"},
		"service elsewhere":   {Target{Name: "service/elsewhere", Port: "80"}, 0, "leads to another name"},
		"service that is not": {Target{Name: "service/none"}, 0, `get services shop/none: services "none" not found`},
		"pod that is not":     {Target{Name: "pod/none"}, 0, `get pods shop/none: pods "none" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			target, err := test.target.compile()
			require.NoError(t, err)
			found, err := target.endpoints(t.Context(), l.cluster(), release(t))
			if test.text != "" {
				require.ErrorContains(t, err, test.text)
				return
			}
			require.NoError(t, err)
			require.Len(t, found, 1)
			assert.Equal(t, test.port, found[0].port)
		})
	}
}

func TestOnlyReadyPodsOfTheReleasedImageAreAsked(t *testing.T) {
	released, before := release(t).Image, image(t, "shop", "b")
	l := shop(t,
		shopPod("new-2", released, nil), shopPod("new-1", released, nil), shopPod("old", before, nil),
		shopPod("leaving", released, func(p *corev1.Pod) { now := metav1.Now(); p.DeletionTimestamp = &now }),
		shopPod("starting", released, func(p *corev1.Pod) { p.Status.Conditions = nil }),
		shopPod("unpinned", released, func(p *corev1.Pod) {
			p.Spec.Containers[0].Image = released.Repository() + ":latest"
			p.Status.ContainerStatuses[0].ImageID = before.String()
		}),
		shopPod("proxy", image(t, "proxy", "d"), nil),
	)
	target, err := Target{Port: "web"}.compile()
	require.NoError(t, err)
	found, err := target.endpoints(t.Context(), l.cluster(), release(t))
	require.NoError(t, err)
	require.Len(t, found, 2)
	assert.Equal(t, "pod shop/new-1", found[0].String())
	assert.Equal(t, "pod shop/new-2", found[1].String())

	next := release(t)
	next.Image = image(t, "shop", "e")
	_, err = target.endpoints(t.Context(), l.cluster(), next)
	require.ErrorContains(t, err, "has no ready pod of its current revision that runs "+next.Image.String()+": 7 pods, 2 of them not ready, 0 ready but of another revision, 5 ready with another image")

	target.AnyImage = true
	found, err = target.endpoints(t.Context(), l.cluster(), next)
	require.NoError(t, err)
	assert.Len(t, found, 5)
}

// numbered is a workload of that revision, as its controller has seen it.
func numbered(name, number string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(name), Generation: 2, Annotations: map[string]string{
		"deployment.kubernetes.io/revision": number, appsv1.DeprecatedTemplateGeneration: number,
	}}
}

func ownedBy(kind, name string) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: types.UID(name), Controller: new(true)}}
}

func TestOnlyPodsOfTheCurrentRevisionAreAsked(t *testing.T) {
	released := release(t).Image
	ofKind := func(kind, owner string, labels map[string]string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.OwnerReferences = ownedBy(kind, owner)
			maps.Copy(p.Labels, labels)
		}
	}
	set := func(name, number string, owner []metav1.OwnerReference) *appsv1.ReplicaSet {
		s := &appsv1.ReplicaSet{ObjectMeta: numbered(name, number)}
		s.OwnerReferences = owner
		return s
	}
	deployment := func(observed int64) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: numbered("web", "2"), Status: appsv1.DeploymentStatus{ObservedGeneration: observed}}
	}
	web := ownedBy("Deployment", "web")
	for name, test := range map[string]struct {
		objects []runtime.Object
		want    []string
	}{
		"deployment": {[]runtime.Object{
			deployment(2), set("web-1", "1", web), set("web-2", "2", web),
			shopPod("before", released, ofKind("ReplicaSet", "web-1", nil)), shopPod("now", released, ofKind("ReplicaSet", "web-2", nil)),
		}, []string{"pod shop/now"}},
		"deployment that its controller has not seen": {[]runtime.Object{
			deployment(1), set("web-2", "2", web), shopPod("now", released, ofKind("ReplicaSet", "web-2", nil)),
		}, nil},
		"deployment that is gone": {[]runtime.Object{
			set("web-2", "2", web), shopPod("now", released, ofKind("ReplicaSet", "web-2", nil)),
		}, nil},
		"replica set that is gone": {[]runtime.Object{deployment(2), shopPod("now", released, ofKind("ReplicaSet", "web-2", nil))}, nil},
		"replica set of its own": {[]runtime.Object{
			set("web-1", "1", nil), shopPod("now", released, ofKind("ReplicaSet", "web-1", nil)),
		}, []string{"pod shop/now"}},
		"stateful set": {[]runtime.Object{
			&appsv1.StatefulSet{ObjectMeta: numbered("db", ""), Status: appsv1.StatefulSetStatus{ObservedGeneration: 2, UpdateRevision: "db-2"}},
			shopPod("db-0", released, ofKind("StatefulSet", "db", map[string]string{appsv1.ControllerRevisionHashLabelKey: "db-1"})),
			shopPod("db-1", released, ofKind("StatefulSet", "db", map[string]string{appsv1.ControllerRevisionHashLabelKey: "db-2"})),
		}, []string{"pod shop/db-1"}},
		"daemon set": {[]runtime.Object{
			&appsv1.DaemonSet{ObjectMeta: numbered("agent", "7"), Status: appsv1.DaemonSetStatus{ObservedGeneration: 2}},
			shopPod("before", released, ofKind("DaemonSet", "agent", map[string]string{"pod-template-generation": "6"})),
			shopPod("now", released, ofKind("DaemonSet", "agent", map[string]string{"pod-template-generation": "7"})),
		}, []string{"pod shop/now"}},
		"daemon set that was rolled back": {[]runtime.Object{
			&appsv1.DaemonSet{ObjectMeta: numbered("agent", "7"), Status: appsv1.DaemonSetStatus{ObservedGeneration: 2}},
			shopPod("kept", released, ofKind("DaemonSet", "agent", map[string]string{"pod-template-generation": "5", appsv1.ControllerRevisionHashLabelKey: "one"})),
			shopPod("late", released, ofKind("DaemonSet", "agent", map[string]string{"pod-template-generation": "6", appsv1.ControllerRevisionHashLabelKey: "two"})),
			shopPod("now", released, ofKind("DaemonSet", "agent", map[string]string{"pod-template-generation": "7", appsv1.ControllerRevisionHashLabelKey: "one"})),
		}, []string{"pod shop/kept", "pod shop/now"}},
		"what nothing is known of": {[]runtime.Object{shopPod("now", released, ofKind("CloneSet", "web", nil))}, []string{"pod shop/now"}},
	} {
		t.Run(name, func(t *testing.T) {
			target, err := Target{Port: "web"}.compile()
			require.NoError(t, err)
			found, err := target.endpoints(t.Context(), shop(t, test.objects...).cluster(), release(t))
			if test.want == nil {
				require.ErrorContains(t, err, "1 pods, 0 of them not ready, 1 ready but of another revision")
				return
			}
			require.NoError(t, err)
			var got []string
			for _, e := range found {
				got = append(got, e.String())
			}
			assert.Equal(t, test.want, got)
		})
	}
}

func TestTargetNamesTheMissingRight(t *testing.T) {
	target, err := Target{Port: "web"}.compile()
	require.NoError(t, err)
	for _, right := range [][2]string{{"get", "services"}, {"list", "pods"}, {"list", "replicasets"}, {"list", "deployments"}} {
		verb, resource := right[0], right[1]
		set := &appsv1.ReplicaSet{ObjectMeta: numbered("web-1", "1")}
		set.OwnerReferences = ownedBy("Deployment", "web")
		l := shop(t, set, shopPod("shop-1", release(t).Image, func(p *corev1.Pod) { p.OwnerReferences = ownedBy("ReplicaSet", "web-1") }))
		l.client.PrependReactor(verb, resource, func(k8stesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
		})
		_, err := target.endpoints(t.Context(), l.cluster(), release(t))
		require.ErrorContains(t, err, "grant the verb "+verb+" on "+resource)
		assert.True(t, stages.IsPermanent(err))
	}
	l := shop(t)
	l.client.PrependReactor("list", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection refused")
	})
	_, err = target.endpoints(t.Context(), l.cluster(), release(t))
	_, unasked := errors.AsType[*unreachable](err)
	assert.True(t, unasked)
}
