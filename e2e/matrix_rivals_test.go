package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/kubectl/pkg/polymorphichelpers"
)

// rivalCap is for how long the others may look before they "did not say".
const rivalCap = 30 * time.Second

// opinion is what a tool said of a rollout, and when.
type opinion struct {
	asked  bool
	said   string // "ready", "failed", or empty for nothing
	at     time.Time
	reason string
}

const (
	saidReady  = "ready"
	saidFailed = "failed"
)

// helmWait runs the real helm upgrade --install --wait.
func helmWait(ctx context.Context, helm helmCommand, chart string, wait bool) opinion {
	args := []string{"upgrade", "--install", "parts", chart}
	if wait {
		args = append(args, "--wait", "--wait-for-jobs", "--timeout", (rivalCap + 30*time.Second).String())
	}
	cmd := helm.command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	o := opinion{asked: wait, at: time.Now(), said: saidReady}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		o.said = ""
	case errors.As(err, &exit):
		o.said, o.reason = saidFailed, strings.TrimSpace(stderr.String())
	case err != nil:
		o.said, o.reason = saidFailed, err.Error()
	}
	return o
}

var resources = map[string]schema.GroupVersionResource{
	kindDeployment:  {Group: "apps", Version: "v1", Resource: "deployments"},
	kindStatefulSet: {Group: "apps", Version: "v1", Resource: "statefulsets"},
	kindDaemonSet:   {Group: "apps", Version: "v1", Resource: "daemonsets"},
	kindJob:         {Group: "batch", Version: "v1", Resource: "jobs"},
	kindPod:         {Version: "v1", Resource: "pods"},
}

// follow calls judge with each state of an object until it has an opinion.
func follow(ctx context.Context, client dynamic.Interface, w *workload, namespace string, judge func(*unstructured.Unstructured) opinion) opinion {
	stream, err := client.Resource(resources[w.kind]).Namespace(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + w.name})
	if err != nil {
		return opinion{asked: true, reason: err.Error()}
	}
	defer stream.Stop()
	for {
		select {
		case <-ctx.Done():
			return opinion{asked: true}
		case e, open := <-stream.ResultChan():
			if !open {
				return opinion{asked: true, reason: "its watch ended"}
			}
			o, ok := e.Object.(*unstructured.Unstructured)
			if !ok {
				continue
			}
			if said := judge(o); said.said != "" {
				said.asked, said.at = true, time.Now()
				return said
			}
		}
	}
}

// kubectlStatus is the computation of kubectl rollout status, which the command
// runs on every change just so.
func kubectlStatus(ctx context.Context, client dynamic.Interface, w *workload, namespace string) opinion {
	viewer, err := polymorphichelpers.StatusViewerFor(schema.GroupKind{Group: resources[w.kind].Group, Kind: w.kind})
	if err != nil {
		return opinion{} // kubectl has no such command for this kind
	}
	return follow(ctx, client, w, namespace, func(o *unstructured.Unstructured) opinion {
		_, done, err := viewer.Status(o, 0)
		switch {
		case err != nil:
			return opinion{said: saidFailed, reason: err.Error()}
		case done:
			return opinion{said: saidReady}
		}
		return opinion{}
	})
}

// kstatus is the status library's computation, as Flux and Helm 4 use it.
func kstatus(ctx context.Context, client dynamic.Interface, w *workload, namespace string) opinion {
	return follow(ctx, client, w, namespace, func(o *unstructured.Unstructured) opinion {
		result, err := status.Compute(o)
		switch {
		case err != nil:
			return opinion{said: saidFailed, reason: err.Error()}
		case result.Status == status.FailedStatus:
			return opinion{said: saidFailed, reason: result.Message}
		case result.Status == status.CurrentStatus:
			return opinion{said: saidReady}
		}
		return opinion{}
	})
}

// text tells an opinion in a cell of the table, beside when the truth was to be
// seen.
func (o opinion) text(fact time.Time) string {
	switch {
	case !o.asked:
		return "-"
	case o.said == "":
		return "said nothing"
	case o.said == saidReady:
		return saidReady
	}
	return fmt.Sprintf("failed, %+.1f s", o.at.Sub(fact).Seconds())
}
