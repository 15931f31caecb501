package helmx_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

var errStop = errors.New("stop it")

// cancelAt runs f with a context that is cancelled when a request that matches
// arrives at the server, which then never answers. It returns the requests that the
// server had seen when f returned, and f's error.
func cancelAt(t *testing.T, a *apiServer, match string, f func(context.Context) error) (seen []string, err error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	a.onRequest(func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.Method+" "+r.URL.Path, match) || ctx.Err() != nil {
			return false
		}
		io.Copy(io.Discard, r.Body) //nolint:errcheck // Only then the server notices that the client goes away.
		cancel(errStop)
		<-r.Context().Done()
		return true
	})
	err = f(ctx)
	seen = a.requests(nil)
	a.onRequest(nil)
	return seen, err
}

func TestDeployJoinsHelmWhenCancelled(t *testing.T) {
	for name, c := range map[string]struct {
		upgrade   bool
		overrides []helmx.Override
		jobs      string
		at        string
		pending   bool
	}{
		"reading the history":     {at: "GET /api/v1/namespaces/shop/secrets"},
		"storing the record":      {at: "POST /api/v1/namespaces/shop/secrets"},
		"creating an object":      {at: "POST /apis/apps/v1/namespaces/shop/deployments", pending: true},
		"storing the outcome":     {at: "PUT /api/v1/namespaces/shop/secrets", pending: true},
		"patching an object":      {at: "PATCH /apis/apps/v1/namespaces/shop/deployments/web", upgrade: true, pending: true},
		"waiting for a hook":      {at: "GET /apis/batch/v1/namespaces/shop/jobs/web-migrate", overrides: []helmx.Override{helmx.Set("hook=migrate")}, pending: true},
		"watching a hook's Job":   {at: "GET /apis/batch/v1/namespaces/shop/jobs", jobs: "none", overrides: []helmx.Override{helmx.Set("hook=migrate")}, pending: true},
		"upgrade, storing record": {at: "POST /api/v1/namespaces/shop/secrets", upgrade: true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			if c.jobs != "" {
				a.jobs = ""
			}
			d, err := helmx.New(digestConfig(a, c.overrides...))
			require.NoError(t, err)
			revision := "1"
			if c.upgrade {
				deploy(t, d, "run-0", "a")
				revision = "2"
			}
			start := time.Now()
			seen, err := cancelAt(t, a, c.at, func(ctx context.Context) error {
				_, err := d.Deploy(ctx, request(t, "run-1", "b"))
				return err
			})
			require.ErrorIs(t, err, errStop)
			assert.Less(t, time.Since(start), 10*time.Second, "the cancel took too long")
			if record := a.get(recordPath + revision); c.pending {
				require.NotNil(t, record)
				assert.Equal(t, "failed", recordLabels(a, revision)["status"], "the release stayed locked")
			}
			require.NoError(t, d.Close())
			a.server.Close()
			goleak.VerifyNone(t, goleak.IgnoreCurrent())
			assert.Equal(t, seen, a.requests(nil), "requests were sent after Deploy had returned")
		})
	}
}

func TestCancelledBeforehand(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStop)
	_, err := d.Deploy(ctx, request(t, "run-1", "a"))
	require.ErrorIs(t, err, errStop)
	_, err = d.Plan(ctx, stages.PlanRequest{Image: image("a")})
	require.ErrorIs(t, err, errStop)
	_, err = d.Checkpoint(ctx, stages.CheckpointRequest{Image: image("a")})
	require.ErrorIs(t, err, errStop)
	assert.Empty(t, a.requests(nil))
}

func TestRestoreStopsWhenCancelled(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	cp := checkpoint(t, d, "run-2")
	deploy(t, d, "run-2", "b")
	seen, err := cancelAt(t, a, "PATCH /apis/apps", func(ctx context.Context) error {
		_, err := d.Restore(ctx, "run-2", cp)
		return err
	})
	require.ErrorIs(t, err, errStop)
	assert.Equal(t, seen, a.requests(nil))
	r := restore(t, d, "run-2", cp)
	assert.Equal(t, stages.Restored, r.Outcome, r.Message)
	assert.Equal(t, image("a").String(), runningImage(t, a))
}

// TestRestoreRecoversKilledRun imitates a process that is killed: from some moment
// on, nothing that it sends arrives.
func TestRestoreRecoversKilledRun(t *testing.T) {
	for name, c := range map[string]struct {
		upgrade bool
		dies    string
		status  string
	}{
		"install": {dies: "POST /apis/apps", status: "pending-install"},
		"upgrade": {upgrade: true, dies: "PATCH /apis/apps", status: "pending-upgrade"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t)
			cfg := digestConfig(a, helmx.Set("extra=true"))
			cfg.CreateNamespace = true
			d := open(t, cfg)
			if c.upgrade {
				before := digestConfig(a)
				before.CreateNamespace = true
				deploy(t, open(t, before), "run-0", "a")
			}
			cp := checkpoint(t, d, "run-1")
			kill(t, a, d, c.dies, func(ctx context.Context) error {
				_, err := d.Deploy(ctx, request(t, "run-1", "b"))
				return err
			})
			_, err := d.Deploy(t.Context(), request(t, "run-9", "b"))
			locked, ok := errors.AsType[*helmx.LockedError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, c.status, locked.Status)
			assert.Equal(t, "run-1", locked.Run)
			assert.False(t, stages.IsPermanent(err))

			again := open(t, cfg)
			r := restore(t, again, "run-1", cp)
			assert.Equal(t, stages.Restored, r.Outcome, r.Message)
			if c.upgrade {
				assert.Equal(t, image("a").String(), runningImage(t, a))
				assert.Nil(t, a.get(extraPath))
			} else {
				assert.Empty(t, a.paths("/"))
			}
			assert.Equal(t, stages.Unchanged, restore(t, again, "run-1", cp).Outcome)
			deploy(t, again, "run-3", "c")
		})
	}
}

// kill runs f, and has every request fail from the one on that matches.
func kill(t *testing.T, a *apiServer, d *helmx.Deployer, match string, f func(context.Context) error) {
	t.Helper()
	dead := false
	a.onRequest(func(http.ResponseWriter, *http.Request) bool { return false })
	a.onRequest(func(_ http.ResponseWriter, r *http.Request) bool {
		a.mu.Lock()
		dead = dead || strings.HasPrefix(r.Method+" "+r.URL.Path, match)
		now := dead
		a.mu.Unlock()
		if now {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	require.Error(t, f(t.Context()))
	a.onRequest(nil)
	require.NoError(t, d.Close())
}

func TestRestoreRecoversKilledRestore(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	cp := checkpoint(t, d, "run-2")
	deploy(t, d, "run-2", "b")
	kill(t, a, d, "PATCH /apis/apps", func(ctx context.Context) error {
		_, err := d.Restore(ctx, "run-2", cp)
		return err
	})
	labels := recordLabels(a, "3")
	assert.Equal(t, "pending-rollback", labels["status"])
	r := restore(t, d, "run-2", cp)
	assert.Equal(t, stages.Restored, r.Outcome, r.Message)
	assert.Equal(t, image("a").String(), runningImage(t, a))
}

func TestDeployTakesOverItsOwnInterruptedAttempt(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	assert.False(t, d.Idempotent(), "the chart has a hook")
	kill(t, a, d, "POST /apis/apps", func(ctx context.Context) error {
		_, err := d.Deploy(ctx, request(t, "run-1", "a"))
		return err
	})
	assert.Equal(t, 2, deploy(t, d, "run-1", "a").Revision)
}
