package helmx

import (
	"context"
	"fmt"
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// RuleSource is a part of a delivery, beside the Deployer, that works on the
// cluster and knows which rules that takes: a verifier of package rollout, a smoke
// test, a traffic router, a canary's state.
type RuleSource interface {
	// RequiredRules returns rules that grant what the part needs for the release, by
	// namespace; those under "" are for the whole cluster. The release is as the
	// Deployer will return it, and may not be there yet. Rules may overlap. It changes
	// nothing.
	RequiredRules(ctx context.Context, rel stages.Release) (map[string][]rbacv1.PolicyRule, error)
}

// RuleSourceFunc lets a function serve as a [RuleSource], such as for a smoke test
// that is a function.
type RuleSourceFunc func(ctx context.Context, rel stages.Release) (map[string][]rbacv1.PolicyRule, error)

var _ RuleSource = RuleSourceFunc(nil)

// RequiredRules calls f.
func (f RuleSourceFunc) RequiredRules(ctx context.Context, rel stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	return f(ctx, rel)
}

// sourceNeeds is for what other parts of the delivery send to the cluster.
func (d *Deployer) sourceNeeds(s *session, n *needs, rel stages.Release) error {
	for _, source := range d.cfg.Rules {
		rules, err := source.RequiredRules(s.ctx, rel)
		if err != nil {
			return fmt.Errorf("the rules of %T: %w", source, err)
		}
		for _, namespace := range slices.Sorted(maps.Keys(rules)) {
			n.add(rightsOf(rules[namespace], namespace)...)
		}
	}
	return nil
}
