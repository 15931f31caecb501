package traffic

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	networkingv1client "k8s.io/client-go/kubernetes/typed/networking/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// NGINXConfig configures [NGINX].
type NGINXConfig struct {
	// REST is how to reach the cluster, required. It is copied.
	REST *rest.Config
	// Namespace and Ingress are those of the stable release's Ingress, required.
	Namespace, Ingress string
	// Stable and Canary are the names of the two releases' Services, required.
	Stable, Canary string
	// CanaryIngress is the second Ingress. If there is none by that name, it is made
	// from the first and deleted again with the last of the weight. Default the name
	// of Ingress with "-canary" after it.
	CanaryIngress string
}

// NGINX is a [Router] by the canary annotations of ingress-nginx: a second
// Ingress with the hosts and paths of the stable one takes a share of its
// requests. It needs the verbs list, create, patch and delete on ingresses. Weights
// are exact.
//
// The controller does not say when it has taken a weight over, so a split counts
// as settled when it is stored. It follows within a second or two; have
// [CanaryConfig.Drain] cover that.
type NGINX struct {
	config NGINXConfig
	api    networkingv1client.IngressInterface
}

var _ Router = (*NGINX)(nil)

const (
	nginxPrefix      = "nginx.ingress.kubernetes.io/"
	nginxCanary      = nginxPrefix + "canary"
	nginxWeight      = nginxPrefix + "canary-weight"
	nginxWeightTotal = nginxPrefix + "canary-weight-total"
)

// NewNGINX returns a router, without asking the cluster anything yet. Its error
// matches [stages.ErrInvalid].
func NewNGINX(config NGINXConfig) (*NGINX, error) {
	c, err := access(config.REST)
	if err != nil {
		return nil, fmt.Errorf("NGINX router: %w", err)
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("NGINX router: %w", errors.Join(stages.ErrInvalid, err))
	}
	return newNGINX(client, config)
}

func newNGINX(client kubernetes.Interface, config NGINXConfig) (*NGINX, error) {
	if config.CanaryIngress == "" {
		config.CanaryIngress = config.Ingress + "-canary"
	}
	if config.Namespace == "" || config.Ingress == "" || config.Stable == "" || config.Canary == "" || config.Stable == config.Canary || config.CanaryIngress == config.Ingress {
		return nil, fmt.Errorf("NGINX router: %w: Namespace, Ingress, Stable and Canary are required, the latter two different, and CanaryIngress must not be Ingress", stages.ErrInvalid)
	}
	return &NGINX{config: config, api: client.NetworkingV1().Ingresses(config.Namespace)}, nil
}

// Nearest returns weight itself, if the Ingresses can be divided.
func (r *NGINX) Nearest(ctx context.Context, weight int) (int, error) {
	if err := checkWeight(weight); err != nil {
		return 0, err
	}
	in, err := r.read(ctx)
	if err == nil {
		err = errors.Join(r.check(in.canary), r.checkRoutes(in))
	}
	return weight, err
}

// Shift sets the weight, and makes or deletes the second Ingress where the chart
// has none. To take all traffic from the canary, whatever it was, it also mends a
// second Ingress that somebody else has changed.
func (r *NGINX) Shift(ctx context.Context, from, to int) error {
	if err := checkWeight(to); err != nil {
		return err
	}
	in, err := r.read(ctx)
	if err != nil {
		return err
	}
	now, err := r.weight(in.canary)
	if err == nil {
		err = r.check(in.canary)
	}
	if err == nil && to > 0 {
		err = r.checkRoutes(in)
	}
	if err != nil && (to > 0 || from != Any) { // An abort sets any second Ingress right.
		return err
	}
	if err := expect(from, to, Split{Canary: now}); err != nil {
		return err
	}
	canary := in.canary
	switch {
	case canary == nil && to == 0:
		return nil
	case canary == nil:
		_, err = r.api.Create(ctx, r.second(in.stable, to), metav1.CreateOptions{FieldManager: FieldManager})
		return orCause(ctx, explain(err, "make", r.object(r.config.CanaryIngress)))
	case to == 0 && canary.Labels[labelManaged] == managedBy:
		err = r.api.Delete(ctx, canary.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(canary.UID))})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return orCause(ctx, explain(err, "delete", r.object(canary.Name)))
	}
	return r.annotate(ctx, canary, to)
}

