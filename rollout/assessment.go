package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// assessment is how far a workload is.
type assessment struct { //nolint:recvcheck // filled in place, then read as a value
	object  stages.Object
	desired int
	ready   int
	done    bool
	waiting string // what is awaited, where there is no finding
	// idle says why no pod of the revision is to run; empty if some is.
	idle string
	// state says how far an object without pods is, once it is done.
	state string
	// podless is an object that is not judged by its pods; plain is one of which
	// nothing but existence is asked, unwatched one that has more to tell than the
	// caller may watch.
	podless, plain, unwatched bool
	// lacking says that fewer pods are ready than whoever needs the workload can do with.
	lacking bool
	// served is when the last of its pods became ready, or it was done.
	served   time.Time
	findings []finding
	recheck  time.Time
	// proven counts the containers seen to run the image; renamed is another digest
	// that the runtime reported one of them by.
	proven  int
	renamed stages.Digest
	// lingering counts the pods that have been replaced and still run.
	lingering int
	// template is what new pods are made of; nil while unknown.
	template *corev1.PodSpec
}

func (a *assessment) fail(cause Cause, s subject, reason, message string) {
	a.findings = append(a.findings, finding{cause: cause, reason: reason, message: message, subject: s})
}

// found returns the findings, which say what they are about.
func (a *assessment) found() []finding {
	for i := range a.findings {
		a.findings[i].released, a.findings[i].template = a.object, a.template
	}
	return a.findings
}

// relapses returns the findings about containers that run again.
func (a *assessment) relapses() []finding {
	return slices.DeleteFunc(slices.Clone(a.found()), func(f finding) bool { return !f.relapse })
}

// heldUp says what one of the pods waits for, the one that tells the most.
func (a *assessment) heldUp() string {
	var held *finding
	for i, f := range a.findings {
		if f.pod != nil && (held == nil || f.weight() < held.weight()) {
			held = &a.findings[i]
		}
	}
	if held == nil {
		return ""
	}
	text := " pod " + held.pod.Name
	for _, part := range []string{strings.TrimSpace(held.role + " " + held.container), held.reason, held.message} {
		if part != "" {
			text += ": " + part
		}
	}
	return text
}

// finish marks an object without pods as done.
func (a *assessment) finish(state string) {
	a.done, a.ready, a.state = true, 1, state
}

// exists marks an object as one that there is nothing to wait for.
func (a *assessment) exists() {
	a.finish("exists")
	a.plain = true
}

// scaledToZero notes that no pod is to run, if none is wanted.
func (a *assessment) scaledToZero() {
	if a.desired == 0 {
		a.idle = "it is scaled to zero, so nothing runs the image"
	}
}

// missing is the assessment of a workload that is not there.
func (a *assessment) missing() assessment {
	a.fail(Missing, subject{kind: a.object.Kind, namespace: a.object.Namespace, name: a.object.Name}, "NotFound", "the object does not exist")
	return *a
}

// String returns such as "Deployment shop/shop: 1 of 2 ready".
func (a assessment) String() string {
	text := a.object.String() + ": " + a.count()
	if !a.done && a.waiting != "" && len(a.findings) == 0 {
		text += "; " + a.waiting
	}
	return text
}

// count returns such as "1 of 2 ready", or "bound to pv-1".
func (a assessment) count() string {
	if a.podless {
		return orElse(a.state, "not ready")
	}
	state := "ready"
	if a.object.Kind == "Job" {
		state = "completed"
		if a.done && a.ready < a.desired { // by its success policy, or not counted yet
			return state
		}
	}
	return fmt.Sprintf("%d of %d %s", a.ready, a.desired, state)
}

// noteworthy returns the first finding that is more than a normal start.
func (a assessment) noteworthy() (finding, bool) {
	for _, f := range a.findings {
		if f.cause != Starting && f.cause != NotReady {
			return f, true
		}
	}
	return finding{}, false
}

// check is the line of the verification about a workload that is done.
func (a assessment) check(img stages.Image, elapsed time.Duration) stages.Check {
	c := stages.Check{Name: "rollout " + a.object.String(), Message: a.count(), Elapsed: elapsed}
	switch {
	case a.renamed != "":
		c.Message += fmt.Sprintf(", running %s (pinned; the runtime calls the same content %s)", img.Digest().Short(), a.renamed.Short())
	case a.proven > 0:
		c.Message += ", running " + img.Digest().Short()
	}
	if a.idle != "" {
		c.Message += "; " + a.idle
	}
	if a.lingering > 0 {
		c.Message += fmt.Sprintf("; pods that were replaced and take long to end: %d", a.lingering)
	}
	return c
}
