package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// refusing is a release gate that refuses a version once it has taken over, after
// something else has happened.
func refusing(meanwhile func(context.Context) error) []stages.Gate[stages.Release] {
	return []stages.Gate[stages.Release]{stages.GateFunc[stages.Release](func(ctx context.Context, _ stages.Release) (stages.Decision, error) {
		reason := stages.Reason{Rule: "taste", Message: "nobody likes it"}
		return stages.Decision{Gate: "taste", Verdict: stages.Fail, Reasons: []stages.Reason{reason}}, meanwhile(ctx)
	})}
}

// timing returns how long a stage of a run took, which must have been once.
func timing(t *testing.T, result *pipeline.Result, stage pipeline.Stage) (took time.Duration) {
	t.Helper()
	times := 0
	for _, timing := range result.Timings {
		if timing.Stage == stage {
			took = timing.Elapsed
			times++
		}
	}
	require.Equal(t, 1, times, stage)
	return took
}

// TestRolledBackVersionAnswersNoMore sends requests to a version that has taken over
// from another when it is refused, until long after the run.
func TestRolledBackVersionAnswersNoMore(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	cfg := w.delivery(t, ns)
	cfg.Deployer = w.shopDeployer(t, ns, release, public)
	good, err := run(t, cfg, source("1.0.0"))
	require.NoError(t, err)

	guests := w.crowd(t, ns)
	cfg.ReleaseGates = refusing(func(context.Context) error { return nil })
	result, err := run(t, cfg, source("1.1.0"))
	atEnd := guests.Report()
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Equal(t, pipeline.OutcomeRolledBack, result.Outcome)
	require.Len(t, result.Restorations, 1)
	restored := result.Restorations[0]
	assert.Contains(t, restored.Message, "it runs")
	assert.Equal(t, good.Image, restored.Release.Image)
	assert.Equal(t, 3, restored.Release.Revision)
	require.Len(t, restored.Verifications, 1, "the smoke test isn't run again")
	assert.Equal(t, good.Image, restored.Verifications[0].Image)
	t.Logf("MEASURED restored in %s, seen to run after %s more", restored.Elapsed, timing(t, result, pipeline.StageVerifyRestored))

	require.NotZero(t, atEnd.Versions["1.1.0"].Served, "the version that was refused had taken over")
	require.Eventually(t, func() bool {
		return guests.Report().Versions["1.0.0"].Served >= atEnd.Versions["1.0.0"].Served+300
	}, time.Minute, 100*time.Millisecond)
	report := requireUnharmed(t, guests)
	assert.Equal(t, atEnd.Versions["1.1.0"].Served, report.Versions["1.1.0"].Served, "requests that the refused version answered after the run")
}

// TestRestoredVersionCannotStart takes away what the version before needs, while
// another one is deployed that is then refused.
func TestRestoredVersionCannotStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for what, tc := range map[string]struct {
		sabotage func(ctx context.Context, namespace string, before stages.Image) error
		cause    rollout.Cause
		reason   string
		remedy   string
	}{
		"its image is gone": {func(ctx context.Context, _ string, before stages.Image) error {
			ref, err := name.NewDigest(before.String())
			if err != nil {
				return err
			}
			return remote.Delete(ref, remote.WithContext(ctx))
		}, rollout.ImageNotFound, "ErrImagePull", "push the image"},
		"the quota was lowered": {func(ctx context.Context, namespace string, _ stages.Image) error {
			_, err := w.kube.CoreV1().ResourceQuotas(namespace).Create(ctx, &corev1.ResourceQuota{
				ObjectMeta: metav1.ObjectMeta{Name: "meagre"},
				Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
			}, metav1.CreateOptions{})
			return err
		}, rollout.QuotaExceeded, "FailedCreate", "quota"},
	} {
		t.Run(what, func(t *testing.T) {
			ns := w.namespace(t)
			cfg := w.delivery(t, ns)
			// As on a node that has never had the image.
			cfg.Deployer = w.shopDeployer(t, ns, release, helmx.Set("image.pullPolicy=Always"))
			// A version that no other test has: containerd believes a registry that
			// still has the manifest as a blob, and starts no container from any name
			// of that image from then on.
			good, err := run(t, cfg, source("1.0.0-"+w.suffix()))
			require.NoError(t, err)

			cfg.ReleaseGates = refusing(func(ctx context.Context) error { return tc.sabotage(ctx, ns, good.Image) })
			result, err := run(t, cfg, source("1.1.0"))
			t.Logf("%+v", err)
			t.Logf("MEASURED %s: named after %s", what, timing(t, result, pipeline.StageVerifyRestored))
			require.ErrorIs(t, err, stages.ErrNotReady)
			require.ErrorIs(t, err, stages.ErrRollbackFailed)
			require.NotErrorIs(t, err, stages.ErrRolledBack)
			require.ErrorIs(t, err, stages.ErrGateRefused, "why it was rolled back")
			require.ErrorContains(t, err, "restored but not ready: release "+ns+"/shop restored (revision 1 is back as revision 3")
			require.ErrorContains(t, err, tc.remedy)
			assert.Equal(t, pipeline.OutcomeNotReady, result.Outcome)

			restored := result.Restorations[0]
			assert.Equal(t, stages.Restored, restored.Outcome, "the objects are as they were")
			require.NotEmpty(t, restored.Evidence)
			assert.Equal(t, tc.reason, restored.Evidence[0].Reason)
			var failure *rollout.Failure
			require.ErrorAs(t, restored.NotReady, &failure)
			assert.Equal(t, tc.cause, failure.Cause)
			assert.Less(t, timing(t, result, pipeline.StageVerifyRestored), rolloutTimeout/4, "the verdict must not wait for the timeout")
			w.requirePage(t, ns, "1.1.0")
		})
	}
}
