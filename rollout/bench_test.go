package rollout

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// life is the states that a pod goes through on a cluster: created, scheduled,
// its container created, running, ready.
func life(a app, i int) []*corev1.Pod {
	p := podOf(a.set, "ReplicaSet", fmt.Sprintf("%s-2-%04d", a.deployment.Name, i), a.deployment.Spec.Template)
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: &metav1.FieldsV1{}}}
	p.Spec.Volumes = []corev1.Volume{{Name: "kube-api-access"}, {Name: "settings"}}
	p.Spec.Containers[0].Env = make([]corev1.EnvVar, 20)
	bare := as(p, func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodPending} })
	return []*corev1.Pod{
		bare, as(bare, func(p *corev1.Pod) { p.Spec.NodeName = "node-1" }), as(p, waiting("ContainerCreating", "")),
		as(p, running(pinnedTo(digestA))), as(p, ready(pinnedTo(digestA))),
	}
}

// BenchmarkThousandPods measures a rollout of 1000 pods, 5000 changes of them,
// from the watch to the verdict. "looks" is how often the pods were judged,
// "kept-MB" what is in memory when all are ready.
func BenchmarkThousandPods(b *testing.B) {
	const replicas = 1000
	a := newApp(b, ns, "shop")
	n := int32(replicas)
	a.deployment.Spec.Replicas = &n
	var states [][]*corev1.Pod
	for i := range replicas {
		states = append(states, life(a, i))
	}
	done := complete(a.deployment)
	b.ReportAllocs()
	for b.Loop() {
		l := newLab(b, a.deployment, a.set)
		pods := l.stormy()
		s := session{
			cluster: l.cluster(), settings: settingsOf(b, Config{}), verb: "verify", subject: "shop", image: a.release.Image, namespace: ns,
			targets: []stages.Object{{APIVersion: "apps/v1", Kind: "Deployment", Namespace: ns, Name: "shop"}},
			others:  func(context.Context) (objectsFound, error) { return objectsFound{}, nil }, progress: func(string, string) {},
		}
		over := make(chan error, 1)
		go func() {
			_, err := s.run(b.Context())
			over <- err
		}()
		for step := range states[0] {
			for i := range states {
				pods.modify(states[i][step].DeepCopy())
			}
		}
		l.client.Tracker().Update(resourceOf(done), done, ns) //nolint:errcheck // the verdict tells
		require.NoError(b, <-over)
		b.ReportMetric(float64(s.looks), "looks/op")
	}
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(replicas*5), "ns/change")
	b.ReportMetric(keptByPods(b, states), "kept-MB")
}

// keptByPods returns the megabytes that a feed keeps of the pods at the end.
func keptByPods(b *testing.B, states [][]*corev1.Pod) float64 {
	b.Helper()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	kept := newStore()
	for step := range states[0] {
		for i := range states {
			p := states[i][step].DeepCopy()
			pods.trim(p)
			kept.put(p)
		}
	}
	after := heap()
	runtime.KeepAlive(&kept)
	runtime.KeepAlive(states)
	return (float64(after) - float64(before)) / (1 << 20)
}

func settingsOf(tb testing.TB, c Config) settings {
	tb.Helper()
	s, err := c.complete()
	require.NoError(tb, err)
	return s
}

// BenchmarkLookAtThousandPods measures one judgement of 1000 pods that are not
// ready yet.
func BenchmarkLookAtThousandPods(b *testing.B) {
	const replicas = 1000
	a := newApp(b, ns, "shop")
	n := int32(replicas)
	a.deployment.Spec.Replicas = &n
	l := newLab(b, a.deployment, a.set)
	for i := range replicas {
		require.NoError(b, l.client.Tracker().Add(life(a, i)[3]))
	}
	w := newWorld(l.cluster().hub)
	for _, r := range kinds["apps/Deployment"].needs {
		w.join(b.Context(), r, ns, "")
	}
	defer w.leave()
	for _, m := range w.joined {
		for !m.status().synced {
			<-w.wakeUp
		}
	}
	in := newInspector(w, a.release.Image, settings{})
	object := stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Namespace: ns, Name: "shop"}
	b.ReportAllocs()
	for b.Loop() {
		w.beginLook()
		in.deployment(object, time.Now())
		w.endLook()
	}
}

// BenchmarkFiftyReleases measures what one change of a pod costs while 50
// releases in its namespace are verified through one watch.
func BenchmarkFiftyReleases(b *testing.B) {
	var apps []app
	l := newLab(b)
	for i := range 50 {
		a := newApp(b, ns, fmt.Sprintf("app-%02d", i))
		apps = append(apps, a)
		for _, o := range a.objects() {
			require.NoError(b, l.client.Tracker().Add(o))
		}
	}
	watched := l.stormy()
	v := l.verifier()
	ctx, cancel := context.WithCancel(b.Context())
	over := make(chan error, len(apps))
	for _, a := range apps {
		go func() {
			_, err := v.Verify(ctx, a.release)
			over <- err
		}()
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		watched.modify(as(apps[i%len(apps)].pod, running(pinnedTo(digestA))))
		i++
	}
	b.StopTimer()
	watches := 0
	for request, times := range l.requests() {
		if request[:5] == "watch" {
			watches += times
		}
	}
	b.ReportMetric(float64(watches), "watches")
	cancel()
	for range apps {
		require.ErrorIs(b, <-over, context.Canceled)
	}
}
