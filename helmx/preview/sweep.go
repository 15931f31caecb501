package preview

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/fairlead-dev/fairlead/stages"
)

// SweepOptions change what [Previews.Sweep] does.
type SweepOptions struct {
	// DryRun removes nothing and reports what would be.
	DryRun bool
}

// Outcome is what became of a namespace in a sweep.
type Outcome string

// The outcomes.
const (
	// Removed: it had expired, and is gone.
	Removed Outcome = "removed"
	// Expired: it has expired; this was a dry run.
	Expired Outcome = "expired"
	// Renewed: it had expired, and was renewed before it could be removed.
	Renewed Outcome = "renewed"
	// Alive: it has not expired.
	Alive Outcome = "alive"
	// Foreign: it bears some of the labels, but isn't a preview that this package
	// made under this prefix. It was left alone, see Problem.
	Foreign Outcome = "foreign"
	// Unclear: it is a preview without a readable expiry. It was left alone.
	Unclear Outcome = "unclear"
	// Failed: it could not be removed, or isn't gone yet, see Problem.
	Failed Outcome = "failed"
)

// Swept is what became of one namespace.
type Swept struct {
	Namespace string  `json:"namespace"`
	Outcome   Outcome `json:"outcome"`
	// PullRequest and Expires are set unless the outcome is Foreign, Expires
	// unless it is Unclear.
	PullRequest PullRequest `json:"pullRequest,omitzero"`
	Expires     time.Time   `json:"expires,omitzero"`
	// Problem says why the outcome is Foreign, Unclear or Failed.
	Problem string `json:"problem,omitempty"`
}

// Sweep removes every preview that has expired, and returns what became of each
// namespace that is labelled as one, by name. It goes on past failures, and returns
// them joined; each is in the report too. What was removed is gone when it returns.
func (p *Previews) Sweep(ctx context.Context, options SweepOptions) ([]Swept, error) {
	list, err := p.cfg.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: selectPreviews()})
	if err != nil {
		return nil, fmt.Errorf("sweep the previews: list namespaces: %w", err)
	}
	now := p.cfg.Now()
	swept := make([]Swept, len(list.Items))
	var going []int
	var problems []error
	fail := func(i int, err error) {
		swept[i].Outcome, swept[i].Problem = Failed, err.Error()
		problems = append(problems, fmt.Errorf("sweep namespace %s: %w", swept[i].Namespace, err))
	}
	for i := range list.Items {
		ns := &list.Items[i]
		swept[i] = p.examine(ns, now)
		if swept[i].Outcome != Expired || options.DryRun {
			continue
		}
		if ns.DeletionTimestamp == nil {
			err := p.deleteAsSeen(ctx, ns)
			if apierrors.IsConflict(err) {
				swept[i].Outcome = Renewed
				continue
			}
			if err != nil {
				fail(i, err)
				continue
			}
			stages.ReportProgress(ctx, stages.Progress{Message: "removing the expired preview " + ns.Name})
		}
		going = append(going, i)
	}
	// All are being deleted by now. Of those that hang, each takes the whole time.
	waits := make([]error, len(list.Items))
	var waiting sync.WaitGroup
	for _, i := range going {
		waiting.Go(func() { waits[i] = p.awaitGone(ctx, &list.Items[i]) })
	}
	waiting.Wait()
	for _, i := range going {
		if waits[i] != nil {
			fail(i, waits[i])
			continue
		}
		swept[i].Outcome = Removed
	}
	return swept, errors.Join(problems...)
}

// examine says whether a namespace may be removed: Expired, or why not.
func (p *Previews) examine(ns *corev1.Namespace, now time.Time) Swept {
	out := Swept{Namespace: ns.Name}
	pr, err := identify(p.cfg.Prefix, ns)
	if err != nil {
		out.Outcome, out.Problem = Foreign, err.Error()
		return out
	}
	out.PullRequest = pr
	if out.Expires, err = expiry(ns); err != nil {
		out.Outcome, out.Problem = Unclear, err.Error()
		return out
	}
	out.Outcome = Alive
	if !now.Before(out.Expires) {
		out.Outcome = Expired
	}
	return out
}

// List returns the previews that there are, of this prefix.
func (p *Previews) List(ctx context.Context) ([]Preview, error) {
	list, err := p.cfg.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: selectPreviews()})
	if err != nil {
		return nil, fmt.Errorf("list the previews: %w", err)
	}
	var out []Preview
	for i := range list.Items {
		ns := &list.Items[i]
		pr, err := identify(p.cfg.Prefix, ns)
		if err != nil || ns.DeletionTimestamp != nil {
			continue
		}
		found := Preview{PullRequest: pr, Namespace: ns.Name, UID: ns.UID}
		if expires, err := expiry(ns); err == nil {
			found.Expires = expires
		}
		if p.cfg.URL != "" {
			found.URL = p.cfg.expandURL(ns.Name, pr.Number)
		}
		out = append(out, found)
	}
	return out, nil
}

func selectPreviews() string {
	selector := labels.SelectorFromSet(labels.Set{LabelManagedBy: ManagedBy})
	if marked, err := labels.NewRequirement(LabelRepository, selection.Exists, nil); err == nil {
		selector = selector.Add(*marked)
	}
	return selector.String()
}
