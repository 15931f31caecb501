package preview

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// URL returns the address of a preview: by the configured template, or else that of
// what was deployed into it. That is the first host of an Ingress, then that of an
// HTTPRoute, if [Config.Dynamic] is set, and then the address that a Service of type
// LoadBalancer has got, with its first port. Of several objects of a kind, the first by
// name that has one counts. It returns an error matching [ErrNoURL] if there is none,
// which names what the account may not look at.
func (p *Previews) URL(ctx context.Context, pr PullRequest) (string, error) {
	if err := pr.Validate(); err != nil {
		return "", err
	}
	namespace := namespaceName(p.cfg.Prefix, pr)
	if p.cfg.URL != "" {
		return p.cfg.expandURL(namespace, pr.Number), nil
	}
	sources := []func(context.Context, string) (string, error){p.ingressURL, p.routeURL, p.serviceURL}
	if p.cfg.Dynamic == nil {
		sources = slices.Delete(sources, 1, 2)
	}
	var unseen []error
	for _, find := range sources {
		address, err := find(ctx, namespace)
		switch {
		case apierrors.IsForbidden(err):
			unseen = append(unseen, err)
		case err != nil:
			return "", fmt.Errorf("find the URL of the preview of %s: %w", pr, err)
		case address != "":
			return address, nil
		}
	}
	if len(unseen) == len(sources) {
		return "", fmt.Errorf("find the URL of the preview of %s: %w", pr, errors.Join(unseen...))
	}
	return "", fmt.Errorf("find the URL of the preview of %s in namespace %s: %w", pr, namespace, errors.Join(append([]error{ErrNoURL}, unseen...)...))
}

func (p *Previews) ingressURL(ctx context.Context, namespace string) (string, error) {
	list, err := p.cfg.Client.NetworkingV1().Ingresses(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list the Ingresses of namespace %s: %w", namespace, err)
	}
	for _, ingress := range list.Items {
		if address := address(ingress.Spec); address != "" {
			return address, nil
		}
	}
	return "", nil
}

// address returns the URL of the first rule with a host.
func address(spec networkingv1.IngressSpec) string {
	for _, rule := range spec.Rules {
		if rule.Host == "" {
			continue
		}
		u := url.URL{Scheme: "http", Host: rule.Host, Path: "/"}
		if slices.ContainsFunc(spec.TLS, func(t networkingv1.IngressTLS) bool { return slices.Contains(t.Hosts, rule.Host) }) {
			u.Scheme = "https"
		}
		if rule.HTTP != nil && len(rule.HTTP.Paths) > 0 && rule.HTTP.Paths[0].Path != "" {
			u.Path = rule.HTTP.Paths[0].Path
		}
		return u.String()
	}
	return ""
}

func (p *Previews) serviceURL(ctx context.Context, namespace string) (string, error) {
	list, err := p.cfg.Client.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list the Services of namespace %s: %w", namespace, err)
	}
	for _, service := range list.Items {
		given := service.Status.LoadBalancer.Ingress
		if service.Spec.Type != corev1.ServiceTypeLoadBalancer || len(given) == 0 || len(service.Spec.Ports) == 0 {
			continue
		}
		host := given[0].Hostname
		if host == "" {
			host = given[0].IP
		}
		if host != "" {
			port := service.Spec.Ports[0]
			return hostURL(host, port.Port, speaksTLS(port), "/"), nil
		}
	}
	return "", nil
}

// speaksTLS goes by what a port says of itself.
func speaksTLS(port corev1.ServicePort) bool {
	return port.Port == httpsPort || port.Name == "https" || port.AppProtocol != nil && *port.AppProtocol == "https"
}

const (
	httpPort  = 80
	httpsPort = 443
)

// hostURL leaves out a port that goes without saying.
func hostURL(host string, port int32, tls bool, path string) string {
	scheme, usual := "http", int32(httpPort)
	if tls {
		scheme, usual = "https", httpsPort
	}
	if port != usual {
		host = net.JoinHostPort(host, strconv.Itoa(int(port)))
	} else if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		host = "[" + host + "]"
	}
	return (&url.URL{Scheme: scheme, Host: host, Path: path}).String()
}
