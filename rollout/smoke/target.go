package smoke

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// Target is what a port-forward leads to: a ready pod of the current revision of
// its Deployment, StatefulSet or DaemonSet that runs the released image by digest
// and is not being deleted, so that no pod of a revision before answers in its
// place, not even one that differs in its configuration only. Requests go to its
// pods in turn.
type Target struct {
	// Name is a service, deployment, statefulset, daemonset or pod in the release's
	// namespace, as kubectl names it: "service/shop". {{.Release}} and the like are
	// filled in. Default "service/{{.Release}}".
	Name string
	// Port is its port: a Service's by number or name, otherwise a container's. May
	// be empty where there is only one.
	Port string
	// AnyImage accepts pods that don't run the released image, such as those of a
	// proxy in front.
	AnyImage bool
}

// DefaultTarget is the name of a [Target] without one.
const DefaultTarget = "service/{{.Release}}"

// target is a Target that was checked.
type target struct {
	Target
	name pattern
}

func (t Target) compile() (target, error) {
	t.Name = cmp.Or(t.Name, DefaultTarget)
	p, err := parsePattern("Target.Name", t.Name)
	if err != nil {
		return target{}, err
	}
	out := target{t, p}
	_, _, err = out.resolve(stages.Release{Name: "release", Namespace: "namespace", Revision: 1})
	if n, isNumber := strconv.Atoi(t.Port); err == nil && isNumber == nil && (n < 1 || n > 65535) {
		err = fmt.Errorf("%w: Target.Port %d is no port", stages.ErrInvalid, n)
	}
	return out, err
}

var targetKinds = map[string]string{
	"service": "services", "svc": "services", "deployment": "deployments.apps", "deploy": "deployments.apps",
	"statefulset": "statefulsets.apps", "sts": "statefulsets.apps", "daemonset": "daemonsets.apps", "ds": "daemonsets.apps", "pod": "pods", "po": "pods",
}

// resolve returns the resource and name that a target stands for.
func (t target) resolve(rel stages.Release) (resource, name string, err error) {
	text, err := t.name.fill(rel)
	if err != nil {
		return "", "", err
	}
	kind, name, _ := strings.Cut(text, "/")
	resource, known := targetKinds[strings.ToLower(kind)]
	if !known || name == "" || strings.Contains(name, "/") {
		return "", "", fmt.Errorf("%w: Target.Name must be such as service/shop, deployment/shop or pod/shop, it is %q", stages.ErrInvalid, shorten(text, 80))
	}
	return resource, name, nil
}

// endpoint is a pod's port.
type endpoint struct {
	pod  *corev1.Pod
	port int32
}

func (e endpoint) String() string { return "pod " + e.pod.Namespace + "/" + e.pod.Name }

// endpoints returns the ready pods of the target's current revision that run the
// released image, by name. There is at least one.
func (t target) endpoints(ctx context.Context, c cluster, rel stages.Release) ([]endpoint, error) {
	resource, name, err := t.resolve(rel)
	if err != nil {
		return nil, err
	}
	pods, service, err := t.pods(ctx, c, rel.Namespace, resource, name)
	if err != nil {
		return nil, err
	}
	var out []endpoint
	notReady, former, foreign := 0, 0, 0
	revisions := newRevisions(c, rel.Namespace, pods)
	for i := range pods {
		pod := &pods[i]
		if pod.DeletionTimestamp != nil || !ready(pod) {
			notReady++
			continue
		}
		current, err := revisions.current(ctx, pod)
		switch {
		case err != nil:
			return nil, err
		case !current:
			former++
		case !t.AnyImage && !rollout.RunsImage(pod, rel.Image):
			foreign++
		default:
			port, err := t.port(pod, service)
			if err != nil {
				return nil, err
			}
			out = append(out, endpoint{pod, port})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s %s/%s has no ready pod of its current revision that runs %s: %d pods, %d of them not ready, %d ready but of another revision, %d ready with another image",
			resource, rel.Namespace, name, rel.Image, len(pods), notReady, former, foreign)
	}
	slices.SortFunc(out, func(a, b endpoint) int { return cmp.Compare(a.pod.Name, b.pod.Name) })
	return out, nil
}

