package helmx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// Preflight checks whether the account has every right that the deployment, its
// restore and [Config.Rules] need, and returns a [PrivilegeError] if not. Deploy does
// the same first, see [Config.SkipPreflight]. It changes nothing, and takes one
// request for each namespace where the cluster's rules can be listed. An account that
// may not ask about its own rights passes.
func (d *Deployer) Preflight(ctx context.Context, req stages.PlanRequest) error {
	err := d.checkImage(req.Image)
	if err == nil {
		var s *session
		if s, err = d.session(ctx); err == nil {
			s.learn(req.Defined)
			_, err = d.begin(s, req.Image, true)
		}
	}
	if err != nil {
		return fmt.Errorf("check the rights to deploy release %s: %w", d.name(), err)
	}
	return nil
}

// begin surveys a deployment and refuses it if the account lacks a right for it.
func (d *Deployer) begin(s *session, img stages.Image, check bool) (*surveyed, error) {
	o, err := d.survey(s, img)
	switch {
	case err != nil:
		return nil, err
	case !check && len(o.denied) > 0:
		return nil, errors.Join(o.refusals()...)
	case !check:
		return o, nil
	}
	n, err := d.needs(s, o, RBACOptions{Once: true})
	if err != nil {
		return nil, err
	}
	missing, err := s.missing(n.all)
	if err != nil {
		return nil, err
	}
	for _, e := range o.denied {
		missing = append(missing, Right{Verb: e.Verb, Group: e.Group, Resource: e.Resource, Namespace: e.Namespace, Name: e.Name})
	}
	if err := s.lacking(missing); err != nil {
		return nil, err
	}
	return o, nil
}

// lacking returns a [PrivilegeError] if something is missing.
func (s *session) lacking(missing []Right) error {
	if len(missing) == 0 {
		return nil
	}
	slices.SortFunc(missing, compareRights)
	missing = slices.Compact(missing)
	all := slices.Clone(missing)
	missing = slices.DeleteFunc(missing, func(r Right) bool { // the right to all objects is one to each
		wide := r
		wide.Name = ""
		return wide != r && slices.Contains(all, wide)
	})
	return &PrivilegeError{Subject: s.subject(), Missing: missing}
}

// deny takes note of an error if it is about a right.
func (o *surveyed) deny(err error) bool {
	refused, ok := errors.AsType[*APIError](err)
	if ok = ok && refused.Reason == Forbidden; ok {
		o.denied = append(o.denied, refused)
	}
	return ok
}

func compareRights(a, b Right) int {
	for _, c := range []int{
		strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Group, b.Group), strings.Compare(a.Resource, b.Resource),
		strings.Compare(a.Name, b.Name), strings.Compare(a.URL, b.URL), compareVerbs(a.Verb, b.Verb),
	} {
		if c != 0 {
			return c
		}
	}
	return 0
}

// missing returns which of all the account lacks.
func (s *session) missing(all []need) ([]Right, error) {
	all = slices.DeleteFunc(slices.Clone(all), func(n need) bool { return n.optional })
	r := &review{held: map[Right]bool{}}
	if err := r.list(s, all); err != nil {
		return nil, err
	}
	if err := r.ask(s, all); err != nil {
		return nil, err
	}
	var out []Right
	for _, n := range all {
		if !r.lacks(n) {
			continue
		}
		if _, known := r.held[n.Right]; known {
			out = append(out, n.Right)
		} else {
			s.log.Warn("the API server would not say whether the account has a right, so it was not checked", "right", n.String())
		}
	}
	return out, nil
}

// review is what is known of the account's rights.
type review struct {
	// held lacks what the API server would not answer.
	held map[Right]bool
}

func (r *review) lacks(n need) bool {
	return !r.held[n.Right] && (len(n.instead) == 0 || slices.ContainsFunc(n.instead, func(i Right) bool { return !r.held[i] }))
}

