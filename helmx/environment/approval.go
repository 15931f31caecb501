package environment

import (
	"context"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Approval is one person's answer about one image in one environment.
type Approval struct {
	// By names the person, as in [Approvals.From]. Whoever makes an Approval has
	// made sure that it was them.
	By string `json:"by"`
	// At is when they answered.
	At time.Time `json:"at"`
	// Digest is the image that they answered about.
	Digest stages.Digest `json:"digest"`
	// Environment is where it may be released to, or not.
	Environment string `json:"environment"`
	// Denied is whether they refuse.
	Denied bool `json:"denied,omitempty"`
	// Note is what they had to say.
	Note string `json:"note,omitempty"`
}

// ApprovalRequest is what an [Approver] is asked about.
type ApprovalRequest struct {
	// Environment is where Image is to be released to. Its approvals say who is
	// asked, and how many must agree.
	Environment Environment
	Image       stages.Image
}

// Approver knows who has approved.
type Approver interface {
	// Approvals returns all answers that there are. It may wait for answers as long
	// as ctx lasts, and needn't check them: what is for another image or environment,
	// expired, or by somebody who isn't asked, doesn't count.
	Approvals(ctx context.Context, req ApprovalRequest) ([]Approval, error)
}

// ApproverFunc lets a function serve as an [Approver].
type ApproverFunc func(ctx context.Context, req ApprovalRequest) ([]Approval, error)

// Approvals calls f.
func (f ApproverFunc) Approvals(ctx context.Context, req ApprovalRequest) ([]Approval, error) {
	return f(ctx, req)
}

// Approved is a fixed list of answers, as an [Approver].
type Approved []Approval

// Approvals returns the list.
func (a Approved) Approvals(context.Context, ApprovalRequest) ([]Approval, error) { return a, nil }

var (
	_ Approver = Approved(nil)
	_ Approver = ApproverFunc(nil)
)
