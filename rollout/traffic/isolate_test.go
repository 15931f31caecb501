package traffic_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

var shared = map[string]string{"app": "shop"}

func (k *kube) service(t *testing.T) *corev1.Service {
	t.Helper()
	s, err := k.typed.CoreV1().Services(ns).Get(t.Context(), "shop", metav1.GetOptions{})
	require.NoError(t, err)
	return s
}

// follow does what controllers do, by the Service's selector as it is.
func (k *kube) follow(t *testing.T) {
	t.Helper()
	replicas, err := k.replicas(t.Context())
	require.NoError(t, err)
	require.NoError(t, k.run(t.Context(), replicas, k.service(t).Spec.Selector))
}

// TestReplicasIsolate checks that a canary's pods get no request before their first
// weight, and then are as many as that takes, whatever their chart says.
func TestReplicasIsolate(t *testing.T) {
	for _, tt := range []struct {
		of, chart             int32
		weight, nearest       int
		wantStable, wantCanry int64
	}{
		{of: 2, chart: 2, weight: 10, nearest: 33, wantStable: 2, wantCanry: 1},
		{of: 10, chart: 10, weight: 10, nearest: 9, wantStable: 10, wantCanry: 1},
		{of: 10, chart: 1, weight: 50, nearest: 50, wantStable: 10, wantCanry: 10},
		{of: 4, chart: 0, weight: 50, nearest: 50, wantStable: 4, wantCanry: 4},
		{of: 4, chart: 7, weight: 100, nearest: 100, wantStable: 0, wantCanry: 4},
		{of: 4, chart: 7, weight: 0, nearest: 0, wantStable: 4, wantCanry: 0},
	} {
		k, r := newReplicas(t, tt.of, 0)
		k.follow(t)
		require.NoError(t, r.Isolate(t.Context(), nil))
		require.NoError(t, r.Isolate(t.Context(), nil), "again")
		require.NoError(t, k.edit(t.Context(), deployments, "shop-canary", func(o *unstructured.Unstructured) error {
			return unstructured.SetNestedField(o.Object, int64(tt.chart), "spec", "replicas")
		}))
		k.follow(t)
		split, err := r.Observe(t.Context())
		require.NoError(t, err)
		assert.Zero(t, split.Canary)
		assert.True(t, split.Settled, split)
		require.Contains(t, split.Detail, "0 of")

		nearest, err := r.Nearest(t.Context(), tt.weight)
		require.NoError(t, err)
		require.Equal(t, tt.nearest, nearest)
		for range 10 {
			err = r.Shift(t.Context(), 0, nearest)
			k.follow(t)
			if split, seen := r.Observe(t.Context()); seen == nil && nearest < 100 {
				assert.LessOrEqual(t, split.Canary, nearest)
			}
		}
		require.NoError(t, err)
		split, err = r.Observe(t.Context())
		require.NoError(t, err)
		assert.Equal(t, nearest, split.Canary)
		assert.True(t, split.Settled, split)
		replicas, err := k.replicas(t.Context())
		require.NoError(t, err)
		assert.Equal(t, map[string]int64{"shop": tt.wantStable, "shop-canary": tt.wantCanry}, replicas)
		assert.Equal(t, shared, k.service(t).Spec.Selector)
		assert.Empty(t, k.service(t).Annotations)
	}
}

// TestIsolationEnds checks that an abort leaves the Service as it was, with a canary
// or without, and that it never leads to pods that were not verified.
func TestIsolationEnds(t *testing.T) {
	k, r := newReplicas(t, 2, 0)
	k.follow(t)
	require.NoError(t, r.Isolate(t.Context(), nil))
	require.NoError(t, k.edit(t.Context(), deployments, "shop-canary", func(o *unstructured.Unstructured) error {
		return unstructured.SetNestedField(o.Object, int64(3), "spec", "replicas")
	}))
	k.follow(t)
	require.ErrorContains(t, r.Shift(t.Context(), traffic.Any, 0), "3 pods of shop-canary are ready")
	require.NotEqual(t, shared, k.service(t).Spec.Selector, "they would get requests")
	k.follow(t)
	require.NoError(t, r.Shift(t.Context(), traffic.Any, 0))
	require.Equal(t, shared, k.service(t).Spec.Selector)

	require.NoError(t, r.Isolate(t.Context(), nil))
	require.NoError(t, k.dynamic.Resource(deployments).Namespace(ns).Delete(t.Context(), "shop-canary", metav1.DeleteOptions{}))
	k.follow(t)
	require.NoError(t, r.Shift(t.Context(), traffic.Any, 0))
	require.Equal(t, shared, k.service(t).Spec.Selector)
	require.Empty(t, k.service(t).Annotations)
}

