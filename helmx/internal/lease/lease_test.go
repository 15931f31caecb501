package lease_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx/internal/lease"
)

const (
	name = "release-shop"
	ttl  = 15 * time.Second
)

func options(holder string, change ...func(*lease.Options)) lease.Options {
	o := lease.Options{Name: name, Holder: holder, TTL: ttl, Annotations: map[string]string{"run": holder}}
	for _, f := range change {
		f(&o)
	}
	return o
}

func waiting(d time.Duration) func(*lease.Options) { return func(o *lease.Options) { o.Wait = d } }

func acquire(t *testing.T, s *server, o lease.Options) *lease.Lock {
	t.Helper()
	l, err := lease.Acquire(t.Context(), s, o)
	require.NoError(t, err)
	return l
}

func TestAcquireAndRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		first := acquire(t, s, options("a"))
		assert.Equal(t, "a", s.holder())
		assert.Equal(t, map[string]string{"run": "a"}, s.current().Annotations)
		time.Sleep(10 * ttl)
		require.NoError(t, first.Context().Err(), "a lock that is renewed is kept")
		require.NoError(t, first.Release(t.Context()))
		require.NoError(t, first.Release(t.Context()))
		assert.Nil(t, s.current(), "nothing is left behind")
		require.NoError(t, first.Context().Err())
		require.NoError(t, acquire(t, s, options("b")).Release(t.Context()))
	})
}

func TestRefusesAHolderThatLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		first := acquire(t, s, options("a"))
		defer first.Release(t.Context()) //nolint:errcheck // The end of the test.
		start := time.Now()
		_, err := lease.Acquire(t.Context(), s, options("b"))
		held, ok := errors.AsType[*lease.HeldError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, "a", held.Holder)
		assert.Equal(t, map[string]string{"run": "a"}, held.Annotations)
		assert.LessOrEqual(t, time.Since(start), ttl/3, "one renewal proves life")

		start = time.Now()
		_, err = lease.Acquire(t.Context(), s, options("b", waiting(time.Minute)))
		_, ok = errors.AsType[*lease.HeldError](err)
		require.True(t, ok, "%v", err)
		assert.InDelta(t, time.Minute, time.Since(start), float64(ttl/3))
	})
}

func TestWaitsForARelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		first := acquire(t, s, options("a"))
		time.AfterFunc(20*time.Second, func() { first.Release(context.Background()) }) //nolint:errcheck // It is seen below.
		start := time.Now()
		var seen []string
		second := acquire(t, s, options("b", waiting(time.Minute), func(o *lease.Options) {
			o.Waiting = func(h *lease.HeldError) { seen = append(seen, h.Holder) }
		}))
		assert.Equal(t, 20*time.Second, time.Since(start), "it is noticed at once")
		assert.Contains(t, seen, "a")
		require.NoError(t, second.Release(t.Context()))
	})
}

func TestTakesOverFromTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		first := acquire(t, s, options("a"))
		assert.True(t, first.Held())
		first.Abandon()
		assert.False(t, first.Held())
		// The dead holder's clock was an hour fast: that must not matter.
		future := metav1.NewMicroTime(time.Now().Add(time.Hour))
		s.edit(func() { s.lease.Spec.RenewTime = &future })
		start := time.Now()
		second := acquire(t, s, options("b"))
		assert.Equal(t, ttl, time.Since(start))
		assert.Equal(t, int32(1), *s.current().Spec.LeaseTransitions)
		time.Sleep(2 * ttl)
		require.NoError(t, second.Context().Err())
		require.NoError(t, second.Release(t.Context()))
	})
}

func TestWatchesThatEndDoNotKeepTheDeadAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		acquire(t, s, options("a")).Abandon()
		s.edit(func() { s.watchTime = time.Second })
		start := time.Now()
		second := acquire(t, s, options("b"))
		assert.Equal(t, ttl, time.Since(start))
		require.NoError(t, second.Release(t.Context()))
	})
}