// annotate gives a second Ingress the weight, and takes from it what else would
// send requests there.
func (r *NGINX) annotate(ctx context.Context, canary *networkingv1.Ingress, weight int) error {
	var patch []operation
	if canary.Annotations == nil {
		patch = append(patch, operation{Op: "add", Path: pointer("metadata", "annotations"), Value: map[string]string{}})
	}
	set := func(key, value string) {
		patch = append(patch, operation{Op: "add", Path: pointer("metadata", "annotations", key), Value: value})
	}
	if !isCanary(canary) {
		set(nginxCanary, "true")
	}
	if value := strconv.Itoa(weight); orZero(canary.Annotations[nginxWeight]) != value {
		set(nginxWeight, value)
	}
	for key := range canary.Annotations {
		if key == nginxWeightTotal || picks(key) {
			patch = append(patch, operation{Op: "remove", Path: pointer("metadata", "annotations", key)})
		}
	}
	if len(patch) == 0 {
		return nil
	}
	data, err := jsonPatch(canary, patch)
	if err == nil {
		_, err = r.api.Patch(ctx, canary.Name, types.JSONPatchType, data, metav1.PatchOptions{FieldManager: FieldManager})
	}
	return orCause(ctx, explain(err, "patch", r.object(canary.Name)))
}

// Observe reads the weight.
func (r *NGINX) Observe(ctx context.Context) (Split, error) {
	in, err := r.read(ctx)
	if err != nil {
		return Split{}, err
	}
	canary := in.canary
	s := Split{Settled: canary == nil || canary.DeletionTimestamp == nil, Detail: r.object(r.config.CanaryIngress).String() + " doesn't exist"}
	s.Canary, err = r.weight(canary)
	if canary != nil {
		s.Detail = fmt.Sprintf("%s has weight %d", r.object(r.config.CanaryIngress), s.Canary)
	}
	if err == nil {
		err = r.check(canary)
	}
	if err == nil && s.Canary > 0 {
		err = r.checkRoutes(in)
	}
	return s, err
}

// second is a copy of the stable Ingress for the canary's Service.
func (r *NGINX) second(stable *networkingv1.Ingress, weight int) *networkingv1.Ingress {
	second := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.config.CanaryIngress, Namespace: r.config.Namespace, Labels: map[string]string{labelManaged: managedBy},
			Annotations: map[string]string{nginxCanary: "true", nginxWeight: strconv.Itoa(weight)},
		},
		Spec: *stable.Spec.DeepCopy(),
	}
	// How the requests are treated is the stable Ingress's to say, but for what
	// concerns the backend.
	for key, value := range stable.Annotations {
		if strings.HasPrefix(key, nginxPrefix) && !strings.HasPrefix(key, nginxCanary) || key == "kubernetes.io/ingress.class" {
			second.Annotations[key] = value
		}
	}
	second.Spec.DefaultBackend = nil
	second.Spec.Rules = nil
	for _, rule := range stable.Spec.Rules {
		if rule.HTTP == nil {
			continue
		}
		var paths []networkingv1.HTTPIngressPath
		for _, p := range rule.HTTP.Paths {
			if p.Backend.Service != nil && p.Backend.Service.Name == r.config.Stable {
				path := *p.DeepCopy()
				path.Backend.Service.Name = r.config.Canary
				paths = append(paths, path)
			}
		}
		if len(paths) > 0 {
			second.Spec.Rules = append(second.Spec.Rules, networkingv1.IngressRule{Host: rule.Host, IngressRuleValue: networkingv1.IngressRuleValue{
				HTTP: &networkingv1.HTTPIngressRuleValue{Paths: paths},
			}})
		}
	}
	return second
}

// weight is the canary's in percent; 0 without a second Ingress.
func (r *NGINX) weight(canary *networkingv1.Ingress) (int, error) {
	if canary == nil {
		return 0, nil
	}
	total := int64(100)
	weight, err := strconv.ParseInt(orZero(canary.Annotations[nginxWeight]), 10, 32)
	if text, ok := canary.Annotations[nginxWeightTotal]; ok && err == nil {
		total, err = strconv.ParseInt(text, 10, 32)
	}
	if err != nil || weight < 0 || total < 1 || weight > total {
		return 0, r.odd(r.config.CanaryIngress, fmt.Sprintf("has the weight %.20q of %.20q", canary.Annotations[nginxWeight], canary.Annotations[nginxWeightTotal]),
			"set "+nginxWeight+" to a number from 0 to 100")
	}
	return share(weight, total), nil
}

