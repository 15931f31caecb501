package rollout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/fairlead-dev/fairlead/stages"
)

const (
	maxOthers = 9
	// maxDetailed is of how many facts logs and events are collected.
	maxDetailed = 4
	// rawLogBytes bounds what is fetched of a log before it is redacted and cut.
	rawLogBytes = int64(256 << 10)
)

// witness turns findings into evidence.
type witness struct {
	cluster  *Cluster
	world    *world
	settings settings
	release  string // its name, for the commands of an advice
}

// failure builds the failure that the first finding decided. It asks the cluster
// for logs and events, about all findings at once and for no longer than
// EvidenceTimeout.
func (w witness) failure(ctx context.Context, decisive finding, others []finding) *Failure {
	accounts, said := []*account{w.account(decisive)}, map[string]bool{decisive.key(): true}
	for _, o := range others {
		if len(accounts) > maxOthers {
			break
		}
		if !said[o.key()] {
			said[o.key()] = true
			accounts = append(accounts, w.account(o))
		}
	}
	w.ask(ctx, accounts[:min(len(accounts), 1+maxDetailed)])
	first := accounts[0]
	f := &Failure{
		Workload: decisive.released, Cause: decisive.cause, Role: decisive.role, Restarts: decisive.restarts, Signal: signalOf(decisive.exit),
		Probe: first.probe(decisive.probe), Scheduling: first.scheduling(decisive.scheduling), Decisive: first.evidence, Advice: first.advice,
	}
	f.reconsider()
	// Without the right to read ReplicaSets the chain ends early.
	if own, owners := decisive.released.String(), f.Decisive.Owners; decisive.pod != nil && decisive.released.Kind != "Pod" && (len(owners) == 0 || owners[len(owners)-1] != own) {
		f.Decisive.Owners = append(owners, own)
	}
	for _, a := range accounts[1:] {
		f.Others = append(f.Others, a.evidence)
	}
	return f
}

// account is a finding on its way to be evidence, with a witness that knows what is
// secret in its pod.
type account struct {
	witness
	finding  finding
	owners   []subject
	evidence stages.Evidence
	advice   Advice
}

// ask fetches logs and events for the accounts, all of them at once: one node that
// is slow to answer then costs no other's log.
func (w witness) ask(ctx context.Context, accounts []*account) {
	ctx, cancel := context.WithTimeout(ctx, w.settings.EvidenceTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, a := range accounts {
		own, owners := w.world.events.of(a.finding.subject.uid), []*corev1.Event(nil)
		for _, o := range a.owners {
			owners = append(owners, w.world.events.of(o.uid)...)
		}
		wg.Go(func() { a.evidence.Events = a.events(ctx, a.finding.subject, own, owners) })
		if a.finding.pod != nil && started(a.finding) {
			wg.Go(func() { a.evidence.Logs = a.logs(ctx, a.finding) })
		}
	}
	wg.Wait()
}

// unavailable says what is missing from the evidence, and why.
func (w witness) unavailable(ctx context.Context, what string, err error) string {
	why := err.Error()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		why = fmt.Sprintf("no answer within %s", w.settings.EvidenceTimeout)
	}
	return "(" + what + ": " + w.settings.clean.line(why) + ")"
}

// knowing returns a witness that masks what is secret in the pod of a finding, and in
// the template, which is repeated where a pod is refused.
func (w witness) knowing(f finding) witness {
	known := slices.Clone(w.settings.clean.known)
	if f.pod != nil {
		known = append(known, secretValues(&f.pod.Spec)...)
	}
	if f.template != nil {
		known = append(known, secretValues(f.template)...)
	}
	slices.SortStableFunc(known, func(a, b string) int { return len(b) - len(a) }) // the longest first
	w.settings.clean.known = known
	return w
}

// probe returns a probe without what is secret in it.
func (w witness) probe(p *Probe) *Probe {
	if p == nil {
		return nil
	}
	return &Probe{Kind: p.Kind, Target: w.settings.clean.line(p.Target), Response: w.settings.clean.line(p.Response)}
}

