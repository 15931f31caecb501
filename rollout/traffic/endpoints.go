package traffic

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"github.com/fairlead-dev/fairlead/stages"
)

// backends are the pods behind a Service.
type backends struct {
	// serving are the labels of the pods that are ready endpoints.
	serving []labels.Set
	// ready are the labels of the pods in the namespace that are ready, endpoints or
	// not.
	ready []labels.Set
}

// readBackends finds out which pods a Service sends to, from its EndpointSlices.
func readBackends(ctx context.Context, client kubernetes.Interface, namespace, service string) (backends, error) {
	slices, err := client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return backends{}, orCause(ctx, explain(err, "list the EndpointSlices of", stages.Object{Kind: "Service", Namespace: namespace, Name: service}))
	}
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return backends{}, orCause(ctx, explain(err, "list", stages.Object{Kind: "Pod", Namespace: namespace, Name: "*"}))
	}
	byName := map[string]labels.Set{}
	var b backends
	for i := range pods.Items {
		p := &pods.Items[i]
		byName[p.Name] = p.Labels
		if p.DeletionTimestamp == nil && podReady(p) {
			b.ready = append(b.ready, p.Labels)
		}
	}
	seen := map[string]bool{} // A pod has an endpoint in a slice for each address family.
	for _, s := range slices.Items {
		for _, e := range s.Endpoints {
			if e.TargetRef == nil || e.TargetRef.Kind != "Pod" || seen[e.TargetRef.Name] || e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			seen[e.TargetRef.Name] = true
			b.serving = append(b.serving, byName[e.TargetRef.Name])
		}
	}
	return b, nil
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func count(sets []labels.Set, selector labels.Selector) (n int64) {
	for _, s := range sets {
		if selector.Matches(s) {
			n++
		}
	}
	return n
}

// orCause prefers why ctx is done to what that made fail.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
