package rollout

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// Examine returns the last lines that containers of rel's image have written, those of
// four at most in the namespace of rel: first of those that were restarted or whose pod is not
// ready, then of the newest. It takes no longer than Config.EvidenceTimeout. Whoever may not list pods
// gets an error, and whoever may not read logs evidence that says so.
func (v *Verifier) Examine(ctx context.Context, rel stages.Release) ([]stages.Evidence, error) {
	subject := rel.Namespace + "/" + rel.Name
	if err := validate(rel); err != nil {
		return nil, fmt.Errorf("examine release %s: %w", subject, err)
	}
	ctx, cancel := context.WithTimeout(ctx, v.settings.EvidenceTimeout)
	defer cancel()
	running, err := v.running(ctx, rel)
	if err != nil {
		return nil, fmt.Errorf("examine release %s: list the pods in namespace %s: %w", subject, rel.Namespace, err)
	}
	w := witness{cluster: v.cluster, settings: v.settings, release: rel.Name}
	out := make([]stages.Evidence, min(len(running), maxDetailed))
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() { out[i] = w.testimony(ctx, running[i]) })
	}
	wg.Wait()
	return out, nil
}

// running returns a finding for each container that runs the release's image, the most
// telling first.
func (v *Verifier) running(ctx context.Context, rel stages.Release) ([]finding, error) {
	var out []finding
	pages := metav1.ListOptions{Limit: pageSize}
	for more := true; more; more = pages.Continue != "" {
		list, err := v.cluster.client.CoreV1().Pods(rel.Namespace).List(ctx, pages)
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			out = append(out, containersOf(&list.Items[i], rel.Image)...)
		}
		pages.Continue = list.Continue
	}
	slices.SortStableFunc(out, func(a, b finding) int {
		return cmp.Or(-cmp.Compare(a.restarts, b.restarts), cmp.Compare(readiness(a.pod), readiness(b.pod)),
			b.pod.CreationTimestamp.Compare(a.pod.CreationTimestamp.Time))
	})
	return out, nil
}

// readiness is 1 for a pod that is ready.
func readiness(pod *corev1.Pod) int {
	if condition(pod, corev1.PodReady) {
		return 1
	}
	return 0
}

// containersOf returns a finding for each container of a pod that has started img.
func containersOf(pod *corev1.Pod, img stages.Image) (out []finding) {
	specs := specImages(pod)
	for i, s := range allStatuses(pod) {
		if p, _ := prove(img, specs[s.Name], s, false); p != proven && p != pinned {
			continue
		}
		f := finding{subject: podSubject(pod), pod: pod, container: s.Name, role: roleOf(pod, i, s.Name), restarts: s.RestartCount, reason: "Running"}
		switch state := s.State; {
		case state.Waiting != nil:
			f.reason = state.Waiting.Reason
		case state.Terminated != nil:
			f.reason, f.exit = state.Terminated.Reason, state.Terminated
		}
		out = append(out, f)
	}
	return out
}

// testimony is what a container that runs says of itself.
func (w witness) testimony(ctx context.Context, f finding) stages.Evidence {
	w = w.knowing(f)
	message := "the pod is not ready"
	if condition(f.pod, corev1.PodReady) {
		message = "the pod is ready"
	}
	if f.restarts > 0 {
		message += fmt.Sprintf(", and the container was restarted %d times", f.restarts)
	}
	e := stages.Evidence{
		Subject: fmt.Sprintf("pod %s/%s", f.pod.Namespace, f.pod.Name), Container: f.container, Reason: f.reason, Message: message,
		Logs: w.logs(ctx, f), Command: Advice{Commands: []string{logs}}.filled(w.names(f)).Commands[0],
	}
	if owner := metav1.GetControllerOf(f.pod); owner != nil {
		e.Owners = []string{subject{owner.Kind, f.pod.Namespace, owner.Name, owner.UID}.String()}
	}
	return e
}