// list asks for the account's rules in each namespace. They include those for the
// whole cluster, but do not tell which of them are.
func (r *review) list(s *session, all []need) error {
	var namespaces []string
	for _, n := range all {
		if n.Namespace != "" && !slices.Contains(namespaces, n.Namespace) {
			namespaces = append(namespaces, n.Namespace)
		}
	}
	answers := make([]*authorizationv1.SelfSubjectRulesReview, len(namespaces))
	err := concurrently(len(namespaces), func(i int) error {
		answer, err := s.clients.AuthorizationV1().SelfSubjectRulesReviews().Create(s.ctx, &authorizationv1.SelfSubjectRulesReview{
			Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespaces[i]},
		}, metav1.CreateOptions{})
		switch {
		case unanswered(err):
		case err != nil:
			return s.explain(fmt.Errorf("ask for the account's rules in namespace %s: %w", namespaces[i], err))
		default:
			answers[i] = answer
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, answer := range answers {
		if answer == nil {
			continue
		}
		complete := !answer.Status.Incomplete && answer.Status.EvaluationError == ""
		for _, right := range mentioned(all) {
			if right.Namespace != namespaces[i] {
				continue
			}
			if granted := granted(answer.Status, right); granted || complete {
				r.held[right] = granted
			}
		}
	}
	return nil
}

// ask asks for the rights that matter and are still open, the widest first: one
// answer may do for all, or for all objects of a kind.
func (r *review) ask(s *session, all []need) error {
	for _, widen := range []func(Right) Right{everything, allOfKind, itself} {
		var open []need
		for _, n := range all {
			if r.lacks(n) {
				open = append(open, n)
			}
		}
		covers := map[Right][]Right{}
		var questions []Right
		for _, right := range mentioned(open) {
			if _, known := r.held[right]; known {
				continue
			}
			wide := widen(right)
			if covers[wide] == nil {
				questions = append(questions, wide)
			}
			covers[wide] = append(covers[wide], right)
		}
		questions = slices.DeleteFunc(questions, func(wide Right) bool { return len(covers[wide]) == 1 && wide != covers[wide][0] })
		answers, err := s.mayI(questions)
		if err != nil {
			return err
		}
		if len(answers) > 0 && !slices.ContainsFunc(answers, func(a *authorizationv1.SelfSubjectAccessReview) bool { return a != nil }) {
			return nil // It answers none of them.
		}
		for i, answer := range answers {
			for _, right := range covers[questions[i]] {
				if answer != nil && (answer.Status.Allowed || questions[i] == right) {
					r.held[right] = answer.Status.Allowed
				}
			}
		}
	}
	return nil
}

func everything(r Right) Right {
	if r.URL != "" {
		return r
	}
	return Right{Verb: "*", Group: "*", Resource: "*", Namespace: r.Namespace}
}

func allOfKind(r Right) Right {
	r.Name = ""
	return r
}

func itself(r Right) Right { return r }

// mayI asks whether the account has these rights. What the API server would not
// answer is nil.
func (s *session) mayI(questions []Right) ([]*authorizationv1.SelfSubjectAccessReview, error) {
	answers := make([]*authorizationv1.SelfSubjectAccessReview, len(questions))
	err := concurrently(len(questions), func(i int) error {
		answer, err := s.clients.AuthorizationV1().SelfSubjectAccessReviews().Create(s.ctx, questions[i].review(), metav1.CreateOptions{})
		switch {
		case unanswered(err):
		case err != nil:
			return s.explain(fmt.Errorf("ask for the right to %s: %w", questions[i], err))
		default:
			answers[i] = answer
		}
		return nil
	})
	return answers, err
}

// concurrently does work for 0 to n-1, and returns the first error.
func concurrently(n int, work func(i int) error) error {
	var group errgroup.Group
	group.SetLimit(parallel)
	for i := range n {
		group.Go(func() error { return work(i) })
	}
	return group.Wait() //nolint:wrapcheck // They are its own.
}

// unanswered is for API servers that keep their accounts' rights to themselves.
func unanswered(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err)
}

// mentioned returns all rights of the needs once.
func mentioned(all []need) []Right {
	seen := map[Right]bool{}
	var out []Right
	for _, n := range all {
		for _, r := range append([]Right{n.Right}, n.instead...) {
			if !seen[r] {
				seen[r] = true
				out = append(out, r)
			}
		}
	}
	return out
}

func granted(status authorizationv1.SubjectRulesReviewStatus, r Right) bool {
	return slices.ContainsFunc(status.ResourceRules, func(rule authorizationv1.ResourceRule) bool {
		return grants(rbacv1.PolicyRule{Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames}, r)
	})
}

func (r Right) review() *authorizationv1.SelfSubjectAccessReview {
	if r.URL != "" {
		return &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: r.Verb, Path: r.URL},
		}}
	}
	resource, sub, _ := strings.Cut(r.Resource, "/")
	return &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: r.Verb, Group: r.Group, Resource: resource, Subresource: sub, Namespace: r.Namespace, Name: r.Name,
		},
	}}
}

// subject is who the account is; empty if the API server would not say.
func (s *session) subject() string {
	who, err := s.clients.AuthenticationV1().SelfSubjectReviews().Create(s.ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		s.debug("ask who the account is: %s", err)
		return ""
	}
	return who.Status.UserInfo.Username
}
