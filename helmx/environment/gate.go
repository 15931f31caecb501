package environment

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// maxSkew is by how much the clock of whoever recorded an approval may be ahead.
const maxSkew = time.Minute

// ApprovalGateConfig says whose approval is needed. Environment is required, and
// Approver too unless the environment asks for nobody's approval.
type ApprovalGateConfig struct {
	Environment Environment
	Approver    Approver
	// Record is told of every decision before it takes effect. If it fails, the gate
	// has not decided. Nil keeps no record.
	Record func(ctx context.Context, record ApprovalRecord) error
	// Now tells the time; nil means [time.Now].
	Now func() time.Time
}

// ApprovalRecord is a decision with the answers that it rests on.
type ApprovalRecord struct {
	Environment string          `json:"environment"`
	Image       stages.Image    `json:"image"`
	Decision    stages.Decision `json:"decision"`
	// Approvals are the answers that counted, by name.
	Approvals []Approval `json:"approvals,omitempty"`
	// At is when it was decided.
	At time.Time `json:"at"`
}

// ApprovalGate lets a plan pass once enough people have approved its image for an
// environment. Until then it is inconclusive, and a denial is a fail. It is safe for
// concurrent use if its Approver and Record are.
type ApprovalGate struct{ cfg ApprovalGateConfig }

var _ stages.Gate[stages.Plan] = (*ApprovalGate)(nil)

// NewApprovalGate returns a gate, or an error matching [stages.ErrInvalid].
func NewApprovalGate(cfg ApprovalGateConfig) (*ApprovalGate, error) {
	switch {
	case cfg.Environment.Name == "":
		return nil, fmt.Errorf("%w: approval gate: there is no environment", stages.ErrInvalid)
	case cfg.Environment.Approvals.Required > 0 && cfg.Approver == nil:
		return nil, fmt.Errorf("%w: approval gate: environment %s needs approvals, and there is no Approver to ask", stages.ErrInvalid, cfg.Environment.Name)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Environment = cfg.Environment.clone()
	return &ApprovalGate{cfg}, nil
}

// Decide asks the Approver about the plan's image.
func (g *ApprovalGate) Decide(ctx context.Context, plan stages.Plan) (stages.Decision, error) {
	e := g.cfg.Environment
	if plan.Image.IsZero() {
		return stages.Decision{}, fmt.Errorf("%w: approval for %s: the plan has no image", stages.ErrInvalid, e.Name)
	}
	var answers []Approval
	if e.Approvals.Required > 0 {
		var err error
		answers, err = g.cfg.Approver.Approvals(ctx, ApprovalRequest{Environment: e.clone(), Image: plan.Image})
		if err != nil {
			return stages.Decision{}, fmt.Errorf("ask for approval of %s for %s: %w", plan.Image, e.Name, err)
		}
	}
	record := e.judge(plan.Image, answers, g.cfg.Now())
	if g.cfg.Record != nil {
		if err := g.cfg.Record(ctx, record); err != nil {
			return stages.Decision{}, fmt.Errorf("record the approval of %s for %s: %w", plan.Image, e.Name, err)
		}
	}
	return record.Decision, nil
}

// judge counts the answers about img. The latest answer of each person counts, and of
// two at the same moment the denial. A denial does not expire: it holds until the same
// person approves. An approval does, and what was said before it stays taken back.
func (e Environment) judge(img stages.Image, answers []Approval, now time.Time) ApprovalRecord {
	record := ApprovalRecord{
		Environment: e.Name, Image: img, At: now.UTC(),
		Decision: stages.Decision{Gate: e.approvalGate(), Verdict: stages.Pass},
	}
	decision := &record.Decision
	note := func(by, format string, args ...any) {
		decision.Reasons = append(decision.Reasons, stages.Reason{Rule: "approval", Subject: by, Message: fmt.Sprintf(format, args...)})
	}
	latest := map[string]Approval{}
	for _, a := range answers {
		if why := e.irrelevant(a, img, now); why != "" {
			note(a.By, "%s", why)
			continue
		}
		old, answered := latest[a.By]
		if !answered || a.At.After(old.At) || a.At.Equal(old.At) && a.Denied {
			latest[a.By] = a
		}
	}
	agreed := 0
	for _, by := range slices.Sorted(maps.Keys(latest)) {
		a := latest[by]
		end := a.At.Add(e.Approvals.Within)
		switch {
		case a.Denied:
			decision.Verdict = stages.Fail
			note(by, "denied at %s: %s", a.At.UTC().Format(time.RFC3339), a.Note)
		case e.Approvals.Within > 0 && !now.Before(end):
			note(by, "the approval expired at %s", end.UTC().Format(time.RFC3339))
			continue
		default:
			agreed++
		}
		record.Approvals = append(record.Approvals, a)
	}
	switch {
	case decision.Verdict == stages.Fail:
	case agreed < e.Approvals.Required:
		decision.Verdict = stages.Inconclusive
		note(e.Name, "%d of %d approvals of %s are given; ask %q", agreed, e.Approvals.Required, img.Digest(), e.Approvals.From)
	default:
		// What didn't count doesn't matter any more, but is worth knowing.
		decision.Warnings, decision.Reasons = decision.Reasons, nil
	}
	return record
}

// irrelevant says why an answer is not one to the question. A denial with a date to
// come is: whoever has a fast clock still means no.
func (e Environment) irrelevant(a Approval, img stages.Image, now time.Time) string {
	switch {
	case !slices.Contains(e.Approvals.From, a.By):
		return "is not among those who are asked"
	case a.Environment != e.Name:
		return fmt.Sprintf("answered about environment %s", quote(a.Environment))
	case a.Digest != img.Digest():
		return fmt.Sprintf("answered about %s, to be released is %s", quote(string(a.Digest)), img.Digest())
	case !a.Denied && a.At.After(now.Add(maxSkew)):
		return fmt.Sprintf("the approval is dated %s, which is to come", a.At.UTC().Format(time.RFC3339))
	}
	return ""
}
