package celrule

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// Config configures a rule.
type Config struct {
	// Group is the kind's API group, such as "example.com"; empty for the core group.
	Group string
	// Kind is such as "Database", required.
	Kind string
	// Ready is true of an object that needs no more waiting for, required.
	Ready string
	// Failed is true of an object that won't become ready; empty for never. It is
	// evaluated first.
	Failed string
	// Message is a text about the object's state for people; empty for the
	// expression that decided.
	Message string
	// CostLimit bounds one evaluation, in CEL's units: about one for each step.
	// Default 100 000, a few milliseconds.
	CostLimit uint64
}

// DefaultCostLimit is the default of [Config.CostLimit].
const DefaultCostLimit = 100_000

const (
	maxExpression = 4096 // bytes
	maxDepth      = 50
)

// New compiles the expressions of a rule. Its error matches [stages.ErrInvalid],
// and points at the place in the expression.
func New(c Config) (rollout.Readiness, error) {
	none := rollout.Readiness{}
	switch {
	case c.Kind == "":
		return none, fmt.Errorf("readiness expression: %w: Kind is required", stages.ErrInvalid)
	case strings.TrimSpace(c.Ready) == "":
		return none, fmt.Errorf("readiness expression for %s: %w: Ready is required", c.Kind, stages.ErrInvalid)
	}
	env, err := cel.NewEnv(
		cel.Variable("object", cel.MapType(cel.StringType, cel.DynType)),
		cel.OptionalTypes(), cel.CrossTypeNumericComparisons(true), cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(maxDepth), ext.Strings(),
	)
	if err != nil {
		return none, fmt.Errorf("readiness expression for %s: set up CEL: %w", c.Kind, err)
	}
	r := &rule{config: c}
	for _, e := range []struct {
		name, source string
		kind         *cel.Type
		into         *cel.Program
	}{
		{"Ready", c.Ready, cel.BoolType, &r.ready},
		{"Failed", c.Failed, cel.BoolType, &r.failed},
		{"Message", c.Message, cel.StringType, &r.message},
	} {
		if strings.TrimSpace(e.source) == "" {
			continue
		}
		if *e.into, err = compile(env, e.source, e.kind, cmp.Or(c.CostLimit, DefaultCostLimit)); err != nil {
			return none, errors.Join(stages.ErrInvalid, fmt.Errorf("readiness expression %s for %s: %w", e.name, c.Kind, err))
		}
	}
	return rollout.Readiness{Group: c.Group, Kind: c.Kind, Check: r.check}, nil
}

func compile(env *cel.Env, source string, kind *cel.Type, limit uint64) (cel.Program, error) {
	ast, issues := env.Compile(source)
	if err := issues.Err(); err != nil {
		return nil, err
	}
	// The type of a field is only known when it is read, so that it may be any.
	if out := ast.OutputType(); !out.IsExactType(kind) && !out.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("it is of type %s, expected %s", out, kind)
	}
	return env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(limit))
}

// rule is safe for concurrent use, as programs are.
type rule struct {
	config                 Config
	ready, failed, message cel.Program
}

func (r *rule) check(o *unstructured.Unstructured) (rollout.State, string) {
	vars := map[string]any{"object": o.Object}
	if r.failed != nil {
		failed, note, tooMuch := truth(r.failed, vars)
		switch {
		case tooMuch:
			return rollout.StateFailed, "Failed: " + note
		case failed:
			return rollout.StateFailed, r.say(vars, r.config.Failed)
		}
	}
	ready, note, tooMuch := truth(r.ready, vars)
	switch {
	case tooMuch:
		return rollout.StateFailed, "Ready: " + note
	case ready:
		return rollout.StateReady, r.say(vars, "ready")
	case note != "":
		return rollout.StateWaiting, "Ready: " + note
	}
	return rollout.StateWaiting, r.say(vars, "not yet: "+r.config.Ready)
}

// say returns the message, or what to say instead.
func (r *rule) say(vars map[string]any, otherwise string) string {
	if r.message == nil {
		return otherwise
	}
	out, _, err := r.message.Eval(vars)
	if err != nil {
		return otherwise
	}
	if text, ok := out.Value().(string); ok && text != "" {
		return text
	}
	return otherwise
}

// truth evaluates an expression. What can't be evaluated isn't true, and the note
// says why; only what costs too much never will be.
func truth(p cel.Program, vars map[string]any) (yes bool, note string, tooMuch bool) {
	out, _, err := p.Eval(vars)
	if err != nil {
		return false, err.Error(), strings.Contains(err.Error(), "cost limit exceeded")
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Sprintf("it came to a value of type %s, expected bool", out.Type().TypeName()), false
	}
	return yes, "", false
}
