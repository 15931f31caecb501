package rollout

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
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
			p.Name, p.CreationTimestamp = name, metav1.Now()
			p.Labels = map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: strings.TrimPrefix(rs.Name, "shop-")}
			change(p)
		})
	}
	rel := release(t)
	rel.Began = time.Now().Add(-time.Minute)
	crashed := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, FinishedAt: metav1.Now()}}
	l := newLab(t, d, rs, oldPod, newPod, named("shop-serves", func(*corev1.Pod) {}), named("shop-waits", func(p *corev1.Pod) { p.Status.Conditions = nil }),
		named("shop-restarted", func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].RestartCount, p.Status.ContainerStatuses[0].LastTerminationState = 2, crashed
		}),
		named("shop-old", func(p *corev1.Pod) {
			p.CreationTimestamp, p.Status.ContainerStatuses[0].RestartCount = metav1.NewTime(rel.Began.Add(-time.Hour)), 9
		}),
		named("shop-over", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		named("migrate-x", func(p *corev1.Pod) { p.OwnerReferences[0].Kind, p.OwnerReferences[0].Name = "Job", "migrate" }),
		named("other-x", func(p *corev1.Pod) {
			p.OwnerReferences[0].Name = "other-" + p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		}))
	facts, err := l.verifier().Examine(t.Context(), rel)
	require.NoError(t, err)
	var subjects []string
	for _, f := range facts {
		subjects = append(subjects, f.Subject)
	}
	assert.Equal(t, []string{"pod shop/shop-waits", "pod shop/shop-restarted", "pod shop/shop-serves", "pod shop/shop-old"}, subjects)
	code := int32(3)
	assert.Equal(t, stages.Evidence{
		Subject: "pod shop/shop-restarted", Owners: []string{"ReplicaSet shop/" + rs.Name}, Container: "app", Reason: "Running", ExitCode: &code,
		Message: "the pod is ready, and the container was restarted 2 times", Logs: []string{"fake logs"}, Command: "kubectl logs shop-restarted -n shop -c app --previous",
	}, facts[1])
}

func TestPodsThatWereMadeForARelease(t *testing.T) {
	rel := release(t, stages.Object{Kind: "Deployment", Name: "shop"}, stages.Object{Kind: "CronJob", Name: "report"}, stages.Object{Kind: "Pod", Name: "tool"})
	for name, want := range map[string]bool{
		"ReplicaSet/shop-5f6d": true, "ReplicaSet/shop": false, "ReplicaSet/shop-web-5f6d": false, "Job/report-29": true, "Job/migrate": false,
		"StatefulSet/shop": false, "Rollout/any": true, "/tool": true, "/other": false,
	} {
		kind, owner, _ := strings.Cut(name, "/")
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: owner, Labels: map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: "5f6d"}}}
		if kind != "" {
			pod.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: owner, Controller: new(true)}}
		}
		assert.Equal(t, want, madeFor(pod, rel), name)
	}
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
	const said = "fake logs" // as client-go's does
	d, _, rs, _, newPod := upgrade()
	l := newLab(t, d, rs, as(newPod, func(p *corev1.Pod) {
		ready(pinnedTo(digestA))(p)
		p.Labels = map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: strings.TrimPrefix(rs.Name, "shop-")}
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "DB_PASSWORD", Value: said}}
	}))
	facts, err := l.verifier().Examine(t.Context(), release(t))
	require.NoError(t, err)
	require.Len(t, facts, 1)
	assert.NotEmpty(t, facts[0].Logs)
	assert.NotContains(t, strings.Join(facts[0].Logs, "\n"), said)
}