// TestIsolationIsNotForeign checks that a Service that somebody has opened is told
// as such, and that one can still be isolated while its canary has traffic for long.
func TestIsolationIsNotForeign(t *testing.T) {
	k, r := newReplicas(t, 2, 2)
	require.NoError(t, r.Isolate(t.Context(), nil))
	_, err := k.typed.CoreV1().Services(ns).Update(t.Context(), service(shared), metav1.UpdateOptions{})
	require.NoError(t, err)
	k.follow(t)
	split, err := r.Observe(t.Context())
	require.NoError(t, err)
	require.Equal(t, 50, split.Canary)
	var changed *traffic.ChangedError
	require.ErrorAs(t, r.Shift(t.Context(), 0, 33), &changed)

}

// TestIsolationOfALoweredRelease checks that a canary is isolated where the stable
// release has few pods left: at once if those do all the work, and otherwise when it
// has them all again.
func TestIsolationOfALoweredRelease(t *testing.T) {
	k, r := newReplicas(t, 4, 0)
	for range 3 {
		_ = r.Shift(t.Context(), traffic.Any, 80)
		k.follow(t)
	}
	require.ErrorContains(t, r.Isolate(t.Context(), nil), "1 of 4 pods of shop are ready")
	require.Equal(t, shared, k.service(t).Spec.Selector, "what is left of the stable release can't do all the work")
	k.follow(t)
	require.NoError(t, r.Isolate(t.Context(), nil))
	k.follow(t)
	replicas, err := k.replicas(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"shop": 4, "shop-canary": 4}, replicas)
	split, err := r.Observe(t.Context())
	require.NoError(t, err)
	require.Zero(t, split.Canary)
	require.True(t, split.Settled, split)

	k, r = newReplicas(t, 4, 0)
	for range 3 {
		_ = r.Shift(t.Context(), traffic.Any, 80)
		k.follow(t)
	}
	require.NoError(t, k.dynamic.Resource(deployments).Namespace(ns).Delete(t.Context(), "shop-canary", metav1.DeleteOptions{}))
	k.follow(t)
	require.NoError(t, r.Isolate(t.Context(), nil))
	require.Equal(t, podLabels("shop"), k.service(t).Spec.Selector, "one that is deployed anew would get requests")
	_, err = k.dynamic.Resource(deployments).Namespace(ns).Create(t.Context(), generic(t, deployment("shop-canary", 1)), metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 1, "shop-canary": 1}, podLabels("shop")))
	require.ErrorContains(t, r.Shift(t.Context(), 0, 20), "1 of 4 pods of shop are ready")
	require.Equal(t, podLabels("shop"), k.service(t).Spec.Selector, "it would get half of all requests")
	k.follow(t)
	require.NoError(t, r.Shift(t.Context(), 0, 20))
	require.Equal(t, shared, k.service(t).Spec.Selector)
}

// TestOnlyReadyCanariesAreAdmitted has a canary that has the right number of replicas
// from an earlier run, and not as many pods that are ready.
func TestOnlyReadyCanariesAreAdmitted(t *testing.T) {
	k, r := newReplicas(t, 4, 4)
	require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 4}, shared))
	require.NoError(t, r.Isolate(t.Context(), nil))
	require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 4, "shop-canary": 3}, podLabels("shop")))
	require.ErrorContains(t, r.Shift(t.Context(), 0, 50), "3 pods of shop-canary are ready, and 4 are to get requests")
	require.Equal(t, podLabels("shop"), k.service(t).Spec.Selector)
	k.follow(t)
	require.NoError(t, r.Shift(t.Context(), 0, 50))
	require.Equal(t, shared, k.service(t).Spec.Selector)
	require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 4, "shop-canary": 3}, shared))
	split, err := r.Observe(t.Context())
	require.NoError(t, err)
	require.False(t, split.Settled)
}

