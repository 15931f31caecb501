package releaseset

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// work deploys what is to be, each after what it needs, and then removes what is to
// go, each after what needs it, so that nothing that still serves loses what it
// stands on and what can't be made again goes last. It returns when nothing runs any
// more.
func (a *application) work(ctx context.Context) {
	verifying, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	needs := make([][]int, len(a.set.members))
	var deployed, removed []int
	for i, m := range a.set.members {
		needs[i] = m.needs
		if m.Remove {
			removed = append(removed, i)
		} else {
			deployed = append(deployed, i)
		}
	}
	a.inOrder(ctx, deployed, needs, abort, func(i int) { a.deploy(ctx, verifying, i) })
	if len(a.causes) == 0 {
		a.inOrder(ctx, removed, a.set.dependents(), abort, func(i int) { a.remove(ctx, i) })
	}
	if left := len(a.set.members) - len(a.finished); left > 0 && len(a.causes) == 0 {
		a.causes = append(a.causes, fmt.Errorf("stopped before %d members were begun: %w", left, context.Cause(ctx)))
	}
}

// inOrder works on members, a few at a time and each after those of them that it
// comes after, until all are done or one has failed. It returns when nothing runs
// any more.
func (a *application) inOrder(ctx context.Context, members []int, after [][]int, abort context.CancelCauseFunc, work func(i int)) {
	waiting := map[int]int{}
	followers := map[int][]int{}
	var ready []int
	for _, i := range members {
		for _, first := range after[i] {
			if slices.Contains(members, first) {
				waiting[i]++
				followers[first] = append(followers[first], i)
			}
		}
		if waiting[i] == 0 {
			ready = append(ready, i)
		}
	}
	done := make(chan int)
	for running := 0; ; running-- {
		for len(a.causes) == 0 && ctx.Err() == nil && len(ready) > 0 && running < a.set.concurrency {
			i := ready[0]
			ready = ready[1:]
			running++
			go func() {
				work(i)
				done <- i
			}()
		}
		if running == 0 {
			return
		}
		i := <-done
		a.finished = append(a.finished, i)
		if err := a.results[i].Err; err != nil {
			if !errors.Is(err, errAborted) {
				a.causes = append(a.causes, err)
			}
			abort(errAborted)
			continue
		}
		for _, f := range followers[i] {
			if waiting[f]--; waiting[f] == 0 {
				at, _ := slices.BinarySearch(ready, f)
				ready = slices.Insert(ready, at, f)
			}
		}
	}
}
