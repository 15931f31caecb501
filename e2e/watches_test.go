package e2e_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// wire counts the requests that reach the API server: watches and others, by path.
type wire struct {
	mu      sync.Mutex
	watches map[string]int
	others  int
}

// wired returns access to the cluster whose requests are counted.
func (w *world) wired() (*rest.Config, *wire) {
	access, c := rest.CopyConfig(w.rest), &wire{watches: map[string]int{}}
	access.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return tapped{next, c}
	})
	return access, c
}

// tapped is a transport whose requests are counted.
type tapped struct {
	http.RoundTripper
	wire *wire
}

func (t tapped) RoundTrip(r *http.Request) (*http.Response, error) {
	t.wire.mu.Lock()
	if r.URL.Query().Has("watch") {
		t.wire.watches[r.URL.Path]++
	} else {
		t.wire.others++
	}
	t.wire.mu.Unlock()
	return t.RoundTripper.RoundTrip(r)
}

// WrappedRoundTripper lets client-go find the connections.
func (t tapped) WrappedRoundTripper() http.RoundTripper { return t.RoundTripper }

// idle returns a pod template that runs the base image and does nothing.
func (w *world) idle(name string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{
				Name: "idle", Image: w.box.Base.Base, Command: []string{"sleep", "infinity"},
				ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}},
			}},
		},
	}
}

func (w *world) baseImage(t *testing.T) stages.Image {
	t.Helper()
	img, err := stages.ParseImage(w.box.Base.Base)
	require.NoError(t, err)
	return img
}

// TestManyReleasesShareWatches verifies 50 releases at the same time, by two
// verifiers that share a cluster, and counts the watches on the wire; then 10 in
// two namespaces by watches of the whole cluster. A node holds about 100 pods.
func TestManyReleasesShareWatches(t *testing.T) {
	w := newWorld(t)
	ctx := labtest.Context(t)
	for wide, releases := range map[bool]int{false: 50, true: 10} {
		t.Run(fmt.Sprintf("wide=%t", wide), func(t *testing.T) {
			namespaces := []string{w.namespace(t)}
			if wide {
				namespaces = append(namespaces, w.namespace(t))
			}
			access, count := w.wired()
			cluster, err := rollout.Connect(rollout.ClusterConfig{REST: access, Wide: wide})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, cluster.Close()) })
			verifiers := make([]*rollout.Verifier, 2)
			for i := range verifiers {
				verifiers[i], err = rollout.New(rollout.Config{Cluster: cluster, Timeout: rolloutTimeout})
				require.NoError(t, err)
			}
			img := w.baseImage(t)
			began := time.Now()
			var wg sync.WaitGroup
			errs := make([]error, releases)
			for i := range releases {
				name, ns := fmt.Sprintf("app-%02d", i), namespaces[i%len(namespaces)]
				wg.Go(func() {
					_, errs[i] = verifiers[i%2].Verify(ctx, stages.Release{
						Image: img, Name: name, Namespace: ns,
						Objects: []stages.Object{{APIVersion: "apps/v1", Kind: "Deployment", Name: name}},
					})
				})
				_, err := w.kube.AppsV1().Deployments(ns).Create(ctx, &appsv1.Deployment{
					ObjectMeta: metav1.ObjectMeta{Name: name},
					Spec:       appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: w.idle(name)},
				}, metav1.CreateOptions{})
				require.NoError(t, err)
			}
			wg.Wait()
			for _, err := range errs {
				require.NoError(t, err)
			}
			count.mu.Lock()
			defer count.mu.Unlock()
			t.Logf("MEASURED %d releases, wide=%t: %.1f s, %d requests that are no watches, watches %v", releases, wide, time.Since(began).Seconds(), count.others, count.watches)
			kinds := map[string]int{}
			for path, n := range count.watches {
				assert.Equal(t, wide, !strings.Contains(path, "/namespaces/"), path)
				kinds[path[strings.LastIndex(path, "/")+1:]] += n
			}
			assert.Equal(t, []string{"deployments", "events", "pods", "replicasets"}, slices.Sorted(maps.Keys(kinds)))
			for kind, n := range kinds {
				assert.Equal(t, 1, n, kind)
			}
		})
	}
}
