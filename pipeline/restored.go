package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// verifyRestored has the verifiers that can do so prove that what was restored
// runs, and adds what they find to all. A restore that failed has nothing to prove.
func (r *run) verifyRestored(ctx context.Context, all []Restoration) {
	for i := range all {
		if all[i].ok() && all[i].Release != nil {
			r.proveRestored(ctx, &all[i])
		}
	}
}

// proveRestored takes no longer than what the restore has left of its time.
func (r *run) proveRestored(ctx context.Context, restored *Restoration) {
	deadline := time.Now().Add(r.config.RollbackTimeout - restored.Elapsed)
	rel := *restored.Release
	for i, v := range r.config.Verifiers {
		verifier, ok := v.(stages.RestoreVerifier)
		if !ok {
			continue
		}
		s := step{
			name: StageVerifyRestored.nth(i), subject: rel.Namespace + "/" + rel.Name,
			policy: Retry{Timeout: max(time.Until(deadline), 1)},
		}
		proof, err := perform(ctx, r, s, func(ctx context.Context) (stages.Verification, error) {
			proof, err := verifier.VerifyRestored(ctx, rel)
			return proof, proven(proof, err, rel)
		})
		if failed, ok := errors.AsType[*Error](err); ok {
			restored.NotReady, restored.Evidence = failed.Cause, failed.Evidence
			restored.Message += "; not seen to run: " + failed.Cause.Error()
			return
		}
		restored.Verifications = append(restored.Verifications, proof)
	}
	if len(restored.Verifications) > 0 {
		restored.Message += "; it runs"
	}
}
