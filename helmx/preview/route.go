package preview

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var gatewayAPI = schema.GroupVersion{Group: "gateway.networking.k8s.io", Version: "v1"}

// route is what is read of an HTTPRoute's spec.
type route struct {
	Hostnames  []string    `json:"hostnames"`
	ParentRefs []parentRef `json:"parentRefs"`
	Rules      []struct {
		Matches []struct {
			Path struct {
				Type  string `json:"type"`
				Value string `json:"value"`
			} `json:"path"`
		} `json:"matches"`
	} `json:"rules"`
}

type parentRef struct {
	Kind        string `json:"kind"`
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	SectionName string `json:"sectionName"`
	Port        int32  `json:"port"`
}

// listener is what is read of a Gateway's.
type listener struct {
	Name     string `json:"name"`
	Hostname string `json:"hostname"`
	Port     int32  `json:"port"`
	Protocol string `json:"protocol"`
}

func (p *Previews) routeURL(ctx context.Context, namespace string) (string, error) {
	list, err := p.cfg.Dynamic.Resource(gatewayAPI.WithResource("httproutes")).Namespace(namespace).List(ctx, metav1.ListOptions{})
	switch {
	case apierrors.IsNotFound(err): // The cluster has no such kind.
		return "", nil
	case err != nil:
		return "", fmt.Errorf("list the HTTPRoutes of namespace %s: %w", namespace, err)
	}
	for i := range list.Items {
		found, err := specOf[route](&list.Items[i])
		if err != nil {
			return "", fmt.Errorf("HTTPRoute %s/%s: %w", namespace, list.Items[i].GetName(), err)
		}
		address, err := p.addressOf(ctx, namespace, found)
		if address != "" || err != nil {
			return address, err
		}
	}
	return "", nil
}

// addressOf returns the URL of the route's first host that is one, at its first gateway.
func (p *Previews) addressOf(ctx context.Context, namespace string, r route) (string, error) {
	host := r.host()
	if host == "" {
		return "", nil
	}
	for _, ref := range r.ParentRefs {
		if cmp.Or(ref.Kind, "Gateway") != "Gateway" {
			continue
		}
		at, err := p.listenerOf(ctx, cmp.Or(ref.Namespace, namespace), ref, host)
		if err != nil {
			return "", err
		}
		return hostURL(host, at.Port, at.tls(), r.path()), nil
	}
	return "", nil
}

// listenerOf returns the Gateway's listener for the host, the one with TLS if there is
// a choice. What is behind a Gateway that can't be seen is taken to be without.
func (p *Previews) listenerOf(ctx context.Context, namespace string, ref parentRef, host string) (listener, error) {
	best := listener{Port: cmp.Or(ref.Port, httpPort), Protocol: "HTTP"}
	if best.Port == httpsPort {
		best.Protocol = "HTTPS"
	}
	o, err := p.cfg.Dynamic.Resource(gatewayAPI.WithResource("gateways")).Namespace(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		return best, nil
	case err != nil:
		return best, fmt.Errorf("look at Gateway %s/%s: %w", namespace, ref.Name, err)
	}
	spec, err := specOf[struct {
		Listeners []listener `json:"listeners"`
	}](o)
	if err != nil {
		return best, fmt.Errorf("Gateway %s/%s: %w", namespace, ref.Name, err)
	}
	found := false
	for _, l := range spec.Listeners {
		if l.serves(ref, host) && (!found || l.tls() && !best.tls()) {
			best, found = l, true
		}
	}
	return best, nil
}

func (l listener) tls() bool { return l.Protocol == "HTTPS" }

func (l listener) serves(ref parentRef, host string) bool {
	suffix, wild := strings.CutPrefix(l.Hostname, "*")
	return (l.Protocol == "HTTP" || l.tls()) &&
		(ref.SectionName == "" || ref.SectionName == l.Name) &&
		(ref.Port == 0 || ref.Port == l.Port) &&
		(l.Hostname == "" || l.Hostname == host || wild && strings.HasSuffix(host, suffix))
}

func (r route) host() string {
	for _, host := range r.Hostnames {
		if !strings.HasPrefix(host, "*") {
			return host
		}
	}
	return ""
}

func (r route) path() string {
	if len(r.Rules) == 0 || len(r.Rules[0].Matches) == 0 {
		return "/"
	}
	path := r.Rules[0].Matches[0].Path
	if path.Type == "RegularExpression" {
		return "/"
	}
	return cmp.Or(path.Value, "/")
}

func specOf[T any](o *unstructured.Unstructured) (T, error) {
	var out struct {
		Spec T `json:"spec"`
	}
	data, err := json.Marshal(o.Object)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return out.Spec, fmt.Errorf("its spec can't be read: %w", err)
	}
	return out.Spec, nil
}
