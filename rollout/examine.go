package rollout

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// Examine returns the last lines that four containers of rel's image at most have written,
// in pods of rel's workloads: first of the pods that were made since rel began, of those
// the ones that are not ready or were restarted, and then the newest. Of a container that
// was restarted since rel began, it is what it wrote before. Examine takes no longer than
// Config.EvidenceTimeout. Whoever may not list pods gets an error, and whoever may not read
// logs evidence that says so.
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
			if pod := &list.Items[i]; madeFor(pod, rel) {
				out = append(out, containersOf(pod, rel)...)
			}
		}
		pages.Continue = list.Continue
	}
	first := func(yes bool) int {
		if yes {
			return 0
		}
		return 1
	}
	younger := func(pod *corev1.Pod) bool { return pod.CreationTimestamp.After(rel.Began.Add(-clockSkew)) }
	slices.SortStableFunc(out, func(a, b finding) int {
		return cmp.Or(first(!over(a.pod))-first(!over(b.pod)), first(younger(a.pod))-first(younger(b.pod)),
			first(!condition(a.pod, corev1.PodReady))-first(!condition(b.pod, corev1.PodReady)), cmp.Compare(b.restarts, a.restarts),
			b.pod.CreationTimestamp.Compare(a.pod.CreationTimestamp.Time))
	})
	return out, nil
}

// madeFor reports whether a pod is of one of the release's workloads, by the names that
// Kubernetes gives to what it makes for them. Of other controllers' it isn't known.
func madeFor(pod *corev1.Pod, rel stages.Release) bool {
	owner := subject{kind: "Pod", name: pod.Name}
	if ref := metav1.GetControllerOf(pod); ref != nil {
		owner = subject{kind: ref.Kind, name: ref.Name}
	}
	deployment, templated := strings.CutSuffix(owner.name, "-"+pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey])
	return slices.ContainsFunc(rel.Objects, func(o stages.Object) bool {
		switch owner.kind {
		case "ReplicaSet":
			return templated && o.Kind == "Deployment" && o.Name == deployment || o.Kind == owner.kind && o.Name == owner.name
		case "Job":
			return o.Kind == "CronJob" && strings.HasPrefix(owner.name, o.Name+"-") || o.Kind == owner.kind && o.Name == owner.name
		case "Pod", "StatefulSet", "DaemonSet", "ReplicationController":
			return o.Kind == owner.kind && o.Name == owner.name
		}
		return true
	})
}

// containersOf returns a finding for each container of a pod that has started the image.
func containersOf(pod *corev1.Pod, rel stages.Release) (out []finding) {
	specs := specImages(pod)
	for i, s := range allStatuses(pod) {
		if p, _ := prove(rel.Image, specs[s.Name], s, false); p != proven && p != pinned {
			continue
		}
		f := finding{subject: podSubject(pod), pod: pod, container: s.Name, role: roleOf(pod, i, s.Name), restarts: s.RestartCount, reason: "Running"}
		switch state, last := s.State, s.LastTerminationState.Terminated; {
		case state.Terminated != nil:
			f.reason, f.exit = state.Terminated.Reason, state.Terminated
		case state.Waiting != nil:
			f.reason, f.exit = state.Waiting.Reason, last
		case last != nil && last.FinishedAt.After(rel.Began):
			f.exit = last
		}
		out = append(out, f)
	}
	return out
}

// testimony is what a container that runs says of itself.
func (w witness) testimony(ctx context.Context, f finding) stages.Evidence {
	w = w.knowing(f)
	message, command := "the pod is not ready", logs
	switch {
	case over(f.pod):
		message = "the pod has ended"
	case condition(f.pod, corev1.PodReady):
		message = "the pod is ready"
	}
	if f.restarts > 0 {
		message += fmt.Sprintf(", and the container was restarted %d times", f.restarts)
	}
	e := stages.Evidence{
		Subject: fmt.Sprintf("pod %s/%s", f.pod.Namespace, f.pod.Name), Container: f.container, Reason: f.reason, Message: message,
		Logs: w.logs(ctx, f),
	}
	if f.exit != nil {
		e.ExitCode = &f.exit.ExitCode
		if f.restarts > 0 {
			command = previousLogs
		}
	}
	e.Command = Advice{Commands: []string{command}}.filled(w.names(f)).Commands[0]
	if owner := metav1.GetControllerOf(f.pod); owner != nil {
		e.Owners = []string{subject{owner.Kind, f.pod.Namespace, owner.Name, owner.UID}.String()}
	}
	return e
}
