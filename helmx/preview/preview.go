package preview

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/stages"
)

// fieldManager owns the fields that this package writes.
const fieldManager = "fairlead-preview"

// Previews makes, finds and removes previews in one cluster. It is safe for concurrent
// use, by several processes too.
type Previews struct{ cfg Config }

// Preview is the environment of a pull request. Treat it as immutable.
type Preview struct {
	PullRequest PullRequest `json:"pullRequest"`
	// Namespace is where to deploy, and UID tells it from an earlier one of that name.
	Namespace string    `json:"namespace"`
	UID       types.UID `json:"uid"`
	// Created is whether it was made by this call, rather than renewed.
	Created bool `json:"created"`
	// Expires is when [Previews.Sweep] may remove it.
	Expires time.Time `json:"expires"`
	// PullSecrets are the names that pods can pull images with. Those of the default
	// service account do so without naming them.
	PullSecrets []string `json:"pullSecrets,omitempty"`
	// URL is the address by the configured template; empty without one, see
	// [Previews.URL].
	URL string `json:"url,omitempty"`
}

// New returns Previews, or an error matching [stages.ErrInvalid]. It sends nothing to
// the cluster.
func New(cfg Config) (*Previews, error) {
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	return &Previews{cfg}, nil
}

// Create makes the preview of a pull request, or mends it and renews its time to live.
// A namespace of its name that isn't one of this package's for that pull request is
// a [ForeignError]; one that is being deleted is waited for and made anew. When Create
// fails half way, the next call goes on, and [Previews.Sweep] removes what it left.
func (p *Previews) Create(ctx context.Context, pr PullRequest) (*Preview, error) {
	out, err := p.create(ctx, pr)
	if err != nil {
		return nil, fmt.Errorf("create the preview of %s: %w", pr, err)
	}
	return out, nil
}

func (p *Previews) create(ctx context.Context, pr PullRequest) (*Preview, error) {
	if err := pr.Validate(); err != nil {
		return nil, err
	}
	// Before anything is made, because these are what a wrong configuration lacks.
	secrets, err := p.pullSecrets(ctx)
	if err != nil {
		return nil, err
	}
	ns, created, err := p.claim(ctx, pr)
	if err != nil {
		return nil, err
	}
	expires, err := expiry(ns)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", ns.Name, err)
	}
	if err := p.furnish(ctx, ns.Name, secrets); err != nil {
		return nil, err
	}
	out := &Preview{PullRequest: pr, Namespace: ns.Name, UID: ns.UID, Created: created, Expires: expires}
	for _, ref := range p.cfg.PullSecrets {
		out.PullSecrets = append(out.PullSecrets, ref.Name)
	}
	if p.cfg.URL != "" {
		out.URL = p.cfg.expandURL(ns.Name, pr.Number)
	}
	return out, nil
}

// claim makes the namespace or renews it. Each turn looks and does one thing, which
// fails if somebody else has changed what was seen.
func (p *Previews) claim(ctx context.Context, pr PullRequest) (ns *corev1.Namespace, created bool, err error) {
	name := namespaceName(p.cfg.Prefix, pr)
	api := p.cfg.Client.CoreV1().Namespaces()
	for ctx.Err() == nil {
		found, err := api.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			fresh := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
			p.mark(fresh, pr, p.cfg.Now().Add(p.cfg.TTL))
			ns, err = api.Create(ctx, fresh, metav1.CreateOptions{FieldManager: fieldManager})
			if err == nil {
				return ns, true, nil
			}
			if !apierrors.IsAlreadyExists(err) {
				return nil, false, fmt.Errorf("create namespace %s: %w", name, err)
			}
			continue
		case err != nil:
			return nil, false, fmt.Errorf("look at namespace %s: %w", name, err)
		}
		if err := p.own(found, pr); err != nil {
			return nil, false, err
		}
		if found.DeletionTimestamp != nil {
			stages.ReportProgress(ctx, stages.Progress{Message: "waiting for the former namespace " + name + " to be gone"})
			if err := p.awaitGone(ctx, found); err != nil {
				return nil, false, err
			}
			continue
		}
		p.mark(found, pr, p.cfg.Now().Add(p.cfg.TTL))
		ns, err = api.Update(ctx, found, metav1.UpdateOptions{FieldManager: fieldManager})
		if err == nil && ns.DeletionTimestamp == nil {
			return ns, false, nil
		}
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return nil, false, fmt.Errorf("renew namespace %s: %w", name, err)
		}
	}
	return nil, false, fmt.Errorf("claim namespace %s: %w", name, context.Cause(ctx))
}

// own returns a [ForeignError] unless ns is the preview of pr.
func (p *Previews) own(ns *corev1.Namespace, pr PullRequest) error {
	found, err := identify(p.cfg.Prefix, ns)
	switch {
	case err != nil:
		return &ForeignError{Namespace: ns.Name, Reason: err.Error()}
	case found.Repository != pr.Repository || found.Number != pr.Number:
		return &ForeignError{Namespace: ns.Name, Reason: fmt.Sprintf("it is that of %s", found)}
	}
	return nil
}

// Delete removes the preview of a pull request, and returns when it is gone. That there is
// none is no error. A namespace that hangs is a [StuckError], one that isn't this
// package's for that pull request a [ForeignError].
func (p *Previews) Delete(ctx context.Context, pr PullRequest) error {
	if err := p.remove(ctx, pr); err != nil {
		return fmt.Errorf("delete the preview of %s: %w", pr, err)
	}
	return nil
}

func (p *Previews) remove(ctx context.Context, pr PullRequest) error {
	if err := pr.Validate(); err != nil {
		return err
	}
	name := namespaceName(p.cfg.Prefix, pr)
	for ctx.Err() == nil {
		ns, err := p.cfg.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("look at namespace %s: %w", name, err)
		}
		if err := p.own(ns, pr); err != nil {
			return err
		}
		if ns.DeletionTimestamp == nil {
			err := p.deleteAsSeen(ctx, ns)
			if apierrors.IsConflict(err) {
				continue // It has changed; look again whose it is.
			}
			if err != nil {
				return err
			}
		}
		return p.awaitGone(ctx, ns)
	}
	return fmt.Errorf("delete namespace %s: %w", name, context.Cause(ctx))
}

// deleteAsSeen deletes ns unless it has changed since it was read: it may have been
// renewed, or be another one by now.
func (p *Previews) deleteAsSeen(ctx context.Context, ns *corev1.Namespace) error {
	err := p.cfg.Client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &ns.UID, ResourceVersion: &ns.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete namespace %s: %w", ns.Name, err)
	}
	return nil
}
