package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/fairlead-dev/fairlead/stages"
)

// session is one wait for the objects of a release. It looks at what the feeds
// that it has joined have been told, and decides; the feeds are shared with other
// sessions, and nothing else is.
type session struct {
	cluster  *Cluster
	settings settings
	verb     string // what is being done, for errors
	subject  string // to which release
	image    stages.Image
	deployed time.Time
	born     time.Time // when its deployment began; zero if that isn't known
	// before is what an earlier look at the same deployment has left; nil if there was none.
	before  *memory
	targets []stages.Object // of kinds that are waited for
	// namespace is of objects that name none.
	namespace string
	// only narrows the feeds of pods to one name; empty for all.
	only string
	// others must exist; the check runs beside the watches.
	others func(context.Context) (objectsFound, error)
	// progress tells of a workload's changes.
	progress func(id, message string)

	world     *world
	inspector *inspector
	patience  *patience
	grace     grace
	began     time.Time
	looks     int
	told      map[stages.Object]string    // last progress by workload
	doneSince map[stages.Object]time.Time // by workload
	last      []assessment
	// drainUntil is how long pods that have been replaced are waited for; zero until
	// nothing else is.
	drainUntil time.Time
	planned    []*target
	found      objectsFound
	seeking    int // how many searches for objects have not ended
	wg         sync.WaitGroup
	// answers are what the goroutines beside the watches send: resolved,
	// refreshed or objectsResult.
	answers chan any
}

// outcome is what a session that went well has seen.
type outcome struct {
	workloads []assessment
	elapsed   map[stages.Object]time.Duration
	objects   objectsFound
}

type objectsResult struct {
	found objectsFound
	err   error
}

// run waits until every workload is done. It returns when nothing that it
// started still runs, but for feeds that other sessions need.
func (s *session) run(ctx context.Context) (outcome, error) {
	s.began = time.Now()
	s.world = newWorld(s.cluster.hub)
	s.inspector = newInspector(s.world, s.image, s.settings)
	s.inspector.deployed = s.deployed
	if !s.born.IsZero() {
		s.inspector.deployed = s.born
	}
	if s.before != nil {
		s.inspector.goOn(s.before)
	}
	s.patience = &patience{rules: s.settings.rules, seen: map[string]*sighting{}}
	s.grace.was = map[stages.Object]bool{}
	s.told, s.doneSince = map[stages.Object]string{}, map[stages.Object]time.Time{}

	s.answers = make(chan any)
	watching, stop := context.WithCancel(ctx)
	defer s.world.leave()
	defer s.end(stop)
	s.plan(watching)
	s.seek(watching, s.others)
	return s.loop(watching)
}

// end stops what runs beside the loop and waits until it has.
func (s *session) end(stop context.CancelFunc) {
	stop()
	go func() {
		s.wg.Wait()
		close(s.answers)
	}()
	for range s.answers { // nobody is left who cares
	}
}

const (
	// restPerLook bounds what looking costs: after a look the session rests for
	// this many times what the look took, so that a burst of changes is taken in
	// together. A first change after a silence is looked at straight away.
	restPerLook = 20
	maxRest     = 250 * time.Millisecond
)

func (s *session) loop(ctx context.Context) (outcome, error) {
	deadline := time.NewTimer(s.settings.Timeout)
	defer deadline.Stop()
	recheck := time.NewTimer(s.settings.Timeout)
	defer recheck.Stop()
	rested := time.NewTimer(0)
	defer rested.Stop()
	var changed <-chan struct{} // nil while the session rests
	for {
		select {
		case <-ctx.Done():
			return outcome{}, s.cancelled(ctx)
		case <-deadline.C:
			return s.timedOut(ctx)
		case <-rested.C:
			changed = s.world.wakeUp
			continue
		case <-changed:
		case answer := <-s.answers:
			if err := s.take(ctx, answer); err != nil {
				if ctx.Err() != nil {
					return outcome{}, s.cancelled(ctx)
				}
				return outcome{}, fmt.Errorf("%s %s: %w", s.verb, s.subject, err)
			}
		case <-recheck.C:
		}
		s.world.narrow(ctx)
		if err := s.barred(); err != nil {
			return outcome{}, err
		}
		s.seekUnwatchable(ctx)
		s.freshen(ctx)
		if s.outOfTouch() != nil {
			continue
		}
		began := time.Now()
		done, next, err := s.look(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return outcome{}, s.cancelled(ctx)
			}
			return outcome{}, err
		}
		if done {
			return s.outcome(), nil
		}
		if !next.IsZero() {
			recheck.Reset(max(0, time.Until(next)))
		}
		if rest := min(restPerLook*time.Since(began), maxRest); rest > 0 {
			changed = nil
			rested.Reset(rest)
		}
	}
}