// pods returns the target's pods, and the Service if it is one.
func (t target) pods(ctx context.Context, c cluster, namespace, resource, name string) ([]corev1.Pod, *corev1.Service, error) {
	var selector labels.Selector
	var service *corev1.Service
	var labelSelector *metav1.LabelSelector
	var err error
	switch resource {
	case "services":
		if service, err = c.client.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{}); err == nil {
			if service.Spec.Type == corev1.ServiceTypeExternalName {
				return nil, nil, fmt.Errorf("%w: service %s/%s leads to another name, whatever it selects", stages.ErrInvalid, namespace, name)
			}
			if len(service.Spec.Selector) == 0 {
				return nil, nil, fmt.Errorf("%w: service %s/%s selects no pods", stages.ErrInvalid, namespace, name)
			}
			selector = labels.SelectorFromSet(service.Spec.Selector)
		}
	case "deployments.apps":
		d, e := c.client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		labelSelector, err = d.Spec.Selector, e
	case "statefulsets.apps":
		s, e := c.client.AppsV1().StatefulSets(namespace).Get(ctx, name, metav1.GetOptions{})
		labelSelector, err = s.Spec.Selector, e
	case "daemonsets.apps":
		d, e := c.client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
		labelSelector, err = d.Spec.Selector, e
	default:
		pod, e := c.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if e != nil {
			return nil, nil, asked(e, "get", resource, namespace, name)
		}
		return []corev1.Pod{*pod}, nil, nil
	}
	if err == nil && selector == nil {
		selector, err = metav1.LabelSelectorAsSelector(labelSelector)
	}
	if err != nil {
		return nil, nil, asked(err, "get", resource, namespace, name)
	}
	list, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, nil, asked(err, "list", "pods", namespace, "")
	}
	return list.Items, service, nil
}

// asked marks an error of a question to the cluster that was not answered. What is
// not there may come yet.
func asked(err error, verb, resource, namespace, name string) error {
	answered := apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)
	if err = denied(err, verb, resource, namespace, name); answered {
		return err
	}
	return &unreachable{err}
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// port returns the pod's port that the target's stands for.
func (t target) port(pod *corev1.Pod, service *corev1.Service) (int32, error) {
	wanted := intstr.Parse(t.Port)
	if service != nil {
		p, err := servicePort(service, t.Port)
		if err != nil {
			return 0, err
		}
		if wanted = p.TargetPort; wanted.Type == intstr.Int && wanted.IntVal == 0 {
			wanted = intstr.FromInt32(p.Port)
		}
	}
	if wanted.Type == intstr.Int {
		return wanted.IntVal, nil
	}
	var have []string
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, p := range c.Ports {
			if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
				continue
			}
			if wanted.StrVal != "" && p.Name == wanted.StrVal {
				return p.ContainerPort, nil
			}
			have = append(have, p.Name+" "+strconv.Itoa(int(p.ContainerPort)))
			if wanted.StrVal == "" {
				wanted.IntVal = p.ContainerPort
			}
		}
	}
	if wanted.StrVal == "" && len(have) == 1 {
		return wanted.IntVal, nil
	}
	return 0, fmt.Errorf("%w: Target.Port %q: pod %s/%s has the ports [%s]", stages.ErrInvalid, wanted.StrVal, pod.Namespace, pod.Name, strings.Join(have, ", "))
}

func servicePort(service *corev1.Service, port string) (corev1.ServicePort, error) {
	var have []string
	var tcp []corev1.ServicePort
	for _, p := range service.Spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue
		}
		if port != "" && (p.Name == port || strconv.Itoa(int(p.Port)) == port) {
			return p, nil
		}
		tcp, have = append(tcp, p), append(have, p.Name+" "+strconv.Itoa(int(p.Port)))
	}
	if port == "" && len(tcp) == 1 {
		return tcp[0], nil
	}
	return corev1.ServicePort{}, fmt.Errorf("%w: Target.Port %q: service %s/%s has the TCP ports [%s]", stages.ErrInvalid, port, service.Namespace, service.Name, strings.Join(have, ", "))
}
