package smoke

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// PodConfig configures a smoke test by a pod; see [NewPod].
type PodConfig struct {
	// REST is how to reach the cluster. It is copied. Required, unless Cluster is set.
	REST *rest.Config
	// Cluster is a connection to share with verifiers and other tests, see
	// [rollout.Connect]. Closing the test leaves it open.
	Cluster *rollout.Cluster
	// Image holds curl 7.76 or later, pinned by digest, required.
	Image stages.Image
	// Command is the program, which takes curl's options. Default "curl".
	Command []string
	// URL is what to fetch, required: an http or https URL as the cluster's pods
	// see it, such as "http://{{.Release}}.{{.Namespace}}.svc:80/healthz/ready".
	URL string
	// Headers are sent along. Credentials are refused: they go into HeadersFrom.
	Headers map[string]string
	// HeadersFrom is a key of a Secret in the pod's namespace that holds more
	// headers, one a line, such as "Authorization: Bearer …". It is mounted as a file
	// that curl reads.
	HeadersFrom KeyRef
	// CAFrom is a key of a ConfigMap that holds the certificates to trust, in PEM.
	// Default the image's own.
	CAFrom KeyRef
	// DangerouslyTrustAnyCertificate switches the check of the server's certificate off.
	DangerouslyTrustAnyCertificate bool
	// Redirects is how many redirects are followed. By default none is: a redirect
	// is an answer. Not together with HeadersFrom, which curl would send along.
	Redirects int
	// Expect is what must be answered.
	Expect Expect

	// Setting is about the pod.
	Setting

	// RequestTimeout bounds one request. Default 5 seconds.
	RequestTimeout time.Duration
	// Timeout bounds everything, the pull of the image included. Default 1 minute.
	// The kubelet enforces it too, should this process die.
	Timeout time.Duration
	// Redact masks secrets in output and messages, after [rollout.Redact]. It must be
	// safe for concurrent use.
	Redact func(text string) string
}

// KeyRef names a key of a Secret or a ConfigMap.
type KeyRef struct{ Name, Key string }

func (k KeyRef) isZero() bool { return k == KeyRef{} }

func (k KeyRef) validate(field string) error {
	if !k.isZero() && (k.Name == "" || k.Key == "") {
		return fmt.Errorf("%w: %s needs both Name and Key", stages.ErrInvalid, field)
	}
	return nil
}

// podTest fetches a URL of the release from inside the cluster.
type podTest struct {
	PodConfig
	cluster cluster
	expect  expectation
	clean   cleaner
	url     pattern
	// ended waits until a pod has ended, or can't run.
	ended stages.Verifier
}

// NewPod returns a smoke test that fetches a URL of the release from inside the
// cluster, with a pod that lives for one verification and meets the restricted Pod
// Security level. It asks the cluster nothing yet. Its error matches
// [stages.ErrInvalid].
func NewPod(config PodConfig) (*Test, error) {
	p, err := newPodTest(config)
	if err != nil {
		return nil, fmt.Errorf("smoke test by a pod: %w", err)
	}
	if p.cluster, err = connect(config.REST, config.Cluster); err != nil {
		return nil, fmt.Errorf("smoke test by a pod: %w", err)
	}
	watcher, err := rollout.New(rollout.Config{Cluster: p.cluster.shared, Timeout: p.Timeout, Settle: -1, AllowUnused: true, Completion: true, Rules: p.Rules, Redact: p.Redact})
	if err != nil {
		return nil, fmt.Errorf("smoke test by a pod: %w", err)
	}
	p.ended = watcher
	t := p.test()
	t.close = p.cluster.close // the watcher's is the same
	return t, nil
}

func (p *podTest) test() *Test {
	return &Test{name: "smoke test by a pod", timeout: p.Timeout + evidenceTime, run: p.run, rules: p.rules}
}

// evidenceTime is for reading logs after the verdict on the pod.
const evidenceTime = 5 * time.Second

// newPodTest checks and completes everything but the connection.
func newPodTest(c PodConfig) (*podTest, error) {
	c.RequestTimeout = cmp.Or(c.RequestTimeout, DefaultRequestTimeout)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.Headers, c.Command = maps.Clone(c.Headers), slices.Clone(c.Command)
	if len(c.Command) == 0 {
		c.Command = []string{"curl"}
	}
	switch {
	case c.Image.IsZero():
		return nil, fmt.Errorf("%w: Image is required, pinned by digest", stages.ErrInvalid)
	case c.RequestTimeout < 0 || c.Timeout < time.Second || c.Redirects < 0:
		return nil, fmt.Errorf("%w: durations and Redirects can't be negative, nor Timeout less than a second", stages.ErrInvalid)
	case c.Redirects > 0 && !c.HeadersFrom.isZero():
		return nil, fmt.Errorf("%w: Redirects and HeadersFrom exclude each other: the headers would be sent to wherever a redirect leads", stages.ErrInvalid)
	}
	p := &podTest{PodConfig: c, clean: cleaner{extra: c.Redact}}
	var err error
	if p.Setting, err = c.Setting.complete(); err != nil {
		return nil, err
	}
	if p.expect, err = c.Expect.compile(); err != nil {
		return nil, err
	}
	p.expect.noErrors = c.Expect.Status == 0
	if p.url, err = parsePattern("URL", c.URL); err != nil {
		return nil, err
	}
	_, err = p.address(stages.Release{Name: "release", Namespace: "namespace", Revision: 1})
	return p, errors.Join(err, c.Expect.forHTTP(), checkHeaders(c.Headers, "HeadersFrom"),
		c.HeadersFrom.validate("HeadersFrom"), c.CAFrom.validate("CAFrom"))
}

