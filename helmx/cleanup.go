package helmx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"helm.sh/helm/v3/pkg/release"
	helmtime "helm.sh/helm/v3/pkg/time"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// info returns a client for an object, or nil for a kind that the cluster doesn't
// serve, of which no object can exist.
func (s *session) info(o object) (*resource.Info, error) {
	mapping, err := s.mapper.reach(o.gvk())
	if meta.IsNoMatchError(err) {
		return nil, nil // See above.
	}
	if err != nil {
		return nil, fmt.Errorf("look up kind %s: %w", o.id.Kind, err)
	}
	client, err := s.clientFor(mapping)
	if err != nil {
		return nil, err
	}
	return &resource.Info{Client: client, Mapping: mapping, Namespace: o.id.Namespace, Name: o.id.Name}, nil
}

// clientFor returns a client for objects of a kind.
func (s *session) clientFor(mapping *meta.RESTMapping) (*rest.RESTClient, error) {
	cfg := rest.CopyConfig(s.rest)
	cfg.APIPath = "/apis"
	if mapping.GroupVersionKind.Group == "" {
		cfg.APIPath = "/api"
	}
	gv := mapping.GroupVersionKind.GroupVersion()
	cfg.GroupVersion = &gv
	cfg.NegotiatedSerializer = resource.UnstructuredPlusDefaultContentConfig().NegotiatedSerializer
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", mapping.GroupVersionKind.Kind, err)
	}
	return client, nil
}

// live returns an object as the cluster has it, or nil.
func (s *session) live(o object) (*unstructured.Unstructured, error) {
	info, err := s.info(o)
	if info == nil || err != nil {
		return nil, err
	}
	return look(resource.NewHelper(info.Client, info.Mapping), info)
}

// leftovers returns the live objects that revisions of own consist of and to
// doesn't, that belong to the release, and that are not to be kept. A nil to
// stands for the newest of own, which Helm deletes itself.
func (s *session) leftovers(own []*release.Release, to *release.Release) ([]object, error) {
	if to == nil {
		to = newest(own)
	}
	return s.beyond(own, to, func(rel *release.Release, o object, live *unstructured.Unstructured) (bool, error) {
		return !s.kube.spares(o.identity()) && s.owns(rel.Name, live) && !(object{content: live.Object}).kept(), nil
	})
}

// beyond returns the objects that revisions of own consist of and to, if any,
// doesn't, that live, that the chart doesn't keep, and that pick accepts.
func (s *session) beyond(own []*release.Release, to *release.Release, pick func(*release.Release, object, *unstructured.Unstructured) (bool, error)) ([]object, error) {
	known := map[identity]object{}
	if to != nil {
		stay, err := parseObjects(to.Manifest, s.namespace, s.mapper)
		if err != nil {
			return nil, err
		}
		known = index(stay)
	}
	var out []object
	for _, rel := range own {
		objects, err := parseObjects(rel.Manifest, s.namespace, s.mapper)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			if _, ok := known[o.identity()]; ok || o.kept() {
				continue
			}
			known[o.identity()] = o
			live, err := s.live(o)
			if err != nil {
				return nil, s.explain(err)
			}
			if live == nil {
				continue
			}
			picked, err := pick(rel, o, live)
			if err != nil {
				return nil, err
			}
			if picked {
				out = append(out, o)
			}
		}
	}
	return out, nil
}

// tidy deletes what revisions that came to nothing since the last good one have
// left, and rel doesn't have, but for what they had taken over, and for definitions and
// namespaces, with which more may go. Helm compares with the last good one only. The release
// is good already: what can't be deleted is told, and left.
func (s *session) tidy(history []*release.Release, rel *release.Release) {
	var failed []*release.Release
	for _, r := range slices.Backward(history) {
		if r.Info.Status == release.StatusDeployed || r.Version == rel.Version {
			break
		}
		failed = append(failed, r)
	}
	slices.Reverse(failed)
	if len(failed) == 0 {
		return
	}
	stale, err := s.leftovers(failed, rel)
	if err == nil {
		// What they took over was somebody else's, and was in no plan.
		var older []object
		if older, err = s.adopted(failed, rel); err == nil {
			had := index(older)
			stale = slices.DeleteFunc(stale, func(o object) bool {
				_, adopted := had[o.identity()]
				return adopted || o.isCRD() || o.isNamespace()
			})
			err = s.remove(stale)
		}
	}
	if err != nil && s.ctx.Err() == nil {
		text, _ := redact(s.explain(err).Error(), s.secrets)
		s.log.Warn("what failed revisions have left could not be deleted", "release", rel.Name, "error", text)
		stages.ReportProgress(s.ctx, stages.Progress{Message: "warning: what failed revisions have left could not be deleted: " + text})
	}
}

