package helmx

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"helm.sh/helm/v3/pkg/release"

	"github.com/fairlead-dev/fairlead/stages"
)

// state is what a checkpoint records. Fields are only ever added.
type state struct {
	// Format is 1.
	Format int `json:"format"`
	// Release and Namespace name the release.
	Release   string `json:"release"`
	Namespace string `json:"namespace"`
	// Revision was deployed, and Manifest is the digest of its manifest; 0 for none.
	Revision int    `json:"revision,omitempty"`
	Manifest string `json:"manifest,omitempty"`
	// Newest is the newest revision, whatever its Status; 0 for none.
	Newest int    `json:"newest,omitempty"`
	Status string `json:"status,omitempty"`
	// NamespaceExisted is whether the namespace was there.
	NamespaceExisted bool `json:"namespaceExisted"`
}

const stateFormat = 1

// Checkpoint records which revision is deployed.
func (d *Deployer) Checkpoint(ctx context.Context, req stages.CheckpointRequest) (stages.Checkpoint, error) {
	if err := d.checkImage(req.Image); err != nil {
		return stages.Checkpoint{}, fmt.Errorf("checkpoint of release %s: %w", d.name(), err)
	}
	st, err := d.observe(ctx)
	if err != nil {
		return stages.Checkpoint{}, fmt.Errorf("checkpoint of release %s: %w", d.name(), err)
	}
	data, err := json.Marshal(st)
	if err != nil {
		return stages.Checkpoint{}, fmt.Errorf("checkpoint of release %s: %w", d.name(), err)
	}
	return stages.Checkpoint{Subject: "release " + d.name(), State: data}, nil
}

func (d *Deployer) observe(ctx context.Context) (state, error) {
	s, err := d.session(ctx)
	if err != nil {
		return state{}, err
	}
	history, err := s.history(d.cfg.Release)
	if err != nil {
		return state{}, err
	}
	st := state{Format: stateFormat, Release: d.cfg.Release, Namespace: d.cfg.Namespace}
	if st.NamespaceExisted, err = s.namespaceExists(); err != nil {
		return state{}, err
	}
	if last := newest(history); last != nil {
		st.Newest, st.Status = last.Version, last.Info.Status.String()
	}
	if current := deployed(history); current != nil {
		st.Revision, st.Manifest = current.Version, manifestDigest(current)
	}
	return st, nil
}

func (d *Deployer) decode(cp stages.Checkpoint) (state, error) {
	var st state
	if err := json.Unmarshal(cp.State, &st); err != nil {
		return st, fmt.Errorf("%w: the checkpoint of %q can't be read: %w", stages.ErrInvalid, cp.Subject, err)
	}
	switch {
	case st.Format != stateFormat:
		return st, fmt.Errorf("%w: the checkpoint of %q has format %d, this version reads %d", stages.ErrInvalid, cp.Subject, st.Format, stateFormat)
	case st.Release != d.cfg.Release || st.Namespace != d.cfg.Namespace:
		return st, fmt.Errorf("%w: the checkpoint is of release %s/%s, not of %s", stages.ErrInvalid, st.Namespace, st.Release, d.name())
	}
	return st, nil
}

// course is what a restore has to do.
type course string

const (
	leaveAlone course = "leave alone" // The side effect never happened.
	giveUp     course = "give up"     // The state can't be restored.
	rollBack   course = "roll back"   // To the recorded revision.
	uninstall  course = "uninstall"   // There was no release.
	inspect    course = "inspect"     // Rolled back already: compare only.
	vacate     course = "vacate"      // Uninstalled already: the namespace may be left.
)

// assess compares the history with the checkpoint. It returns what to do, why,
// and the revisions that run made since.
func assess(st state, history []*release.Release, run string) (course, string, []*release.Release) {
	last := newest(history)
	var own []*release.Release
	for _, rel := range history {
		if rel.Version <= st.Newest {
			continue
		}
		if maker(rel) != runLabel(run) {
			return giveUp, fmt.Sprintf("revision %d (%s) was made since by %s", rel.Version, rel.Info.Status, author(rel)), nil
		}
		own = append(own, rel)
	}
	switch {
	case len(own) == 0 && last != nil && last.Version == st.Newest && removing(last) == runLabel(run):
		return reinstate(st, history)
	case last == nil && st.Newest == 0:
		return vacate, "there is no release, as before", nil
	case revisionOf(last) < st.Newest:
		return giveUp, fmt.Sprintf("the history was cut: its newest revision is %d, at the checkpoint it was %d", revisionOf(last), st.Newest), nil
	case len(own) == 0:
		return unmoved(st, history)
	case st.Revision > 0:
		if restores(last) == st.Revision && last.Info.Status == release.StatusDeployed && manifestDigest(last) == st.Manifest {
			return inspect, fmt.Sprintf("revision %d restored revision %d already", last.Version, st.Revision), own
		}
		if target(st, history) == nil {
			return giveUp, fmt.Sprintf("revision %d is no longer in the history", st.Revision), nil
		}
		return rollBack, "", own
	case st.Newest == 0 || st.Status == release.StatusUninstalled.String():
		if last.Info.Status == release.StatusUninstalled {
			return leaveAlone, "uninstalled already", own
		}
		return uninstall, "", own
	default:
		return giveUp, fmt.Sprintf("no revision was deployed before: the newest was %d (%s)", st.Newest, st.Status), own
	}
}

// reinstate is for a release that the run has uninstalled, or begun to, with its
// records still there.
func reinstate(st state, history []*release.Release) (course, string, []*release.Release) {
	last := newest(history)
	switch {
	case st.Revision > 0 && target(st, history) != nil:
		return rollBack, "", nil
	case st.Revision == 0 && last.Info.Status == release.StatusUninstalled:
		return leaveAlone, "uninstalled, and nothing was deployed before", nil
	}
	return giveUp, fmt.Sprintf("the release was uninstalled, and nothing was deployed at the checkpoint to go back to: the newest revision was %d (%s)", st.Newest, st.Status), nil
}

// unmoved is for a history that has no newer revision than the checkpoint.
func unmoved(st state, history []*release.Release) (course, string, []*release.Release) {
	current := deployed(history)
	if revisionOf(current) != st.Revision || current != nil && manifestDigest(current) != st.Manifest {
		return giveUp, fmt.Sprintf("revision %d is deployed, at the checkpoint it was %d, and no newer one tells why", revisionOf(current), st.Revision), nil
	}
	return leaveAlone, fmt.Sprintf("revision %d is the newest, as before", st.Newest), nil
}

// target returns the revision to roll back to: the recorded one, or one that has
// restored it already.
func target(st state, history []*release.Release) *release.Release {
	for i := len(history) - 1; i >= 0; i-- {
		if manifestDigest(history[i]) != st.Manifest {
			continue
		}
		if history[i].Version == st.Revision || restores(history[i]) == st.Revision {
			return history[i]
		}
	}
	return nil
}

// restores returns the revision that rel was made to restore, or 0.
func restores(rel *release.Release) int {
	n, err := strconv.Atoi(rel.Labels[LabelRestores])
	if err != nil || maker(rel) == "" {
		return 0
	}
	return n
}

func author(rel *release.Release) string {
	if run := maker(rel); run != "" {
		return "run " + run
	}
	return "somebody else, at " + rel.Info.LastDeployed.UTC().Format(time.RFC3339)
}
