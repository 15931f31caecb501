package helmx

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/resource"
)

const (
	// hookLogLines are kept of each container of a failed hook.
	hookLogLines = 20
	// hookLogTime bounds the reading of logs, which are an extra.
	hookLogTime = 5 * time.Second
)

// hookLogs returns the last lines that the pods of a hook wrote. It must be called
// before Helm deletes the hook. What can't be read is left out.
func (s *session) hookLogs(info *resource.Info) []string {
	ctx, cancel := context.WithTimeout(s.ctx, hookLogTime)
	defer cancel()
	options := metav1.ListOptions{FieldSelector: "metadata.name=" + info.Name}
	if info.Mapping.GroupVersionKind.Kind == "Job" {
		options = metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + info.Name}
	}
	pods, err := s.clients.CoreV1().Pods(info.Namespace).List(ctx, options)
	if err != nil {
		s.debug("list the pods of %s: %s", describeInfo(info), err)
		return nil
	}
	secrets := secretLines(s.secrets)
	var out []string
	for _, pod := range pods.Items {
		for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			out = append(out, s.tail(ctx, &pod, c.Name, secrets)...)
		}
	}
	return out
}

// secretLines are secrets as they show in logs: line by line.
func secretLines(secrets []string) []string {
	var out []string
	for _, secret := range secrets {
		for line := range strings.Lines(secret) {
			if line = strings.TrimSpace(line); len(line) >= shortest {
				out = append(out, line)
			}
		}
	}
	return out
}

func (s *session) tail(ctx context.Context, pod *corev1.Pod, container string, secrets []string) []string {
	lines := int64(hookLogLines)
	stream, err := s.clients.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: container, TailLines: &lines}).Stream(ctx)
	if err != nil {
		s.debug("read the log of container %s of pod %s: %s", container, pod.Name, err)
		return nil
	}
	defer stream.Close()
	var out []string
	for scanner := bufio.NewScanner(stream); scanner.Scan(); {
		line, _ := redact(scanner.Text(), secrets)
		out = append(out, fmt.Sprintf("%s/%s: %s", pod.Name, container, line))
	}
	return out
}