// adopted returns the objects that revisions of own, oldest first, have and to, if any,
// has not, and that those didn't make: the chart took them over, or found them left, or
// somebody else has made them since.
func (s *session) adopted(own []*release.Release, to *release.Release) ([]object, error) {
	return s.beyond(own, to, func(first *release.Release, _ object, live *unstructured.Unstructured) (bool, error) {
		if !s.owns(first.Name, live) {
			return true, nil // It was made since, where the run came to nothing.
		}
		label := foundLabel(live.GetUID())
		for _, rel := range own {
			what := noted(rel)[label]
			if what == foundForeign || what == foundLeft && rel == first {
				return true, nil // What a later one has found left is the first one's.
			}
		}
		if noted(first)[labelFound] != "" {
			return false, nil
		}
		recorded, err := s.recordedAt(first)
		created := live.GetCreationTimestamp()
		return created.Before(&recorded), err
	})
}

// find tells the session what base has, the deployed revision of the named release. Of
// objects that base doesn't have, it marks those that live, and what they are to the release.
func (s *session) find(name string, objects []object, base *release.Release) error {
	known := map[identity]object{}
	if base != nil {
		had, err := parseObjects(base.Manifest, s.namespace, s.mapper)
		if err != nil {
			return fmt.Errorf("revision %d: %w", base.Version, err)
		}
		known = index(had)
	}
	s.kube.base = known
	var group errgroup.Group
	group.SetLimit(abreast)
	var mu sync.Mutex
	found := 0
	for _, o := range objects {
		if _, ok := known[o.identity()]; ok {
			continue
		}
		group.Go(func() error {
			live, err := s.live(o)
			if err != nil || live == nil {
				return err
			}
			what := foundForeign
			if s.owns(name, live) {
				what = foundLeft
			}
			mu.Lock()
			defer mu.Unlock()
			found++
			s.marks[foundLabel(live.GetUID())] = what
			return nil
		})
	}
	err := group.Wait()
	s.marks[labelFound] = strconv.Itoa(found)
	return s.explain(err)
}

// spare keeps objects from being deleted in this session. It returns what to say of
// them.
func (s *session) spare(objects []object) []string {
	var out []string
	s.kube.spared = map[identity]bool{}
	for _, o := range objects {
		s.kube.spared[o.identity()] = true
		out = append(out, o.id.String()+" was there before the run, or somebody else has made it since; it is left as it is")
	}
	return out
}

// owns reports whether a live object belongs to the release, as Helm marks it.
func (s *session) owns(name string, live *unstructured.Unstructured) bool {
	a := live.GetAnnotations()
	return a["meta.helm.sh/release-name"] == name && a["meta.helm.sh/release-namespace"] == s.namespace
}

// remove deletes objects, dependents in the background.
func (s *session) remove(objects []object) error {
	policy := metav1.DeletePropagationBackground
	for _, o := range objects {
		info, err := s.info(o)
		if err != nil {
			return err
		}
		if info == nil {
			continue
		}
		_, err = resource.NewHelper(info.Client, info.Mapping).DeleteWithOptions(info.Namespace, info.Name, &metav1.DeleteOptions{PropagationPolicy: &policy})
		if err != nil && !apierrors.IsNotFound(err) {
			return s.explain(fmt.Errorf("delete %s: %w", o.id, err))
		}
	}
	return nil
}

// awaitDeletions waits until objects of a revision that are being deleted are gone:
// what is written into those is lost with them.
func (s *session) awaitDeletions(rel *release.Release, timeout time.Duration) error {
	objects, err := parseObjects(rel.Manifest, s.namespace, s.mapper)
	if err != nil {
		return err
	}
	var going []object
	for _, o := range objects {
		live, err := s.live(o)
		if err != nil {
			return s.explain(err)
		}
		if live != nil && live.GetDeletionTimestamp() != nil {
			going = append(going, o)
		}
	}
	return s.awaitNone(going, timeout)
}

// removeAndWait deletes objects and waits until they are gone.
func (s *session) removeAndWait(objects []object, timeout time.Duration) error {
	if err := s.remove(objects); err != nil {
		return err
	}
	return s.awaitNone(objects, timeout)
}

