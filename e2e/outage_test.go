package e2e_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// outage is what the API server's absence comes upon: a release of one version, and
// a pipeline that delivers the next.
type outage struct {
	*world
	ns     string
	access *rest.Config
	cable  *cable
	cfg    pipeline.Config
	good   stages.Image
}

// outage releases a first version, over a connection that is whole.
func (w *world) outage(t *testing.T) *outage {
	t.Helper()
	ns := w.namespace(t)
	access, line := w.cable(t)
	good, next := w.image(t, ns, "1.0.0"), w.image(t, ns, "1.1.0")
	o := &outage{world: w, ns: ns, access: access, cable: line, good: good}
	result, err := run(t, o.pipeline(t, w.rest, good), stages.Source{Dir: appDir})
	require.NoError(t, err)
	require.Equal(t, 1, result.Release.Revision)
	o.cfg = o.pipeline(t, access, next)
	return o
}

func (o *outage) pipeline(t *testing.T, access *rest.Config, img stages.Image) pipeline.Config {
	t.Helper()
	cfg := journalled(o.ns, filepath.Join(t.TempDir(), "journal"), img, o.deployer(t, o.ns, access))
	cfg.Verifiers = []stages.Verifier{o.rollout(t, access, rolloutTimeout)}
	cfg.Observers = []pipeline.Observer{logEvents(t)}
	return cfg
}

func (o *outage) rollout(t *testing.T, access *rest.Config, timeout time.Duration) stages.Verifier {
	t.Helper()
	ready, err := rollout.New(rollout.Config{REST: access, Timeout: timeout})
	require.NoError(t, err)
	return ready
}

// whenPending does something as soon as Helm has recorded that it upgrades.
func (o *outage) whenPending(t *testing.T, do func()) {
	t.Helper()
	pending := o.watchPending(t, o.ns)
	t.Cleanup(pending.Stop)
	go func() {
		if _, open := <-pending.ResultChan(); open {
			do()
		}
	}()
}

// when does something as soon as the run says so.
func (o *outage) when(stage pipeline.Stage, kind pipeline.Kind, do func()) {
	o.cfg.Observers = append(o.cfg.Observers, pipeline.ObserverFunc(func(e pipeline.Event) {
		if e.Stage == stage && e.Kind == kind {
			do()
		}
	}))
}

// requireBack checks that the first version is what runs and is recorded, and that
// the next run is not kept from its work.
func (o *outage) requireBack(t *testing.T) {
	t.Helper()
	o.cfg.Observers = []pipeline.Observer{logEvents(t)} // Nothing is cut any more.
	o.requireRunning(t, o.ns, o.good)
	assert.NotContains(t, join(o.revisions(t, o.ns)), "pending")
	result, err := run(t, o.cfg, stages.Source{Dir: appDir})
	require.NoError(t, err)
	o.requireRunning(t, o.ns, result.Image)
}

// TestAPIServerGoesAway cuts off a run from the API server in the middle of its work.
func TestAPIServerGoesAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, play := range map[string]func(*testing.T, *outage){
		"while Helm is at work, until the rollback has begun": func(t *testing.T, o *outage) {
			o.whenPending(t, func() { o.cable.cut(-1) })
			o.when(pipeline.StageDeploy, pipeline.KindRestoring, func() { o.cable.cut(3) })
			result, err := run(t, o.cfg, stages.Source{Dir: appDir})
			require.ErrorIs(t, err, stages.ErrRolledBack)
			assert.Equal(t, pipeline.OutcomeRolledBack, result.Outcome)
			o.requireBack(t)
		},
		"for a moment, and the deployment is tried again": func(t *testing.T, o *outage) {
			o.whenPending(t, func() { o.cable.cut(3) })
			o.cfg.Retries.Deploy = pipeline.Backoff(5)
			result, err := run(t, o.cfg, stages.Source{Dir: appDir})
			require.NoError(t, err)
			o.requireRunning(t, o.ns, result.Image)
			assert.NotContains(t, join(o.revisions(t, o.ns)), "pending")
		},
		"without a word, while Helm is at work": func(t *testing.T, o *outage) {
			o.whenPending(t, o.cable.hang)
			result, err := run(t, o.cfg, stages.Source{Dir: appDir})
			require.ErrorIs(t, err, stages.ErrRolledBack)
			assert.Equal(t, pipeline.OutcomeRolledBack, result.Outcome)
			o.requireBack(t)
		},
		"for longer than the rollback may take": func(t *testing.T, o *outage) {
			o.whenPending(t, func() { o.cable.cut(-1) })
			o.cfg.RollbackTimeout = 10 * time.Second
			result, err := run(t, o.cfg, stages.Source{Dir: appDir})
			o.requireUnknown(t, result, err)
		},
		"for a moment, while the new pods start": func(t *testing.T, o *outage) {
			o.when(pipeline.StageVerify, pipeline.KindStageStarted, func() { o.cable.cut(6) })
			result, err := run(t, o.cfg, stages.Source{Dir: appDir})
			require.NoError(t, err)
			o.requireRunning(t, o.ns, result.Image)
		},
		"for good, while the new pods start": func(t *testing.T, o *outage) {
			o.when(pipeline.StageVerify, pipeline.KindStageStarted, func() { o.cable.cut(-1) })
			o.cfg.Verifiers = []stages.Verifier{o.rollout(t, o.access, 10*time.Second)}
			o.cfg.RollbackTimeout = 10 * time.Second
			result, err := run(t, o.cfg, stages.Source{Dir: appDir})
			require.ErrorIs(t, err, stages.ErrIndeterminate, "nobody knows whether they are ready")
			o.requireUnknown(t, result, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := w.outage(t)
			guests := w.census(t, o.ns)
			play(t, o)
			guests.requireUnharmed(t)
		})
	}
}

// requireUnknown checks that a run says that it doesn't know what is deployed, and
// why. Once the API server is there again, what was before is brought back.
func (o *outage) requireUnknown(t *testing.T, result *pipeline.Result, err error) {
	t.Helper()
	require.ErrorIs(t, err, stages.ErrIndeterminate)
	require.ErrorIs(t, err, stages.ErrRollbackFailed)
	assert.Equal(t, pipeline.OutcomeUnknown, result.Outcome)
	var failure *helmx.APIError
	require.ErrorAs(t, err, &failure, "%v", err)
	assert.Equal(t, helmx.Unavailable, failure.Reason)

	o.cable.mend()
	o.cfg.RollbackTimeout, o.cfg.Verifiers = 0, []stages.Verifier{o.rollout(t, o.access, rolloutTimeout)}
	p, err := pipeline.New(o.cfg)
	require.NoError(t, err)
	_, err = p.Run(labtest.Context(t), stages.Source{Dir: appDir})
	require.ErrorIs(t, err, pipeline.ErrUnfinished)
	recoveries, err := p.Recover(labtest.Context(t))
	require.NoError(t, err)
	require.Len(t, recoveries, 1)
	o.requireBack(t)
}
