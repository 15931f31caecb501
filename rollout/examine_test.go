package rollout

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/stages"
)

// Of what runs in the namespace, only the release's image is asked, and first what has
// something to tell.
func TestExamine(t *testing.T) {
	d, _, rs, oldPod, newPod := upgrade()
	named := func(name string, change func(*corev1.Pod)) *corev1.Pod {
		return as(newPod, func(p *corev1.Pod) {
			ready(pinnedTo(digestA))(p)
			p.Name = name
			change(p)
		})
	}
	l := newLab(t, d, rs, oldPod, newPod, named("shop-serves", func(*corev1.Pod) {}), named("shop-waits", func(p *corev1.Pod) { p.Status.Conditions = nil }),
		named("shop-restarted", func(p *corev1.Pod) { p.Status.ContainerStatuses[0].RestartCount = 2 }))
	facts, err := l.verifier().Examine(t.Context(), release(t))
	require.NoError(t, err)
	require.Len(t, facts, 3)
	assert.Equal(t, stages.Evidence{
		Subject: "pod shop/shop-restarted", Owners: []string{"ReplicaSet shop/" + rs.Name}, Container: "app", Reason: "Running",
		Message: "the pod is ready, and the container was restarted 2 times", Logs: []string{"fake logs"}, Command: "kubectl logs shop-restarted -n shop -c app",
	}, facts[0])
	assert.Equal(t, "pod shop/shop-waits", facts[1].Subject)
	assert.Equal(t, "pod shop/shop-serves", facts[2].Subject)
}

func TestExamineSaysWhatItMayNot(t *testing.T) {
	l := newLab(t)
	l.client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("no")
	})
	_, err := l.verifier().Examine(t.Context(), release(t))
	require.ErrorContains(t, err, "examine release shop/shop: list the pods in namespace shop: no")
	_, err = l.verifier().Examine(t.Context(), stages.Release{})
	require.ErrorIs(t, err, stages.ErrInvalid)
}

// A program may log what its environment tells it.
func TestExamineMasksSecrets(t *testing.T) {
	w := witness{settings: settingsOf(t, Config{})}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop-1"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "app", Env: []corev1.EnvVar{{Name: "DB_PASSWORD", Value: "Zq7Xk2Wv9Rt4"}},
	}}}}
	clean := w.knowing(finding{pod: pod}).settings.clean
	assert.NotContains(t, strings.Join(clean.tail("connecting with Zq7Xk2Wv9Rt4", 9, 999), ""), "Zq7Xk2Wv9Rt4")
}
