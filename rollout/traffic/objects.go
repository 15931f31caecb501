package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
	"github.com/fairlead-dev/fairlead/stages"
)

// FieldManager is what this package's routers write the weights as, and own them by
// for as long as a canary has traffic.
const FieldManager = "fairlead-traffic"

const (
	defaultQPS   = 50
	defaultBurst = 100
)

// access completes a copy of how to reach the cluster.
func access(config *rest.Config) (*rest.Config, error) {
	if config == nil {
		return nil, fmt.Errorf("%w: REST is required", stages.ErrInvalid)
	}
	c := rest.CopyConfig(config)
	if c.RateLimiter == nil && c.QPS == 0 {
		c.QPS, c.Burst = defaultQPS, defaultBurst
	}
	return c, nil
}

func dynamicClient(config *rest.Config) (dynamic.Interface, error) {
	c, err := access(config)
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfig(c)
	if err != nil {
		return nil, errors.Join(stages.ErrInvalid, err)
	}
	return client, nil
}

// kind is one kind of object in one namespace.
type kind struct {
	api                 dynamic.ResourceInterface
	namespace, resource string
	gvk                 schema.GroupVersionKind
}

func newKind(client dynamic.Interface, namespace string, gvk schema.GroupVersionKind, resource string) kind {
	return kind{client.Resource(gvk.GroupVersion().WithResource(resource)).Namespace(namespace), namespace, resource, gvk}
}

func (k kind) object(name string) stages.Object {
	return stages.Object{APIVersion: k.gvk.GroupVersion().String(), Kind: k.gvk.Kind, Namespace: k.namespace, Name: name}
}

// get returns a [*RouteError] if the object doesn't exist.
func (k kind) get(ctx context.Context, name string) (*unstructured.Unstructured, error) {
	o, err := k.api.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, &RouteError{Object: k.object(name), Problem: "doesn't exist", Missing: true}
	}
	return o, orCause(ctx, explain(err, "read", k.object(name)))
}

// list returns all objects of this kind.
func (k kind) list(ctx context.Context) ([]unstructured.Unstructured, error) {
	all, err := k.api.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, orCause(ctx, explain(err, "list", stages.Object{Kind: k.gvk.Kind, Namespace: k.namespace, Name: "*"}))
	}
	return all.Items, nil
}

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// pointer makes a JSON pointer of the path's elements.
func pointer(elements ...any) string {
	var b strings.Builder
	for _, e := range elements {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(fmt.Sprint(e)))
	}
	return b.String()
}

// patch writes nothing but these fields, if the object still is the one that was
// read, and returns the new one. Its error is worth another try if somebody was
// faster.
func (k kind) patch(ctx context.Context, o *unstructured.Unstructured, operations []operation) (*unstructured.Unstructured, error) {
	data, err := jsonPatch(o, operations)
	if err != nil {
		return nil, fmt.Errorf("patch %s: %w", k.object(o.GetName()), err)
	}
	patched, err := k.api.Patch(ctx, o.GetName(), types.JSONPatchType, data, metav1.PatchOptions{FieldManager: FieldManager})
	return patched, orCause(ctx, explain(err, "patch", k.object(o.GetName())))
}

// disown gives up the fields that were written, once they are again as they were
// without a canary: whoever applies the object from a chart or a repository would
// else meet a conflict when it next wants to change one. No request depends on it, so
// where others write at the same time it is left to the next shift after a few tries.
func (k kind) disown(ctx context.Context, o *unstructured.Unstructured) {
	get := func() (*unstructured.Unstructured, error) { return k.get(ctx, o.GetName()) }
	disown(ctx, o, get, func(o *unstructured.Unstructured, operations []operation) error {
		_, err := k.patch(ctx, o, operations)
		return err
	})
}

const disownTries = 3

func disown[T metav1.Object](ctx context.Context, o T, get func() (T, error), patch func(o T, operations []operation) error) {
	for range disownTries {
		kept, owned := withoutManager(o.GetManagedFields())
		if !owned || patch(o, []operation{{Op: "replace", Path: pointer("metadata", "managedFields"), Value: kept}}) == nil {
			return
		}
		if !wait.For(ctx, wait.FirstBackoff) {
			return
		}
		now, err := get()
		if err != nil {
			return
		}
		o = now
	}
}

// withoutManager leaves out the entries that are this package's, and reports whether
// there were any beside others.
func withoutManager(managed []metav1.ManagedFieldsEntry) (kept []metav1.ManagedFieldsEntry, owned bool) {
	kept = slices.DeleteFunc(slices.Clone(managed), func(m metav1.ManagedFieldsEntry) bool { return m.Manager == FieldManager })
	return kept, len(kept) > 0 && len(kept) < len(managed)
}

// jsonPatch is one that fails if the object isn't as it was read any more.
func jsonPatch(o metav1.Object, operations []operation) ([]byte, error) {
	var guarded []operation
	if version := o.GetResourceVersion(); version != "" {
		guarded = append(guarded, operation{Op: "test", Path: pointer("metadata", "resourceVersion"), Value: version})
	}
	return json.Marshal(append(guarded, operations...))
}

// explain says what failed, and marks what a retry can't mend.
func explain(err error, verb string, o stages.Object) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		err = stages.Permanent(err)
	}
	return fmt.Errorf("%s %s: %w", verb, o, err)
}
