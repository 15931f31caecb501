package traffic_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

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
