package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// rule is one compiled rule that decides.
type rule struct {
	name  string
	warns bool
	query rego.PreparedEvalQuery
}

// ErrRule is a rule that failed on an object, or whose value is no message.
var ErrRule = errors.New("policy rule failed")

var ruleName = regexp.MustCompile(`^(deny|violation|warn)(_[a-zA-Z0-9_]+)?$`)

// prepare finds the rules that decide and readies each for evaluation.
func (s *policySet) prepare(config Config) ([]rule, error) {
	var rules []rule
	for _, pkg := range config.Packages {
		names, err := s.rulesOf(pkg)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			query, err := rego.New(
				rego.Query("data."+pkg+"."+name),
				rego.Compiler(s.compiler),
				rego.Capabilities(s.capabilities),
				rego.Store(s.store),
				// Otherwise a failing function only leaves its rule undefined, and the
				// object passes.
				rego.StrictBuiltinErrors(true),
			).PrepareForEval(context.Background())
			if err != nil {
				return nil, fmt.Errorf("preparing rule %s.%s: %w", pkg, name, err)
			}
			rules = append(rules, rule{name: pkg + "." + name, warns: strings.HasPrefix(name, "warn"), query: query})
		}
	}
	slices.SortFunc(rules, func(a, b rule) int { return cmp.Compare(a.name, b.name) })
	return slices.CompactFunc(rules, func(a, b rule) bool { return a.name == b.name }), nil
}

// rulesOf returns the names of the rules in a package that decide, in order.
func (s *policySet) rulesOf(pkg string) ([]string, error) {
	names := map[string]bool{}
	packages := map[string]bool{}
	for _, source := range slices.Sorted(maps.Keys(s.modules)) {
		module := s.modules[source]
		path := strings.TrimPrefix(module.Package.Path.String(), "data.")
		packages[path] = true
		if path != pkg {
			continue
		}
		for _, r := range module.Rules {
			ref := r.Head.Ref()
			name, ok := ref[0].Value.(ast.Var)
			if !ok || !ruleName.MatchString(string(name)) {
				continue
			}
			if len(r.Head.Args) > 0 || len(ref) > 1 {
				return nil, fmt.Errorf("%s: rule %s.%s is a function or an object, which decides nothing; write %q",
					r.Location, pkg, ref, string(name)+" contains msg if { … }")
			}
			names[string(name)] = true
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("package %s has no deny, violation or warn rule, so it would never refuse anything; the packages found are %s",
			pkg, strings.Join(slices.Sorted(maps.Keys(packages)), ", "))
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// evaluate returns the messages that the rule has for an object, in order.
func (r rule) evaluate(ctx context.Context, input ast.Value) ([]string, error) {
	results, err := r.query.Eval(ctx, rego.EvalParsedInput(input))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRule, err)
	}
	if len(results) == 0 {
		return nil, nil // a plain rule whose condition does not hold
	}
	values, ok := results[0].Expressions[0].Value.([]any)
	if !ok {
		return plainMessage(results[0].Expressions[0].Value)
	}
	messages := make([]string, 0, len(values))
	for _, value := range values {
		message, err := messageOf(value)
		if err != nil {
			return nil, err
		}
		messages = append(messages, message)
	}
	slices.Sort(messages)
	return messages, nil
}

// plainMessage reads the value of a rule that is no set.
func plainMessage(value any) ([]string, error) {
	switch value {
	case nil, false, "":
		return nil, nil
	case true:
		return []string{"the rule's condition holds; it gives no message"}, nil
	}
	message, err := messageOf(value)
	return []string{message}, err
}

// messageOf reads one message, which is a string or an object with a "msg".
func messageOf(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case map[string]any:
		if message, ok := v["msg"].(string); ok {
			return message + details(v), nil
		}
	}
	text, err := json.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("%w: its value is not JSON: %w", ErrRule, err)
	}
	return "", fmt.Errorf("%w: its value %.200s is neither a string nor an object with a string under msg", ErrRule, text)
}

// details renders the fields of a message beside its text.
func details(message map[string]any) string {
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(message)) {
		if name == "msg" {
			continue
		}
		if text, ok := message[name].(string); ok {
			fields = append(fields, name+"="+text)
		} else if text, err := json.Marshal(message[name]); err == nil {
			fields = append(fields, name+"="+string(text))
		}
	}
	if len(fields) == 0 {
		return ""
	}
	return " (" + strings.Join(fields, ", ") + ")"
}