// TestPatienceThatEndsMeanwhileProvesNobodyDead: whoever is told of the holder may
// take its time, in which the patience ends.
func TestPatienceThatEndsMeanwhileProvesNobodyDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		first := acquire(t, s, options("a"))
		_, err := lease.Acquire(t.Context(), s, options("b", waiting(ttl/3+time.Second), func(o *lease.Options) {
			o.Waiting = func(*lease.HeldError) { time.Sleep(2 * time.Second) }
		}))
		held, ok := errors.AsType[*lease.HeldError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, "a", held.Holder)
		time.Sleep(ttl)
		require.NoError(t, first.Context().Err(), "it was taken from one who lives")
		require.NoError(t, first.Release(t.Context()))
	})
}

// TestWatchesThatEndAtOnceAreNotHurried: a proxy may not let a watch through.
func TestWatchesThatEndAtOnceAreNotHurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		acquire(t, s, options("a")).Abandon()
		s.edit(func() { s.watchTime = time.Millisecond })
		start, watches := time.Now(), 0
		second := acquire(t, s, options("b", func(o *lease.Options) { o.Waiting = func(*lease.HeldError) { watches++ } }))
		assert.Equal(t, ttl, time.Since(start))
		assert.LessOrEqual(t, watches, int(ttl/time.Second)+1)
		require.NoError(t, second.Release(t.Context()))
	})
}

func TestIsLostBeforeAnotherCanHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		first := acquire(t, s, options("a"))
		lost := make(chan time.Time, 1)
		context.AfterFunc(first.Context(), func() { lost <- time.Now() })
		s.refuse("a", errors.New("no route to host"))
		second := acquire(t, s, options("b"))
		taken := time.Now()
		synctest.Wait()
		require.ErrorIs(t, context.Cause(first.Context()), lease.ErrLost)
		assert.True(t, (<-lost).Before(taken))
		require.NoError(t, first.Release(t.Context()), "what is lost is not to be given back")
		assert.Equal(t, "b", s.holder())
		require.NoError(t, second.Release(t.Context()))
	})
}

func TestIsLostWhenItIsTaken(t *testing.T) {
	for what, take := range map[string]func(*server){
		"deleted": func(s *server) { s.edit(func() { s.lease = nil }) },
		"given to another": func(s *server) {
			other := "c"
			s.edit(func() { s.lease.Spec.HolderIdentity = &other })
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				first := acquire(t, s, options("a"))
				take(s)
				<-first.Context().Done()
				require.ErrorIs(t, context.Cause(first.Context()), lease.ErrLost)
				first.Abandon()
			})
		})
	}
}

func TestIsKeptWhenSomebodyAnnotatesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		first := acquire(t, s, options("a"))
		s.edit(func() { s.lease.Annotations["note"] = "x" })
		time.Sleep(3 * ttl)
		require.NoError(t, first.Context().Err())
		require.NoError(t, first.Release(t.Context()))
	})
}

func TestOnlyOneOfManyHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		var inside atomic.Int32
		done := make(chan error)
		const contenders = 10
		for i := range contenders {
			go func() {
				l, err := lease.Acquire(t.Context(), s, options(fmt.Sprint("holder-", i), waiting(time.Hour)))
				if err == nil {
					if inside.Add(1) > 1 {
						err = errors.New("two have it")
					}
					time.Sleep(time.Minute)
					inside.Add(-1)
					err = errors.Join(err, l.Release(t.Context()))
				}
				done <- err
			}()
		}
		for range contenders {
			require.NoError(t, <-done)
		}
	})
}

func TestStopsWhenCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		first := acquire(t, s, options("a"))
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		_, err := lease.Acquire(ctx, s, options("b", waiting(time.Hour)))
		require.EqualError(t, err, "enough")
		require.NoError(t, first.Release(t.Context()))
	})
}

func TestErrorsAreReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.refuse("a", apierrors.NewForbidden(leases, name, errors.New("no such right")))
		_, err := lease.Acquire(t.Context(), s, options("a"))
		require.True(t, apierrors.IsForbidden(err), "%v", err)
	})
}