// maxPredicates bounds what is told of why no node was found.
const maxPredicates = 20

// scheduling returns why no node was found, fit to be shown.
func (w witness) scheduling(s *Scheduling) *Scheduling {
	if s == nil {
		return nil
	}
	out := &Scheduling{Nodes: s.Nodes}
	for _, p := range s.Predicates[:min(len(s.Predicates), maxPredicates)] {
		p.Resource, p.Message = w.settings.clean.line(p.Resource), w.settings.clean.line(p.Message)
		out.Predicates = append(out.Predicates, p)
	}
	return out
}

// account tells a finding, so far without logs and events.
func (w witness) account(f finding) *account {
	w = w.knowing(f)
	e := stages.Evidence{
		Subject: f.subject.String(), Container: f.container, Reason: w.settings.clean.line(f.reason),
		Message: w.settings.clean.line(f.message), Remedy: f.cause.remedy(),
	}
	if f.pod != nil {
		e.Subject = fmt.Sprintf("pod %s/%s", f.pod.Namespace, f.pod.Name)
	}
	if f.exit != nil {
		code := f.exit.ExitCode
		e.ExitCode = &code
	}
	chain := w.owners(f)
	for _, owner := range chain {
		e.Owners = append(e.Owners, owner.String())
	}
	e.Field = w.settings.clean.line(field(manifestKind(f, chain), f, f.spec())) // names in it may be a message's
	advice := AdviceFor(f.cause).filled(w.names(f))
	if len(advice.Commands) > 0 {
		e.Command = advice.Commands[0]
	}
	return &account{witness: w, finding: f, owners: chain, evidence: e, advice: advice}
}

// manifestKind returns the kind of the object whose manifest a finding's field
// is in: the last owner that is known, else the object released.
func manifestKind(f finding, chain []subject) string {
	switch {
	case len(chain) > 0 && chain[len(chain)-1].kind != "ReplicaSet":
		return chain[len(chain)-1].kind
	case len(chain) > 0 || f.subject.kind == "ReplicaSet":
		return f.released.Kind // whose ReplicaSets the caller may not read
	}
	return f.subject.kind
}

// spec returns the pod's spec that a finding is about; nil for a container that the
// manifest doesn't have, because an admission webhook has put it into the pod.
func (f finding) spec() *corev1.PodSpec {
	switch {
	case f.pod == nil:
		return f.template
	case f.container != "" && f.template != nil && containerOf(f.template, f.container) == nil:
		return nil
	}
	return &f.pod.Spec
}

var user = regexp.MustCompile(`User "([^"]+)"`)

// names are what the commands of an advice need.
func (w witness) names(f finding) map[string]string {
	names := map[string]string{"namespace": f.subject.namespace, "container": f.container, "release": w.release}
	if f.released.Kind != "" && f.released.Name != "" {
		names["workload"] = strings.ToLower(f.released.Kind) + "/" + f.released.Name
	}
	if f.pod != nil {
		names["pod"] = f.pod.Name
	}
	if m := user.FindStringSubmatch(f.message); m != nil {
		names["user"] = m[1]
	}
	return names
}

// owners returns the chain from the finding's subject up to the released object.
func (w witness) owners(f finding) []subject {
	var o metav1.Object
	if f.pod != nil {
		o = f.pod
	} else if f.subject.kind == "ReplicaSet" || f.subject.kind == "Job" {
		o = w.world.byUID(f.subject.uid)
	}
	var chain []subject
	for o != nil && len(chain) < 4 {
		ref := metav1.GetControllerOf(o)
		if ref == nil {
			break
		}
		s := subject{ref.Kind, o.GetNamespace(), ref.Name, ref.UID}
		chain = append(chain, s)
		o = w.world.byUID(s.uid)
	}
	return chain
}

