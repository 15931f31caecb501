package helmx

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"helm.sh/helm/v3/pkg/release"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/fairlead-dev/fairlead/helmx/internal/lease"
	"github.com/fairlead-dev/fairlead/stages"
)

// Defaults of [LockConfig].
const (
	DefaultLockTTL    = 15 * time.Second
	DefaultForeignAge = 10 * time.Minute
)

// LockConfig says how a release is kept to one operation at a time. The lock is a
// Lease in the release's namespace, which goes away with the operation. Its zero
// value refuses at once what is locked.
type LockConfig struct {
	// Off leaves locking to Helm's own pending state, which a killed process leaves
	// behind for good.
	Off bool
	// TTL is for how long the lock outlives a process that was killed, in whole
	// seconds and at least one; 0 means [DefaultLockTTL].
	TTL time.Duration
	// Wait is for how long to wait for a holder that lives; 0 is not at all. That it
	// lives takes up to a third of its TTL to see, and that it is dead the whole.
	Wait time.Duration
	// URL is where people find the run, such as a CI job's page. It is shown to those
	// who find the release locked.
	URL string
	// ForeignAge is from which age on a revision that the helm command left pending
	// counts as abandoned; 0 means [DefaultForeignAge]. The command gives no sign of
	// life, so choose more than its longest time-out; neither does this package with
	// the lock Off. What it left pending under the lock counts as abandoned as soon as
	// that has expired.
	ForeignAge time.Duration
}

func (c *LockConfig) prepare() error {
	switch {
	case c.TTL == 0:
		c.TTL = DefaultLockTTL
	case c.TTL < time.Second || c.TTL%time.Second != 0:
		return fmt.Errorf("Lock: TTL %s: use whole seconds, at least one", c.TTL)
	}
	switch {
	case c.ForeignAge == 0:
		c.ForeignAge = DefaultForeignAge
	case c.ForeignAge < 0:
		return fmt.Errorf("Lock: ForeignAge %s is negative", c.ForeignAge)
	case c.Wait < 0:
		return fmt.Errorf("Lock: Wait %s is negative", c.Wait)
	}
	return nil
}

// annotationURL is where people find the run that holds a lock.
const annotationURL = labelPrefix + "url"

// hold is the lock of one run. It has no lease as long as the namespace that the
// lease belongs into doesn't exist.
type hold struct {
	lease *lease.Lock
	nonce string // tells it from other holds of the same run
}

func newHold() *hold { return &hold{nonce: rand.Text()[:8]} }

// holdKey says what is held by whom.
type holdKey struct{ namespace, release, run string }

func (d *Deployer) holdKey(run string) holdKey {
	return holdKey{d.cfg.Namespace, d.cfg.Release, run}
}

// held returns the hold of a run, or nil.
func (c *Cluster) held(key holdKey) *hold {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holds[key]
}

// hold keeps h unless the run has one already.
func (c *Cluster) hold(key holdKey, h *hold) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds == nil {
		c.holds = map[holdKey]*hold{}
	}
	if c.holds[key] != nil {
		return false
	}
	c.holds[key] = h
	return true
}

func (c *Cluster) letGo(key holdKey, h *hold) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds[key] == h {
		delete(c.holds, key)
	}
}

// Lock keeps others off the release until the lock is given back, see
// [LockConfig]. Without it, [Deployer.Deploy], [Deployer.Restore] and
// [Deployer.Uninstall] lock the release for as long as they take. The lock is the
// run's: it serves every Deployer of the release on the same [Cluster], and outlives
// the one that took it.
func (d *Deployer) Lock(ctx context.Context, run string) (stages.Unlock, error) {
	if d.cfg.Lock.Off {
		return func(context.Context) error { return nil }, nil
	}
	h := newHold()
	if err := d.place(ctx, h, run); err != nil {
		return nil, fmt.Errorf("lock release %s: %w", d.name(), err)
	}
	key, cluster := d.holdKey(run), d.cluster
	if !cluster.hold(key, h) { // There is no namespace yet, or the other would have the lease.
		d.giveBack(ctx, h)
		return nil, fmt.Errorf("%w: lock release %s: run %q holds it already", stages.ErrInvalid, d.name(), run)
	}
	// Nothing of the Deployer is kept, whose chart may be large.
	return func(ctx context.Context) error {
		cluster.letGo(key, h)
		if h.lease == nil {
			return nil
		}
		if err := h.lease.Release(ctx); err != nil {
			return fmt.Errorf("unlock release %s/%s: %w", key.namespace, key.release, err)
		}
		return nil
	}, nil
}

// locked returns a context that ends when ctx does and when the run's lock is
// lost. The lock is taken if the run doesn't have it, and given back by done.
func (d *Deployer) locked(ctx context.Context, run string) (bound context.Context, h *hold, done func(), _ error) {
	if d.cfg.Lock.Off {
		return ctx, newHold(), func() {}, nil
	}
	h = d.cluster.held(d.holdKey(run))
	give := func() {}
	if h == nil {
		h = newHold()
		give = func() { d.giveBack(ctx, h) }
	}
	if h.lease == nil || !h.lease.Held() {
		if err := d.place(ctx, h, run); err != nil {
			return nil, nil, nil, err
		}
	}
	bound, unbind := h.bind(ctx)
	return bound, h, func() { unbind(); give() }, nil
}

