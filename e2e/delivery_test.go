package e2e_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestDelivery takes one release through its life: each part finds what the one
// before left.
func TestDelivery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	cfg := w.delivery(t, ns)
	var good *pipeline.Result

	parts := []struct {
		name string
		run  func(t *testing.T)
	}{
		{"first install", func(t *testing.T) {
			result, err := run(t, cfg, source("1.0.0"))
			require.NoError(t, err)
			assert.Equal(t, pipeline.OutcomeReleased, result.Outcome)
			assert.Equal(t, 1, result.Release.Revision)
			assert.Equal(t, result.Image, result.Verifications[0].Image)
			w.requirePage(t, ns, "1.0.0")
			w.requireRunning(t, ns, result.Image)
		}},
		{"upgrade", func(t *testing.T) {
			guests := w.census(t, ns)
			result, err := run(t, cfg, source("1.1.0"))
			require.NoError(t, err)
			assert.Equal(t, 2, result.Release.Revision)
			assert.Equal(t, 1, result.Release.Previous)
			require.Len(t, result.Plan.Changes, 1, "only the deployment's image changes")
			assert.Contains(t, result.Plan.Changes[0].Diff, result.Image.Digest().String())
			guests.requireUnharmed(t)
			w.requirePage(t, ns, "1.1.0")
			good = result
		}},
		{"crash loop", func(t *testing.T) {
			w.requireCaught(t, cfg, good, source("1.2.0", crashing), "CrashLoopBackOff", "DATABASE_URL is not set")
		}},
		{"image that can't be pulled", func(t *testing.T) {
			cfg := cfg
			cfg.Deployer = &forgetful{Deployer: w.deployer(t, ns, w.rest)}
			w.requireCaught(t, cfg, good, source("1.3.0"), "ErrImagePull", "not found")
		}},
		{"vulnerable image", func(t *testing.T) {
			before := w.revisions(t, ns)
			result, err := run(t, cfg, source("1.4.0", vulnerable))
			require.ErrorIs(t, err, stages.ErrGateRefused)
			assert.ErrorContains(t, err, "CVE-2019-10744")
			assert.ErrorContains(t, err, "4.17.12", "the fixed version is named")
			assert.Equal(t, pipeline.OutcomeUntouched, result.Outcome)
			_, err = w.signer(t, w.key).VerifySignature(t.Context(), result.Image)
			require.ErrorIs(t, err, stages.ErrSignature, "what is refused must not be signed")
			assert.Equal(t, before, w.revisions(t, ns), "nothing may be deployed")
			w.requirePage(t, ns, "1.1.0")
		}},
		{"signature by the wrong key", func(t *testing.T) {
			before := w.revisions(t, ns)
			cfg := cfg
			cfg.SignatureVerifier = w.trusting(t, newKey(t))
			result, err := run(t, cfg, source("1.5.0"))
			require.ErrorIs(t, err, stages.ErrSignature)
			assert.Equal(t, pipeline.OutcomeUntouched, result.Outcome)
			assert.Equal(t, before, w.revisions(t, ns), "nothing may be deployed")
		}},
		{"tag moved after the scan", func(t *testing.T) {
			moved := false
			cfg := cfg
			cfg.ScanGates = append(cfg.ScanGates, stages.GateFunc[stages.Report](
				func(ctx context.Context, report stages.Report) (stages.Decision, error) {
					other, err := stages.ParseImage(w.box.Base.Base)
					if err != nil {
						return stages.Decision{}, err
					}
					mallory, err := w.images.Copy(ctx, other, report.Image.Repository(), registry.CopyOptions{})
					if err != nil {
						return stages.Decision{}, err
					}
					moved = true
					return stages.Decision{Gate: "mallory", Verdict: stages.Pass}, w.images.Tag(ctx, mallory, "1.6.0")
				}))
			result, err := run(t, cfg, source("1.6.0"))
			require.NoError(t, err)
			require.True(t, moved)
			w.requireRunning(t, ns, result.Image)
			w.requirePage(t, ns, "1.6.0")
			good = result
		}},
		{"cancel while Helm is at work", func(t *testing.T) {
			pending := w.watchPending(t, ns)
			defer pending.Stop()
			ctx, cancel := context.WithCancel(labtest.Context(t))
			defer cancel()
			go func() {
				<-pending.ResultChan()
				cancel()
			}()
			result, err := runUnder(ctx, t, cfg, source("1.6.1"))
			require.ErrorIs(t, err, context.Canceled)
			assert.Equal(t, pipeline.OutcomeRolledBack, result.Outcome)
			assert.NotContains(t, join(w.revisions(t, ns)), "pending")
			w.requireRunning(t, ns, good.Image)
		}},
		{"cancel while the new pods start", func(t *testing.T) {
			guests := w.census(t, ns)
			ctx, cancel := context.WithCancel(labtest.Context(t))
			defer cancel()
			cfg := cfg
			cfg.Observers = append(cfg.Observers, pipeline.ObserverFunc(func(e pipeline.Event) {
				if e.Stage == pipeline.StageDeploy && e.Kind == pipeline.KindStageDone {
					cancel() // the new pods are starting
				}
			}))
			result, err := runUnder(ctx, t, cfg, source("1.7.0"))
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, stages.ErrRolledBack)
			assert.Equal(t, pipeline.OutcomeRolledBack, result.Outcome)
			guests.requireUnharmed(t)
			w.requirePage(t, ns, "1.6.0")
			w.requireRunning(t, ns, good.Image)
		}},
	}
	for _, part := range parts {
		if !t.Run(part.name, part.run) {
			return
		}
	}
}