// started reports whether the container of f has run, so that it has logs.
func started(f finding) bool {
	return f.container != "" && (f.exit != nil || f.restarts > 0) || f.cause == NotReady || f.reason == initRunning
}

// events returns what the cluster noted about a subject and its owners, oldest
// first. The subject's own are read again, because a controller writes its events a
// little later than its verdict; seen are those that the watch has brought.
func (w witness) events(ctx context.Context, about subject, seen, owners []*corev1.Event) []string {
	var out []string
	all := slices.Clone(owners)
	list, err := w.cluster.client.CoreV1().Events(about.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(about.uid)).String(), Limit: pageSize,
	})
	switch {
	case err == nil:
		for i := range list.Items {
			if list.Items[i].InvolvedObject.UID == about.uid {
				all = append(all, &list.Items[i])
			}
		}
	case apierrors.IsForbidden(err):
		return []string{fmt.Sprintf("(events unavailable: may not list events in namespace %s)", about.namespace)}
	default:
		out = append(out, w.unavailable(ctx, "the latest events are missing", err))
		all = append(all, seen...)
	}
	slices.SortStableFunc(all, func(a, b *corev1.Event) int { return eventTime(a).Compare(eventTime(b)) })
	if extra := len(all) - maxEventsPerObject; extra > 0 {
		all = all[extra:]
	}
	for _, e := range all {
		text := fmt.Sprintf("%s %s %s/%s: %s: %s", e.Type, e.InvolvedObject.Kind, e.InvolvedObject.Namespace, e.InvolvedObject.Name, e.Reason, e.Message)
		if e.Count > 1 {
			text += fmt.Sprintf(" (%d times)", e.Count)
		}
		out = append(out, w.settings.clean.line(text))
	}
	return out
}

// logs returns the last lines of the container that f is about: of the run that
// ended, if one did.
func (w witness) logs(ctx context.Context, f finding) []string {
	container := f.container
	if container == "" {
		container = firstUnready(f.pod)
	}
	previous := false
	for _, s := range allStatuses(f.pod) {
		if s.Name == container {
			previous = s.State.Terminated == nil && s.LastTerminationState.Terminated != nil && f.exit != nil
		}
	}
	text, err := w.log(ctx, f.pod, container, previous)
	if err == nil && strings.TrimSpace(text) == "" && previous {
		text, err = w.log(ctx, f.pod, container, false)
	}
	switch {
	case apierrors.IsForbidden(err):
		return []string{fmt.Sprintf("(logs unavailable: may not get pods/log in namespace %s)", f.pod.Namespace)}
	case err != nil && text == "":
		return []string{w.unavailable(ctx, "logs unavailable", err)}
	case err != nil:
		return append(w.settings.clean.tail(text, w.settings.LogLines, w.settings.LogBytes), w.unavailable(ctx, "the rest of the log is missing", err))
	}
	return w.settings.clean.tail(text, w.settings.LogLines, w.settings.LogBytes)
}

func (w witness) log(ctx context.Context, pod *corev1.Pod, container string, previous bool) (string, error) {
	lines, limit := int64(w.settings.LogLines), rawLogBytes
	return readLog(ctx, w.cluster, pod, &corev1.PodLogOptions{Container: container, Previous: previous, TailLines: &lines, LimitBytes: &limit})
}

// readLog returns what it has got of a log even if it fails.
func readLog(ctx context.Context, c *Cluster, pod *corev1.Pod, options *corev1.PodLogOptions) (string, error) {
	stream, err := c.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).Stream(ctx)
	if err != nil {
		return "", fmt.Errorf("read the log of container %s of pod %s/%s: %w", options.Container, pod.Namespace, pod.Name, err)
	}
	text, err := io.ReadAll(io.LimitReader(stream, rawLogBytes))
	if closing := stream.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return string(text), fmt.Errorf("read the log of container %s of pod %s/%s: %w", options.Container, pod.Namespace, pod.Name, err)
	}
	return string(text), nil
}