// take takes an answer in.
func (s *session) take(ctx context.Context, answer any) error {
	switch r := answer.(type) {
	case resolved:
		s.learn(ctx, r)
	case refreshed:
		if r.target.readFrom == r.from {
			r.target.stale = false
		}
		return r.err
	case objectsResult:
		s.seeking--
		s.found.add(r.found)
		return r.err
	}
	return nil
}

// barred returns a permanent error if the caller may not look at what matters.
func (s *session) barred() error {
	for _, m := range s.world.joined {
		switch state := m.status(); {
		case !state.barred():
		case apierrors.IsUnauthorized(state.err):
			return stages.Permanent(fmt.Errorf("%s %s: %w; the cluster does not accept the credentials, renew them", s.verb, s.subject, state.err))
		case !m.resource.optional:
			return stages.Permanent(fmt.Errorf("%s %s: %w; grant the verbs list and watch on %s", s.verb, s.subject, state.err, m))
		}
	}
	return nil
}

// outOfTouch returns why the world may be out of date, or nil if it isn't.
func (s *session) outOfTouch() error {
	errs := []error{s.unresolved(), s.unread()}
	for _, m := range s.world.joined {
		switch state := m.status(); {
		case state.synced && state.err == nil:
		case m.resource.optional && state.barred():
		case m.resource.name == events.name && state.err != nil:
		case state.err != nil:
			errs = append(errs, state.err)
		default:
			errs = append(errs, fmt.Errorf("list %s: no answer yet", m))
		}
	}
	return errors.Join(errs...)
}

// look judges the world as it is.
func (s *session) look(ctx context.Context) (done bool, next time.Time, err error) {
	now := time.Now()
	if s.looks++; s.looks == 1 {
		deployed, born := s.released()
		s.inspector.remember(deployed, born, s.before != nil)
	}
	s.world.beginLook()
	defer s.world.endLook()
	s.last = s.assess(now)
	done = s.seeking == 0
	var findings []finding
	for _, a := range s.last {
		s.report(a)
		if a.done {
			findings = append(findings, a.relapses()...)
			if _, known := s.doneSince[a.object]; !known {
				s.doneSince[a.object] = now
			}
			continue
		}
		done = false
		delete(s.doneSince, a.object)
		next = sooner(next, a.recheck)
		findings = append(findings, a.found()...)
	}
	if done && s.settings.drain {
		if until := s.draining(now); !until.IsZero() {
			done, next = false, until
		}
	}
	terminal, recheck := s.patience.judge(s.looks, findings, now)
	s.grace.note(s.last)
	terminal, pardoned := s.grace.excuse(s.last, terminal, s.looks == 1 && s.before == nil)
	s.inspector.pardon(pardoned)
	if len(terminal) > 0 {
		// What a container says tells more than what its workload says about it.
		slices.SortStableFunc(terminal, func(a, b finding) int { return a.rank() - b.rank() })
		return false, next, s.fail(ctx, terminal[0], append(terminal[1:], findings...))
	}
	return done, sooner(next, recheck), nil
}

// drainTime bounds the wait for pods that have been replaced and don't end: the
// grace period that a pod has by default, and a little more.
const drainTime = 35 * time.Second

// draining returns until when to wait for pods that have been replaced, or zero if
// there is none or it was long enough.
func (s *session) draining(now time.Time) time.Time {
	left := 0
	for _, a := range s.last {
		left += a.lingering
	}
	if left == 0 {
		return time.Time{}
	}
	if s.drainUntil.IsZero() {
		s.drainUntil = now.Add(drainTime)
		s.progress("", fmt.Sprintf("waiting for %d pods that were replaced to end", left))
	}
	if now.Before(s.drainUntil) {
		return s.drainUntil
	}
	return time.Time{}
}

func (f finding) rank() int {
	switch {
	case f.container != "":
		return 0
	case f.pod != nil:
		return 1
	}
	return 2
}

