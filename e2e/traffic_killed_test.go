package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// pilotEnv makes the test binary a process that delivers a canary, until it kills
// itself.
const pilotEnv = "FAIRLEAD_E2E_PILOT"

// pilot says what such a process delivers, and at which record it dies.
type pilot struct {
	Kubeconfig, Namespace, Run string
	Image                      stages.Image
	KillAt                     traffic.Phase
	Step                       int
	// Journal is that of the pipeline that delivers; by default the canary flies
	// alone.
	Journal string
}

// deadlyState kills the process as soon as a record is written.
type deadlyState struct {
	traffic.State
	pilot pilot
}

func (s deadlyState) Save(ctx context.Context, record traffic.Record, version string) (string, error) {
	saved, err := s.State.Save(ctx, record, version)
	if err == nil && record.Phase == s.pilot.KillAt && record.Step >= s.pilot.Step {
		die()
	}
	return saved, err
}

// canary is the one that such a process has, and whoever recovers it.
func (p pilot) canary() (traffic.CanaryConfig, error) {
	access, err := helmx.Kubernetes{KubeconfigPath: p.Kubeconfig}.RESTConfig()
	if err != nil {
		return traffic.CanaryConfig{}, err
	}
	return canaryParts(access, p.Namespace, helmx.LockConfig{TTL: 5 * time.Second})
}

// pipeline is the one that delivers, and recovers what it has left.
func (p pilot) pipeline(parts traffic.CanaryConfig) (*pipeline.Pipeline, error) {
	canary, err := traffic.NewCanary(parts)
	if err != nil {
		return nil, err
	}
	cfg := journalled(p.Namespace, p.Journal, p.Image, canary)
	cfg.Verifiers = parts.Verifiers
	return pipeline.New(cfg)
}

func bePilot(spec string) error {
	var p pilot
	if err := json.Unmarshal([]byte(spec), &p); err != nil {
		return err
	}
	parts, err := p.canary()
	if err != nil {
		return err
	}
	parts.State = deadlyState{parts.State, p}
	if p.Journal == "" {
		err = p.alone(parts)
	} else {
		err = p.inPipeline(parts)
	}
	return fmt.Errorf("the delivery ended before it was killed: %w", err)
}

func (p pilot) inPipeline(parts traffic.CanaryConfig) error {
	delivery, err := p.pipeline(parts)
	if err != nil {
		return err
	}
	_, err = delivery.Run(context.Background(), stages.Source{Dir: appDir, Revision: "killed"})
	return err
}

// alone does what a pipeline would, and tells of its checkpoint.
func (p pilot) alone(parts traffic.CanaryConfig) error {
	canary, err := traffic.NewCanary(parts)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := canary.Lock(ctx, p.Run); err != nil {
		return err
	}
	cp, err := canary.Checkpoint(ctx, stages.CheckpointRequest{Run: p.Run, Image: p.Image})
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(cp); err != nil {
		return err
	}
	clearance, err := stages.BypassGates(p.Image, "made by a test")
	if err != nil {
		return err
	}
	_, err = canary.Deploy(ctx, stages.DeployRequest{Clearance: clearance, Run: p.Run})
	return err
}

// fly starts the process, and returns its checkpoint, if it is alone, once it is dead.
func (p pilot) fly(t *testing.T) stages.Checkpoint {
	t.Helper()
	cmd := player(labtest.Context(t), t, pilotEnv, p)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	out := bufio.NewScanner(stdout)
	var cp stages.Checkpoint
	if out.Scan() {
		require.NoError(t, json.Unmarshal(out.Bytes(), &cp))
	}
	require.ErrorContains(t, cmd.Wait(), "killed")
	return cp
}

// newPrey delivers a first version for killed processes to leave canaries beside, and
// has the image of the next one.
func (w *world) newPrey(t *testing.T, namespace string) (old, next stages.Image, guests *census) {
	t.Helper()
	ctx := labtest.Context(t)
	builder := w.builder(t, namespace)
	old, err := builder.Build(ctx, source("1.0.0"))
	require.NoError(t, err)
	next, err = builder.Build(ctx, source("1.1.0"))
	require.NoError(t, err)
	first, err := w.newCanary(t, namespace).Deploy(ctx, bypassed(t, old, "run-0"))
	require.NoError(t, err)
	_, err = w.verifiers(t, w.rest)[0].Verify(ctx, first)
	require.NoError(t, err)
	return old, next, w.census(t, namespace)
}

