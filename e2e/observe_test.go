package e2e_test

import (
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/stages"
)

func join(lines []string) string { return "\n" + strings.Join(lines, "\n") }

func (w *world) suffix() string { return strings.ToLower(rand.Text()[:6]) }

// requireRunning checks that the deployment wants img, and that every pod of it
// that is not on its way out runs img and is ready.
func (w *world) requireRunning(t *testing.T, namespace string, img stages.Image) {
	t.Helper()
	ctx := labtest.Context(t)
	deployment, err := w.kube.AppsV1().Deployments(namespace).Get(ctx, release, metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, img.String(), deployment.Spec.Template.Spec.Containers[0].Image)
	selector, err := metav1.LabelSelectorAsSelector(deployment.Spec.Selector)
	require.NoError(t, err)
	pods, err := w.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	require.NoError(t, err)
	ready := 0
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp != nil || pod.Spec.Containers[0].Image != img.String() {
			continue
		}
		for _, status := range pod.Status.ContainerStatuses {
			assert.Contains(t, status.ImageID, img.Digest().String())
			if status.Ready {
				ready++
			}
		}
	}
	assert.Equal(t, int(*deployment.Spec.Replicas), ready, "ready pods of %s", img)
}

// revisions lists the release's history, as "name=status".
func (w *world) revisions(t *testing.T, namespace string) []string {
	t.Helper()
	secrets, err := w.kube.CoreV1().Secrets(namespace).List(labtest.Context(t), metav1.ListOptions{LabelSelector: "owner=helm,name=" + release})
	require.NoError(t, err)
	var all []string
	for _, s := range secrets.Items {
		all = append(all, s.Name+"="+s.Labels["status"])
	}
	return all
}

// watchPending tells when Helm has recorded that it is upgrading, which is before
// it changes anything.
func (w *world) watchPending(t *testing.T, namespace string) watch.Interface {
	t.Helper()
	pending, err := w.kube.CoreV1().Secrets(namespace).Watch(labtest.Context(t), metav1.ListOptions{LabelSelector: "owner=helm,status=pending-upgrade"})
	require.NoError(t, err)
	return pending
}

// requireNamespaceGone waits until a namespace that is being deleted is gone.
func (w *world) requireNamespaceGone(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := watchtools.ContextWithOptionalTimeout(labtest.Context(t), time.Minute)
	defer cancel()
	namespaces := w.kube.CoreV1().Namespaces()
	current, err := namespaces.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return
	}
	require.NoError(t, err)
	require.NotNil(t, current.DeletionTimestamp, "namespace %s must be gone or going", name)
	lw := cache.NewListWatchFromClient(w.kube.CoreV1().RESTClient(), "namespaces", "", fields.OneTermEqualSelector("metadata.name", name))
	_, err = watchtools.UntilWithSync(ctx, lw, &corev1.Namespace{},
		func(store cache.Store) (bool, error) { return len(store.List()) == 0, nil },
		func(e watch.Event) (bool, error) { return e.Type == watch.Deleted, nil })
	require.NoError(t, err, "namespace %s must go away", name)
}

// ailments remembers when a pod was first seen to be unable to start.
type ailments struct {
	mu    sync.Mutex
	first time.Time
}

func (a *ailments) firstSeen() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.first
}

// watchAilments watches the namespace's pods, with an eye of the test's own.
func (w *world) watchAilments(t *testing.T, namespace string) *ailments {
	t.Helper()
	a := &ailments{}
	watcher, err := w.kube.CoreV1().Pods(namespace).Watch(labtest.Context(t), metav1.ListOptions{})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for event := range watcher.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok && ailing(pod) {
				a.mu.Lock()
				if a.first.IsZero() {
					a.first = time.Now()
				}
				a.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { watcher.Stop(); <-done })
	return a
}

func ailing(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false // left by what was tried before
	}
	for _, status := range pod.Status.ContainerStatuses {
		if w := status.State.Waiting; w != nil && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			return true
		}
		if done := status.State.Terminated; done != nil && done.ExitCode != 0 {
			return true
		}
	}
	return false
}
