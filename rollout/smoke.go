package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"strings"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// SmokeConfig configures a [Smoke] test.
type SmokeConfig struct {
	// REST is how to reach the cluster. It is copied. Required, unless Cluster is set.
	REST *rest.Config
	// Cluster is a connection to share; closing the smoke test leaves it open.
	Cluster *Cluster
	// Image holds the program that fetches, pinned by digest, required.
	Image stages.Image
	// Command is the program, which takes curl's options. Default "curl".
	Command []string
	// URL is what to fetch, required: an http or https URL as the cluster's pods
	// see it, in which {{.Release}} and {{.Namespace}} stand for the release's, as
	// in "http://{{.Release}}.{{.Namespace}}.svc:80/healthz/ready".
	URL string
	// Status is the HTTP status that must be returned. By default any below 400,
	// redirects not followed.
	Status int
	// Body is what the response must contain; empty for anything.
	Body string
	// Namespace is where the pod runs. Default the release's.
	Namespace string
	// Attempts and Interval are for a service that is not reachable yet: the
	// program in the pod repeats a failed fetch by itself (curl's --retry), so
	// nothing else does. Default 5 attempts, 1 second apart.
	Attempts int
	Interval time.Duration
	// RequestTimeout bounds one attempt. Default 5 seconds.
	RequestTimeout time.Duration
	// Timeout bounds everything, the pull of the image included. Default 1 minute.
	// The kubelet enforces it too, should this process die.
	Timeout time.Duration
	// CleanupTimeout bounds the deletion of the pod, which happens even after
	// cancellation. Default 10 seconds.
	CleanupTimeout time.Duration
	// User is the numeric user that the program runs as. Default 65532.
	User int64
	// ServiceAccount and ImagePullSecrets are the pod's; no token is mounted.
	ServiceAccount   string
	ImagePullSecrets []string
	// Labels are added to the pod's own, for network policies and the like.
	Labels map[string]string
	// Rules override how causes are treated; see [DefaultRule].
	Rules map[Cause]Rule
	// Redact is as in [Config].
	Redact func(text string) string
}

// Smoke fetches a URL of the release from inside the cluster, with a pod that
// lives for one verification and meets the restricted Pod Security level. It is
// safe for concurrent use.
type Smoke struct {
	config   SmokeConfig
	settings settings
	cluster  *Cluster
	own      bool // the cluster is this test's own
	url      *template.Template
}

var (
	_ stages.Verifier   = (*Smoke)(nil)
	_ stages.Closer     = (*Smoke)(nil)
	_ stages.Idempotent = (*Smoke)(nil)
)

// The defaults of [SmokeConfig].
const (
	DefaultSmokeAttempts       = 5
	DefaultSmokeInterval       = time.Second
	DefaultSmokeRequestTimeout = 5 * time.Second
	DefaultSmokeTimeout        = time.Minute
	DefaultSmokeCleanup        = 10 * time.Second
	DefaultSmokeUser           = 65532
)

// NewSmoke returns a smoke test, without asking the cluster anything yet. Its
// error matches [stages.ErrInvalid].
func NewSmoke(config SmokeConfig) (*Smoke, error) {
	s, err := prepareSmoke(config)
	if err != nil {
		return nil, fmt.Errorf("smoke test: %w", err)
	}
	if s.cluster, s.own, err = sharedOrOwn(config.Cluster, config.REST); err != nil {
		return nil, fmt.Errorf("smoke test: %w", err)
	}
	return s, nil
}

// prepareSmoke checks and completes everything but the connection.
func prepareSmoke(c SmokeConfig) (*Smoke, error) {
	c.Attempts = cmp.Or(c.Attempts, DefaultSmokeAttempts)
	c.Interval = cmp.Or(c.Interval, DefaultSmokeInterval)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, DefaultSmokeRequestTimeout)
	c.Timeout = cmp.Or(c.Timeout, DefaultSmokeTimeout)
	c.CleanupTimeout = cmp.Or(c.CleanupTimeout, DefaultSmokeCleanup)
	c.User = cmp.Or(c.User, int64(DefaultSmokeUser))
	c.Labels = maps.Clone(c.Labels)
	if len(c.Command) == 0 {
		c.Command = []string{"curl"}
	}
	switch {
	case c.Image.IsZero():
		return nil, fmt.Errorf("%w: Image is required, pinned by digest", stages.ErrInvalid)
	case c.Status != 0 && (c.Status < 100 || c.Status > 599):
		return nil, fmt.Errorf("%w: Status %d is no HTTP status", stages.ErrInvalid, c.Status)
	case c.Attempts < 0 || c.Interval < 0 || c.RequestTimeout < 0 || c.Timeout < time.Second || c.CleanupTimeout < 0:
		return nil, fmt.Errorf("%w: attempts and durations can't be negative, nor Timeout less than a second", stages.ErrInvalid)
	case c.User < 1:
		return nil, fmt.Errorf("%w: User must be a numeric user other than root", stages.ErrInvalid)
	}
	u, err := template.New("url").Option("missingkey=error").Parse(c.URL)
	if err != nil {
		return nil, errors.Join(stages.ErrInvalid, fmt.Errorf("parse the URL: %w", err))
	}
	settings, err := Config{Timeout: c.Timeout, Settle: -1, Rules: c.Rules, Redact: c.Redact, AllowUnused: true}.complete()
	if err != nil {
		return nil, err
	}
	s := &Smoke{config: c, settings: settings, url: u}
	if _, err := s.address(stages.Release{Name: "release", Namespace: "namespace"}); err != nil {
		return nil, err
	}
	return s, nil
}