// TestKilledCanary kills a process at every record that it writes, and has others
// finish, abort or restore what it left.
func TestKilledCanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	old, next, c := w.newPrey(t, ns)

	restore := func(t *testing.T, run string, cp stages.Checkpoint) string {
		restored, err := w.newCanary(t, ns).Restore(ctx, run, cp)
		require.NoError(t, err)
		require.Equal(t, stages.Restored, restored.Outcome, restored.Message)
		return "1.0.0"
	}
	abort := func(t *testing.T, _ string, _ stages.Checkpoint) string {
		require.NoError(t, w.newCanary(t, ns).Abort(ctx, "left by a test"))
		return "1.0.0"
	}
	for i, k := range []struct {
		phase traffic.Phase
		step  int
		goOn  func(t *testing.T, run string, cp stages.Checkpoint) string
	}{
		{traffic.Deploying, 0, abort}, {traffic.Shifting, 1, restore}, {traffic.Shifting, 2, abort}, {traffic.Watching, 2, restore},
		{traffic.Promoting, 2, abort}, {traffic.Returning, 2, restore}, {traffic.Removing, 2, restore},
		{traffic.Watching, 1, func(t *testing.T, _ string, _ stages.Checkpoint) string {
			_, err := w.newCanary(t, ns).Promote(ctx, bypassed(t, next, "run-promote"))
			require.NoError(t, err)
			return "1.1.0"
		}},
		{traffic.Watching, 2, func(t *testing.T, _ string, _ stages.Checkpoint) string {
			_, err := w.newCanary(t, ns).Deploy(ctx, bypassed(t, old, "run-next"))
			require.NoError(t, err)
			return "1.0.0"
		}},
	} {
		t.Run(fmt.Sprintf("%s in step %d", k.phase, k.step), func(t *testing.T) {
			p := pilot{Kubeconfig: w.box.Kubeconfig, Namespace: ns, Run: fmt.Sprintf("killed-%d", i), Image: next, KillAt: k.phase, Step: k.step}
			if i == 8 {
				img, err := w.builder(t, ns).Build(ctx, source("1.2.0"))
				require.NoError(t, err)
				p.Image = img
			}
			cp := p.fly(t)
			status, err := w.newCanary(t, ns).Status(ctx)
			require.NoError(t, err)
			require.NotNil(t, status.Record, "the state was recorded")
			assert.Equal(t, k.phase, status.Record.Phase)
			assert.Equal(t, p.Run, status.Record.Run)
			t.Logf("left behind: %s, step %d, %s", status.Record.Phase, status.Record.Step, status.Traffic)
			version := k.goOn(t, p.Run, cp)
			w.requireNoCanary(t, w.newCanary(t, ns), ns, version, map[string]stages.Image{"1.0.0": old, "1.1.0": next}[version])
		})
	}
	c.requireUnharmed(t)
}

// TestKilledCanaryIsRecovered kills a pipeline in the middle of a canary, and has
// another process recover the run by its journal.
func TestKilledCanaryIsRecovered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	old, next, c := w.newPrey(t, ns)
	for _, k := range []struct {
		phase traffic.Phase
		step  int
	}{{traffic.Watching, 1}, {traffic.Shifting, 2}, {traffic.Promoting, 2}, {traffic.Returning, 2}} {
		t.Run(fmt.Sprintf("%s in step %d", k.phase, k.step), func(t *testing.T) {
			p := pilot{Kubeconfig: w.box.Kubeconfig, Namespace: ns, Image: next, KillAt: k.phase, Step: k.step, Journal: filepath.Join(t.TempDir(), "journal")}
			p.fly(t)
			status, err := w.newCanary(t, ns).Status(ctx)
			require.NoError(t, err)
			require.NotNil(t, status.Record, "the state was recorded")
			assert.Equal(t, k.phase, status.Record.Phase)
			assert.Positive(t, status.Traffic.Canary)
			t.Logf("left behind: %s, step %d, %s", status.Record.Phase, status.Record.Step, status.Traffic)

			parts, err := p.canary()
			require.NoError(t, err)
			another, err := p.pipeline(parts)
			require.NoError(t, err)
			_, err = another.Run(ctx, stages.Source{Dir: appDir})
			require.ErrorIs(t, err, pipeline.ErrUnfinished, "a run must not build on what was left behind")
			recoveries, err := another.Recover(ctx)
			require.NoError(t, err)
			require.Len(t, recoveries, 1)
			recovery := recoveries[0]
			assert.Equal(t, status.Record.Run, recovery.Run)
			assert.Equal(t, pipeline.OutcomeRolledBack, recovery.Outcome)
			require.Len(t, recovery.Restorations, 1)
			assert.Equal(t, stages.Restored, recovery.Restorations[0].Outcome)
			assert.Contains(t, recovery.Restorations[0].Message, "the canary was aborted")
			t.Logf("recovered within %s: %s", recovery.Elapsed.Round(time.Millisecond), recovery.Restorations[0].Message)
			w.requireNoCanary(t, w.newCanary(t, ns), ns, "1.0.0", old)

			assert.Equal(t, []pipeline.EntryKind{pipeline.EntryCheckpointed, pipeline.EntryRestoring, pipeline.EntryRestored, pipeline.EntryFinished},
				journalOf(t, p.Journal, recovery.Run), "of the deployment")
			again, err := another.Recover(ctx)
			require.NoError(t, err)
			assert.Empty(t, again, "there is nothing left to recover")
		})
	}
	c.requireUnharmed(t)
}

// journalOf are the entries of a run from its deployment on.
func journalOf(t *testing.T, path, run string) (kinds []pipeline.EntryKind) {
	t.Helper()
	log, entries, err := pipeline.FileJournal(path).Open(labtest.Context(t))
	require.NoError(t, err)
	defer log.Close()
	for _, e := range entries {
		if e.Run == run && (e.Stage == pipeline.StageDeploy || e.Kind == pipeline.EntryFinished) {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}
