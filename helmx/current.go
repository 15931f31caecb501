package helmx

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"helm.sh/helm/v3/pkg/release"

	"github.com/fairlead-dev/fairlead/stages"
)

// Current is the release that is deployed, from its record.
type Current struct {
	stages.Release
	// Run made the release. Of a release that was restored, this and the rest are
	// those of the revision that was restored.
	Run string `json:"run"`
	// Commit and Author are those of its source, where known.
	Commit string `json:"commit,omitempty"`
	Author string `json:"author,omitempty"`
	// Bypass is why it was deployed without gates; empty if they passed.
	Bypass string `json:"bypass,omitempty"`
}

// NotDeployedError is a release that does not have one settled, known revision.
type NotDeployedError struct {
	Release, Namespace string
	// Revision is the newest one, 0 if there is none, and Status its state, such as
	// "pending-upgrade".
	Revision int
	Status   string
	// Problem says what is the matter.
	Problem string
}

func (e *NotDeployedError) Error() string {
	if e.Revision == 0 {
		return fmt.Sprintf("release %s/%s: %s", e.Namespace, e.Release, e.Problem)
	}
	return fmt.Sprintf("release %s/%s, revision %d (%s): %s", e.Namespace, e.Release, e.Revision, e.Status, e.Problem)
}

// Current reads which release is deployed. It changes nothing, and says nothing
// about whether the pods run. It returns a [NotDeployedError] if there is no
// release, if its newest revision is pending, failed or uninstalled, or if that
// was not made by this package, because then nobody knows its image for sure.
func (d *Deployer) Current(ctx context.Context) (Current, error) {
	s, err := d.session(ctx)
	if err != nil {
		return Current{}, fmt.Errorf("read what release %s runs: %w", d.name(), err)
	}
	history, err := s.history(d.cfg.Release)
	if err != nil {
		return Current{}, fmt.Errorf("read what release %s runs: %w", d.name(), err)
	}
	last := newest(history)
	refuse := func(format string, args ...any) (Current, error) {
		e := &NotDeployedError{Release: d.cfg.Release, Namespace: d.cfg.Namespace, Problem: fmt.Sprintf(format, args...)}
		if last != nil {
			e.Revision, e.Status = last.Version, last.Info.Status.String()
		}
		return Current{}, e
	}
	switch {
	case last == nil:
		return refuse("it is not installed")
	case last.Info.Status != release.StatusDeployed:
		return refuse("it is not settled; wait for it, or mend it by releasing again")
	case maker(last) == "":
		return refuse("it was not made by fairlead, so its image is not known; release it with fairlead once")
	}
	objects, err := parseObjects(last.Manifest, d.cfg.Namespace, s.mapper)
	if err != nil {
		return Current{}, fmt.Errorf("read what release %s runs: %w", d.name(), err)
	}
	n, problem := d.noteOf(last, history, objects)
	if problem != "" {
		return refuse("%s", problem)
	}
	return Current{Release: d.releaseOf(last, objects, n.image), Run: n.run, Commit: n.commit, Author: n.author, Bypass: n.bypass}, nil
}

// noteOf returns what the records say of what rel, which consists of objects, was
// built for, or why that isn't to be relied on.
func (d *Deployer) noteOf(rel *release.Release, history []*release.Release, objects []object) (note, string) {
	origin, problem := originOf(rel, history)
	if problem != "" {
		return note{}, problem
	}
	n, ok := parseDescription(origin.Info.Description)
	if !ok || !n.describes(origin) {
		return note{}, "its record does not say which image it runs, or contradicts itself; release it again"
	}
	if err := checkPinned(n.image, objects, nil, d.cfg.ImageFields); err != nil {
		return note{}, fmt.Sprintf("its record says %s, which is not what its manifest runs", n.image)
	}
	return n, ""
}

func (d *Deployer) releaseOf(rel *release.Release, objects []object, img stages.Image) stages.Release {
	return stages.Release{
		Image: img, Name: d.cfg.Release, Namespace: d.cfg.Namespace, Revision: rel.Version,
		Objects: ids(objects), Began: beganAt(rel), Deployed: rel.Info.LastDeployed.Time.UTC(),
	}
}

// beganAt returns when the objects of a revision began to be applied, which is after the
// hooks before it. One that runs both before and after tells only of its last run.
func beganAt(rel *release.Release) time.Time {
	began := rel.Info.LastDeployed.Time
	for _, h := range rel.Hooks {
		first := !slices.ContainsFunc(h.Events, func(e release.HookEvent) bool { return !slices.Contains(preApply, e) })
		if ended := h.LastRun.CompletedAt.Time; first && ended.After(began) {
			began = ended
		}
	}
	return began.UTC()
}

// preApply are the events of hooks that run before the objects are applied.
var preApply = []release.HookEvent{release.HookPreInstall, release.HookPreUpgrade, release.HookPreRollback}

// originOf returns the revision that was built for, following restores, or why it can't be
// told.
func originOf(rel *release.Release, history []*release.Release) (*release.Release, string) {
	for restores(rel) > 0 {
		to := restores(rel)
		i := slices.IndexFunc(history, func(r *release.Release) bool { return r.Version == to && to < rel.Version })
		switch {
		case i < 0:
			return nil, fmt.Sprintf("it restored revision %d, which is not in the history any more; release it again", to)
		case manifestDigest(history[i]) != manifestDigest(rel):
			return nil, fmt.Sprintf("it says that it restored revision %d, which has another manifest; release it again", to)
		case maker(history[i]) == "":
			return nil, fmt.Sprintf("it restored revision %d, which was not made by fairlead; release it with fairlead once", to)
		}
		rel = history[i]
	}
	return rel, ""
}

// describes reports whether the labels of a record agree with the note.
func (n note) describes(rel *release.Release) bool {
	for key, value := range n.labels() {
		if rel.Labels[key] != value {
			return false
		}
	}
	return true
}

// parseDescription is the inverse of [note.description], for notes of a release.
// Texts are quoted in it, so no run, commit or author can pass for anything else.
func parseDescription(text string) (note, bool) {
	p := descriptionParser{rest: text, ok: true}
	n := note{run: p.quoted("fairlead run ")}
	p.expect(": released ")
	reference, rest, more := strings.Cut(p.rest, ", ")
	p.rest = ""
	if more {
		p.rest = ", " + rest
	}
	img, err := stages.ParseImage(reference)
	n.image = img
	n.commit = p.optional(", commit ")
	n.author = p.optional(", author ")
	n.bypass = p.optional(", gates bypassed: ")
	return n, p.ok && err == nil && p.rest == "" && n.description() == text
}

// descriptionParser takes one part after the other off rest.
type descriptionParser struct {
	rest string
	ok   bool
}

func (p *descriptionParser) expect(text string) {
	rest, found := strings.CutPrefix(p.rest, text)
	p.rest, p.ok = rest, p.ok && found
}

func (p *descriptionParser) quoted(after string) string {
	p.expect(after)
	prefix, err := strconv.QuotedPrefix(p.rest)
	if err != nil {
		p.ok = false
		return ""
	}
	p.rest = p.rest[len(prefix):]
	text, err := strconv.Unquote(prefix)
	p.ok = p.ok && err == nil
	return text
}

func (p *descriptionParser) optional(after string) string {
	if !strings.HasPrefix(p.rest, after) {
		return ""
	}
	return p.quoted(after)
}
