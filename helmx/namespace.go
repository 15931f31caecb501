package helmx

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
)

// namespaceExists reports whether the namespace is there. An account that may not
// look takes it for existing, which is the careful guess.
func (s *session) namespaceExists() (bool, error) {
	_, err := s.clients.CoreV1().Namespaces().Get(s.ctx, s.namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil && !apierrors.IsForbidden(err):
		return false, s.explain(fmt.Errorf("look at namespace %s: %w", s.namespace, err))
	}
	return true, nil
}

// createNamespace makes the namespace unless it exists, labelled with the run.
func (d *Deployer) createNamespace(s *session, run string) error {
	exists, err := s.namespaceExists()
	if exists || err != nil {
		return err
	}
	labels := maps.Clone(d.cfg.NamespaceLabels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels["name"] = s.namespace // As helm --create-namespace does.
	labels["app.kubernetes.io/managed-by"] = "fairlead"
	labels[LabelRun] = runLabel(run)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: s.namespace, Labels: labels, Annotations: d.cfg.NamespaceAnnotations,
	}}
	_, err = s.clients.CoreV1().Namespaces().Create(s.ctx, ns, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return s.explain(fmt.Errorf("create namespace %s: %w", s.namespace, err))
	}
	return nil
}

// removeNamespace deletes the namespace if run made it and nothing is left in it.
// It returns whether it did, or else what is in the way.
func (d *Deployer) removeNamespace(s *session, run string) (removed bool, obstacle string, err error) {
	ns, err := s.clients.CoreV1().Namespaces().Get(s.ctx, s.namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		return false, "", nil
	case err != nil:
		return false, "", s.explain(fmt.Errorf("look at namespace %s: %w", s.namespace, err))
	case run == "" || ns.Labels[LabelRun] != runLabel(run):
		return false, "", nil
	}
	if ns.DeletionTimestamp == nil {
		left, err := s.contents(ns)
		if err != nil {
			return false, "", err
		}
		if len(left) > 0 {
			return false, fmt.Sprintf("namespace %s stays, because it holds %s", s.namespace, strings.Join(left, ", ")), nil
		}
		if s.hold != nil && s.hold.lease != nil {
			s.hold.lease.Abandon() // It goes away with the namespace, which is not to lose it.
		}
		err = s.clients.CoreV1().Namespaces().Delete(s.ctx, s.namespace, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &ns.UID},
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return false, "", s.explain(fmt.Errorf("delete namespace %s: %w", s.namespace, err))
		}
	}
	return true, "", nil
}

// contents names what is in the namespace beside what the cluster itself puts
// there and what is going away with its owner.
func (s *session) contents(ns *corev1.Namespace) ([]string, error) {
	client, err := metadata.NewForConfig(s.rest)
	if err != nil {
		return nil, fmt.Errorf("make a metadata client: %w", err)
	}
	if err := s.discovery.renew(); err != nil { // There may be kinds that are new.
		return nil, s.explain(err)
	}
	kinds, unknown, err := s.removable()
	if err != nil {
		return nil, err
	}
	var left []string
	for _, k := range kinds {
		found, err := s.contentsOf(client, ns, k)
		switch {
		case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
			continue
		case err != nil && s.ctx.Err() == nil:
			left = append(left, fmt.Sprintf("perhaps %s, which can't be listed", k.Resource))
		case err != nil:
			return nil, s.explain(err)
		}
		left = append(left, found...)
	}
	for _, group := range unknown {
		left = append(left, fmt.Sprintf("perhaps objects of %s, whose kinds the API server can't tell", group))
	}
	return left, nil
}

// contentsOf names what is in the namespace of one kind. A page of the list with
// something in it is enough to know that the namespace stays.
func (s *session) contentsOf(client metadata.Interface, ns *corev1.Namespace, k listable) ([]string, error) {
	options := metav1.ListOptions{Limit: 100}
	for {
		found, err := client.Resource(k.GroupVersionResource).Namespace(s.namespace).List(s.ctx, options)
		if err != nil {
			return nil, err
		}
		var left []string
		for _, item := range found.Items {
			if item.DeletionTimestamp == nil && len(item.OwnerReferences) == 0 && !builtIn(ns, k.kind, &item.ObjectMeta) && !(k.kind == "Lease" && item.Name == s.lease) {
				left = append(left, k.kind+" "+item.Name)
			}
		}
		if options.Continue = found.Continue; options.Continue == "" || len(left) > 0 {
			return left, nil
		}
	}
}

