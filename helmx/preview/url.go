package preview

import (
	"context"
	"fmt"
	"net/url"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// URL returns the address of a preview: by the configured template, or else that of
// the Ingress that was deployed into it. Of several Ingresses, the first by
// name that has a host counts. It returns an error matching [ErrNoURL] if there is none.
func (p *Previews) URL(ctx context.Context, pr PullRequest) (string, error) {
	if err := pr.Validate(); err != nil {
		return "", err
	}
	namespace := namespaceName(p.cfg.Prefix, pr)
	if p.cfg.URL != "" {
		return p.cfg.expandURL(namespace, pr.Number), nil
	}
	list, err := p.cfg.Client.NetworkingV1().Ingresses(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("find the URL of the preview of %s: list the Ingresses of namespace %s: %w", pr, namespace, err)
	}
	for _, ingress := range list.Items {
		if address := address(ingress.Spec); address != "" {
			return address, nil
		}
	}
	return "", fmt.Errorf("find the URL of the preview of %s: no Ingress of namespace %s has a host: %w", pr, namespace, ErrNoURL)
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
