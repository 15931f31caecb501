package environment

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// Deployer releases to an environment what has passed the gates that the
// environment names and the approvals that it requires, and is a [helmx.Deployer] in
// every other respect.
type Deployer struct {
	*helmx.Deployer
	environment Environment
}

var (
	_ stages.Deployer    = (*Deployer)(nil)
	_ stages.Planner     = (*Deployer)(nil)
	_ stages.Compensator = (*Deployer)(nil)
	_ stages.Idempotent  = (*Deployer)(nil)
	_ stages.Closer      = (*Deployer)(nil)
)

// NewDeployer returns a deployer for e, as [Set.Resolve] returned it. The
// environment's namespace and context go into cfg, which must leave them empty, and
// its values files after those of cfg. cfg.Unscanned is refused where gates or approvals
// are required: what was not scanned has no clearance that could prove them. Errors
// match [stages.ErrInvalid]. The chart must be local, as for [helmx.New].
func NewDeployer(e Environment, cfg helmx.Config) (*Deployer, error) {
	return newDeployer(e, cfg, helmx.New)
}

// OpenDeployer is [NewDeployer] for a chart that may be remote, which it fetches as
// [helmx.Open] does.
func OpenDeployer(ctx context.Context, e Environment, cfg helmx.Config) (*Deployer, error) {
	return newDeployer(e, cfg, func(cfg helmx.Config) (*helmx.Deployer, error) { return helmx.Open(ctx, cfg) })
}

func newDeployer(e Environment, cfg helmx.Config, open func(helmx.Config) (*helmx.Deployer, error)) (*Deployer, error) {
	switch {
	case cfg.Namespace != "":
		return nil, fmt.Errorf("%w: deployer of environment %s: leave Namespace empty, the environment has it", stages.ErrInvalid, e.Name)
	case cfg.Kubernetes.Context != "" && e.Context != "":
		return nil, fmt.Errorf("%w: deployer of environment %s: leave Kubernetes.Context empty, the environment has it", stages.ErrInvalid, e.Name)
	case cfg.Unscanned != "" && len(e.required()) > 0:
		return nil, fmt.Errorf("%w: deployer of environment %s: leave Unscanned empty, a deployment without a clearance would pass by %s", stages.ErrInvalid, e.Name, strings.Join(e.required(), ", "))
	}
	e = e.clone()
	cfg.Namespace = e.Namespace
	if e.Context != "" {
		cfg.Kubernetes.Context = e.Context
	}
	cfg.Values.Files = append(append([]string(nil), cfg.Values.Files...), e.ValuesFiles...)
	d, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("deployer of environment %s: %w", e.Name, err)
	}
	return &Deployer{d, e}, nil
}

// Deploy refuses a clearance without a pass by each of the gates that
// [Environment.CheckGates] asks for, with an
// error matching [stages.ErrNotCleared] and, by what is missing,
// [stages.ErrGateRefused] or [stages.ErrInconclusive]. Gates that were bypassed have not passed.
func (d *Deployer) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	if err := req.Clearance.Check(); err != nil {
		return stages.Release{}, fmt.Errorf("deploy to environment %s: %w", d.environment.Name, err)
	}
	decision := d.environment.CheckGates(req.Clearance.Decisions())
	if decision.Verdict == stages.Pass {
		return d.Deployer.Deploy(ctx, req)
	}
	problems := []error{stages.ErrNotCleared, stages.ErrInconclusive}
	if decision.Verdict == stages.Fail {
		problems[1] = stages.ErrGateRefused
	}
	for _, reason := range decision.Reasons {
		problems = append(problems, fmt.Errorf("gate %s: %s", reason.Rule, reason.Message))
	}
	return stages.Release{}, fmt.Errorf("deploy %s to environment %s: %w", req.Clearance.Image(), d.environment.Name, errors.Join(problems...))
}
