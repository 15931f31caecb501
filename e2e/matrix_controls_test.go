package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// controls must come up, whatever happens meanwhile.
func controls() []fault {
	unchanged := func(_ *matrix, w *workload) { w.app().Env = []corev1.EnvVar{{Name: "VERSION", Value: "2"}} }
	lie := func(name string, times int) func(m *matrix, w *workload) {
		return func(m *matrix, w *workload) { w.app().Image = m.lying(name, times, w.name+m.unique()) }
	}
	stateless := []string{kindDeployment, kindStatefulSet}
	return slices.Concat(lateControls(), []fault{
		{name: "slow start under a startup probe", kinds: restarting, broken: func(_ *matrix, w *workload) {
			w.app().Command = shell("sleep 12; touch /tmp/ready; " + serve)
			w.app().StartupProbe = execProbe(60, "test", "-f", "/tmp/ready")
			w.app().ReadinessProbe = execProbe(1, "test", "-f", "/tmp/ready")
		}},
		{name: "readiness probe fails for 20 s", kinds: restarting, timeout: 90 * time.Second, broken: slowly(1, 20)},
		{name: "one crash, then healthy", kinds: slices.Concat(restarting, []string{kindJob}, derived), broken: func(_ *matrix, w *workload) {
			w.remember()
			w.app().Command = failingFirst(1, serve)
			if w.pod.RestartPolicy == corev1.RestartPolicyNever {
				w.pod.RestartPolicy, w.app().Command = corev1.RestartPolicyOnFailure, failingFirst(1, "exit 0")
			}
		}},
		{name: "init container fails twice", kinds: stateless, broken: func(_ *matrix, w *workload) {
			w.pod.InitContainers = []corev1.Container{{Name: "wait", Image: w.app().Image, Command: failingFirst(2, "exit 0")}}
			w.remember()
		}},
		{name: "slow pull", kinds: stateless[:1], broken: lie("slow", 1)},
		{name: "registry answers 503 twice", kinds: []string{kindDeployment, kindPod}, broken: lie("down", 2)},
		{name: "registry refuses once", kinds: stateless[:1], broken: lie("unauthorized", 4)},
		{name: "registry limits the rate for a while", kinds: []string{kindDeployment, kindPod}, timeout: 90 * time.Second, broken: lie("limited", 8)},
		{name: "old pods crash", kinds: restarting[:1], only: upgrade, before: func(_ *matrix, w *workload) { w.app().Command = shell("exit 1") }, broken: unchanged},
		{name: "old pods begin to crash meanwhile", kinds: restarting[:1], only: upgrade, timeout: 90 * time.Second, broken: slowly(2, 12),
			before: func(_ *matrix, w *workload) { w.replicas, w.app().Command = 2, shell("sleep 12; exit 1") }},
		{name: "another release's pods crash", kinds: restarting, around: stranger, broken: unchanged},
		{name: "webhook fails three times", kinds: controlled, broken: slowly(2, 4), around: webhook("fail"), after: sawWebhookFail},
		{name: "HorizontalPodAutoscaler raises the replicas", kinds: stateless, timeout: 3 * time.Minute, broken: slowly(2, 18),
			around: autoscaler(1, 3), during: scale(`{"spec":{"minReplicas":3}}`), after: hasReplicas(3)},
		{name: "HorizontalPodAutoscaler lowers the replicas", kinds: stateless, timeout: 3 * time.Minute, broken: slowly(3, 18),
			around: autoscaler(1, 3), during: scale(`{"spec":{"maxReplicas":2}}`), after: hasReplicas(2)},
		{name: "a new pod is evicted meanwhile", kinds: stateless[:1], broken: slowly(2, 4), during: evictOne},
		{name: "the kubelet evicts a new pod", kinds: stateless[:1], timeout: 150 * time.Second, broken: overflowingOnce, after: sawEvicted},
		{name: "new pods are preempted meanwhile", kinds: stateless[:1], timeout: 90 * time.Second, broken: onSlots, around: twoSlots, during: preempt, after: sawPreempted},
	})
}

