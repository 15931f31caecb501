package releaseset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// Defaults of [Config].
const (
	DefaultConcurrency     = 4
	DefaultRollbackTimeout = 5 * time.Minute
)

// Deployer releases one member. A [helmx.Deployer] is one. If it is a
// [stages.Locker], the member is locked while it is worked on. If it is a
// [stages.Closer] and was made by [Member.Open], it is closed after use.
type Deployer interface {
	stages.Deployer
	stages.Planner
	stages.Compensator
}

// UnscannedDeployer is the optional ability of a [Deployer] to release a chart
// that runs no image of ours, such as a vendor's. A [helmx.Deployer] has it if its
// configuration gives a reason. It then takes no image for a plan and a checkpoint.
type UnscannedDeployer interface {
	DeployUnscanned(ctx context.Context, req helmx.UnscannedRequest) (stages.Release, error)
}

var (
	_ Deployer          = (*helmx.Deployer)(nil)
	_ UnscannedDeployer = (*helmx.Deployer)(nil)
)

// Member is one release of a set.
type Member struct {
	// Namespace and Name name the release, both required; together they are unique
	// within the set.
	Namespace string
	Name      string
	// Needs are the members that must be deployed, and verified, before this one:
	// "namespace/name", or "name" for one in the same namespace.
	Needs []string
	// Labels are for [Set.Select]. The labels name and namespace are implied.
	Labels map[string]string
	// Open makes the deployer when it is needed: for a plan, for the deployment, and
	// again for a restore. Either Open or Deployer is required.
	Open func(ctx context.Context) (Deployer, error)
	// Deployer is one that exists already. The set does not close it.
	Deployer Deployer
	// Image is what the member runs. It may be left out where Clearance names it.
	Image stages.Image
	// Clearance lets Image be deployed. It may also come later, with
	// [ApplyRequest.Clearances].
	Clearance stages.Clearance
	// Unscanned is set in the place of Image for a chart that runs none of ours. The
	// deployer must be an [UnscannedDeployer]; it knows the reason and records it.
	Unscanned bool
	// Remove is for a member that is to go: it is uninstalled once all others are
	// deployed and verified, and before what it needs. It has none of Image,
	// Clearance, Unscanned and Verify, and its deployer must be a [Remover]. What it
	// deletes is brought back if another member fails, but for data that went with
	// it, such as that of volumes.
	Remove bool
	// Verify is asked whether the release runs, before members that need it start.
	// Without it a member is done when the cluster has accepted it.
	Verify stages.Verifier
}

// ID returns "namespace/name".
func (m Member) ID() string { return m.Namespace + "/" + m.Name }

// Config says what the set consists of.
type Config struct {
	// Members are the releases; at least one. Where needs leave a choice, they are
	// deployed in this order.
	Members []Member
	// Concurrency is how many members are worked on at a time; 0 means
	// [DefaultConcurrency].
	Concurrency int
	// RollbackTimeout bounds each restore of a member, and then the wait until what was
	// restored runs; 0 means [DefaultRollbackTimeout].
	RollbackTimeout time.Duration
}

// Set is a checked set of releases. It is safe for concurrent use, but two Apply
// of one set at a time fight over the same releases.
type Set struct {
	members     []member
	concurrency int
	rollback    time.Duration
}

// member is a Member whose needs are resolved.
type member struct {
	Member
	id string
	// needs are indices.
	needs []int
}

// New returns the set, or an error matching [stages.ErrInvalid] that names
// everything that is wrong with cfg: see [CycleError], [NeedError] and
// [DuplicateError].
func New(cfg Config) (*Set, error) {
	var problems []error
	switch {
	case len(cfg.Members) == 0:
		problems = append(problems, errors.New("it has no members"))
	case cfg.Concurrency < 0:
		problems = append(problems, fmt.Errorf("Concurrency %d is negative", cfg.Concurrency))
	case cfg.RollbackTimeout < 0:
		problems = append(problems, fmt.Errorf("RollbackTimeout %s is negative", cfg.RollbackTimeout))
	}
	s := &Set{concurrency: cfg.Concurrency, rollback: cfg.RollbackTimeout, members: make([]member, len(cfg.Members))}
	if s.concurrency == 0 {
		s.concurrency = DefaultConcurrency
	}
	if s.rollback == 0 {
		s.rollback = DefaultRollbackTimeout
	}
	for i, m := range cfg.Members {
		if m.Image.IsZero() {
			m.Image = m.Clearance.Image()
		}
		s.members[i] = member{Member: m, id: m.ID()}
		problems = append(problems, m.problems()...)
	}
	problems = append(problems, s.resolve()...)
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w: release set: %w", stages.ErrInvalid, errors.Join(problems...))
	}
	return s, nil
}

func (m Member) problems() []error {
	var out []error
	refuse := func(format string, args ...any) {
		out = append(out, fmt.Errorf("member %s: "+format, append([]any{m.ID()}, args...)...))
	}
	if m.Namespace == "" || m.Name == "" || strings.Contains(m.Namespace+m.Name, "/") {
		refuse("Namespace and Name are required, without a slash")
	}
	if (m.Open == nil) == (m.Deployer == nil) {
		refuse("give either Open or Deployer")
	}
	cleared := m.Clearance.Image()
	switch {
	case m.Remove:
		if !m.Image.IsZero() || !cleared.IsZero() || m.Unscanned || m.Verify != nil {
			refuse("Remove stands alone; drop Image, Clearance, Unscanned and Verify")
		}
	case !m.Unscanned && m.Image.IsZero():
		refuse("it has no Image; a chart that runs none of ours needs Unscanned")
	case m.Unscanned && !m.Image.IsZero():
		refuse("Unscanned is for charts without an image of ours; drop it or the Image")
	case !cleared.IsZero() && cleared != m.Image:
		refuse("the Clearance is for %s, not for %s", cleared, m.Image)
	}
	return out
}

// Members returns the IDs in an order in which they could be applied: each after
// everything that it needs, and what is to be removed at the end.
func (s *Set) Members() []string {
	ids := make([]string, len(s.members))
	for i, at := range s.schedule() {
		ids[i] = s.members[at].id
	}
	return ids
}

// find returns the index of a member, or -1.
func (s *Set) find(id string) int {
	return slices.IndexFunc(s.members, func(m member) bool { return m.id == id })
}
