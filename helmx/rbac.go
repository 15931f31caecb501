package helmx

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// Right is a verb on a kind of objects, or on one of them, or on a path.
type Right struct {
	// Verb is what may be done, such as "get" or "patch".
	Verb string
	// Group and Resource name the kind, such as "apps" and "deployments"; a
	// subresource follows after a slash.
	Group, Resource string
	// Namespace is where; empty for the whole cluster.
	Namespace string
	// Name is the object; empty for all.
	Name string
	// URL is a path that is no object's, such as "/metrics", in the place of Group,
	// Resource and Name.
	URL string
}

func (r Right) String() string {
	if r.URL != "" {
		return r.Verb + " " + r.URL
	}
	text := r.Verb + " " + r.Resource
	if r.Group != "" {
		text += "." + r.Group
	}
	if r.Name != "" {
		text += " " + r.Name
	}
	if r.Namespace != "" {
		return text + " in namespace " + r.Namespace
	}
	return text + " in the cluster"
}

// RBACOptions says what beside a deployment and its restore the rules are to cover.
type RBACOptions struct {
	// Once makes rules that are good for this one deployment and its restore only:
	// release records are named, and what stays in the chart can't be deleted.
	// Otherwise they serve later revisions of the same objects as well.
	Once bool
	// Tests covers [Deployer.Tests].
	Tests bool
	// Uninstall covers [Deployer.Uninstall].
	Uninstall bool
}

// RBAC is the least that an account needs for a deployment and its restore, and for
// the other parts of the delivery that [Config.Rules] names.
type RBAC struct {
	// Namespaces has the rules for each namespace. Names are given where requests
	// are authorized by name, which creating and listing are not.
	Namespaces map[string][]rbacv1.PolicyRule
	// Cluster has the rules that only a ClusterRole can grant.
	Cluster []rbacv1.PolicyRule
	// Notes say which of the rules deserve a look, and why they are there.
	Notes []string

	role, clusterRole string
}

// Union returns rules for an account that does all of it, such as to deploy the
// stable release and its canary. Role and ClusterRole are called as those of r.
func (r RBAC) Union(others ...RBAC) RBAC {
	rights, notes := map[string][]Right{}, []string(nil)
	for _, one := range append([]RBAC{r}, others...) {
		rights[""] = append(rights[""], rightsOf(one.Cluster, "")...)
		for ns, rules := range one.Namespaces {
			rights[ns] = append(rights[ns], rightsOf(rules, ns)...)
		}
		for _, note := range one.Notes {
			if !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
		}
	}
	return newRBAC(rights, notes, r.role, r.clusterRole)
}

// newRBAC makes the fewest rules of rights by namespace.
func newRBAC(rights map[string][]Right, notes []string, role, clusterRole string) RBAC {
	out := RBAC{Namespaces: map[string][]rbacv1.PolicyRule{}, Notes: notes, role: role, clusterRole: clusterRole}
	for ns, of := range rights {
		if rules := policyRules(of); ns == "" {
			out.Cluster = rules
		} else {
			out.Namespaces[ns] = rules
		}
	}
	return out
}

// RequiredRBAC derives the rules from what would be deployed: the rendered objects
// and hooks, what the deployed revision consists of, where Helm keeps its records,
// and what the templates look up. It changes nothing. The calling account must be
// allowed to read the release, and whatever the templates look up.
func (d *Deployer) RequiredRBAC(ctx context.Context, req stages.PlanRequest, options RBACOptions) (RBAC, error) {
	out, err := d.requiredRBAC(ctx, req, options)
	if err != nil {
		return RBAC{}, fmt.Errorf("derive the RBAC rules of release %s: %w", d.name(), err)
	}
	return out, nil
}

func (d *Deployer) requiredRBAC(ctx context.Context, req stages.PlanRequest, options RBACOptions) (RBAC, error) {
	if err := d.checkImage(req.Image); err != nil {
		return RBAC{}, err
	}
	s, err := d.session(ctx)
	if err != nil {
		return RBAC{}, err
	}
	s.learn(req.Defined)
	seen := &sightings{base: s.rest.Transport}
	s.rest = rest.CopyConfig(s.rest)
	s.rest.Transport = seen
	o, err := d.survey(s, req.Image)
	if err == nil {
		err = errors.Join(o.refusals()...)
	}
	if err != nil {
		return RBAC{}, err
	}
	n, err := d.needs(s, o, options)
	if err != nil {
		return RBAC{}, err
	}
	if len(n.unknown) > 0 {
		return RBAC{}, stages.Permanent(fmt.Errorf("the cluster does not serve the kind of %s; install its definition first", strings.Join(n.unknown, ", ")))
	}
	for _, r := range seen.rights {
		n.notef("A template looks up %s.", r)
		n.add(r)
	}
	return d.rbac(n), nil
}

// rbac sorts rights by where they must be granted.
func (d *Deployer) rbac(n *needs) RBAC {
	byNamespace := map[string][]Right{}
	for _, r := range n.all {
		ns := r.Namespace
		if n.fresh && ns == d.cfg.Namespace {
			ns = "" // No Role can be there before the namespace is.
		}
		r.Namespace = ns
		byNamespace[ns] = append(byNamespace[ns], r.Right)
	}
	role := d.cfg.Release + "-deployer"
	return newRBAC(byNamespace, n.notes, role, d.cfg.Namespace+"-"+role)
}

// sightings remembers which objects are asked for. Templates are the only ones to
// send anything through it, and one after the other.
type sightings struct {
	base   http.RoundTripper
	rights []Right
}

// RoundTrip sends a request.
func (t *sightings) RoundTrip(req *http.Request) (*http.Response, error) {
	if r := parseRequest(req); r.resource != "" {
		right := Right{Verb: r.verb, Group: r.group, Resource: r.resource, Namespace: r.namespace, Name: r.name}
		if !slices.Contains(t.rights, right) {
			t.rights = append(t.rights, right)
		}
	}
	return t.base.RoundTrip(req)
}
