package helmx

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/releaseutil"
	"helm.sh/helm/v3/pkg/storage"
	"helm.sh/helm/v3/pkg/storage/driver"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-dev/fairlead/stages"
)

// Labels of the release records and, the first of them, of namespaces that were
// made for a release. LabelRevision tells records that were labelled from records
// that the helm command has copied the labels to. The full text of each is in the record's description.
const (
	labelPrefix   = "fairlead.dev/"
	LabelRun      = labelPrefix + "run"
	LabelRevision = labelPrefix + "revision"
	LabelDigest   = labelPrefix + "digest"
	LabelCommit   = labelPrefix + "commit"
	LabelAuthor   = labelPrefix + "author"
	LabelGates    = labelPrefix + "gates"
	LabelRestores = labelPrefix + "restores"
	LabelLocked   = labelPrefix + "locked"
	// LabelUninstall is the run that has begun to remove the release.
	LabelUninstall = labelPrefix + "uninstall"
	// labelFound is how many objects of the revision were there before it and are not of
	// the one that was deployed. Each has a label of its own, with its UID.
	labelFound = labelPrefix + "found"
)

// What an object was that a revision has found.
const (
	foundForeign = "foreign" // Not marked as the release's own: it was taken over.
	foundLeft    = "left"    // Of a revision that came to nothing.
)

func foundLabel(uid types.UID) string { return labelFound + "." + string(uid) }

// definedLabel is of a definition in the crds folder that was made or changed for the
// revision. Its value is "true".
func definedLabel(uid types.UID) string { return labelPrefix + "defined." + string(uid) }

// note is what is written into a release record about its origin.
type note struct {
	run    string
	image  stages.Image
	commit string
	author string
	bypass string
	// locked is whether the lock is held, which tells that its maker lives.
	locked bool
	// unscanned is why nothing needed to be cleared.
	unscanned string
	restores  int
	// plan is the digest of the plan that the deployment is bound to.
	plan string
}

func (n note) labels() map[string]string {
	out := map[string]string{LabelRun: runLabel(n.run)}
	if !n.image.IsZero() {
		const bits = 40 // A whole SHA-256 is one digit longer than a label may be.
		out[LabelDigest] = "sha256." + strings.TrimPrefix(n.image.Digest().String(), "sha256:")[:bits]
		out[LabelGates] = "passed"
		if n.bypass != "" {
			out[LabelGates] = "bypassed"
		}
	}
	if n.unscanned != "" {
		out[LabelGates] = "unscanned"
	}
	if n.commit != "" {
		out[LabelCommit] = labelValue(n.commit)
	}
	if n.author != "" {
		out[LabelAuthor] = labelValue(n.author)
	}
	if n.locked {
		out[LabelLocked] = "true"
	}
	if n.restores > 0 {
		out[LabelRestores] = strconv.Itoa(n.restores)
	}
	maps.DeleteFunc(out, func(_, v string) bool { return v == "" })
	return out
}

// description is for people: it is the last column of helm history.
func (n note) description() string {
	if n.restores > 0 {
		return fmt.Sprintf("fairlead run %q: restored revision %d", n.run, n.restores)
	}
	text := fmt.Sprintf("fairlead run %q: released ", n.run)
	if n.unscanned != "" {
		text += fmt.Sprintf("unscanned images: %q", n.unscanned)
	} else {
		text += n.image.String()
	}
	if n.commit != "" {
		text += fmt.Sprintf(", commit %q", n.commit)
	}
	if n.author != "" {
		text += fmt.Sprintf(", author %q", n.author)
	}
	if n.bypass != "" {
		text += fmt.Sprintf(", gates bypassed: %q", n.bypass)
	}
	return text
}

// runLabel identifies a run in a label. A run that can't be a label's value is
// hashed, because two runs must never look the same.
func runLabel(run string) string {
	if run == "" || len(validation.IsValidLabelValue(run)) == 0 {
		return run
	}
	sum := sha256.Sum256([]byte(run))
	return "hash-" + hex.EncodeToString(sum[:16])
}