// listable is a kind of objects that can be listed and deleted.
type listable struct {
	schema.GroupVersionResource
	kind string
}

// removable returns the kinds that a namespace may hold something of, and the groups
// whose kinds are not known, such as those of a server of its own that is down.
func (s *session) removable() (out []listable, unknown []string, _ error) {
	lists, err := s.discovery.ServerPreferredNamespacedResources()
	failed, some := errors.AsType[*discovery.ErrGroupDiscoveryFailed](err)
	if err != nil && !some {
		return nil, nil, s.explain(fmt.Errorf("list the kinds of the cluster: %w", err))
	}
	if some {
		for gv := range failed.Groups {
			if !transient(gv.Group, "") {
				unknown = append(unknown, gv.String())
			}
		}
		slices.Sort(unknown)
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, nil, fmt.Errorf("discovery: %w", err)
		}
		for _, r := range list.APIResources {
			if slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "delete") && !transient(gv.Group, r.Name) {
				out = append(out, listable{gv.WithResource(r.Name), r.Kind})
			}
		}
	}
	return out, unknown, nil
}

// transient reports what controllers keep on behalf of other objects.
func transient(group, resource string) bool {
	switch resource {
	case "events", "endpoints", "endpointslices":
		return true
	}
	return group == "metrics.k8s.io"
}

// builtIn reports whether an object is of those that a cluster, or what is often
// installed on one, puts into every namespace: it tells nothing of how the namespace
// is used, and goes with it. A name that anybody may choose is not enough to tell.
func builtIn(ns *corev1.Namespace, kind string, o *metav1.ObjectMeta) bool {
	if o.Annotations[releaseAnnotation] != "" {
		return false
	}
	if o.Labels["generate.kyverno.io/trigger-kind"] == "Namespace" {
		return true // Of a policy that makes it wherever there is a namespace.
	}
	switch kind {
	case "ServiceAccount":
		return perNamespace(ns, o.Name)
	case "Secret":
		return ofServiceAccount(ns, o) || bundled(o)
	case "ConfigMap":
		return o.Name == "kube-root-ca.crt" || o.Name == "openshift-service-ca.crt" || o.Name == "istio-ca-root-cert" || bundled(o)
	case "RoleBinding":
		return openShift(ns) && strings.HasPrefix(o.Name, "system:")
	case "ClusterServiceVersion":
		return o.Labels["olm.copiedFrom"] != ""
	}
	return false
}

// perNamespace reports whether every namespace has a service account of that name.
func perNamespace(ns *corev1.Namespace, account string) bool {
	return account == "default" || openShift(ns) && (account == "builder" || account == "deployer")
}

// ofServiceAccount reports whether a Secret holds what a cluster gives a service
// account that every namespace has, to call the API or to pull images with.
func ofServiceAccount(ns *corev1.Namespace, secret *metav1.ObjectMeta) bool {
	account := cmp.Or(secret.Annotations[corev1.ServiceAccountNameKey], secret.Annotations["openshift.io/internal-registry-auth-token.service-account"])
	return perNamespace(ns, account) &&
		(strings.HasPrefix(secret.Name, account+"-token-") || strings.HasPrefix(secret.Name, account+"-dockercfg-"))
}

// bundled reports whether trust-manager has put the object there: it has the name of
// its bundle.
func bundled(o *metav1.ObjectMeta) bool { return o.Labels["trust.cert-manager.io/bundle"] == o.Name }

// openShift reports whether the namespace is one of OpenShift's.
func openShift(ns *corev1.Namespace) bool {
	return ns.Annotations["openshift.io/sa.scc.uid-range"] != ""
}
