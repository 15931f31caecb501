package policy

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/fairlead-dev/fairlead/stages"
)

// The defaults of a [Config].
const (
	DefaultName       = "policy"
	DefaultPackage    = "main"
	DefaultMaxBytes   = 16 << 20
	DefaultMaxObjects = 10_000
)

// Config composes a gate. Modules or Dirs are required.
type Config struct {
	// Name names the gate in its decisions, by default [DefaultName].
	Name string
	// Modules hold policies: every file in them that ends in ".rego", and not in
	// "_test.rego", is loaded. See [Baseline], [os.DirFS] and [embed.FS].
	Modules []fs.FS
	// Dirs are further folders with policies. Errors name their files by path.
	Dirs []string
	// Packages are the packages whose rules decide, by default [DefaultPackage].
	// Other packages are there to be imported.
	Packages []string
	// Data is what policies see as data, beside their packages. It must be
	// representable in JSON, and is copied.
	Data map[string]any
	// RegoV0 reads policies in the syntax before OPA 1.0, except files that
	// import rego.v1.
	RegoV0 bool
	// AllowHosts are the hosts that policies may reach with http.send. By
	// default the built-in functions for the network do not exist.
	AllowHosts []string
	// MaxBytes and MaxObjects bound the manifests, by default [DefaultMaxBytes]
	// and [DefaultMaxObjects]. More is an error matching [ErrTooLarge].
	MaxBytes   int
	MaxObjects int
}

// Gate decides on plans. It is safe for concurrent use.
type Gate struct {
	name   string
	limits limits
	rules  []rule
}

var _ stages.Gate[stages.Plan] = (*Gate)(nil)

// New compiles the policies. It returns an error matching [stages.ErrInvalid]
// when they do not compile, with file and line of each mistake, and when the
// packages hold no rule, because such a gate could never refuse anything.
func New(config Config) (*Gate, error) {
	config = config.withDefaults()
	if config.MaxBytes < 0 || config.MaxObjects < 0 {
		return nil, fmt.Errorf("%w: policy: MaxBytes and MaxObjects can't be negative", stages.ErrInvalid)
	}
	set, err := load(config)
	if err != nil {
		return nil, fmt.Errorf("%w: policy: %w", stages.ErrInvalid, err)
	}
	rules, err := set.prepare(config)
	if err != nil {
		return nil, fmt.Errorf("%w: policy: %w", stages.ErrInvalid, err)
	}
	return &Gate{name: config.Name, limits: limits{bytes: config.MaxBytes, objects: config.MaxObjects}, rules: rules}, nil
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if len(c.Packages) == 0 {
		c.Packages = []string{DefaultPackage}
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.MaxObjects == 0 {
		c.MaxObjects = DefaultMaxObjects
	}
	return c
}

// Decide judges every object of the plan's manifests by every rule. Reasons and
// warnings are in the order of the manifests, then of the rules' names. Its
// errors are permanent, except that of a cancelled context.
func (g *Gate) Decide(ctx context.Context, plan stages.Plan) (stages.Decision, error) {
	undecided := stages.Decision{Gate: g.name}
	if plan.Image.IsZero() {
		return undecided, fmt.Errorf("%w: policy: the plan names no image", stages.ErrInvalid)
	}
	decision, err := g.judge(ctx, plan)
	switch {
	case ctx.Err() != nil:
		return undecided, fmt.Errorf("policy: judging release %s: %w", plan.Release, context.Cause(ctx))
	case err != nil:
		return undecided, stages.Permanent(fmt.Errorf("policy: judging release %s: %w", plan.Release, err))
	}
	return decision, nil
}

func (g *Gate) judge(ctx context.Context, plan stages.Plan) (stages.Decision, error) {
	decision := stages.Decision{Gate: g.name}
	objects, err := readObjects(ctx, plan.Manifests, g.limits)
	if err != nil {
		return decision, err
	}
	if len(objects) == 0 {
		decision.Reasons = []stages.Reason{{
			Rule:    "manifests",
			Subject: "release " + plan.Release,
			Message: "the plan renders no object, so there was nothing to judge; check the chart and its values",
		}}
		return decision, nil
	}
	namespaces := namespacesOf(plan.Changes)
	for _, o := range objects {
		subject := o.subject(namespaces)
		for _, r := range g.rules {
			messages, err := r.evaluate(ctx, o.input)
			if err != nil {
				return decision, fmt.Errorf("rule %s on %s: %w", r.name, subject, err)
			}
			for _, message := range messages {
				reason := stages.Reason{Rule: r.name, Subject: subject, Message: message}
				if r.warns {
					decision.Warnings = append(decision.Warnings, reason)
				} else {
					decision.Reasons = append(decision.Reasons, reason)
				}
			}
		}
	}
	decision.Verdict = stages.Pass
	if len(decision.Reasons) > 0 {
		decision.Verdict = stages.Fail
	}
	return decision, nil
}
