package preview_test

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/helmx/preview"
)

var (
	noon       = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	namespaces = schema.GroupResource{Resource: "namespaces"}
)

// cluster is the fake clientset with what it lacks of a real one: versions that
// conflict, preconditions, deletion that takes its time, and quotas in force.
type cluster struct {
	*fake.Clientset
	mu      sync.Mutex
	version int
	now     time.Time
	// holds are namespaces whose deletion doesn't come to an end.
	holds map[string]bool
	// quotaStalls keeps quotas from coming into force.
	quotaStalls bool
}

func newCluster(objects ...runtime.Object) *cluster {
	c := &cluster{Clientset: fake.NewClientset(objects...), now: noon, holds: map[string]bool{}}
	next := clienttesting.ObjectReaction(c.Tracker())
	c.PrependReactor("create", "namespaces", func(action clienttesting.Action) (bool, runtime.Object, error) {
		ns := action.(clienttesting.CreateAction).GetObject().(*corev1.Namespace)
		c.stamp(ns)
		ns.UID = types.UID("uid-" + ns.ResourceVersion)
		return next(action)
	})
	c.PrependReactor("update", "namespaces", func(action clienttesting.Action) (bool, runtime.Object, error) {
		ns := action.(clienttesting.UpdateAction).GetObject().(*corev1.Namespace)
		if current, err := c.find(ns.Name); err != nil || current.ResourceVersion != ns.ResourceVersion {
			return true, nil, apierrors.NewConflict(namespaces, ns.Name, errors.New("it has changed"))
		}
		c.stamp(ns)
		return next(action)
	})
	c.PrependReactor("delete", "namespaces", func(action clienttesting.Action) (bool, runtime.Object, error) {
		return c.delete(action.(clienttesting.DeleteActionImpl), next)
	})
	c.PrependReactor("get", "resourcequotas", func(action clienttesting.Action) (bool, runtime.Object, error) {
		handled, obj, err := next(action)
		if quota, ok := obj.(*corev1.ResourceQuota); ok && !c.quotaStalls {
			quota = quota.DeepCopy()
			quota.Status.Hard, quota.Status.Used = quota.Spec.Hard, quota.Spec.Hard
			obj = quota
		}
		return handled, obj, err
	})
	return c
}

func (c *cluster) stamp(ns *corev1.Namespace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	ns.ResourceVersion = strconv.Itoa(c.version)
}

func (c *cluster) find(name string) (*corev1.Namespace, error) {
	obj, err := c.Tracker().Get(corev1.SchemeGroupVersion.WithResource("namespaces"), "", name)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Namespace).DeepCopy(), nil
}

func (c *cluster) delete(action clienttesting.DeleteActionImpl, next clienttesting.ReactionFunc) (bool, runtime.Object, error) {
	ns, err := c.find(action.Name)
	if err != nil {
		return true, nil, err
	}
	if pre := action.DeleteOptions.Preconditions; pre == nil || pre.UID == nil || *pre.UID != ns.UID || pre.ResourceVersion == nil || *pre.ResourceVersion != ns.ResourceVersion {
		return true, nil, apierrors.NewConflict(namespaces, ns.Name, errors.New("the preconditions do not hold"))
	}
	if !c.holds[ns.Name] {
		return next(action)
	}
	c.stamp(ns)
	ns.DeletionTimestamp = &metav1.Time{Time: noon}
	return true, nil, c.Tracker().Update(corev1.SchemeGroupVersion.WithResource("namespaces"), ns, "")
}

// finish ends a deletion.
func (c *cluster) finish(t *testing.T, name string) {
	t.Helper()
	require.NoError(t, c.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("namespaces"), "", name))
}

// edit changes a namespace behind everybody's back.
func (c *cluster) edit(t *testing.T, name string, change func(*corev1.Namespace)) {
	t.Helper()
	require.NoError(t, c.change(name, change))
}

func (c *cluster) change(name string, change func(*corev1.Namespace)) error {
	ns, err := c.find(name)
	if err != nil {
		return err
	}
	c.stamp(ns)
	change(ns)
	return c.Tracker().Update(corev1.SchemeGroupVersion.WithResource("namespaces"), ns, "")
}

// writes counts the requests that change something.
func (c *cluster) writes() int {
	n := 0
	for _, action := range c.Actions() {
		switch action.GetVerb() {
		case "get", "list", "watch":
		default:
			n++
		}
	}
	return n
}

// patches counts the patches of objects of a kind.
func (c *cluster) patches(resource string) int {
	n := 0
	for _, action := range c.Actions() {
		if action.Matches("patch", resource) {
			n++
		}
	}
	return n
}

func (c *cluster) previews(t *testing.T, change ...func(*preview.Config)) *preview.Previews {
	t.Helper()
	cfg := preview.Config{Client: c, Now: func() time.Time { return c.now }}
	for _, f := range change {
		f(&cfg)
	}
	p, err := preview.New(cfg)
	require.NoError(t, err)
	return p
}
