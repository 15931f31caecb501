package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Phase is what a canary is about to do, or in the middle of.
type Phase string

// The phases, in the order in which a canary goes through them. Each is recorded
// before anything of it is done.
const (
	// Deploying: the canary is installed and verified, without traffic.
	Deploying Phase = "deploying"
	// Shifting: the canary gets the weight of a step.
	Shifting Phase = "shifting"
	// Watching: the gates of a step are looked at.
	Watching Phase = "watching"
	// Promoting: the stable release is upgraded to the canary's image and verified.
	Promoting Phase = "promoting"
	// Returning: all traffic goes to the stable release, which is the new one.
	Returning Phase = "returning"
	// Removing: the canary, which has no traffic any more, is removed.
	Removing Phase = "removing"
	// Aborting: all traffic goes to the stable release, which is the old one, and
	// then the canary is removed.
	Aborting Phase = "aborting"
)

var phases = []Phase{Deploying, Shifting, Watching, Promoting, Returning, Removing, Aborting}

// Record is a canary that is under way, as it is kept in the cluster. It holds
// no secret. A process that dies leaves it for the next one to finish or abort.
type Record struct {
	// Format is 1. Fields are only ever added within a format.
	Format int `json:"format"`
	// Run is whose canary it is, and Holder the process of it, unique.
	Run    string `json:"run"`
	Holder string `json:"holder"`
	// Image is the canary's.
	Image stages.Image `json:"image"`
	// Phase is what is being done, since Since by the clock of whoever did it.
	Phase Phase     `json:"phase"`
	Since time.Time `json:"since"`
	// Step counts the steps from 1; 0 before the first.
	Step int `json:"step"`
	// Weight is what the phase asks the router for, and From what was before.
	Weight int `json:"weight"`
	From   int `json:"from"`
	// Reason says why a canary is aborted, in a word or two.
	Reason string `json:"reason,omitempty"`
	// Promotion says that the stable release may have been upgraded already.
	Promotion bool `json:"promotion,omitempty"`
	// Stable is the stable release before that.
	Stable stages.Checkpoint `json:"stable"`
	// AbortAsked is who asked for an abort from outside, and why.
	AbortAsked string `json:"abortAsked,omitempty"`
}

const recordFormat = 1

// ErrStateChanged is a record that isn't the one it was thought to be.
var ErrStateChanged = errors.New("the recorded state was changed by somebody else")

// State keeps one canary's record, in a place that outlives processes. Package
// traffictest holds the conformance suite.
type State interface {
	// Load returns the record and a version of it that is never empty; without a
	// record, nil and "".
	Load(ctx context.Context) (*Record, string, error)
	// Save writes the record if the stored one still has this version, "" for none,
	// and returns its new version. Otherwise its error matches [ErrStateChanged].
	Save(ctx context.Context, record Record, version string) (string, error)
	// Delete removes the record if it still has this version. One that is gone is
	// no error.
	Delete(ctx context.Context, version string) error
}

// DecodeRecord parses a record. Its error matches [stages.ErrInvalid].
func DecodeRecord(data []byte) (*Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%w: the recorded state can't be read: %w", stages.ErrInvalid, err)
	}
	switch {
	case r.Format != recordFormat:
		return nil, fmt.Errorf("%w: the recorded state has format %d, this version reads %d", stages.ErrInvalid, r.Format, recordFormat)
	case r.Run == "" || r.Holder == "" || r.Image.IsZero():
		return nil, fmt.Errorf("%w: the recorded state names no run, holder or image", stages.ErrInvalid)
	case !slices.Contains(phases, r.Phase):
		return nil, fmt.Errorf("%w: the recorded state has an unknown phase %.40q", stages.ErrInvalid, r.Phase)
	case r.Step < 0, checkWeight(r.Weight) != nil, r.From < Any || r.From > 100:
		return nil, fmt.Errorf("%w: the recorded state has an impossible step or weight", stages.ErrInvalid)
	}
	return &r, nil
}

// untouched reports that nothing of the stable release can have been changed.
func (r *Record) untouched() bool {
	return r.Phase == Deploying || r.Phase == Shifting || r.Phase == Watching
}

// promoted reports that the stable release was upgraded and verified.
func (r *Record) promoted() bool { return r.Phase == Returning || r.Phase == Removing }