// assess looks at each workload, and at whether any of them uses the image.
func (s *session) assess(now time.Time) []assessment {
	all := make([]assessment, 0, len(s.planned))
	used, unsure, proven := false, false, 0
	idle, needed := false, false // workloads that use it, of which no pod or some is to run
	for _, t := range s.planned {
		o, a := t.object, s.assessTarget(t, now)
		if a.template == nil {
			unsure = unsure || t.kind.workload()
		} else if !s.image.IsZero() {
			uses, wrong := uses(s.image, *a.template)
			used = used || uses
			idle = idle || uses && a.idle != ""
			needed = needed || uses && a.idle == "" && t.kind.workload()
			if wrong != nil {
				a.done = false
				a.findings = append(a.findings, finding{
					cause: ImageMismatch, reason: string(ImageMismatch), container: wrong.Name, role: "container",
					subject: subject{kind: o.Kind, namespace: o.Namespace, name: o.Name},
					message: fmt.Sprintf("asks for %s, released was %s", wrong.Image, s.image),
				})
			}
		}
		proven += a.proven
		all = append(all, a)
	}
	if s.image.IsZero() || s.settings.AllowUnused || unsure || len(all) == 0 {
		return all
	}
	everyDone := !slices.ContainsFunc(all, func(a assessment) bool { return !a.done })
	if !used || everyDone && proven == 0 && (needed || !idle) {
		all[0].done = false
		all[0].fail(ImageMismatch, subject{kind: all[0].object.Kind, namespace: all[0].object.Namespace, name: all[0].object.Name},
			string(ImageMismatch), fmt.Sprintf("no pod of the release runs an image of %s", s.image.Repository()))
	}
	return all
}

// report tells how far a workload is, when that has changed.
func (s *session) report(a assessment) {
	if a.plain || a.unwatched {
		return
	}
	message := a.String()
	if f, ok := a.noteworthy(); ok {
		message += fmt.Sprintf("; %s: %s", f.subject.name, f.reason)
	}
	if s.told[a.object] != message {
		s.told[a.object] = message
		s.progress(a.object.String(), s.settings.clean.line(message))
	}
}

// weight puts what tells the most about a timeout first.
func (f finding) weight() int {
	switch f.cause {
	case NotReady, GateClosed:
		return 1
	case Starting:
		if f.reason == initRunning {
			return 1
		}
		return 2
	}
	return 0
}

func (s *session) fail(ctx context.Context, decisive finding, others []finding) error {
	decided := time.Now()
	w := witness{cluster: s.cluster, world: s.world, settings: s.settings}
	_, w.release, _ = strings.Cut(s.subject, "/")
	f := w.failure(ctx, decisive, others)
	f.Release, f.Elapsed, f.Collecting = s.subject, decided.Sub(s.began), time.Since(decided)
	return stages.Permanent(f)
}

func (s *session) cancelled(ctx context.Context) error {
	var missing []string
	for _, a := range s.last {
		if !a.done {
			missing = append(missing, a.String())
		}
	}
	if len(missing) == 0 {
		return fmt.Errorf("%s %s: %w", s.verb, s.subject, context.Cause(ctx))
	}
	return fmt.Errorf("%s %s: %w, with %s", s.verb, s.subject, context.Cause(ctx), s.settings.clean.line(strings.Join(missing, ", ")))
}

// timedOut says what is still missing, or that it isn't known. What was done at
// the last moment counts.
func (s *session) timedOut(ctx context.Context) (outcome, error) {
	err := s.outOfTouch()
	if err == nil && s.seeking > 0 {
		err = errors.New("the check that all objects exist has not finished")
	}
	if err != nil {
		return outcome{}, fmt.Errorf("%s %s: %w after %s: %w; look at the release before acting on it", s.verb, s.subject, stages.ErrIndeterminate, s.settings.Timeout, err)
	}
	var summary []string
	var findings []finding
	s.last = s.assess(time.Now())
	for i := range s.last {
		a := &s.last[i]
		if a.done {
			continue
		}
		summary = append(summary, a.String())
		if len(a.findings) == 0 {
			a.fail(NotReady, subject{kind: a.object.Kind, namespace: a.object.Namespace, name: a.object.Name}, string(NotReady), orElse(a.waiting, "its pods are not ready for long enough"))
		}
		slices.SortStableFunc(a.findings, func(a, b finding) int { return a.weight() - b.weight() })
		findings = append(findings, a.found()...)
	}
	if len(findings) == 0 {
		return s.outcome(), nil
	}
	decisive := findings[0]
	if decisive.message != "" {
		decisive.message = ": " + decisive.message
	}
	decisive.message = fmt.Sprintf("not rolled out within %s (%s)%s", s.settings.Timeout, strings.Join(summary, ", "), decisive.message)
	err = s.fail(ctx, decisive, findings[1:])
	if f, ok := errors.AsType[*Failure](err); ok {
		f.Cause, f.Pending = TimedOut, f.Cause
	}
	return outcome{}, err
}

func (s *session) outcome() outcome {
	o := outcome{workloads: s.last, objects: s.found, elapsed: map[stages.Object]time.Duration{}}
	for object, at := range s.doneSince {
		o.elapsed[object] = at.Sub(s.began)
	}
	return o
}
