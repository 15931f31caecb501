package pipeline

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// examineTime bounds for how long a restore waits for evidence.
const examineTime = 10 * time.Second

// examiner returns what asks the verifiers that can tell what is seen of rel. What they
// can't tell is said as well.
func examiner(verifiers []stages.Verifier, rel stages.Release) func(context.Context) []stages.Evidence {
	return func(ctx context.Context) (all []stages.Evidence) {
		ctx, cancel := context.WithTimeoutCause(ctx, examineTime, fmt.Errorf("no answer within %s", examineTime))
		defer cancel()
		for _, v := range verifiers {
			e, ok := v.(stages.Examiner)
			if !ok {
				continue
			}
			var facts []stages.Evidence
			err := protect(func() (err error) {
				facts, err = e.Examine(ctx, rel)
				return err
			})
			all = slices.Concat(all, facts)
			if err != nil {
				all = append(all, stages.Evidence{Subject: "evidence", Reason: "Unavailable", Message: err.Error()})
			}
		}
		return all
	}
}
