package releaseset

import (
	"context"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// PlanRequest asks what applying the set would do.
type PlanRequest struct {
	// Run identifies the run.
	Run string
	// Source is what would be recorded.
	Source stages.Source
}

// Plan is what applying a set would do.
type Plan struct {
	// Members are in an order in which they could be applied.
	Members []MemberPlan `json:"members"`
}

// MemberPlan is what applying a member would do.
type MemberPlan struct {
	// Member is its ID.
	Member string `json:"member"`
	// Needs are the members that it waits for.
	Needs []string `json:"needs,omitempty"`
	// Plan is what its deployer would do.
	Plan stages.Plan `json:"plan"`
}

// Plan asks every member's deployer, a few at a time. It changes nothing. All
// failures are reported, each as a [MemberError].
func (s *Set) Plan(ctx context.Context, req PlanRequest) (Plan, error) {
	plans := make([]MemberPlan, len(s.members))
	err := s.each(ctx, func(ctx context.Context, i int) error {
		m := s.members[i]
		return m.use(ctx, func(ctx context.Context, d Deployer) error {
			plan, err := m.plan(ctx, d, req)
			if err != nil {
				return &MemberError{m.id, "plan", err}
			}
			plans[i] = MemberPlan{Member: m.id, Needs: s.ids(m.needs), Plan: plan}
			return nil
		})
	})
	if err != nil {
		return Plan{}, fmt.Errorf("plan the release set: %w", err)
	}
	var out Plan
	for _, i := range s.order() {
		out.Members = append(out.Members, plans[i])
	}
	return out, nil
}

func (m member) plan(ctx context.Context, d Deployer, req PlanRequest) (plan stages.Plan, err error) {
	err = protect(func() error {
		plan, err = d.Plan(ctx, stages.PlanRequest{Image: m.Image, Run: req.Run, Source: req.Source})
		return err
	})
	return plan, err
}

func (s *Set) ids(members []int) []string {
	var out []string
	for _, i := range members {
		out = append(out, s.members[i].id)
	}
	return out
}

// Count is how many objects would be changed in each way.
type Count struct{ Created, Updated, Deleted int }

// String returns the count for people.
func (c Count) String() string {
	return fmt.Sprintf("%d to create, %d to update, %d to delete", c.Created, c.Updated, c.Deleted)
}

// Count adds up the changes of all members.
func (p Plan) Count() Count {
	var sum Count
	for _, m := range p.Members {
		c := m.count()
		sum.Created += c.Created
		sum.Updated += c.Updated
		sum.Deleted += c.Deleted
	}
	return sum
}

func (m MemberPlan) count() Count {
	var c Count
	for _, change := range m.Plan.Changes {
		switch change.Action {
		case stages.Create:
			c.Created++
		case stages.Update:
			c.Updated++
		case stages.Delete:
			c.Deleted++
		}
	}
	return c
}

// Diff returns the changes of the whole set as one text: a heading and the unified
// differences of each member that changes, and a line with the sum. Secrets are
// masked by the members' deployers.
func (p Plan) Diff() string {
	var b strings.Builder
	unchanged := 0
	for _, m := range p.Members {
		if len(m.Plan.Changes) == 0 {
			unchanged++
			continue
		}
		fmt.Fprintf(&b, "# release %s: %s\n", m.Member, m.count())
		for _, change := range m.Plan.Changes {
			if change.Diff == "" {
				fmt.Fprintf(&b, "# %s %s\n", change.Action, change.Object)
				continue
			}
			b.WriteString(strings.TrimSuffix(change.Diff, "\n") + "\n")
		}
	}
	fmt.Fprintf(&b, "# %d releases: %s; %d unchanged\n", len(p.Members), p.Count(), unchanged)
	return b.String()
}
