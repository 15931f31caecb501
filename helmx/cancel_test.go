package helmx_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage"
	"helm.sh/helm/v3/pkg/storage/driver"
	"k8s.io/client-go/kubernetes"

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
			revision := 1
			if c.upgrade {
				revision = 2
			}
			cp := checkpoint(t, d, "run-1")
			kill(t, a, d, c.dies, func(ctx context.Context) error {
				_, err := d.Deploy(ctx, request(t, "run-1", "b"))
				return err
			})
			assert.Equal(t, c.status, recordLabels(a, strconv.Itoa(revision))["status"])

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

// TestDeployTakesOverFromTheDead has another run come after one that was killed.
func TestDeployTakesOverFromTheDead(t *testing.T) {
	a := newAPIServer(t, "shop")
	deploy(t, open(t, digestConfig(a)), "run-1", "a")
	dead := open(t, digestConfig(a, helmx.Set("extra=true")))
	kill(t, a, dead, "PATCH /apis/apps", func(ctx context.Context) error {
		_, err := dead.Deploy(ctx, request(t, "run-2", "b"))
		return err
	})
	require.NotNil(t, a.get(extraPath), "it had come some way")

	rel := deploy(t, open(t, digestConfig(a)), "run-3", "c")
	assert.Equal(t, 3, rel.Revision)
	assert.Equal(t, 1, rel.Previous)
	assert.Equal(t, image("c").String(), runningImage(t, a))
	assert.Nil(t, a.get(extraPath), "what the dead run made is gone")
	assert.Equal(t, "failed", recordLabels(a, "2")["status"])
	assert.Empty(t, a.paths("/leases/"))
}

func TestDeployRefusesWhatAnotherRunHolds(t *testing.T) {
	a := newAPIServer(t, "shop")
	cfg := digestConfig(a)
	cfg.Lock.URL = "https://ci.example.com/17"
	first, second := open(t, cfg), open(t, digestConfig(a))
	unlock, err := first.Lock(t.Context(), "run-1")
	require.NoError(t, err)
	_, err = second.Deploy(t.Context(), request(t, "run-2", "b"))
	require.ErrorIs(t, err, stages.ErrLocked)
	locked, ok := errors.AsType[*helmx.LockedError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "run-1", locked.Run)
	assert.Equal(t, "https://ci.example.com/17", locked.URL)
	assert.Contains(t, err.Error(), "run run-1 on ")
	assert.Contains(t, err.Error(), "https://ci.example.com/17")
	assert.False(t, stages.IsPermanent(err))
	assert.Empty(t, a.paths(recordPath))

	deploy(t, first, "run-1", "a")
	require.NoError(t, unlock(t.Context()))
	require.NoError(t, unlock(t.Context()))
	deploy(t, second, "run-2", "b")
}

func TestDeployStopsWhenTheLockIsLost(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	a.onRequest(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/deployments") {
			io.Copy(io.Discard, r.Body) //nolint:errcheck // Only then the server notices that the client goes away.
			a.edit("/apis/coordination.k8s.io/v1/namespaces/shop/leases/fairlead.web", func(content) content { return nil })
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
		return false
	})
	_, err := d.Deploy(t.Context(), request(t, "run-1", "a"))
	require.ErrorIs(t, err, stages.ErrLockLost)
	assert.Equal(t, "pending-install", recordLabels(a, "1")["status"], "nothing is written without the lock")
}

func TestForeignPendingRevisions(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	foreignPending(t, a)

	_, err := d.Deploy(t.Context(), request(t, "run-2", "b"))
	locked, ok := errors.AsType[*helmx.LockedError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "pending-upgrade", locked.Status)
	assert.Empty(t, locked.Run)
	assert.WithinDuration(t, time.Now().Add(helmx.DefaultForeignAge), locked.Until, time.Minute)

	cfg := digestConfig(a)
	cfg.Lock.ForeignAge = time.Nanosecond
	assert.Equal(t, 2, deploy(t, open(t, cfg), "run-3", "c").Revision)
}

// recordStore is what the helm command reads releases from.
func recordStore(t *testing.T, a *apiServer) *storage.Storage {
	t.Helper()
	access := a.rest()
	access.ContentType = "application/json"
	clients, err := kubernetes.NewForConfig(access)
	require.NoError(t, err)
	return storage.Init(driver.NewSecrets(clients.CoreV1().Secrets("shop")))
}

// foreignPending makes revision 1 look as the helm command leaves it when killed.
func foreignPending(t *testing.T, a *apiServer) {
	t.Helper()
	records := recordStore(t, a)
	rel, err := records.Get("web", 1)
	require.NoError(t, err)
	rel.Labels = nil
	rel.Info.Status = release.StatusPendingUpgrade
	require.NoError(t, records.Update(rel))
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

// TestARunHoldsItsLockOnce has two calls of one run come at the same time.
func TestARunHoldsItsLockOnce(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	unlock, err := d.Lock(t.Context(), "run-1")
	require.NoError(t, err)
	_, err = d.Lock(t.Context(), "run-1")
	require.ErrorIs(t, err, stages.ErrLocked)
	deploy(t, d, "run-1", "a")
	require.NoError(t, unlock(t.Context()))
	again, err := d.Lock(t.Context(), "run-1")
	require.NoError(t, err)
	require.NoError(t, unlock(t.Context()))
	deploy(t, d, "run-1", "b")
	require.NoError(t, again(t.Context()))
	assert.Empty(t, a.paths("/leases/"))
}

// TestUnlockedDeploymentsAreNotTakenForDead has a run without a lock be at work.
func TestUnlockedDeploymentsAreNotTakenForDead(t *testing.T) {
	a := newAPIServer(t, "shop")
	cfg := digestConfig(a)
	cfg.Lock = helmx.LockConfig{Off: true}
	off := open(t, cfg)
	kill(t, a, off, "POST /apis/apps", func(ctx context.Context) error {
		_, err := off.Deploy(ctx, request(t, "run-1", "a"))
		return err
	})
	_, err := open(t, digestConfig(a)).Deploy(t.Context(), request(t, "run-2", "b"))
	require.ErrorIs(t, err, stages.ErrLocked)
	assert.Equal(t, "pending-install", recordLabels(a, "1")["status"])
}
