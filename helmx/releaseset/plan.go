package releaseset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/helmx/diff"
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
	// Remove says that it is to be removed.
	Remove bool `json:"remove,omitempty"`
	// Plan is what its deployer would do, without the manifests: those of a large set
	// don't fit into memory. The digest covers them.
	Plan stages.Plan `json:"plan"`
}

// Plan asks every member's deployer, a few at a time. It changes nothing. All
// failures are reported, each as a [MemberError].
func (s *Set) Plan(ctx context.Context, req PlanRequest) (Plan, error) {
	plans, failed := make([]MemberPlan, len(s.members)), make([]error, len(s.members))
	planMember := func(ctx context.Context, i int, defined []stages.Kind) {
		m := s.members[i]
		failed[i] = m.use(ctx, func(ctx context.Context, d Deployer) error {
			plan, err := m.plan(ctx, d, req, defined)
			if err != nil {
				return &MemberError{m.id, "plan", err}
			}
			plan.Manifests = nil
			plans[i] = MemberPlan{Member: m.id, Needs: s.ids(m.needs), Remove: m.Remove, Plan: plan}
			return nil
		})
	}
	err := s.each(ctx, func(ctx context.Context, i int) error {
		planMember(ctx, i, nil)
		return nil
	})
	// Only now it is known which kinds there will be that the cluster doesn't have, or has
	// otherwise. A chart that asks for those may define more, or have failed without them.
	told := make([][]stages.Kind, len(s.members))
	for range s.members {
		defined := s.defined(plans)
		again := func(i int) bool {
			return slices.ContainsFunc(defined[i], isPending) && !slices.Equal(defined[i], told[i])
		}
		if err != nil || !slices.ContainsFunc(s.order(), again) {
			break
		}
		err = s.each(ctx, func(ctx context.Context, i int) error {
			if again(i) {
				planMember(ctx, i, defined[i])
			}
			return nil
		})
		told = defined
	}
	if of := errors.Join(failed...); of != nil {
		err = of
	}
	if err != nil {
		return Plan{}, fmt.Errorf("plan the release set: %w", err)
	}
	var out Plan
	for _, i := range s.schedule() {
		out.Members = append(out.Members, plans[i])
	}
	return out, nil
}

// defined returns, for each member, the kinds that those it needs define.
func (s *Set) defined(plans []MemberPlan) [][]stages.Kind {
	out := make([][]stages.Kind, len(s.members))
	for _, i := range s.order() {
		for _, need := range s.members[i].needs {
			for _, kind := range slices.Concat(out[need], plans[need].Plan.Defines) {
				if !slices.Contains(out[i], kind) {
					out[i] = append(out[i], kind)
				}
			}
		}
	}
	return out
}

func isPending(k stages.Kind) bool { return k.Pending }

func (m member) plan(ctx context.Context, d Deployer, req PlanRequest, defined []stages.Kind) (plan stages.Plan, err error) {
	err = protect(func() error {
		if m.Remove {
			r, err := m.remover(d)
			if err == nil {
				plan, err = r.PlanRemoval(ctx, req.Run)
			}
			return err
		}
		plan, err = d.Plan(ctx, stages.PlanRequest{Image: m.Image, Run: req.Run, Source: req.Source, Defined: defined})
		return err
	})
	return plan, err
}

// digest returns the digest of a member's plan, or "".
func (p Plan) digest(member string) string {
	for _, m := range p.Members {
		if m.Member == member {
			return m.Plan.Digest
		}
	}
	return ""
}

func (s *Set) ids(members []int) []string {
	var out []string
	for _, i := range members {
		out = append(out, s.members[i].id)
	}
	return out
}

// Count is what a plan would do in numbers.
type Count struct {
	// Created, Updated, Deleted, Recreated and Adopted count objects.
	Created, Updated, Deleted, Recreated, Adopted int
	// Refused counts changes that would fail.
	Refused int
	// Drifted counts objects that differ from the release that is deployed.
	Drifted int
	// Hooks counts objects of hooks that differ from those of the release that is
	// deployed.
	Hooks int
	// Dangers counts reasons to look twice.
	Dangers int
}

// String returns the count for people: what is created, updated and deleted always,
// the rest where there is any.
func (c Count) String() string {
	text := fmt.Sprintf("%d to create, %d to update, %d to delete", c.Created, c.Updated, c.Deleted)
	for _, more := range []struct {
		count int
		what  string
	}{
		{c.Recreated, "to recreate"}, {c.Adopted, "to adopt"}, {c.Refused, "refused"}, {c.Hooks, "in hooks"}, {c.Drifted, "drifted"}, {c.Dangers, "dangers"},
	} {
		if more.count > 0 {
			text += fmt.Sprintf(", %d %s", more.count, more.what)
		}
	}
	return text
}

// Count adds up the plans of all members.
func (p Plan) Count() Count {
	var sum Count
	for _, m := range p.Members {
		c := diff.Count(m.Plan)
		sum.Created += c.Added
		sum.Updated += c.Changed
		sum.Deleted += c.Removed
		sum.Recreated += c.Recreated
		sum.Adopted += c.Adopted
		sum.Refused += c.Refused
		sum.Drifted += c.Drifted
		sum.Hooks += c.Hooks
		sum.Dangers += c.Dangers
	}
	return sum
}

// Diff returns the plan of the whole set as one text: each member of which there is
// something to tell as [diff.Text] writes it, and a line with the sum. Secrets are
// masked by the members' deployers.
func (p Plan) Diff() string {
	var b strings.Builder
	unchanged := 0
	for _, m := range p.Members {
		if len(m.Plan.Changes) == 0 && !m.Remove {
			unchanged++
		}
		if len(m.Plan.Changes)+len(m.Plan.Hooks)+len(m.Plan.Drift)+len(m.Plan.Dangers)+len(m.Plan.Notes) == 0 {
			continue
		}
		plan := m.Plan
		plan.Release = m.Member
		if m.Remove {
			plan.Release += " (to be removed)"
		}
		_ = diff.Text(&b, plan, diff.TextOptions{}) // Only the writer can fail, and this one doesn't.
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "Plan of %d releases: %s; %d unchanged", len(p.Members), p.Count(), unchanged)
	if removed := p.removed(); removed > 0 {
		fmt.Fprintf(&b, ", %d to be removed", removed)
	}
	b.WriteString("\n")
	return b.String()
}

// removed counts the releases that are there and to be removed.
func (p Plan) removed() int {
	n := 0
	for _, m := range p.Members {
		if m.Remove && len(m.Plan.Changes)+len(m.Plan.Notes) > 0 {
			n++
		}
	}
	return n
}
