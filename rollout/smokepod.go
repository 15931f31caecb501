package rollout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

const (
	smokeContainer  = "fetch"
	managedByLabel  = "app.kubernetes.io/managed-by"
	componentLabel  = "app.kubernetes.io/component"
	instanceLabel   = "fairlead.dev/smoke-of" // not the usual instance label, which Services select by
	smokeComponent  = "smoke-test"
	smokeNamePrefix = "smoke-"
)

// pod returns the pod that fetches address for a release.
func (s *Smoke) pod(rel stages.Release, address string) *corev1.Pod {
	c := s.config
	seconds := int64((c.Timeout + time.Second - 1) / time.Second)
	off, on := false, true
	labels := map[string]string{}
	maps.Copy(labels, c.Labels)
	labels[managedByLabel], labels[componentLabel] = "fairlead", smokeComponent
	labels[instanceLabel] = labelValue(rel.Name)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: orElse(c.Namespace, rel.Namespace),
			Name:      smokeNamePrefix + strings.Trim(cut(rel.Name, 40), "-.…") + "-" + strings.ToLower(rand.Text()[:10]),
			Labels:    labels,
		},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, ActiveDeadlineSeconds: &seconds,
			ServiceAccountName: c.ServiceAccount, AutomountServiceAccountToken: &off, EnableServiceLinks: &off,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &on, RunAsUser: &c.User, RunAsGroup: &c.User,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: smokeContainer, Image: c.Image.String(), Command: c.Command, Args: s.arguments(address),
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &off, Privileged: &off, ReadOnlyRootFilesystem: &on,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("10m"), corev1.ResourceMemory: quantity.MustParse("32Mi")},
					Limits:   corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("500m"), corev1.ResourceMemory: quantity.MustParse("64Mi")},
				},
			}},
		},
	}
	for _, name := range c.ImagePullSecrets {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return p
}

// arguments are curl's. A fetch that fails in any way is repeated by curl.
func (s *Smoke) arguments(address string) []string {
	c := s.config
	args := []string{
		"--silent", "--show-error", "--max-time", seconds(c.RequestTimeout),
		"--retry", fmt.Sprint(c.Attempts - 1), "--retry-delay", seconds(max(c.Interval, time.Second)), "--retry-all-errors",
		"--write-out", `\n` + metricsMark + ` %{http_code} %{time_total}\n`,
	}
	if c.Status < 400 {
		args = append(args, "--fail")
	}
	return append(args, "--", address)
}

func seconds(d time.Duration) string { return fmt.Sprint(int64((d + time.Second - 1) / time.Second)) }

// create makes the pod, and removes what a killed process may have left.
func (s *Smoke) create(ctx context.Context, rel stages.Release, address string) (*corev1.Pod, error) {
	p := s.pod(rel, address)
	s.sweep(ctx, p)
	created, err := s.cluster.client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
	switch {
	case err == nil:
		return created, nil
	case ctx.Err() != nil:
		// The server may have made it all the same.
		return nil, errors.Join(context.Cause(ctx), s.remove(ctx, p))
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsNotFound(err):
		cause, _ := classify(refusalPatterns, "FailedCreate", err.Error())
		return nil, stages.Permanent(fmt.Errorf("create pod %s/%s: %w (%s)", p.Namespace, p.Name, err, cause.remedy()))
	}
	return nil, errors.Join(fmt.Errorf("create pod %s/%s: %w", p.Namespace, p.Name, err), s.remove(ctx, p))
}

// sweep deletes ended pods of earlier smoke tests of the release, which are only
// there if their process was killed. It leaves recent ones to those who read
// them, and doesn't mind failing: the pods are harmless.
func (s *Smoke) sweep(ctx context.Context, p *corev1.Pod) {
	list, err := s.cluster.client.CoreV1().Pods(p.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: fmt.Sprintf("%s=fairlead,%s=%s,%s=%s", managedByLabel, componentLabel, smokeComponent, instanceLabel, p.Labels[instanceLabel]),
	})
	if err != nil {
		return
	}
	for _, old := range list.Items {
		over := old.Status.Phase == corev1.PodSucceeded || old.Status.Phase == corev1.PodFailed
		if over && time.Since(old.CreationTimestamp.Time) > 2*s.config.Timeout+time.Minute {
			_ = s.cluster.client.CoreV1().Pods(old.Namespace).Delete(ctx, old.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(old.UID))})
		}
	}
}

// curlCodes are the exit codes of curl that a smoke test meets, from its manual.
var curlCodes = map[int32]string{
	3: "malformed URL", 6: "the host's name doesn't resolve", 7: "connection refused", 22: "HTTP error status",
	28: "timed out", 35: "TLS handshake failed", 47: "too many redirects", 52: "empty reply", 56: "connection reset", 60: "certificate not trusted",
}

// curlError says why curl failed: its last message, or what its exit code means.
func curlError(code int32, logs []string) string {
	meaning := fmt.Sprintf("exit code %d", code)
	if m, known := curlCodes[code]; known {
		meaning += " (" + m + ")"
	}
	for i := len(logs) - 1; i >= 0; i-- {
		if message, ok := strings.CutPrefix(logs[i], "curl: "); ok {
			return message + ": " + meaning
		}
	}
	return meaning
}
