package smoke

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// JobConfig configures a smoke test by a Job; see [NewJob].
type JobConfig struct {
	// REST is how to reach the cluster. It is copied. Required, unless Cluster is set.
	REST *rest.Config
	// Cluster is a connection to share with verifiers and other tests, see
	// [rollout.Connect]. Closing the test leaves it open.
	Cluster *rollout.Cluster
	// Image holds the program, pinned by digest. Default the released image: a test
	// that the program brings along is of the same version.
	Image stages.Image
	// Command and Args are the program, in which {{.Release}}, {{.Namespace}} and
	// {{.Revision}} are filled in; at least one of them is required. They are no
	// place for credentials, which belong into Env.
	Command, Args []string
	// Env is the program's environment. Refer to a Secret for what is secret, with
	// ValueFrom; a plain value that looks like a credential is refused.
	Env []corev1.EnvVar
	// Template is the pod to run, in the place of Image, Command, Args, Env, and of
	// what else is said about it. What it leaves open is filled in so that it
	// meets the restricted Pod Security level. Its pods never restart a container.
	Template *corev1.PodTemplateSpec
	// Expect is about the end of the program's output, its last MiB at most: that of
	// the pod's first container. Attempts is how many pods are run, one after the
	// other, and one passes if it ends with exit code 0 and its output is as
	// expected. There is no Status; Retries and Interval don't matter.
	Expect Expect

	// Setting is about the job's pods.
	Setting

	// Timeout bounds everything, the pull of the image included. Default 1 minute.
	// The cluster enforces it too, should this process die.
	Timeout time.Duration
	// Redact masks secrets in output and messages, after [rollout.Redact]. It must be
	// safe for concurrent use.
	Redact func(text string) string
}

// jobTest runs a program of the user's in the cluster.
type jobTest struct {
	JobConfig
	cluster       cluster
	expect        expectation
	clean         cleaner
	command, args []pattern
	// ended waits until a job has ended, or can't run.
	ended stages.Verifier
}

// NewJob returns a smoke test that runs a program in the cluster to its end. The
// job is deleted before Verify returns; should this process die, the cluster ends
// it at the timeout and deletes it ten minutes later. It asks the cluster nothing
// yet. Its error matches [stages.ErrInvalid].
func NewJob(config JobConfig) (*Test, error) {
	j, err := newJobTest(config)
	if err != nil {
		return nil, fmt.Errorf("smoke test by a job: %w", err)
	}
	if j.cluster, err = connect(config.REST, config.Cluster); err != nil {
		return nil, fmt.Errorf("smoke test by a job: %w", err)
	}
	watcher, err := rollout.New(rollout.Config{Cluster: j.cluster.shared, Timeout: j.Timeout, Settle: -1, AllowUnused: true, Rules: j.Rules, Redact: j.Redact})
	if err != nil {
		return nil, fmt.Errorf("smoke test by a job: %w", err)
	}
	j.ended = watcher
	t := j.test()
	t.close = j.cluster.close // the watcher's is the same
	return t, nil
}

func (j *jobTest) test() *Test {
	return &Test{name: "smoke test by a job", timeout: j.Timeout + evidenceTime, run: j.run, rules: j.rules}
}

// newJobTest checks and completes everything but the connection.
func newJobTest(c JobConfig) (*jobTest, error) {
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.Env = slices.Clone(c.Env)
	plain := len(c.Command)+len(c.Args)+len(c.Env) > 0 || !c.Image.IsZero()
	switch {
	case c.Template == nil && len(c.Command)+len(c.Args) == 0:
		return nil, fmt.Errorf("%w: Command, Args or Template is required", stages.ErrInvalid)
	case c.Template != nil && plain:
		return nil, fmt.Errorf("%w: Template excludes Image, Command, Args and Env", stages.ErrInvalid)
	case c.Template != nil && len(c.Template.Spec.Containers) == 0:
		return nil, fmt.Errorf("%w: Template has no containers", stages.ErrInvalid)
	case c.Timeout < time.Second:
		return nil, fmt.Errorf("%w: Timeout can't be less than a second", stages.ErrInvalid)
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil && (credentialHeader.MatchString(e.Name) && e.Value != "" || rollout.Redact(e.Value) != e.Value) {
			return nil, fmt.Errorf("%w: Env: the value of %s looks like a credential: refer to a Secret with ValueFrom", stages.ErrInvalid, e.Name)
		}
	}
	j := &jobTest{JobConfig: c, clean: cleaner{extra: c.Redact}}
	var err error
	if j.Setting, err = c.Setting.complete(); err != nil {
		return nil, err
	}
	if j.expect, err = c.Expect.compile(); err != nil {
		return nil, err
	}
	if j.command, err = parseArguments("Command", c.Command); err != nil {
		return nil, err
	}
	if j.args, err = parseArguments("Args", c.Args); err != nil {
		return nil, err
	}
	return j, c.Expect.forbidStatus("a job")
}