// TestIsolationOfOneThatLooksAlike plans a canary whose pods the narrowed Service would
// select as well.
func TestIsolationOfOneThatLooksAlike(t *testing.T) {
	k, r := newReplicas(t, 4, 0)
	require.NoError(t, k.dynamic.Resource(deployments).Namespace(ns).Delete(t.Context(), "shop-canary", metav1.DeleteOptions{}))
	k.follow(t)
	planned := func(canary map[string]string) []byte {
		d := deployment("shop-canary", 1)
		d.Namespace, d.Spec.Template.Labels = "", canary
		d.Spec.Selector.MatchLabels = map[string]string{"app.kubernetes.io/instance": canary["app.kubernetes.io/instance"]}
		other := deployment("unconcerned", 1)
		var out []byte
		for _, o := range []any{service(shared), other, d} {
			data, err := yaml.Marshal(o)
			require.NoError(t, err)
			out = append(append(out, "---\n"...), data...)
		}
		return out
	}
	alike := map[string]string{"app": "shop", "app.kubernetes.io/instance": "shop", "track": "canary"}
	requireOdd(t, r.Isolate(t.Context(), planned(alike)), "Deployment shop/shop-canary: its pods can't be told from those of shop")
	requireOdd(t, r.Isolate(t.Context(), planned(map[string]string{"app": "other"})), "which the pods of shop-canary are not")
	require.Equal(t, shared, k.service(t).Spec.Selector)
	require.NoError(t, r.Isolate(t.Context(), planned(podLabels("shop-canary"))))
	require.Equal(t, podLabels("shop"), k.service(t).Spec.Selector)
}

// TestIsolationWithoutARecord has the record of a canary deleted by hand while requests
// are kept from it. Whoever comes next must open the Service again.
func TestIsolationWithoutARecord(t *testing.T) {
	steps := []traffic.Step{{Weight: 20}}
	for name, next := range map[string]func(t *testing.T, q *process, cp *stages.Checkpoint) stages.Image{
		"abort": func(t *testing.T, q *process, _ *stages.Checkpoint) stages.Image {
			canary := q.canaryOf(parts{steps: steps})
			require.NoError(t, canary.Abort(t.Context(), ""))
			require.ErrorIs(t, canary.Abort(t.Context(), ""), traffic.ErrNoCanary)
			return oldImage
		},
		"restore": func(t *testing.T, q *process, cp *stages.Checkpoint) stages.Image {
			_, err := q.canaryOf(parts{steps: steps}).Restore(t.Context(), "run-1", *cp)
			require.NoError(t, err)
			return oldImage
		},
		"nothing changes": func(t *testing.T, q *process, _ *stages.Checkpoint) stages.Image {
			_, err := q.deliver(t.Context(), q.canaryOf(parts{steps: steps}), "run-2", oldImage)
			require.NoError(t, err)
			return oldImage
		},
		"another canary": func(t *testing.T, q *process, _ *stages.Checkpoint) stages.Image {
			_, err := q.deliver(t.Context(), q.canaryOf(parts{steps: steps}), "run-2", otherImage)
			require.NoError(t, err)
			return otherImage
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				var k *kube
				c.rig, k = replicasRig(t)
				p, dead := &process{cluster: c}, false
				p.fault = func(call string, _ int, after bool) error {
					if dead = dead || call == "deploy canary" && after; dead {
						return errDead
					}
					return nil
				}
				cp, err := p.deliver(t.Context(), p.canaryOf(parts{steps: steps}), "run-1", newImage)
				require.ErrorIs(t, err, errDead)
				c.died()
				_, version, err := c.state.Load(t.Context())
				require.NoError(t, err)
				require.NoError(t, c.state.Delete(t.Context(), version))
				require.NotEqual(t, shared, k.service(t).Spec.Selector)
				c.requireCalm(next(t, &process{cluster: c}, cp))
				require.Equal(t, shared, k.service(t).Spec.Selector)
				require.Empty(t, k.service(t).Annotations)
			})
		})
	}
}

// deploying is a canary's deployer that something happens at the end of.
type deploying struct {
	canaryDeployer
	then func(ctx context.Context) error
}

func (d deploying) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	rel, err := d.canaryDeployer.Deploy(ctx, req)
	if err == nil {
		err = d.then(ctx)
	}
	return rel, err
}

