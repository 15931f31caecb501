package helmx

import (
	"cmp"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// verbOrder is how people write them.
var verbOrder = [...]string{"get", "list", "watch", "create", "update", "patch", "delete"}

func compareVerbs(a, b string) int {
	rank := func(v string) int {
		if i := slices.Index(verbOrder[:], v); i >= 0 {
			return i
		}
		return len(verbOrder)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

// policyRules returns the fewest rules that grant the rights and nothing beside
// them, in an order that depends on the rights alone. All are of one namespace.
func policyRules(rights []Right) []rbacv1.PolicyRule {
	all := map[Right]bool{}
	for _, r := range rights {
		if r.Name == "" {
			all[r] = true
		}
	}
	var rules []rbacv1.PolicyRule
	for _, r := range rights {
		whole := r
		whole.Name = ""
		if r.Name == "" || !all[whole] {
			rules = append(rules, r.rule())
		}
	}
	// Rules may only be joined where they differ in one list: otherwise the joint
	// rule would grant combinations that neither does.
	for _, field := range []func(*rbacv1.PolicyRule) *[]string{
		func(r *rbacv1.PolicyRule) *[]string { return &r.Verbs },
		func(r *rbacv1.PolicyRule) *[]string { return &r.ResourceNames },
		func(r *rbacv1.PolicyRule) *[]string { return &r.Resources },
		func(r *rbacv1.PolicyRule) *[]string { return &r.NonResourceURLs },
	} {
		rules = join(rules, field)
	}
	slices.SortFunc(rules, func(a, b rbacv1.PolicyRule) int {
		return cmp.Or(slices.Compare(a.APIGroups, b.APIGroups), slices.Compare(a.Resources, b.Resources),
			slices.Compare(a.ResourceNames, b.ResourceNames), slices.Compare(a.NonResourceURLs, b.NonResourceURLs),
			slices.CompareFunc(a.Verbs, b.Verbs, compareVerbs))
	})
	return rules
}

// join unites rules that differ in nothing but the field. A rule without names is
// never joined with one that has some, because it is for all.
func join(rules []rbacv1.PolicyRule, field func(*rbacv1.PolicyRule) *[]string) []rbacv1.PolicyRule {
	position := map[string]int{}
	var out []rbacv1.PolicyRule
	for _, rule := range rules {
		values := *field(&rule)
		rest := rule
		*field(&rest) = nil
		key := rest.String()
		if len(values) == 0 {
			key += " none"
		}
		i, ok := position[key]
		if !ok {
			position[key] = len(out)
			out = append(out, rule)
			continue
		}
		joint := field(&out[i])
		*joint = append(slices.Clone(*joint), values...)
		slices.SortFunc(*joint, compareVerbs) // Alphabetical for all but verbs.
		*joint = slices.Compact(*joint)
	}
	return out
}

func (r Right) rule() rbacv1.PolicyRule {
	if r.URL != "" {
		return rbacv1.PolicyRule{Verbs: []string{r.Verb}, NonResourceURLs: []string{r.URL}}
	}
	rule := rbacv1.PolicyRule{Verbs: []string{r.Verb}, APIGroups: []string{r.Group}, Resources: []string{r.Resource}}
	if r.Name != "" {
		rule.ResourceNames = []string{r.Name}
	}
	return rule
}

// rightsOf is the opposite of policyRules.
func rightsOf(rules []rbacv1.PolicyRule, namespace string) []Right {
	var out []Right
	for _, rule := range rules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, verb := range rule.Verbs {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, name := range names {
						out = append(out, Right{Verb: verb, Group: group, Resource: resource, Namespace: namespace, Name: name})
					}
				}
			}
			for _, url := range rule.NonResourceURLs {
				out = append(out, Right{Verb: verb, URL: url})
			}
		}
	}
	return out
}

// grants reports whether rule includes the right, as the API server's own
// authorizer matches them. It knows nothing of namespaces.
func grants(rule rbacv1.PolicyRule, r Right) bool {
	has := func(list []string, value string) bool {
		return slices.Contains(list, value) || slices.Contains(list, "*")
	}
	if !has(rule.Verbs, r.Verb) {
		return false
	}
	if r.URL != "" {
		return slices.ContainsFunc(rule.NonResourceURLs, func(url string) bool {
			prefix, open := strings.CutSuffix(url, "*")
			return url == r.URL || open && strings.HasPrefix(r.URL, prefix)
		})
	}
	_, sub, isSub := strings.Cut(r.Resource, "/")
	return has(rule.APIGroups, r.Group) &&
		(has(rule.Resources, r.Resource) || isSub && slices.Contains(rule.Resources, "*/"+sub)) &&
		(len(rule.ResourceNames) == 0 || r.Name != "" && slices.Contains(rule.ResourceNames, r.Name))
}
