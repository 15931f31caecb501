package rollout

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// witnessOf asks an API server that answers for logs as logs does, and that has no
// events.
func witnessOf(t *testing.T, budget time.Duration, logs func(w http.ResponseWriter, r *http.Request, pod string)) witness {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pod, isLog := strings.CutSuffix(r.URL.Path, "/log"); isLog {
			logs(w, r, pod[strings.LastIndex(pod, "/")+1:])
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"kind":"EventList","apiVersion":"v1","items":[]}`)
	}))
	t.Cleanup(server.Close)
	c, err := Connect(ClusterConfig{REST: &rest.Config{Host: server.URL}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return witness{cluster: c, world: newWorld(c.hub), settings: settingsOf(t, Config{EvidenceTimeout: budget})}
}

// crashOf is a finding about a container that has logs.
func crashOf(pod string) finding {
	return finding{
		cause: Crash, reason: "CrashLoopBackOff", container: "app", subject: subject{"Pod", ns, pod, types.UID(pod)}, restarts: 1,
		pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: pod, UID: types.UID(pod)}},
	}
}

func TestASlowLogDelaysNoVerdict(t *testing.T) {
	const budget = 300 * time.Millisecond
	hangs := func(r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(time.Minute):
		}
	}
	w := witnessOf(t, budget, func(w http.ResponseWriter, r *http.Request, pod string) {
		switch pod {
		case "on-a-slow-node":
			hangs(r)
		case "half":
			_, _ = fmt.Fprintln(w, "no database")
			assert.NoError(t, http.NewResponseController(w).Flush())
			hangs(r)
		default:
			_, _ = fmt.Fprintln(w, "no database")
		}
	})
	began := time.Now()
	f := w.failure(t.Context(), crashOf("on-a-slow-node"), []finding{crashOf("half"), crashOf("whole")})
	assert.Less(t, time.Since(began), budget+5*time.Second, "the budget, and what a loaded machine adds")
	assert.Equal(t, []string{"(logs unavailable: no answer within 300ms)"}, f.Decisive.Logs)
	assert.Equal(t, []string{"no database", "(the rest of the log is missing: no answer within 300ms)"}, f.Others[0].Logs)
	assert.Equal(t, []string{"no database"}, f.Others[1].Logs)
}

// Each log comes only once all have been asked for.
func TestEvidenceIsCollectedAtOnce(t *testing.T) {
	var all sync.WaitGroup
	all.Add(1 + maxDetailed)
	w := witnessOf(t, time.Minute, func(w http.ResponseWriter, _ *http.Request, pod string) {
		all.Done()
		all.Wait()
		_, _ = fmt.Fprintln(w, pod)
	})
	others := []finding{crashOf("shop-0")}
	for i := range maxOthers + 1 {
		others = append(others, crashOf(fmt.Sprintf("shop-%d", i+1)))
	}
	f := w.failure(t.Context(), crashOf("shop-0"), others)
	assert.Equal(t, []string{"shop-0"}, f.Decisive.Logs)
	require.Len(t, f.Others, maxOthers)
	for i, e := range f.Others {
		assert.Equal(t, fmt.Sprintf("pod shop/shop-%d", i+1), e.Subject, "each is told once")
		assert.Equal(t, i < maxDetailed, len(e.Logs) == 1)
	}
}

func TestMissingEventsAreSaid(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(server.Close)
	c, err := Connect(ClusterConfig{REST: &rest.Config{Host: server.URL}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	w := witness{cluster: c, world: newWorld(c.hub), settings: settingsOf(t, Config{EvidenceTimeout: 50 * time.Millisecond})}
	f := w.failure(t.Context(), finding{cause: ImageNotFound, reason: "ErrImagePull", subject: subject{"Pod", ns, "shop-1", "shop-1"}}, nil)
	assert.Equal(t, []string{"(the latest events are missing: no answer within 50ms)"}, f.Decisive.Events)
}

// A webhook may repeat what the template has in the clear.
func TestSecretsOfATemplateAreMasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deployment(pinnedTo(digestA), 1)
		d.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "DB_PASSWORD", Value: "Zq7Xk2Wv9Rt4"}}
		rs := replicaSet(d, 2, d.Spec.Template)
		rs.Status.Conditions = []appsv1.ReplicaSetCondition{refusedBy(`admission webhook "x" denied the request: container app has the literal "Zq7Xk2Wv9Rt4"`)}
		l := newLab(t, d, rs, event(rs, "ReplicaSet", "FailedCreate", `denied the literal "Zq7Xk2Wv9Rt4"`))
		f := l.start(t.Context(), release(t)).failure(t)
		assert.NotContains(t, f.Error()+strings.Join(f.Decisive.Events, "\n"), "Zq7Xk2Wv9Rt4")
	})
}