func parseArguments(field string, texts []string) ([]pattern, error) {
	var out []pattern
	for i, text := range texts {
		if rollout.Redact(text) != text {
			return nil, fmt.Errorf("%w: %s[%d] looks like a credential, and arguments are not secret: pass it by Env from a Secret", stages.ErrInvalid, field, i)
		}
		p, err := parsePattern(fmt.Sprintf("%s[%d]", field, i), text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func (j *jobTest) run(ctx context.Context, rel stages.Release) (check stages.Check, err error) {
	job, err := j.job(rel)
	if err != nil {
		return check, err
	}
	job.OwnerReferences = j.cluster.owner(ctx, rel, job.Namespace)
	created, err := j.cluster.client.BatchV1().Jobs(job.Namespace).Create(ctx, job, metav1.CreateOptions{})
	if err == nil {
		job = created
	}
	made := thing{resource: "jobs.batch", meta: job, deadline: j.Timeout, remove: func(ctx context.Context, o metav1.DeleteOptions) error {
		o.GracePeriodSeconds = nil // which would be the job's, not its pods'
		return j.cluster.client.BatchV1().Jobs(job.Namespace).Delete(ctx, job.Name, o)
	}}
	if err != nil {
		err = made.refusedCreation(ctx, rel, err, j.clean)
		if _, refused := errors.AsType[*rollout.Failure](err); refused || stages.IsPermanent(err) {
			return check, err
		}
		return check, errors.Join(err, made.delete(ctx, j.CleanupTimeout)) // the server may have made it all the same
	}
	defer func() { check, err = cleanUp(ctx, made, j.CleanupTimeout, j.clean, check, err) }()
	j.cluster.sweepJobs(ctx, rel, job)
	t := runs(j.expect, "job "+program(rel, job), j.clean)
	t.progress(ctx, "running "+job.Name)
	return j.judge(ctx, rel, job, t)
}

// program is what a job is called in a check, because its own name is made up.
func program(rel stages.Release, job *batchv1.Job) string {
	c := job.Spec.Template.Spec.Containers[0]
	if words := slices.Concat(c.Command, c.Args); len(words) > 0 {
		return shorten(strings.Join(words, " "), 60)
	}
	return "of " + rel.Name
}

// judge waits for the end of the job and judges its pods, one after the other.
func (j *jobTest) judge(ctx context.Context, rel stages.Release, job *batchv1.Job, t *tally) (stages.Check, error) {
	img := j.Image
	if img.IsZero() {
		img = rel.Image
	}
	_, ending := j.ended.Verify(silent(ctx), stages.Release{
		Image: img, Name: rel.Name, Namespace: job.Namespace, Revision: rel.Revision,
		Objects: []stages.Object{{APIVersion: "batch/v1", Kind: "Job", Namespace: job.Namespace, Name: job.Name}},
	})
	f, failed := errors.AsType[*rollout.Failure](ending)
	if ending != nil && !failed {
		return stages.Check{}, ending
	}
	if failed {
		f.Workload = workload(rel)
		if f.Cause != rollout.JobFailed && f.Cause != rollout.DeadlineExceeded {
			return stages.Check{}, ending
		}
	}
	attempts, err := j.attempts(ctx, job)
	if err != nil {
		return stages.Check{}, err
	}
	for _, a := range attempts {
		if a.unfinished && failed {
			a.err = fmt.Errorf("did not end: %s: %s", f.Decisive.Reason, f.Decisive.Message)
		}
		t.add(a.attempt)
	}
	switch {
	case t.pass():
		return t.check(), nil
	case len(t.problems) == 0 && failed:
		return stages.Check{}, ending // no pod of it has ended: its deadline, say
	case !t.decided():
		t.add(attempt{err: errors.New("no pod has run for it")})
	}
	err = t.failure(rel)
	if failure, ok := errors.AsType[*rollout.Failure](err); ok && failed {
		// What the watch has seen of the last pod tells most.
		failure.Decisive.ExitCode, failure.Decisive.Events, failure.Decisive.Container = f.Decisive.ExitCode, f.Decisive.Events, f.Decisive.Container
	}
	return stages.Check{}, err
}

// podAttempt is what a job's pod came to.
type podAttempt struct {
	attempt
	unfinished bool
}

// attempts returns what the job's pods came to, in the order of their start.
func (j *jobTest) attempts(ctx context.Context, job *batchv1.Job) ([]podAttempt, error) {
	list, err := j.cluster.client.CoreV1().Pods(job.Namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job.Name})
	if err != nil {
		return nil, denied(err, "list", "pods", job.Namespace, "")
	}
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Annotations[batchv1.JobCompletionIndexAnnotation], b.Annotations[batchv1.JobCompletionIndexAnnotation]), cmp.Compare(a.Name, b.Name))
	})
	var out []podAttempt
	for i := range list.Items {
		pod := &list.Items[i]
		if ref := metav1.GetControllerOf(pod); ref == nil || ref.UID != job.UID {
			continue
		}
		a, err := j.attempt(ctx, pod)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// attempt judges how a pod has ended.
func (j *jobTest) attempt(ctx context.Context, pod *corev1.Pod) (podAttempt, error) {
	first := pod.Spec.Containers[0].Name
	a := podAttempt{attempt: attempt{subject: "pod " + pod.Namespace + "/" + pod.Name}}
	ended := false
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		t := s.State.Terminated
		if t == nil {
			continue
		}
		if s.Name == first {
			ended, a.Latency = true, t.FinishedAt.Sub(t.StartedAt.Time)
		}
		if t.ExitCode != 0 {
			a.err = errors.Join(a.err, fmt.Errorf("container %s ended with exit code %d", s.Name, t.ExitCode))
		}
	}
	if a.err == nil && pod.Status.Phase != corev1.PodSucceeded {
		a.unfinished = !ended
		a.err = fmt.Errorf("the pod is %s", strings.Join(strings.Fields(string(pod.Status.Phase)+" "+pod.Status.Reason+" "+pod.Status.Message), " "))
	}
	if !ended {
		return a, nil
	}
	output, err := j.cluster.readTail(ctx, pod.Namespace, pod.Name, first)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	a.Body = []byte(output)
	return a, err
}
