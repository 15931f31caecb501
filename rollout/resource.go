package rollout

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

// resource is one kind of object that a verification watches.
type resource struct {
	name          string // with its API group, if any: "pods", or "deployments.apps"
	optional      bool   // the verdict can do without it
	clusterScoped bool
	untyped       bool
	list          func(context.Context, *Cluster, string, metav1.ListOptions) (runtime.Object, error)
	watch         func(context.Context, *Cluster, string, metav1.ListOptions) (watch.Interface, error)
}

// lister is what every typed client of client-go has.
type lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func newResource[L runtime.Object, C lister[L]](name string, client func(kubernetes.Interface, string) C) resource {
	return resource{
		name: name,
		list: func(ctx context.Context, c *Cluster, ns string, o metav1.ListOptions) (runtime.Object, error) {
			return client(c.client, ns).List(ctx, o)
		},
		watch: func(ctx context.Context, c *Cluster, ns string, o metav1.ListOptions) (watch.Interface, error) {
			return client(c.client, ns).Watch(ctx, o)
		},
	}
}

// newDynamicResource is of a kind that client-go has no types for.
func newDynamicResource(r schema.GroupVersionResource, namespaced bool) resource {
	client := func(c *Cluster, ns string) dynamic.ResourceInterface {
		if namespaced {
			return c.dynamic.Resource(r).Namespace(ns)
		}
		return c.dynamic.Resource(r)
	}
	return resource{
		name: r.GroupResource().String(), clusterScoped: !namespaced, untyped: true,
		list: func(ctx context.Context, c *Cluster, ns string, o metav1.ListOptions) (runtime.Object, error) {
			return client(c, ns).List(ctx, o)
		},
		watch: func(ctx context.Context, c *Cluster, ns string, o metav1.ListOptions) (watch.Interface, error) {
			return client(c, ns).Watch(ctx, o)
		},
	}
}

func optional(r resource) resource {
	r.optional = true
	return r
}

func required(r resource) resource {
	r.optional = false
	return r
}

func clusterScoped(r resource) resource {
	r.clusterScoped = true
	return r
}

// id tells resources apart in a session.
func (r resource) id() string {
	if r.untyped {
		return r.name + " (untyped)"
	}
	return r.name
}

// page is how many objects are asked for at a time.
func (r resource) page() int64 {
	if r.untyped { // they may be large
		return pageSize / 10
	}
	return pageSize
}

// trim drops what nothing here looks at and what would fill the memory.
func (r resource) trim(o metav1.Object) {
	o.SetManagedFields(nil) // the largest part of most objects
	if a := o.GetAnnotations(); a[corev1.LastAppliedConfigAnnotation] != "" {
		delete(a, corev1.LastAppliedConfigAnnotation)
		o.SetAnnotations(a)
	}
	if u, ok := o.(*unstructured.Unstructured); ok && u.GetKind() == "CustomResourceDefinition" {
		unstructured.RemoveNestedField(u.Object, "spec", "versions") // the schemas
	}
}