// address returns the URL for a release.
func (s *Smoke) address(rel stages.Release) (string, error) {
	var b strings.Builder
	if err := s.url.Execute(&b, map[string]string{"Release": rel.Name, "Namespace": rel.Namespace}); err != nil {
		return "", errors.Join(stages.ErrInvalid, fmt.Errorf("fill in the URL: %w", err))
	}
	u, err := url.Parse(b.String())
	switch {
	case err != nil:
		return "", errors.Join(stages.ErrInvalid, fmt.Errorf("parse the URL: %w", err))
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return "", fmt.Errorf("%w: URL must be an absolute http or https URL", stages.ErrInvalid)
	case u.User != nil:
		return "", fmt.Errorf("%w: URL must not hold credentials: a pod's arguments are not secret", stages.ErrInvalid)
	}
	return u.String(), nil
}

// Verify runs the pod and judges its answer. It returns a [*Failure] with the
// pod's output if the service doesn't answer as expected or the pod can't run.
// The pod is deleted before Verify returns, on cancellation too.
func (s *Smoke) Verify(ctx context.Context, rel stages.Release) (v stages.Verification, err error) {
	subject := rel.Namespace + "/" + rel.Name
	switch {
	case rel.Image.IsZero(), rel.Name == "", rel.Namespace == "":
		return v, fmt.Errorf("smoke test of release %s: %w: the release needs an image, a name and a namespace", subject, stages.ErrInvalid)
	case ctx.Err() != nil:
		return v, fmt.Errorf("smoke test of release %s: %w", subject, context.Cause(ctx))
	}
	address, err := s.address(rel)
	if err != nil {
		return v, fmt.Errorf("smoke test of release %s: %w", subject, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.Timeout+s.settings.EvidenceTimeout, fmt.Errorf("smoke test of release %s took longer than %s", subject, s.config.Timeout))
	defer cancel()
	began := time.Now()
	pod, err := s.create(ctx, rel, address)
	if err != nil {
		return v, fmt.Errorf("smoke test of release %s: %w", subject, err)
	}
	defer func() {
		if cleanup := s.remove(ctx, pod); cleanup != nil {
			v, err = stages.Verification{}, errors.Join(err, fmt.Errorf("smoke test of release %s: %w", subject, cleanup))
		}
	}()
	stages.ReportProgress(ctx, stages.Progress{ID: "smoke", Message: "smoke test: fetching " + address})
	a, err := s.watch(ctx, subject, pod)
	if err != nil {
		return v, s.explain(ctx, err, rel, address)
	}
	answer, err := s.judge(ctx, rel, address, a)
	if err != nil {
		return v, err
	}
	return stages.Verification{Image: rel.Image, Checks: []stages.Check{{
		Name: "smoke GET " + address, Message: answer, Elapsed: time.Since(began),
	}}}, nil
}

// watch waits until the pod has ended.
func (s *Smoke) watch(ctx context.Context, subject string, pod *corev1.Pod) (*corev1.Pod, error) {
	w := session{
		cluster: s.cluster, settings: s.settings, verb: "smoke test of release", subject: subject, image: s.config.Image, only: pod.Name,
		targets:  []stages.Object{{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}},
		others:   func(context.Context) (objectsFound, error) { return objectsFound{}, nil },
		progress: func(string, string) {}, toEnd: true,
	}
	if _, err := w.run(ctx); err != nil {
		return nil, err
	}
	ended, ok := object[*corev1.Pod](w.world, pods.name, pod.Namespace, pod.Name)
	if !ok {
		return nil, fmt.Errorf("smoke test of release %s: pod %s is gone: %w", subject, pod.Name, stages.ErrIndeterminate)
	}
	return ended, nil
}

// explain turns the end of a fetch that failed into a failure of the smoke test.
func (s *Smoke) explain(ctx context.Context, err error, rel stages.Release, address string) error {
	if ctx.Err() != nil {
		return err
	}
	f, ok := errors.AsType[*Failure](err)
	if !ok {
		return err
	}
	f.Workload = stages.Object{Kind: "Smoke", Namespace: rel.Namespace, Name: rel.Name}
	if f.Decisive.ExitCode != nil && (f.Cause == Crash || f.Cause == PodFailed) {
		f.Cause = SmokeFailed
		f.Decisive.Reason, f.Decisive.Remedy = string(SmokeFailed), SmokeFailed.remedy()
		f.Decisive.Message = s.settings.clean.line(fmt.Sprintf("GET %s: %s", address, curlError(*f.Decisive.ExitCode, f.Decisive.Logs)))
	}
	return stages.Permanent(f)
}

// metrics is what the program is asked to write last: status and seconds.
var metrics = regexp.MustCompile(`\n` + metricsMark + ` (\d{3}) ([0-9.,]+)\s*$`)

const metricsMark = "fairlead-smoke:"

// judge compares the pod's output with what is expected.
func (s *Smoke) judge(ctx context.Context, rel stages.Release, address string, pod *corev1.Pod) (string, error) {
	limit := rawLogBytes
	output, err := readLog(ctx, s.cluster, pod, &corev1.PodLogOptions{Container: smokeContainer, LimitBytes: &limit})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if s.config.Body == "" && s.config.Status == 0 && apierrors.IsForbidden(err) {
			return "the program succeeded; its output may not be read", nil
		}
		err = fmt.Errorf("smoke test of release %s/%s: %w", rel.Namespace, rel.Name, err)
		if apierrors.IsForbidden(err) {
			err = stages.Permanent(err)
		}
		return "", err
	}
	body, status, seconds := output, "", ""
	if m := metrics.FindStringSubmatchIndex(output); m != nil {
		body, status, seconds = output[:m[0]], output[m[2]:m[3]], output[m[4]:m[5]]
	}
	var problem string
	switch {
	case s.config.Status != 0 && status != fmt.Sprint(s.config.Status):
		problem = fmt.Sprintf("returned status %s, expected %d", orElse(status, "unknown"), s.config.Status)
	case !strings.Contains(body, s.config.Body):
		problem = fmt.Sprintf("the response of %d bytes doesn't contain %q", len(body), cut(s.config.Body, 80))
	default:
		return fmt.Sprintf("status %s, %d bytes, %s s", orElse(status, "unknown"), len(body), orElse(seconds, "?")), nil
	}
	return "", stages.Permanent(&Failure{
		Release: rel.Namespace + "/" + rel.Name, Workload: stages.Object{Kind: "Smoke", Namespace: rel.Namespace, Name: rel.Name},
		Cause: SmokeFailed, Role: "container", Decisive: stages.Evidence{
			Subject: fmt.Sprintf("pod %s/%s", pod.Namespace, pod.Name), Container: smokeContainer, Reason: string(SmokeFailed),
			Message: s.settings.clean.line(fmt.Sprintf("GET %s: %s", address, problem)),
			Logs:    s.settings.clean.tail(output, s.settings.LogLines, s.settings.LogBytes), Remedy: SmokeFailed.remedy(),
		},
	})
}

// remove deletes the pod under a context of its own.
func (s *Smoke) remove(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.CleanupTimeout)
	defer cancel()
	now := int64(0)
	options := metav1.DeleteOptions{GracePeriodSeconds: &now}
	if pod.UID != "" {
		options.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
	}
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		err := s.cluster.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
		switch {
		case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err): // a conflict is another pod by that name
			return nil
		case refused(err), !sleep(ctx, backoff):
			return fmt.Errorf("delete pod %s/%s, which ends by itself within %s: %w", pod.Namespace, pod.Name, s.config.Timeout, err)
		}
	}
}

// Idempotent reports that a smoke test can be repeated.
func (s *Smoke) Idempotent() bool { return true }

// Close lets go of idle connections, unless they are shared.
func (s *Smoke) Close() error {
	if !s.own {
		return nil
	}
	return s.cluster.Close()
}

// labelValue makes s fit for a label.
func labelValue(s string) string {
	s = strings.Trim(cut(s, validation.LabelValueMaxLength), "-_.…")
	if len(validation.IsValidLabelValue(s)) > 0 {
		return ""
	}
	return s
}
