package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Verifier waits until a release runs. It is safe for concurrent use.
type Verifier struct {
	settings settings
	cluster  *Cluster
	own      bool // the cluster is this verifier's own
	memories memories
	find     func(ctx context.Context, namespace string, objects []stages.Object) (objectsFound, error)
}

var (
	_ stages.Verifier        = (*Verifier)(nil)
	_ stages.RestoreVerifier = (*Verifier)(nil)
	_ stages.Examiner        = (*Verifier)(nil)
	_ stages.Closer          = (*Verifier)(nil)
)

// New returns a verifier for the cluster that config names, without asking it
// anything yet. Its error matches [stages.ErrInvalid].
func New(config Config) (*Verifier, error) {
	s, err := config.complete()
	if err != nil {
		return nil, fmt.Errorf("rollout verifier: %w", err)
	}
	c, own, err := sharedOrOwn(config.Cluster, config.REST)
	if err != nil {
		return nil, fmt.Errorf("rollout verifier: %w", err)
	}
	return &Verifier{settings: s, cluster: c, own: own, find: c.find}, nil
}

// Verify waits until every workload of rel has been rolled out and its pods are
// seen to run rel's image, the other objects that say how far they are are ready,
// and the rest exist.
//
// It returns a [*Failure], which is permanent, as soon as it is seen that this
// won't happen, or at the latest at the timeout; a permanent error if the caller
// may not watch; an error matching [stages.ErrIndeterminate] if the cluster is
// out of reach at the timeout; [context.Cause] if ctx is done before.
func (v *Verifier) Verify(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	if rel.Image.IsZero() {
		return stages.Verification{}, fmt.Errorf("verify release %s/%s: %w: it names no image", rel.Namespace, rel.Name, stages.ErrInvalid)
	}
	return v.verify(ctx, rel, v.settings, "verify release")
}

// VerifyRestored is Verify for a release that was brought back: it may name no
// image, and then any will do. When the release runs, it also waits until the pods
// that it replaces have ended, for up to the grace period that a pod has by default,
// so that none of them answers any more. Where ctx has a deadline, the timeout comes
// before it, in time for the evidence.
func (v *Verifier) VerifyRestored(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	settings := v.settings
	settings.drain = true
	settings.AllowUnused = settings.AllowUnused || rel.Image.IsZero()
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		settings.Timeout = max(min(settings.Timeout, left-min(settings.EvidenceTimeout, left/4)), 1)
	}
	return v.verify(ctx, rel, settings, "verify the restored release")
}

func (v *Verifier) verify(ctx context.Context, rel stages.Release, settings settings, verb string) (stages.Verification, error) {
	subject := rel.Namespace + "/" + rel.Name
	if err := validate(rel); err != nil {
		return stages.Verification{}, fmt.Errorf("%s %s: %w", verb, subject, err)
	}
	if ctx.Err() != nil {
		return stages.Verification{}, fmt.Errorf("%s %s: %w", verb, subject, context.Cause(ctx))
	}
	targets, others, workloads := settings.split(rel)
	s := session{
		cluster: v.cluster, settings: settings, verb: verb, subject: subject, image: rel.Image, deployed: rel.Deployed, born: rel.Began, before: v.memories.recall(rel), targets: targets, namespace: rel.Namespace,
		others: func(ctx context.Context) (objectsFound, error) { return v.find(ctx, rel.Namespace, others) },
		progress: func(id, message string) {
			stages.ReportProgress(ctx, stages.Progress{ID: id, Message: message})
		},
	}
	if settings.Completion && len(targets) == 1 && targets[0].Kind == "Pod" {
		s.only = targets[0].Name
	}
	if workloads == 0 && !settings.AllowUnused {
		return stages.Verification{}, stages.Permanent(unusedFailure(subject, rel.Image))
	}
	began := time.Now()
	result, err := s.run(ctx)
	if err != nil {
		if f, ok := errors.AsType[*Failure](err); ok {
			f.Release = subject
			return stages.Verification{}, stages.Permanent(f)
		}
		return stages.Verification{}, err
	}
	v.memories.keep(rel, s.inspector)
	verification := stages.Verification{Image: rel.Image}
	for _, a := range result.workloads {
		switch {
		case a.unwatched:
			if name := a.object.String(); !slices.Contains(result.objects.unseen, name) {
				result.objects.unwatched = append(result.objects.unwatched, name)
			}
			continue
		case a.plain:
			result.objects.seen++
			continue
		}
		c := a.check(rel.Image, result.elapsed[a.object])
		c.Message = settings.clean.line(c.Message) // what a controller says of a custom resource is in it
		verification.Checks = append(verification.Checks, c)
	}
	if c, found := result.objects.check(time.Since(began)); found {
		verification.Checks = append(verification.Checks, c)
	}
	return verification, nil
}

// Close lets go of idle connections, unless they are shared.
func (v *Verifier) Close() error {
	if !v.own {
		return nil
	}
	return v.cluster.Close()
}

func validate(rel stages.Release) error {
	switch {
	case rel.Name == "" || rel.Namespace == "":
		return fmt.Errorf("%w: the release needs a name and a namespace", stages.ErrInvalid)
	case len(rel.Objects) == 0:
		return fmt.Errorf("%w: the release lists no objects", stages.ErrInvalid)
	}
	for _, o := range rel.Objects {
		if o.Kind == "" || o.Name == "" {
			return fmt.Errorf("%w: an object of the release has no kind or no name: %s", stages.ErrInvalid, o)
		}
	}
	return nil
}

// split sorts a release's objects into those that are waited for, workloads
// first, and others, which only have to exist.
func (s settings) split(rel stages.Release) (targets, others []stages.Object, workloads int) {
	seen := map[stages.Object]bool{}
	var rest []stages.Object
	for _, o := range rel.Objects {
		k, waited := s.kindOf(o)
		if waited && !k.discover && !k.needs[0].clusterScoped {
			o.Namespace = orElse(o.Namespace, rel.Namespace)
		}
		if seen[o] {
			continue
		}
		seen[o] = true
		switch {
		case k.workload():
			targets = append(targets, o)
		case waited:
			rest = append(rest, o)
		default:
			others = append(others, o)
		}
	}
	return append(targets, rest...), others, len(targets)
}

func unusedFailure(release string, img stages.Image) *Failure {
	return &Failure{
		Release: release, Workload: stages.Object{Kind: "Release", Name: release}, Cause: ImageMismatch,
		Decisive: stages.Evidence{
			Subject: "Release " + release, Reason: string(ImageMismatch), Remedy: ImageMismatch.remedy(),
			Message: fmt.Sprintf("the release has no workload, so nothing runs %s", img),
		},
	}
}
