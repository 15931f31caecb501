package helmx

import (
	"context"
	"fmt"
	"slices"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/release"

	"github.com/fairlead-dev/fairlead/stages"
)

// Tests returns a verifier that runs the chart's tests, as helm test does. A
// release without tests fails it, because nothing would be verified.
func (d *Deployer) Tests() stages.Verifier { return &tests{d} }

type tests struct{ deployer *Deployer }

// Verify runs the tests of the revision one after the other and returns a check
// for each. A test that fails is a [HookError].
func (t *tests) Verify(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	v, err := t.deployer.test(ctx, rel)
	if err != nil {
		return stages.Verification{}, fmt.Errorf("test revision %d of release %s: %w", rel.Revision, t.deployer.name(), err)
	}
	return v, nil
}

func (d *Deployer) test(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	if rel.Name != d.cfg.Release || rel.Namespace != d.cfg.Namespace {
		return stages.Verification{}, fmt.Errorf("%w: it is of another release, %s/%s", stages.ErrInvalid, rel.Namespace, rel.Name)
	}
	ctx, _, done, err := d.locked(ctx, d.holder())
	if err != nil {
		return stages.Verification{}, err
	}
	defer done()
	s, err := d.session(ctx)
	if err != nil {
		return stages.Verification{}, err
	}
	history, err := s.history(d.cfg.Release)
	if err != nil {
		return stages.Verification{}, err
	}
	last := newest(history)
	switch {
	case last == nil || last.Version != rel.Revision || last.Info.Status != release.StatusDeployed:
		return stages.Verification{}, stages.Permanent(fmt.Errorf("it is no longer what is deployed: the newest revision is %d", revisionOf(last)))
	case !slices.ContainsFunc(last.Hooks, isTest):
		return stages.Verification{}, fmt.Errorf("%w: chart %s has no tests; annotate a Pod or a Job with \"helm.sh/hook: test\"", stages.ErrInvalid, d.cfg.Chart)
	}
	if s.secrets, err = d.secretsOf(s, last); err != nil {
		return stages.Verification{}, err
	}
	action := action.NewReleaseTesting(s.actions(s.store(), 0))
	action.Namespace, action.Timeout = d.cfg.Namespace, d.cfg.Timeout
	tested, err := action.Run(d.cfg.Release)
	if err != nil {
		return stages.Verification{}, s.explain(err)
	}
	v := stages.Verification{Image: rel.Image}
	for _, h := range tested.Hooks {
		if isTest(h) {
			v.Checks = append(v.Checks, stages.Check{
				Name: fmt.Sprintf("helm test %s %s", h.Kind, h.Name), Message: "succeeded",
				Elapsed: h.LastRun.CompletedAt.Sub(h.LastRun.StartedAt).Round(time.Millisecond),
			})
		}
	}
	return v, nil
}

// holder returns the run that holds the lock, of which a verification is part, or a
// name for the tests alone.
func (d *Deployer) holder() string {
	d.cluster.mu.Lock()
	defer d.cluster.mu.Unlock()
	for key := range d.cluster.holds {
		if key == d.holdKey(key.run) {
			return key.run
		}
	}
	return "chart tests"
}

// secretsOf returns what is secret of a revision.
func (d *Deployer) secretsOf(s *session, rel *release.Release) ([]string, error) {
	objects, err := parseObjects(rel.Manifest, d.cfg.Namespace, s.mapper)
	if err != nil {
		return nil, err
	}
	return slices.Concat(secretStrings(objects), d.source.secretsOfRecord(rel), d.source.secrets()), nil
}

func isTest(h *release.Hook) bool { return slices.Contains(h.Events, release.HookTest) }