// TestIsolationThatSomebodyEnds has the Service's own chart applied again while requests
// are kept from a canary whose pods are about the share of its first step.
func TestIsolationThatSomebodyEnds(t *testing.T) {
	for _, lasts := range []bool{true, false} {
		for _, noted := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				var k *kube
				c.rig, k = replicasRig(t)
				p := &process{cluster: c}
				open := func(ctx context.Context) error {
					s := service(shared)
					if noted {
						s.Annotations = k.service(t).Annotations
					}
					_, err := k.typed.CoreV1().Services(ns).Update(ctx, s, metav1.UpdateOptions{})
					if !lasts || err != nil {
						return err
					}
					select {
					case <-ctx.Done():
						return context.Cause(ctx)
					case <-time.After(time.Minute):
						t.Error("nobody has noticed")
						return nil
					}
				}
				_, err := p.deliver(t.Context(), p.canaryOf(parts{canary: deploying{canaryDeployer{p}, open}, steps: []traffic.Step{{Weight: 50}}}), "run-1", newImage)
				var changed *traffic.ChangedError
				require.ErrorAs(t, err, &changed)
				require.ErrorContains(t, err, "43 instead of 0")
				require.NotContains(t, p.log, "shift to 50")
				c.requireCalm(oldImage)
				require.Equal(t, shared, k.service(t).Spec.Selector)
				require.Empty(t, k.service(t).Annotations)
			})
		}
	}
}

// planning is a deployer that tells what the canary will be.
type planning struct {
	canaryDeployer
	manifests []byte
}

func (d planning) Plan(context.Context, stages.PlanRequest) (stages.Plan, error) {
	return stages.Plan{Release: "canary", Manifests: d.manifests}, nil
}

func TestOneThatLooksAlikeIsNotDeployed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.rig = newReplicasRig(t)
		p := &process{cluster: c}
		alike := deployment("shop-canary", 1)
		alike.Spec.Template.Labels = podLabels("shop")
		manifests, err := yaml.Marshal(alike)
		require.NoError(t, err)
		_, err = p.deliver(t.Context(), p.canaryOf(parts{canary: planning{canaryDeployer{p}, manifests}, steps: []traffic.Step{{Weight: 20}}}), "run-1", newImage)
		requireOdd(t, err, "its pods can't be told from those of shop")
		require.NotContains(t, p.log, "deploy canary")
		c.requireCalm(oldImage)
	})
}

// TestResumeOfALoweredRelease goes on with a canary that has most of the traffic, and
// whose chart has another number of replicas.
func TestResumeOfALoweredRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var k *kube
		c.rig, k = replicasRig(t)
		p := &process{cluster: c}
		dead := false
		p.fault = func(call string, _ int, _ bool) error {
			if dead = dead || call == "gate"; dead {
				return errDead
			}
			return nil
		}
		gates := []stages.Gate[stages.Release]{p.gate(stages.Pass)}
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: []traffic.Step{{Weight: 80, Gates: gates}}}), "run-1", newImage)
		require.Error(t, err)
		require.Equal(t, 80, c.weight())
		c.died()

		q := &process{cluster: c}
		deployed := false
		q.fault = func(call string, _ int, after bool) error {
			if call == "deploy canary" && !after {
				deployed = true
				assert.Zero(t, c.weight(), "it is not verified by this run")
			}
			if call == "deploy canary" && after {
				return k.edit(t.Context(), deployments, "shop-canary", func(o *unstructured.Unstructured) error {
					return unstructured.SetNestedField(o.Object, int64(3), "spec", "replicas")
				})
			}
			return nil
		}
		_, err = q.deliver(t.Context(), q.canaryOf(parts{resume: true, steps: []traffic.Step{{Weight: 80}}}), "run-2", newImage)
		require.NoError(t, err)
		require.True(t, deployed)
		c.requireCalm(newImage)
	})
}