func orZero(text string) string {
	if text == "" {
		return "0"
	}
	return text
}

func (r *NGINX) object(name string) stages.Object {
	return stages.Object{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Namespace: r.config.Namespace, Name: name}
}

func (r *NGINX) odd(name, problem, remedy string) error {
	return &RouteError{Object: r.object(name), Problem: problem, Remedy: remedy}
}

// ingresses are those of both releases, and others that are canaries.
type ingresses struct {
	stable, canary *networkingv1.Ingress
	rivals         []*networkingv1.Ingress
}

// read returns those Ingresses that there are.
func (r *NGINX) read(ctx context.Context) (in ingresses, _ error) {
	all, err := r.api.List(ctx, metav1.ListOptions{})
	if err := orCause(ctx, explain(err, "list", r.object("*"))); err != nil {
		return in, err
	}
	for i := range all.Items {
		switch o := &all.Items[i]; {
		case o.Name == r.config.Ingress:
			in.stable = o
		case o.Name == r.config.CanaryIngress:
			in.canary = o
		case isCanary(o):
			in.rivals = append(in.rivals, o)
		}
	}
	return in, nil
}

// check refuses a second Ingress whose weight would not be the whole story.
func (r *NGINX) check(canary *networkingv1.Ingress) error {
	if canary == nil {
		return nil
	}
	if !isCanary(canary) {
		return r.odd(canary.Name, "is no canary", "annotate it with "+nginxCanary+`: "true"`)
	}
	for key := range canary.Annotations {
		if picks(key) {
			return r.odd(canary.Name, "picks requests by "+key, "remove the annotation: the weight would not count for them")
		}
	}
	return nil
}

// isCanary reports that the controller takes an Ingress for a canary, which it does
// by any spelling of true that Go knows.
func isCanary(o *networkingv1.Ingress) bool {
	is, err := strconv.ParseBool(o.Annotations[nginxCanary])
	return err == nil && is
}

// picks reports that an annotation sends requests to a canary past its weight.
func picks(annotation string) bool { return strings.HasPrefix(annotation, nginxCanary+"-by-") }

// checkRoutes refuses Ingresses that don't share the same hosts and paths. As long
// as the canary has no weight that makes no difference, and an upgrade may well add
// a path.
func (r *NGINX) checkRoutes(in ingresses) error {
	switch {
	case in.stable == nil:
		return &RouteError{Object: r.object(r.config.Ingress), Problem: "doesn't exist", Missing: true}
	case isCanary(in.stable):
		return r.odd(in.stable.Name, "is a canary itself", "name the stable release's Ingress")
	case len(routesOf(in.stable, r.config.Stable)) == 0:
		return r.odd(in.stable.Name, "no rule sends to Service "+r.config.Stable, "name the Service that it sends to")
	}
	want := routesOf(in.stable, r.config.Stable)
	for _, rival := range in.rivals {
		for route := range routesOf(rival, "") {
			if want[route] {
				return r.odd(rival.Name, "is a canary of the same host and path, and the controller heeds one alone", "remove it")
			}
		}
	}
	canary := in.canary
	if canary == nil {
		return nil
	}
	have := routesOf(canary, r.config.Canary)
	for route := range want {
		if !have[route] {
			return r.odd(canary.Name, fmt.Sprintf("doesn't send %s to Service %s", route, r.config.Canary), "give it the hosts and paths of "+r.config.Ingress)
		}
	}
	if len(have) != len(want) {
		return r.odd(canary.Name, "has hosts or paths that "+r.config.Ingress+" has not", "give both the same")
	}
	return nil
}

// routesOf are the hosts and paths that an Ingress sends to a Service, or to
// anything if that is "".
func routesOf(o *networkingv1.Ingress, service string) map[string]bool {
	out := map[string]bool{}
	for _, rule := range o.Spec.Rules {
		if rule.HTTP == nil {
			continue
		}
		for _, p := range rule.HTTP.Paths {
			if service == "" || p.Backend.Service != nil && p.Backend.Service.Name == service {
				out[rule.Host+p.Path] = true
			}
		}
	}
	return out
}
