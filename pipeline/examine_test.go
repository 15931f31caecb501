package pipeline_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// witness is a verifier that tells what it sees.
type witness struct {
	stages.Verifier
	f       *fake
	examine func(context.Context) ([]stages.Evidence, error)
}

func (w witness) Examine(ctx context.Context, _ stages.Release) ([]stages.Evidence, error) {
	if err := w.f.call(ctx, "examine"); err != nil {
		return nil, err
	}
	return w.examine(ctx)
}

// What has proved the release is asked about it when something else finds it wanting,
// before that is undone.
func TestReleaseThatSomethingElseFindsWantingIsExamined(t *testing.T) {
	seen := []stages.Evidence{{Subject: "pod shop/shop-1", Reason: "Running", Logs: []string{"no stock"}}}
	tells := func(context.Context) ([]stages.Evidence, error) { return seen, nil }
	for name, tc := range map[string]struct {
		fails   string
		err     error
		examine func(context.Context) ([]stages.Evidence, error)
		want    []stages.Evidence
	}{
		"a gate":           {"release-gate", verdict(stages.Fail), tells, seen},
		"a smoke test":     {"verify-2", sick{}, tells, append(sick{}.Evidence(), seen...)},
		"itself":           {"verify", sick{}, tells, sick{}.Evidence()},
		"and can't tell":   {"release-gate", verdict(stages.Fail), func(context.Context) ([]stages.Evidence, error) { return nil, errors.New("away") }, []stages.Evidence{{Subject: "evidence", Reason: "Unavailable", Message: "away"}}},
		"and itself fails": {"release-gate", verdict(stages.Fail), func(context.Context) ([]stages.Evidence, error) { panic("oh") }, nil},
		"and is silent": {"release-gate", verdict(stages.Fail), func(ctx context.Context) ([]stages.Evidence, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}, []stages.Evidence{{Subject: "evidence", Reason: "Unavailable", Message: "no answer within 10s"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, rec := newFake(t), &recorder{}
				f.fail(tc.fails, tc.err)
				c := config(f, rec)
				smoke := stages.VerifierFunc(func(ctx context.Context, rel stages.Release) (stages.Verification, error) {
					if err := f.call(ctx, "verify-2"); err != nil {
						return stages.Verification{}, err
					}
					return stages.Verification{Image: rel.Image, Checks: []stages.Check{{Name: "smoke"}}}, nil
				})
				c.Verifiers = []stages.Verifier{witness{stages.VerifierFunc(f.Verify), f, tc.examine}, smoke}
				_, err := newPipeline(t, c).Run(t.Context(), source)
				failure, ok := errors.AsType[*pipeline.Error](err)
				require.True(t, ok, "%v", err)
				if tc.want != nil {
					assert.Equal(t, tc.want, failure.Evidence)
				} else {
					require.Len(t, failure.Evidence, 1)
					assert.Contains(t, failure.Evidence[0].Message, "panicked: oh")
				}
				assert.Equal(t, failure.Evidence, rec.of(pipeline.KindStageFailed)[0].Evidence)
				assert.Equal(t, pipeline.OutcomeRolledBack, failure.Outcome)
			})
		})
	}
}