// address returns the URL for a release.
func (p *podTest) address(rel stages.Release) (string, error) {
	text, err := p.url.fill(rel)
	if err != nil {
		return "", err
	}
	u, err := checkURL(text)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

func (p *podTest) run(ctx context.Context, rel stages.Release) (check stages.Check, err error) {
	address, err := p.address(rel)
	if err != nil {
		return check, err
	}
	script := newScript(p, address)
	pod, err := p.create(ctx, rel, script)
	made := thing{resource: "pods", meta: pod, deadline: p.Timeout, remove: func(ctx context.Context, o metav1.DeleteOptions) error {
		return p.cluster.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, o)
	}}
	if err != nil {
		err = made.refusedCreation(ctx, rel, err, p.clean)
		if _, refused := errors.AsType[*rollout.Failure](err); refused || stages.IsPermanent(err) {
			return check, err
		}
		return check, errors.Join(err, made.delete(ctx, p.CleanupTimeout)) // the server may have made it all the same
	}
	defer func() { check, err = cleanUp(ctx, made, p.CleanupTimeout, p.clean, check, err) }()
	p.cluster.sweepPods(ctx, rel, pod)
	t := requests(p.expect, "GET "+address, p.clean)
	t.progress(ctx, "fetching with pod "+pod.Name)
	return p.judge(ctx, rel, pod, script, t)
}

// cleanUp deletes what a test made. Where that fails for another reason than want
// of rights, a test that passed has passed, and says so.
func cleanUp(ctx context.Context, made thing, within time.Duration, clean cleaner, check stages.Check, err error) (stages.Check, error) {
	left := made.delete(ctx, within)
	switch {
	case left == nil:
		return check, err
	case err == nil && !stages.IsPermanent(left):
		check.Message += "; " + clean.line(left.Error())
		return check, nil
	}
	return stages.Check{}, errors.Join(err, left)
}

// judge waits for the end of the pod and judges what it has fetched.
func (p *podTest) judge(ctx context.Context, rel stages.Release, pod *corev1.Pod, script script, t *tally) (stages.Check, error) {
	_, ending := p.ended.Verify(silent(ctx), stages.Release{
		Image: p.Image, Name: rel.Name, Namespace: pod.Namespace, Revision: rel.Revision,
		Objects: []stages.Object{{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}},
	})
	f, failed := errors.AsType[*rollout.Failure](ending)
	switch {
	case ending == nil:
	case !failed:
		return stages.Check{}, ending
	case f.Decisive.ExitCode == nil:
		f.Workload = workload(rel)
		return stages.Check{}, ending
	}
	output, err := p.cluster.readLog(ctx, pod.Namespace, pod.Name, container, maxOutput)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return stages.Check{}, err
	}
	fetched := script.parse(output)
	for _, a := range fetched {
		a.subject = "pod " + pod.Namespace + "/" + pod.Name
		t.add(a)
	}
	switch {
	case t.pass():
		return t.check(), nil
	case t.decided():
		return stages.Check{}, t.failure(rel)
	case failed && len(fetched) == 0:
		// The program is not what it should be: what it wrote says why.
		f.Workload = workload(rel)
		return stages.Check{}, ending
	}
	lost := attempt{err: fmt.Errorf("the pod wrote no result for it within %d bytes of output", maxOutput), subject: "pod " + pod.Namespace + "/" + pod.Name}
	if failed {
		lost.err = fmt.Errorf("the pod ended before: %s: %s", f.Decisive.Reason, f.Decisive.Message)
	}
	t.add(lost)
	return stages.Check{}, t.failure(rel)
}

// silent keeps the watcher's progress to itself.
func silent(ctx context.Context) context.Context {
	return stages.WithProgress(ctx, func(stages.Progress) {})
}

// create makes the pod.
func (p *podTest) create(ctx context.Context, rel stages.Release, s script) (*corev1.Pod, error) {
	pod := p.pod(rel, s)
	pod.OwnerReferences = p.cluster.owner(ctx, rel, pod.Namespace)
	created, err := p.cluster.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return pod, err
	}
	return created, nil
}