// bind returns a context that ends with the lock, too.
func (h *hold) bind(ctx context.Context) (context.Context, func()) {
	if h.lease == nil {
		return ctx, func() {}
	}
	bound, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(h.lease.Context(), func() {
		cancel(fmt.Errorf("%w: %w", stages.ErrLockLost, context.Cause(h.lease.Context())))
	})
	return bound, func() { stop(); cancel(nil) }
}

func (d *Deployer) giveBack(ctx context.Context, h *hold) {
	if h.lease == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	if err := h.lease.Release(ctx); err != nil {
		d.cfg.Logger.Warn("the lock could not be given back; it expires by itself", "release", d.name(), "error", err)
	}
}

// place takes the lease for h. Where its namespace doesn't exist, it leaves that
// for later.
func (d *Deployer) place(ctx context.Context, h *hold, run string) error {
	h.lease = nil // The one before, if any, is lost.
	access := d.cluster.RESTConfig()
	access.RateLimiter, access.QPS = nil, -1     // Renewals must not queue behind the work that they protect.
	access.ContentType = runtime.ContentTypeJSON // As all else that is sent here.
	client, err := coordinationclient.NewForConfig(access)
	if err != nil {
		return fmt.Errorf("make a client for leases: %w", err)
	}
	annotations := map[string]string{LabelRun: run}
	if d.cfg.Lock.URL != "" {
		annotations[annotationURL] = d.cfg.Lock.URL
	}
	l, err := lease.Acquire(ctx, client.Leases(d.cfg.Namespace), lease.Options{
		Name: d.leaseName(), Holder: d.identity(run, h.nonce), TTL: d.cfg.Lock.TTL, Wait: d.cfg.Lock.Wait, Annotations: annotations,
		Waiting: func(held *lease.HeldError) {
			stages.ReportProgress(ctx, stages.Progress{ID: "lock", Message: "waiting for the lock: " + held.Error()})
		},
	})
	if held, ok := errors.AsType[*lease.HeldError](err); ok {
		err = &LockedError{
			Release: d.cfg.Release, Namespace: d.cfg.Namespace, Holder: held.Holder,
			Run: held.Annotations[LabelRun], URL: held.Annotations[annotationURL], Since: held.Since, Age: time.Since(held.Since),
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return err
	}
	switch {
	case ctx.Err() != nil:
		return d.cluster.ended(ctx)
	case apierrors.IsNotFound(err):
		return nil // The namespace; the lease would have been made.
	case err != nil:
		return d.refusal(err, "leases", "coordination.k8s.io")
	}
	h.lease = l
	return nil
}

var refusedVerb = regexp.MustCompile(`cannot (\w+) resource`)

// refusal explains an error of a client-go client that works outside a session.
func (d *Deployer) refusal(err error, resource, group string) error {
	if status, ok := errors.AsType[*apierrors.StatusError](err); ok {
		s := status.Status()
		verb := "use"
		if m := refusedVerb.FindStringSubmatch(s.Message); m != nil {
			verb = m[1]
		}
		return &APIError{Reason: classify(&s), Verb: verb, Group: group, Resource: resource, Namespace: d.cfg.Namespace, Name: d.leaseName(), Message: s.Message}
	}
	if unreachable(err) {
		return d.cluster.away(networkProblem(err))
	}
	return err
}

func (d *Deployer) leaseName() string { return "fairlead." + d.cfg.Release }

// identity tells this process and run from all others, and people what it is.
func (d *Deployer) identity(run, nonce string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "an unknown host"
	}
	return fmt.Sprintf("run %s on %s, process %d (%s)", run, host, os.Getpid(), nonce)
}

// unlock puts right what somebody left half done, and refuses a release that
// somebody may still be working on. It is called under the lock.
func (d *Deployer) unlock(s *session, history []*release.Release, run string) error {
	last := newest(history)
	if last == nil || !last.Info.Status.IsPending() && last.Info.Status != release.StatusUninstalling {
		return nil
	}
	by := maker(last)
	if last.Info.Status == release.StatusUninstalling {
		by = removing(last)
	}
	switch {
	case run != "" && by == runLabel(run):
		return s.markFailed(last, fmt.Sprintf("fairlead run %q: interrupted", run))
	case by != "" && !d.cfg.Lock.Off && last.Labels[LabelLocked] != "":
		// It would hold the lock if it lived.
		return s.markFailed(last, fmt.Sprintf("fairlead run %q: its process died; found by run %q", by, run))
	}
	since := last.Info.LastDeployed.Time
	if last.Info.Status == release.StatusUninstalling && !last.Info.Deleted.IsZero() {
		since = last.Info.Deleted.Time
	}
	age := time.Since(since)
	if !d.cfg.Lock.Off && age >= d.cfg.Lock.ForeignAge {
		return s.markFailed(last, fmt.Sprintf("left %s for %s; found by fairlead run %q", last.Info.Status, age.Round(time.Second), run))
	}
	e := &LockedError{
		Release: d.cfg.Release, Namespace: d.cfg.Namespace, Revision: last.Version,
		Status: last.Info.Status.String(), Since: since, Age: age, Run: by,
	}
	if !d.cfg.Lock.Off {
		e.Until = since.Add(d.cfg.Lock.ForeignAge)
	}
	return e
}