// lateControls refer to what comes some seconds later.
func lateControls() []fault {
	ref := corev1.LocalObjectReference{Name: "settings"}
	late := func(then func(context.Context, *matrix, string) error) func(context.Context, *matrix, string, *workload) error {
		return func(ctx context.Context, m *matrix, namespace string, _ *workload) error {
			if !pause(ctx, 8*time.Second) {
				return nil
			}
			return then(ctx, m, namespace)
		}
	}
	return []fault{
		{name: "ConfigMap made 8 s later", kinds: []string{kindDeployment, kindJob}, during: late(settings), broken: func(_ *matrix, w *workload) {
			w.app().EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref}}}
		}},
		{name: "ConfigMap volume made 8 s later", kinds: []string{kindDeployment, kindStatefulSet}, during: late(settings), broken: func(_ *matrix, w *workload) {
			w.pod.Volumes = []corev1.Volume{{Name: "late", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref}}}}
			w.app().VolumeMounts = []corev1.VolumeMount{{Name: "late", MountPath: "/late"}}
		}},
		{name: "claim bound 8 s later", kinds: []string{kindDeployment, kindStatefulSet, kindJob, kindPod}, around: unboundClaim, during: late(bindClaim), broken: claims("data")},
		{name: "node gets its label 8 s later", kinds: []string{kindDeployment, kindJob}, during: late(labelNode), broken: func(_ *matrix, w *workload) {
			w.pod.NodeSelector = map[string]string{lateLabel: "yes"}
		}},
	}
}

// slowly makes a workload of so many replicas that take so many seconds to be ready.
func slowly(replicas int32, seconds int) func(*matrix, *workload) {
	return func(_ *matrix, w *workload) {
		w.replicas = replicas
		if w.kind == kindJob {
			return // which is never ready
		}
		w.app().Command = shell(fmt.Sprintf("sleep %d; touch /tmp/ready; %s", seconds, serve))
		w.app().ReadinessProbe = execProbe(1, "test", "-f", "/tmp/ready")
	}
}

// stranger crashes beside the workload, with labels that look like its own.
func stranger(ctx context.Context, m *matrix, namespace string) error {
	other := healthy(kindPod, "stranger", m.world.box.Base.Base)
	other.app().Command = shell("exit 1")
	_, err := m.world.kube.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "stranger", Labels: map[string]string{"release": "parts"}}, Spec: other.pod,
	}, metav1.CreateOptions{})
	return err
}

// bindClaim makes a volume for the claim that unboundClaim has made.
func bindClaim(ctx context.Context, m *matrix, namespace string) error {
	volumes := m.world.kube.CoreV1().PersistentVolumes()
	_, err := volumes.Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: noSuchClass, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			ClaimRef:               &corev1.ObjectReference{Namespace: namespace, Name: "data"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp/" + namespace, Type: new(corev1.HostPathDirectoryOrCreate)}},
		},
	}, metav1.CreateOptions{})
	if err == nil {
		m.afterwards(func(ctx context.Context) error { return volumes.Delete(ctx, namespace, metav1.DeleteOptions{}) })
	}
	return err
}

// labelNode is a node that comes late.
func labelNode(ctx context.Context, m *matrix, _ string) error {
	_, err := m.world.kube.CoreV1().Nodes().Patch(ctx, m.node, types.MergePatchType, []byte(`{"metadata":{"labels":{"`+lateLabel+`":"yes"}}}`), metav1.PatchOptions{})
	return err
}

// autoscaler has the cluster's own controller scale the workload. It looks every 15 s,
// from when the autoscaler was made on, and needs no metrics to keep within bounds.
func autoscaler(least, most int32) func(context.Context, *matrix, string) error {
	return func(ctx context.Context, m *matrix, namespace string) error {
		for _, kind := range []string{kindDeployment, kindStatefulSet} { // one of which is there
			if _, err := m.world.kube.AutoscalingV2().HorizontalPodAutoscalers(namespace).Create(ctx, &autoscalingv2.HorizontalPodAutoscaler{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "shop-"},
				Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
					ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: apiVersions[kind], Kind: kind, Name: "shop"},
					MinReplicas:    &least, MaxReplicas: most,
				},
			}, metav1.CreateOptions{}); err != nil {
				return err
			}
		}
		return nil
	}
}

// scale changes the autoscaler's bounds.
func scale(patch string) func(context.Context, *matrix, string, *workload) error {
	return func(ctx context.Context, m *matrix, namespace string, _ *workload) error {
		autoscalers := m.world.kube.AutoscalingV2().HorizontalPodAutoscalers(namespace)
		list, err := autoscalers.List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, a := range list.Items {
			if _, err := autoscalers.Patch(ctx, a.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				return err
			}
		}
		return nil
	}
}

