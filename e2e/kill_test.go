package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/notify"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// victimEnv makes the test binary a process that delivers, until it is killed.
const victimEnv = "FAIRLEAD_E2E_VICTIM"

// victim says what such a process delivers.
type victim struct {
	Kubeconfig, Namespace, Journal string
	Image                          stages.Image
}

// pipeline returns one of the real deployer and a journal on disk. What it
// deploys is there already, and its verifier waits for ever, so that the process
// is always killed in the middle of something.
func (v victim) pipeline(observers ...pipeline.Observer) (*pipeline.Pipeline, error) {
	access, err := helmx.Kubernetes{KubeconfigPath: v.Kubeconfig}.RESTConfig()
	if err != nil {
		return nil, err
	}
	deployer, err := helmx.New(helmx.Config{
		Chart: chartDir, Release: release, Namespace: v.Namespace,
		Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
		Kubernetes: helmx.Kubernetes{REST: access},
	})
	if err != nil {
		return nil, err
	}
	cfg := journalled(v.Namespace, v.Journal, v.Image, deployer)
	cfg.Verifiers = []stages.Verifier{stages.VerifierFunc(func(ctx context.Context, _ stages.Release) (stages.Verification, error) {
		<-ctx.Done()
		return stages.Verification{}, context.Cause(ctx)
	})}
	cfg.Observers = observers
	return pipeline.New(cfg)
}

// journalled is a pipeline with a journal on disk that delivers what is built
// already, past gates that let everything pass.
func journalled(name, journal string, img stages.Image, deployer stages.Deployer) pipeline.Config {
	return pipeline.Config{
		Name:    name,
		Builder: stages.BuilderFunc(func(context.Context, stages.Source) (stages.Image, error) { return img, nil }),
		Scanner: &stagestest.Scanner{},
		ScanGates: []stages.Gate[stages.Report]{stages.GateFunc[stages.Report](
			func(context.Context, stages.Report) (stages.Decision, error) {
				return stages.Decision{Gate: "any", Verdict: stages.Pass}, nil
			})},
		Signer:   &stagestest.Signer{},
		Deployer: deployer,
		Journal:  pipeline.FileJournal(journal),
	}
}

func beVictim(spec string) error {
	var v victim
	if err := json.Unmarshal([]byte(spec), &v); err != nil {
		return err
	}
	p, err := v.pipeline(notify.NewNDJSON(os.Stdout))
	if err != nil {
		return err
	}
	_, err = p.Run(context.Background(), stages.Source{Dir: appDir, Revision: "killed"})
	return fmt.Errorf("the run ended before it was killed: %w", err)
}

// TestKilledProcessIsRecovered kills a delivering process at different moments
// of an upgrade, and has another one bring back what was before.
func TestKilledProcessIsRecovered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	cfg := w.delivery(t, ns)
	good, err := run(t, cfg, source("1.0.0"))
	require.NoError(t, err)
	next, err := w.builder(t, ns).Build(labtest.Context(t), source("1.1.0"))
	require.NoError(t, err)

	for moment, c := range map[string]struct {
		when  func(t *testing.T, events *bufio.Scanner)
		where string // in the run; empty if it may not have released anything
	}{
		"as the deploy starts": {when: func(t *testing.T, events *bufio.Scanner) {
			requireEvent(t, events, pipeline.StageDeploy, pipeline.KindCheckpointed)
		}},
		"as the release is pending": {where: "deploy", when: func(t *testing.T, events *bufio.Scanner) {
			pending := w.watchPending(t, ns)
			defer pending.Stop()
			requireEvent(t, events, pipeline.StageDeploy, pipeline.KindStageStarted)
			<-pending.ResultChan()
		}},
		"as the new pods start": {where: "after deploy", when: func(t *testing.T, events *bufio.Scanner) {
			requireEvent(t, events, pipeline.StageVerify, pipeline.KindStageStarted)
		}},
	} {
		t.Run(moment, func(t *testing.T) {
			v := victim{Kubeconfig: w.box.Kubeconfig, Namespace: ns, Journal: filepath.Join(t.TempDir(), "journal"), Image: next}
			cmd := player(labtest.Context(t), t, victimEnv, v)
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			c.when(t, bufio.NewScanner(stdout))
			require.NoError(t, cmd.Process.Kill())
			require.ErrorContains(t, cmd.Wait(), "killed")
			t.Logf("left behind: %v", w.revisions(t, ns))

			p, err := v.pipeline()
			require.NoError(t, err)
			_, err = p.Run(labtest.Context(t), stages.Source{Dir: appDir})
			require.ErrorIs(t, err, pipeline.ErrUnfinished, "a run must not build on what was left behind")
			recoveries, err := p.Recover(labtest.Context(t))
			require.NoError(t, err)
			require.Len(t, recoveries, 1)
			t.Logf("recovered: %+v", recoveries[0])
			for _, status := range w.revisions(t, ns) {
				assert.NotContains(t, status, "pending", "no revision may stay pending")
			}
			if c.where != "" {
				assert.Contains(t, w.failures(t, ns), fmt.Sprintf("fairlead run %q: failed: %s: the process ended without a word; it may have been killed", recoveries[0].Run, c.where))
			}
			again, err := p.Recover(labtest.Context(t))
			require.NoError(t, err)
			assert.Empty(t, again, "there is nothing left to recover")

			// The release works as before, and can be delivered to again.
			result, err := run(t, cfg, source("1.0.0"))
			require.NoError(t, err)
			w.requireRunning(t, ns, result.Image)
			assert.Equal(t, good.Image, result.Image, "the same source is the same image")
			w.requirePage(t, ns, "1.0.0")
		})
	}
}

// failures are what helm history says of the revisions that failed.
func (w *world) failures(t *testing.T, namespace string) []string {
	t.Helper()
	var all []string
	for _, r := range w.helm(t, namespace).history(t, release) {
		if r.Status == "failed" {
			all = append(all, r.Description)
		}
	}
	return all
}

// requireEvent reads events until one is of the stage and kind.
func requireEvent(t *testing.T, events *bufio.Scanner, stage pipeline.Stage, kind pipeline.Kind) {
	t.Helper()
	var seen []string
	for events.Scan() {
		var e pipeline.Event
		require.NoError(t, json.Unmarshal(events.Bytes(), &e), events.Text())
		if e.Stage == stage && e.Kind == kind {
			return
		}
		seen = append(seen, fmt.Sprintf("%s %s %s", e.Stage, e.Kind, e.Error))
	}
	require.Failf(t, "the victim ended early", "%s", strings.Join(seen, "\n"))
}
