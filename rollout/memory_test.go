package rollout

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// readyAfter is a pod that is ready, after so many restarts, the last of them now.
func readyAfter(restarts int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		restarted(restarts)(p)
		ready(pinnedTo(digestA))(p)
	}
}

// A canary looks at its release again and again. Crashes between the looks count as those
// during a look do.
func TestCrashesBetweenLooksAtARelease(t *testing.T) {
	again := func(_ *stages.Release) {}
	for name, test := range map[string]struct {
		looks  []int32 // the restarts at each
		rest   time.Duration
		before func(last *stages.Release)
		counts bool
	}{
		"two at once":                       {[]int32{0, 2}, time.Minute, again, true},
		"one by one":                        {[]int32{0, 1, 2}, time.Minute, again, true},
		"only one":                          {[]int32{0, 1, 1}, time.Minute, again, false},
		"before the first look":             {[]int32{3, 3, 4}, time.Minute, again, false},
		"more since the first look":         {[]int32{3, 5}, time.Minute, again, true},
		"each ran for long":                 {[]int32{0, 1, 2, 3}, time.Hour, again, false},
		"another revision":                  {[]int32{0, 2}, time.Minute, func(r *stages.Release) { r.Revision++ }, false},
		"deployed again":                    {[]int32{0, 2}, time.Minute, func(r *stages.Release) { r.Deployed = time.Now() }, false},
		"another release":                   {[]int32{0, 2}, time.Minute, func(r *stages.Release) { r.Name = "other" }, false},
		"nobody knows when it was deployed": {[]int32{0, 2}, time.Minute, func(r *stages.Release) { r.Deployed = time.Time{} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app := newApp(t, ns, "shop")
				rel := app.release
				rel.Deployed = time.Now()
				l := newLab(t, complete(app.deployment), app.set)
				v := l.verifier()
				for i, n := range test.looks {
					pod := as(app.pod, readyAfter(n))
					if t := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated; t != nil {
						t.StartedAt = metav1.NewTime(t.FinishedAt.Add(-test.rest))
					}
					l.put(pod)
					last := i == len(test.looks)-1
					if last {
						test.before(&rel)
					}
					_, err := v.Verify(t.Context(), rel)
					if last && test.counts {
						var f *Failure
						require.ErrorAs(t, err, &f)
						assert.Equal(t, Crash, f.Cause)
						return
					}
					require.NoError(t, err, "look %d", i+1)
					time.Sleep(test.rest)
				}
			})
		})
	}
}

// Crashes that are long ago, by what the program has run since, are forgotten.
func TestCrashesLongBeforeALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := newApp(t, ns, "shop")
		rel := app.release
		rel.Deployed = time.Now()
		l := newLab(t, complete(app.deployment), app.set, as(app.pod, readyAfter(0)))
		v := l.verifier()
		_, err := v.Verify(t.Context(), rel)
		require.NoError(t, err)
		l.put(as(app.pod, readyAfter(2)))
		time.Sleep(longRun)
		_, err = v.Verify(t.Context(), rel)
		require.NoError(t, err)
	})
}

// What was tolerated at one look is at the next.
func TestWhatIsExcusedStaysExcused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstall(t)
		i.release.Deployed = time.Now()
		v := i.verifier()
		r := &run{done: make(chan struct{})}
		go func() {
			defer close(r.done)
			_, r.err = v.Verify(t.Context(), i.release)
		}()
		synctest.Wait()
		i.crash(4)
		time.Sleep(10 * time.Second)
		i.serve(3)
		require.False(t, r.over(), "%v", r.err)
		i.put(as(i.shop.pod, readyAfter(4)), complete(i.shop.deployment))
		<-r.done
		require.NoError(t, r.err)
		time.Sleep(time.Minute)
		_, err := v.Verify(t.Context(), i.release)
		require.NoError(t, err)
		i.put(as(i.shop.pod, readyAfter(6)))
		time.Sleep(time.Second)
		i.serve(3)
		_, err = v.Verify(t.Context(), i.release)
		require.Error(t, err, "that the database was ready again since excuses nothing")
	})
}

func TestReleasesThatAreRememberedAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memories
		name := func(i int) stages.Release {
			return stages.Release{Namespace: ns, Name: fmt.Sprint("r", i), Deployed: time.Now()}
		}
		began := time.Now()
		for i := range maxRemembered + 2 {
			m.keep(name(i), newInspector(nil, stages.Image{}, settings{}))
			time.Sleep(time.Second)
		}
		assert.Len(t, m.of, maxRemembered)
		assert.NotContains(t, m.of, ns+"/r1")
		assert.Contains(t, m.of, ns+"/r2")
		assert.Equal(t, began, m.of[ns+"/r2"].at.Add(-2*time.Second))
	})
}
