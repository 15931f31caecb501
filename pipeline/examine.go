package pipeline

import (
	"context"
	"slices"

	"github.com/fairlead-dev/fairlead/stages"
)

// examiner returns what asks the verifiers that can tell what is seen of rel. What they
// can't tell is said as well.
func examiner(verifiers []stages.Verifier, rel stages.Release) func(context.Context) []stages.Evidence {
	return func(ctx context.Context) (all []stages.Evidence) {
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