// hasReplicas checks that the autoscaler has had its way.
func hasReplicas(want int64) func(context.Context, *matrix, string, *workload) error {
	return func(ctx context.Context, m *matrix, namespace string, w *workload) error {
		o, err := m.dynamic.Resource(resources[w.kind]).Namespace(namespace).Get(ctx, w.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, field := range [][]string{{"spec", "replicas"}, {"status", "replicas"}, {"status", "readyReplicas"}, {"status", "updatedReplicas"}} {
			if n, _, _ := unstructured.NestedInt64(o.Object, field...); n != want {
				return fmt.Errorf("%s is %d instead of %d: the autoscaler was to scale during the rollout", field, n, want)
			}
		}
		return nil
	}
}

// evictOne is what draining a node does.
func evictOne(ctx context.Context, m *matrix, namespace string, _ *workload) error {
	if !pause(ctx, 3*time.Second) {
		return nil
	}
	pods, err := m.world.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	newest := pods.Items[0]
	for _, p := range pods.Items {
		if newest.CreationTimestamp.Before(&p.CreationTimestamp) {
			newest = p
		}
	}
	return m.world.kube.CoreV1().Pods(namespace).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: newest.Name, Namespace: namespace}})
}

// overflowingOnce makes a workload one of whose pods, but no other, writes more than it
// may. They find out by a folder on the node which one it is.
func overflowingOnce(m *matrix, w *workload) {
	slowly(2, 4)(m, w)
	w.remember()
	w.pod.Volumes[0].EmptyDir.SizeLimit = new(resource.MustParse("1Mi"))
	w.pod.Volumes = append(w.pod.Volumes, corev1.Volume{Name: "node", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: "/tmp/matrix-" + m.unique(), Type: new(corev1.HostPathDirectoryOrCreate)},
	}})
	w.app().VolumeMounts = append(w.app().VolumeMounts, corev1.VolumeMount{Name: "node", MountPath: "/node"})
	w.app().Command[2] = `mkdir /node/taken 2>/dev/null && dd if=/dev/zero of=/memory/big bs=1M count=8 && sleep 600; ` + w.app().Command[2]
}

func sawEvicted(ctx context.Context, m *matrix, namespace string, _ *workload) error {
	pods, err := m.world.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err == nil && !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed }) {
		return fmt.Errorf("no pod in namespace %s was evicted", namespace)
	}
	return err
}

// slot is a resource of the node that only one namespace knows of.
func slot(namespace string) corev1.ResourceName {
	return corev1.ResourceName("matrix.example/" + namespace)
}

func onSlots(m *matrix, w *workload) {
	slowly(2, 8)(m, w)
	w.slots = 1
}

func twoSlots(ctx context.Context, m *matrix, namespace string) error {
	has := fmt.Sprintf(`{%q:"2"}`, slot(namespace))
	_, err := m.world.kube.CoreV1().Nodes().Patch(ctx, m.node, types.MergePatchType,
		[]byte(`{"status":{"capacity":`+has+`,"allocatable":`+has+`}}`), metav1.PatchOptions{}, "status")
	if err != nil {
		return err
	}
	classes := m.world.kube.SchedulingV1().PriorityClasses()
	_, err = classes.Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: namespace}, Value: 1000}, metav1.CreateOptions{})
	if err == nil {
		m.afterwards(func(ctx context.Context) error { return classes.Delete(ctx, namespace, metav1.DeleteOptions{}) })
	}
	return err
}

// preempt is a pod that matters more, and that takes the node for some seconds.
func preempt(ctx context.Context, m *matrix, namespace string, _ *workload) error {
	if !pause(ctx, 3*time.Second) {
		return nil
	}
	other := healthy(kindPod, "urgent", m.world.box.Base.Base)
	other.slots, other.pod.PriorityClassName = 2, namespace
	other.take(namespace)
	pods := m.world.kube.CoreV1().Pods(namespace)
	_, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: other.name}, Spec: other.pod}, metav1.CreateOptions{})
	if err != nil || !pause(ctx, 8*time.Second) {
		return err
	}
	return pods.Delete(ctx, other.name, metav1.DeleteOptions{})
}

func sawPreempted(ctx context.Context, m *matrix, namespace string, _ *workload) error {
	events, err := m.world.kube.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=Preempted"})
	if err == nil && len(events.Items) == 0 {
		return fmt.Errorf("no pod in namespace %s was preempted", namespace)
	}
	return err
}
