package lab

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// waitReady returns once the cluster can do work: the node is ready, DNS
// answers, and the default namespace has the account that its pods run under.
func waitReady(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	conditions := []struct {
		what      string
		resource  string
		namespace string
		name      string // empty: any
		via       cache.Getter
		object    runtime.Object
		ready     func(runtime.Object) bool
	}{
		{"a ready node", "nodes", "", "", client.CoreV1().RESTClient(), &corev1.Node{}, nodeReady},
		{"cluster DNS", "deployments", "kube-system", "coredns", client.AppsV1().RESTClient(), &appsv1.Deployment{}, deploymentAvailable},
		{"the default service account", "serviceaccounts", "default", "default", client.CoreV1().RESTClient(), &corev1.ServiceAccount{}, exists},
	}
	for _, c := range conditions {
		selector := fields.Everything()
		if c.name != "" {
			selector = fields.OneTermEqualSelector(metav1.ObjectNameField, c.name)
		}
		lw := cache.NewListWatchFromClient(c.via, c.resource, c.namespace, selector)
		_, err := watchtools.UntilWithSync(ctx, lw, c.object, nil, func(event watch.Event) (bool, error) {
			return event.Type != watch.Deleted && c.ready(event.Object), nil
		})
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("wait for %s: %w", c.what, err)
		}
	}
	return nil
}

func nodeReady(object runtime.Object) bool {
	node, ok := object.(*corev1.Node)
	if !ok {
		return false
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func deploymentAvailable(object runtime.Object) bool {
	deployment, ok := object.(*appsv1.Deployment)
	return ok && deployment.Status.AvailableReplicas > 0
}

func exists(runtime.Object) bool { return true }