func TestOddIsolation(t *testing.T) {
	k, r := newReplicas(t, 2, 0)
	require.NoError(t, k.dynamic.Resource(deployments).Namespace(ns).Delete(t.Context(), "shop-canary", metav1.DeleteOptions{}))
	require.NoError(t, k.edit(t.Context(), deployments, "shop", func(o *unstructured.Unstructured) error {
		return unstructured.SetNestedStringMap(o.Object, shared, "spec", "selector", "matchLabels")
	}))
	_, err := r.Nearest(t.Context(), 10)
	requireOdd(t, err, "Deployment shop/shop: selects its pods by no label that the Service doesn't select by")

	k, r = newReplicas(t, 2, 0)
	require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 2, "other": 1}, shared))
	requireOdd(t, r.Isolate(t.Context(), nil), "Service shop/shop: sends to 1 pods of neither release")
	require.NoError(t, k.typed.CoreV1().Pods(ns).Delete(t.Context(), "other-0", metav1.DeleteOptions{}))
	require.NoError(t, r.Isolate(t.Context(), nil), "its endpoint goes by itself")
}

// TestStrangersAreRefusedBeforeAnythingHappens has a third workload behind the Service
// from the start, or for a moment.
func TestStrangersAreRefusedBeforeAnythingHappens(t *testing.T) {
	for _, goes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			var k *kube
			c.rig, k = replicasRig(t)
			pods := k.typed.CoreV1().Pods(ns)
			_, err := pods.Create(t.Context(), readyPod("third-0", podLabels("third")), metav1.CreateOptions{})
			require.NoError(t, err)
			p := &process{cluster: c}
			looks := 0
			p.fault = func(call string, _ int, after bool) error {
				if call == "nearest" && !after {
					looks++
				}
				if looks != 3 || !goes {
					return nil
				}
				looks++
				return pods.Delete(t.Context(), "third-0", metav1.DeleteOptions{})
			}
			_, err = p.canaryOf(parts{steps: []traffic.Step{{Weight: 20}}}).Deploy(t.Context(), request(t, newImage, "run-1"))
			if goes {
				require.NoError(t, err)
				c.requireCalm(newImage)
				return
			}
			requireOdd(t, err, "Service shop/shop: sends to 1 pods of neither release")
			var aborted *traffic.AbortError
			require.NotErrorAs(t, err, &aborted)
			require.NotContains(t, p.log, "save deploying")
			require.Equal(t, shared, k.service(t).Spec.Selector)
		})
	}
}

// TestIsolationWaitsForStrangers has a pod of neither release end before the canary is
// deployed, or not.
func TestIsolationWaitsForStrangers(t *testing.T) {
	for _, goes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			var k *kube
			c.rig, k = replicasRig(t)
			p := &process{cluster: c}
			pods, looks := k.typed.CoreV1().Pods(ns), 0
			p.fault = func(call string, _ int, after bool) (err error) {
				if call != "isolate" || after {
					return nil
				}
				switch looks++; {
				case looks == 1:
					_, err = pods.Create(t.Context(), readyPod("old-0", podLabels("old")), metav1.CreateOptions{})
				case looks == 4 && goes:
					err = pods.Delete(t.Context(), "old-0", metav1.DeleteOptions{})
				}
				return err
			}
			_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: []traffic.Step{{Weight: 20}}}), "run-1", newImage)
			if goes {
				require.NoError(t, err)
				c.requireCalm(newImage)
				return
			}
			requireOdd(t, err, "Service shop/shop: sends to 1 pods of neither release")
			require.NotContains(t, p.log, "deploy canary")
			c.requireCalm(oldImage)
		})
	}
}

// TestCanaryOfManyReplicas delivers a canary whose chart has as many replicas as the
// stable release, which is more than its first step takes.
func TestCanaryOfManyReplicas(t *testing.T) {
	synctest.Test(t, canaryOfManyReplicas)
}

func canaryOfManyReplicas(t *testing.T) {
	c := newCluster(t)
	c.rig = newReplicasRig(t)
	p := &process{cluster: c}
	canary := p.canaryOf(parts{steps: []traffic.Step{{Weight: 10}, {Weight: 50}}})
	shifted := false
	p.fault = func(call string, _ int, _ bool) error {
		shifted = shifted || call == "shift to 20"
		if !shifted {
			assert.Zero(t, c.weight(), "before %s", call)
		}
		return nil
	}
	_, err := p.deliver(t.Context(), canary, "run-1", newImage)
	require.NoError(t, err)
	require.True(t, shifted)
	c.requireCalm(newImage)
}