// awaitNone is awaitGone for where it is an error if an object is left.
func (s *session) awaitNone(objects []object, timeout time.Duration) error {
	late, err := s.awaitGone(objects, timeout)
	if err == nil && len(late) > 0 {
		err = errors.New(strings.Join(late, "; "))
	}
	return err
}

// awaitGone waits until none of objects exists. It returns those that still do
// after timeout.
func (s *session) awaitGone(objects []object, timeout time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(s.ctx, timeout, &timeoutError{timeout})
	defer cancel()
	var late []string
	for _, o := range objects {
		info, err := s.info(o)
		if err != nil {
			return nil, s.explain(err)
		}
		if info == nil {
			continue
		}
		err = s.awaitAbsence(ctx, info)
		if stuck, ok := errors.AsType[*stuckError](err); ok {
			late = append(late, stuck.Error())
			continue
		}
		if err != nil {
			return nil, s.explain(err)
		}
	}
	return late, nil
}

// clockSkew is how far the clocks of this host and of the cluster may be apart without
// being noticed.
const clockSkew = time.Minute

// precedes reports whether a hook's live object is older than that time, which the host
// that made the revision has written down. By how much that host's clock was ahead of the
// cluster's, if it was, shows in the record of the revision, which has both.
func (s *session) precedes(live *unstructured.Unstructured, rel *release.Release, began time.Time) (bool, error) {
	made := live.GetCreationTimestamp().Add(clockSkew)
	if !made.Before(began) {
		return false, nil
	}
	recorded, err := s.recordedAt(rel)
	if err != nil {
		return false, err
	}
	if !recorded.IsZero() {
		began = began.Add(-max(0, rel.Info.LastDeployed.Sub(helmtime.Time{Time: recorded.Time})))
	}
	return made.Before(began), nil
}

// recordedAt returns when the record of a revision was made, by the API server's clock;
// zero if there is none.
func (s *session) recordedAt(rel *release.Release) (metav1.Time, error) {
	if s.records == nil {
		var err error
		if s.records, err = s.recorded(rel.Name); err != nil {
			return metav1.Time{}, err
		}
	}
	return s.records[rel.Version], nil
}

// removeHooks deletes the objects that hooks of own have made, so that nothing of
// a cancelled release goes on running. Hooks that to has as well are spared once
// they have finished. Helm doesn't mark objects of hooks as its own: they are
// recognised by having been started, and made no earlier than that.
func (d *Deployer) removeHooks(s *session, own []*release.Release, to *release.Release) error {
	spared := map[identity]object{}
	if to != nil {
		hooks, err := hookObjects(to.Hooks, s.namespace, s.mapper)
		if err != nil {
			return err
		}
		spared = index(hooks)
	}
	var doomed []object
	err := s.eachHooked(own, func(h *release.Hook, o object, live *unstructured.Unstructured) {
		if _, shared := spared[o.identity()]; h.Kind != "CustomResourceDefinition" && !o.kept() && (!shared || running(live)) {
			doomed = append(doomed, o)
		}
	})
	if err != nil {
		return err
	}
	if err := s.remove(doomed); err != nil {
		return err
	}
	_, err = s.awaitGone(doomed, d.cfg.Timeout)
	return err
}

// eachHooked visits the live objects that hooks of the revisions have made: those
// that are no older than the hook's last run.
func (s *session) eachHooked(history []*release.Release, visit func(*release.Hook, object, *unstructured.Unstructured)) error {
	for _, rel := range history {
		for _, h := range rel.Hooks {
			if h.LastRun.StartedAt.IsZero() {
				continue
			}
			objects, err := hookObjects([]*release.Hook{h}, s.namespace, s.mapper)
			if err != nil {
				return fmt.Errorf("revision %d: %w", rel.Version, err)
			}
			for _, o := range objects {
				live, err := s.live(o)
				if err != nil {
					return s.explain(err)
				}
				if live == nil {
					continue
				}
				older, err := s.precedes(live, rel, h.LastRun.StartedAt.Time)
				if err != nil {
					return err
				}
				if !older {
					visit(h, o, live)
				}
			}
		}
	}
	return nil
}

// running reports whether a live Job or Pod has yet to finish.
func running(live *unstructured.Unstructured) bool {
	switch live.GroupVersionKind().GroupKind() {
	case schema.GroupKind{Group: "batch", Kind: "Job"}:
		done, _ := jobFinished(live)
		return !done
	case schema.GroupKind{Kind: "Pod"}:
		done, _ := podFinished(live)
		return !done
	}
	return false
}