// labelValue makes text fit for a label, for people to recognise it by.
func labelValue(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		default:
			return '_'
		}
	}, text)
	text = text[:min(len(text), validation.LabelValueMaxLength)]
	return strings.Trim(text, "-_.")
}

// recorder stands between Helm's actions and the stored releases. It sees every
// record before Helm touches anything: it checks it, and writes the note into it,
// which Helm itself would do only at the end, or not at all.
type recorder struct {
	driver.Driver
	note  note
	check func(*release.Release) error
	// marks are labels that say what was there before, and what was defined.
	marks map[string]string
	// created is the record that the action made, stored the status last stored.
	created *release.Release
	stored  release.Status
}

// Create checks and stores a new revision. Helm has touched nothing yet.
func (r *recorder) Create(key string, rel *release.Release) error {
	if err := r.check(rel); err != nil {
		return err
	}
	labels := maps.Clone(rel.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.DeleteFunc(labels, func(k, _ string) bool { return strings.HasPrefix(k, labelPrefix) })
	maps.Copy(labels, r.note.labels())
	maps.Copy(labels, r.marks)
	labels[LabelRevision] = strconv.Itoa(rel.Version)
	rel.Labels = labels
	if rel.Info.Status.IsPending() {
		rel.Info.Description = r.note.description()
	}
	r.created, r.stored = rel, rel.Info.Status
	return r.Driver.Create(key, rel)
}

// Update stores a revision again and keeps track of its status.
func (r *recorder) Update(key string, rel *release.Release) error {
	err := r.Driver.Update(key, rel)
	if err == nil && r.created == rel {
		r.stored = rel.Info.Status
	}
	return err
}

// unsettled reports whether the action left its record pending.
func (r *recorder) unsettled() bool {
	return r.created != nil && (r.stored.IsPending() || r.stored == release.StatusUnknown)
}

// history returns the release's revisions, oldest first.
func (s *session) history(name string) ([]*release.Release, error) {
	found, err := storage.Init(s.store()).History(name)
	if err != nil && !errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, s.explain(fmt.Errorf("read the history of release %s/%s: %w", s.namespace, name, err))
	}
	releaseutil.SortByRevision(found)
	return found, nil
}

// markFailed takes a record out of a pending state.
func (s *session) markFailed(rel *release.Release, why string) error {
	rel.Info.Status = release.StatusFailed
	rel.Info.Description = why
	err := storage.Init(s.store()).Update(rel)
	if err != nil {
		return s.explain(fmt.Errorf("mark revision %d of release %s/%s as failed: %w", rel.Version, s.namespace, rel.Name, err))
	}
	return nil
}

// maker returns the label of the run that made a revision, or "" if it was made by
// other means. The helm command copies labels from one revision to the next, so
// the run alone proves nothing: the revision must be the one it was given to.
func maker(rel *release.Release) string {
	if rel.Labels[LabelRevision] != strconv.Itoa(rel.Version) {
		return ""
	}
	return rel.Labels[LabelRun]
}

// noted returns the labels of a revision that this package made; nil for another, whose
// labels may be copies.
func noted(rel *release.Release) map[string]string {
	if maker(rel) == "" {
		return nil
	}
	return rel.Labels
}

func newest(history []*release.Release) *release.Release {
	if len(history) == 0 {
		return nil
	}
	return history[len(history)-1]
}

// deployed returns the newest deployed revision, or nil.
func deployed(history []*release.Release) *release.Release {
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].Info.Status == release.StatusDeployed {
			return history[i]
		}
	}
	return nil
}

func manifestDigest(rel *release.Release) string {
	sum := sha256.Sum256([]byte(rel.Manifest))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// nextRevision is the revision that Helm renders: a replacement of an uninstalled
// release is rendered as the first, whatever it is stored as.
func nextRevision(last int, install bool) int {
	if install {
		return 1
	}
	return last + 1
}

func revisionOf(rel *release.Release) int {
	if rel == nil {
		return 0
	}
	return rel.Version
}
