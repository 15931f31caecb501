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
	Asked  bool
	Said   string // "ready", "failed", or empty for nothing
	Reason string
	After  time.Duration // since the fact was to be seen
	at     time.Time
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
	o := opinion{Asked: wait, at: time.Now(), Said: saidReady}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		o.Said = ""
	case errors.As(err, &exit):
		o.Said, o.Reason = saidFailed, strings.TrimSpace(stderr.String())
	case err != nil:
		o.Said, o.Reason = saidFailed, err.Error()
	}
	return o
}

var resources = map[string]schema.GroupVersionResource{
	kindDeployment:            {Group: "apps", Version: "v1", Resource: "deployments"},
	kindStatefulSet:           {Group: "apps", Version: "v1", Resource: "statefulsets"},
	kindDaemonSet:             {Group: "apps", Version: "v1", Resource: "daemonsets"},
	kindReplicaSet:            {Group: "apps", Version: "v1", Resource: "replicasets"},
	kindReplicationController: {Version: "v1", Resource: "replicationcontrollers"},
	kindJob:                   {Group: "batch", Version: "v1", Resource: "jobs"},
	kindCronJob:               {Group: "batch", Version: "v1", Resource: "cronjobs"},
	kindPod:                   {Version: "v1", Resource: "pods"},
}

// follow calls judge with each state of an object until it has an opinion.
func follow(ctx context.Context, client dynamic.Interface, w *workload, namespace string, judge func(*unstructured.Unstructured) opinion) opinion {
	stream, err := client.Resource(resources[w.kind]).Namespace(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + w.name})
	if err != nil {
		return opinion{Asked: true, Reason: err.Error()}
	}
	defer stream.Stop()
	for {
		select {
		case <-ctx.Done():
			return opinion{Asked: true}
		case e, open := <-stream.ResultChan():
			if !open {
				return opinion{Asked: true, Reason: "its watch ended"}
			}
			o, ok := e.Object.(*unstructured.Unstructured)
			if !ok {
				continue
			}
			if said := judge(o); said.Said != "" {
				said.Asked, said.at = true, time.Now()
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
			return opinion{Said: saidFailed, Reason: err.Error()}
		case done:
			return opinion{Said: saidReady}
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
			return opinion{Said: saidFailed, Reason: err.Error()}
		case result.Status == status.FailedStatus:
			return opinion{Said: saidFailed, Reason: result.Message}
		case result.Status == status.CurrentStatus:
			return opinion{Said: saidReady}
		}
		return opinion{}
	})
}

// text tells an opinion in a cell of the table.
func (o opinion) text() string {
	switch {
	case !o.Asked:
		return "-"
	case o.Said == "":
		return "said nothing"
	case o.Said == saidReady:
		return saidReady
	}
	return fmt.Sprintf("failed, %+.1f s", o.After.Seconds())
}

// control tells an opinion on what comes up.
func (o opinion) control() string {
	if o.Asked && o.Said == saidFailed {
		return "**wrong abort**: " + strings.ReplaceAll(fmt.Sprintf("%.80s", o.Reason), "\n", " ")
	}
	return o.text()
}