// requireCaught delivers a version that does not start, while a visitor makes
// sure that the one before goes on serving, and checks that the failure is found
// out, named and undone.
func (w *world) requireCaught(t *testing.T, cfg pipeline.Config, before *pipeline.Result, src stages.Source, reason, detail string) {
	t.Helper()
	ns := before.Release.Namespace
	serving, err := w.page(t.Context(), ns)
	require.NoError(t, err)
	guests := w.census(t, ns)
	var decided atomic.Pointer[time.Time]
	cfg.Observers = append(cfg.Observers, pipeline.ObserverFunc(func(e pipeline.Event) {
		if e.Stage == pipeline.StageVerify && e.Kind == pipeline.KindStageFailed {
			decided.Store(&e.Time)
		}
	}))
	clinic := w.watchAilments(t, ns)
	result, err := run(t, cfg, src)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Equal(t, pipeline.OutcomeRolledBack, result.Outcome)

	var failure *pipeline.Error
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, pipeline.StageVerify, failure.Stage)
	require.NotEmpty(t, failure.Evidence)
	e := failure.Evidence[0]
	t.Logf("evidence: %+v", e)
	assert.Contains(t, e.Subject, release)
	assert.Equal(t, release, e.Container)
	assert.Equal(t, reason, e.Reason)
	assert.NotEmpty(t, e.Remedy)
	assert.Contains(t, e.Message+join(e.Logs)+join(e.Events), detail, "the evidence must hold the cause")

	guests.requireUnharmed(t)
	var diagnosis *rollout.Failure
	require.ErrorAs(t, err, &diagnosis)
	assert.NotEqual(t, rollout.TimedOut, diagnosis.Cause)

	after, err := w.page(t.Context(), ns)
	require.NoError(t, err)
	assert.Equal(t, serving, after, "the version before must be back")
	w.requireRunning(t, ns, before.Image)
	seen := clinic.firstSeen()
	require.False(t, seen.IsZero(), "the test itself must have seen that the pod can't start")
	took := decided.Load().Sub(seen)
	assert.Less(t, took, rolloutTimeout/4, "the verdict must not wait for the timeout")
	t.Logf("MEASURED %s: %.1f s from the pod's first failure to the verdict", reason, took.Seconds())
}

// forgetful is a deployer whose registry loses the image just before.
type forgetful struct{ *helmx.Deployer }

func (f *forgetful) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	ref, err := name.NewDigest(req.Clearance.Image().String())
	if err != nil {
		return stages.Release{}, err
	}
	if err := remote.Delete(ref, remote.WithContext(ctx)); err != nil {
		return stages.Release{}, err
	}
	return f.Deployer.Deploy(ctx, req)
}

func (w *world) trusting(t *testing.T, key *sign.PrivateKey) *sign.Verifier {
	t.Helper()
	verifier, err := sign.NewVerifier(sign.VerifierConfig{Keys: []*sign.PublicKey{key.Public()}, Registry: w.images})
	require.NoError(t, err)
	return verifier
}

func TestFailedFirstInstallLeavesNothing(t *testing.T) {
	w := newWorld(t)
	ns := "e2e-first-" + w.suffix()
	t.Cleanup(func() { w.deleteNamespace(t, ns) })
	result, err := run(t, w.delivery(t, ns), source("1.0.0", crashing))
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Equal(t, pipeline.OutcomeRolledBack, result.Outcome)
	w.requireNamespaceGone(t, ns)
}

func TestFailedFirstInstallKeepsANamespaceThatWasThere(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	_, err := run(t, w.delivery(t, ns), source("1.0.0", crashing))
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Empty(t, w.revisions(t, ns))
	ctx := labtest.Context(t)
	_, err = w.kube.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
	require.NoError(t, err)
	_, err = w.kube.AppsV1().Deployments(ns).Get(ctx, release, metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "%v", err)
	_, err = w.kube.CoreV1().Services(ns).Get(ctx, release, metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "%v", err)
	_, err = w.kube.CoreV1().ServiceAccounts(ns).Get(ctx, release, metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "%v", err)
}

// TestFailingInstructionIsNamed is here as well as in the builder's own tests,
// because it is what a developer sees.
func TestFailingInstructionIsNamed(t *testing.T) {
	w := newWorld(t)
	ns := "e2e-build-" + w.suffix()
	result, err := run(t, w.delivery(t, ns), source("1.0.0", "ASSETS=no-such-folder"))
	require.Error(t, err)
	var failure *pipeline.Error
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, pipeline.StageBuild, failure.Stage)
	assert.Equal(t, pipeline.OutcomeUntouched, result.Outcome)
	assert.ErrorContains(t, err, "Dockerfile:")
}
