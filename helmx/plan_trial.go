package helmx

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"helm.sh/helm/v3/pkg/kube"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// trial finds out what a deployment would do to one object, by having Helm do it
// as a dry run.
type trial struct {
	// object is what was rendered; for a deletion, what was released.
	object object
	// base is what was released, nil for an object that is new to the release.
	base     *object
	deletion bool
	// untried is set where a definition is not yet as it will be for the object.
	untried bool
	// crds is set for a definition of the crds folder.
	crds CRDs

	s      *session // Bound to wire.
	wire   *rehearsal
	target *resource.Info
	origin *resource.Info
	// pristine is the target as it was prepared, tries how often it was tried again.
	pristine runtime.Object
	tries    int

	// action is what would be done; empty for nothing.
	action  stages.Action
	basis   stages.Basis
	live    *unstructured.Unstructured
	outcome map[string]any
	fields  []difference
	// frozen are the fields that can't be changed in place.
	frozen  []string
	refusal *stages.Refusal
	// former is the other release that an adopted object belongs to, if any.
	former string
	notes  []stages.Note
	seen   seen
}

// newTrial prepares a trial. It sends nothing.
func (s *session) newTrial(o object, base *object, deletion bool) (*trial, error) {
	t := &trial{object: o, base: base, deletion: deletion, basis: stages.BasisLive, wire: &rehearsal{base: s.rest.Transport}}
	dry := *s
	dry.rest = rest.CopyConfig(s.rest)
	dry.rest.Transport = t.wire
	dry.kube = newKubeClient(&dry, s.kube.apply)
	dry.kube.adopt = s.kube.adopt
	if base != nil {
		dry.kube.base = map[identity]object{base.identity(): *base}
	}
	t.s = &dry
	var err error
	if !deletion {
		if t.target, err = t.s.kube.build(o, true); err == nil {
			t.pristine = t.target.Object.DeepCopyObject()
		}
	}
	if err == nil && base != nil {
		t.origin, err = t.s.kube.build(*base, false)
	}
	switch {
	case meta.IsNoMatchError(err) || err != nil && strings.Contains(err.Error(), "no matches for kind"):
		t.refuse(Refused, fmt.Sprintf("the cluster has no kind %s of %s; a definition has to be there before the release", o.id.Kind, o.id.APIVersion))
		t.unseen()
	case err != nil:
		return nil, err
	}
	return t, nil
}

// build makes of an object what Helm makes of it, where it is rendered, or else of a
// revision before.
func (k *kubeClient) build(o object, rendered bool) (*resource.Info, error) {
	data, err := json.Marshal(o.content)
	if err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", o.id, err)
	}
	infos, err := k.Build(bytes.NewReader(data), rendered)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", o.id, err)
	}
	if len(infos) != 1 {
		return nil, fmt.Errorf("prepare %s: it comes to %d objects", o.id, len(infos))
	}
	return infos[0], nil
}

// What Helm marks the objects of a release with.
const (
	managedByLabel      = "app.kubernetes.io/managed-by"
	releaseAnnotation   = "meta.helm.sh/release-name"
	namespaceAnnotation = "meta.helm.sh/release-namespace"
)

// own marks an object as Helm does before it sends it.
func own(info *resource.Info, release, namespace string) {
	obj, ok := info.Object.(*unstructured.Unstructured)
	if !ok {
		return
	}
	labels, annotations := obj.GetLabels(), obj.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels[managedByLabel] = "Helm"
	annotations[releaseAnnotation], annotations[namespaceAnnotation] = release, namespace
	obj.SetLabels(labels)
	obj.SetAnnotations(annotations)
}

// stranger says why Helm would not take a live object into the release, or "".
func stranger(live *unstructured.Unstructured, release, namespace string) string {
	var found []string
	for _, c := range []struct{ what, want, got string }{
		{"label " + managedByLabel, "Helm", live.GetLabels()[managedByLabel]},
		{"annotation " + releaseAnnotation, release, live.GetAnnotations()[releaseAnnotation]},
		{"annotation " + namespaceAnnotation, namespace, live.GetAnnotations()[namespaceAnnotation]},
	} {
		if c.got != c.want {
			found = append(found, fmt.Sprintf("%s is %q and must be %q", c.what, c.got, c.want))
		}
	}
	return strings.Join(found, ", ")
}

// releaseOf returns the release that an object is marked as being of, "namespace/name",
// or "".
func releaseOf(live *unstructured.Unstructured) string {
	a := live.GetAnnotations()
	if a[releaseAnnotation] == "" {
		return ""
	}
	return a[namespaceAnnotation] + "/" + a[releaseAnnotation]
}

// run tries the change. known, if not nil, is what a plan saw of the object: where
// the live one has not been touched since, it is not tried again.
func (t *trial) run(release, namespace string, known *seen) error {
	if t.refusal != nil {
		return nil
	}
	if t.untried {
		return t.foretell(release, namespace)
	}
	info := t.target
	if info == nil {
		info = t.origin
	}
	live, err := look(resource.NewHelper(info.Client, info.Mapping), info)
	if err != nil {
		return t.unreadable(err)
	}
	t.live = live
	if known != nil && live != nil && known.uid == string(live.GetUID()) && known.version == live.GetResourceVersion() {
		t.seen = *known
		return nil
	}
	switch {
	case t.deletion:
		err = t.delete()
	case t.crds != CRDsRefuse:
		err = t.define()
	case live == nil:
		err = t.create(release, namespace)
	default:
		err = t.update(release, namespace)
	}
	if err != nil {
		return err
	}
	if t.overtaken() {
		t.again()
		return t.run(release, namespace, known)
	}
	t.seen = t.state()
	return nil
}

// tryAnyway tries to write the object over whatever lives in its place.
func (t *trial) tryAnyway() error {
	if t.refusal != nil {
		return nil
	}
	live, err := look(resource.NewHelper(t.target.Client, t.target.Mapping), t.target)
	if err != nil {
		return t.unreadable(err)
	}
	if t.live = live; live == nil {
		t.action = stages.Create
		_, err = t.s.kube.Create(kube.ResourceList{t.target})
	} else {
		t.action = stages.Update
		_, err = t.s.kube.Update(kube.ResourceList{t.target}, kube.ResourceList{t.target}, false)
	}
	return t.settle(err)
}

// mostTrials bounds how often an object is tried that others go on changing.
const mostTrials = 5

// overtaken reports whether the object was changed, as by its controller, between
// the reading and the dry run, whose answer is therefore about another one.
func (t *trial) overtaken() bool {
	if t.live == nil || t.outcome == nil || t.action == stages.Delete || t.tries >= mostTrials {
		return false
	}
	return (&unstructured.Unstructured{Object: t.outcome}).GetResourceVersion() != t.live.GetResourceVersion()
}

// again forgets what the trial has found out.
func (t *trial) again() {
	t.tries++
	*t.wire = rehearsal{base: t.wire.base}
	t.action, t.live, t.outcome, t.fields, t.notes = "", nil, nil, nil, nil
	t.target.Object = t.pristine.DeepCopyObject() // Helm has put the answer there.
}

// unreadable goes on without the live object where the account may not read it.
func (t *trial) unreadable(err error) error {
	status := t.wire.read.refused()
	if status == nil || !lacksRight(status) {
		return t.s.explain(err)
	}
	t.note(stages.NoteNotCompared, "it is compared with the last release only, because the account may not get it, as a deployment must: "+status.Message)
	t.unseen()
	return nil
}

func (t *trial) note(kind stages.NoteKind, message string) {
	t.notes = append(t.notes, stages.Note{Kind: kind, Object: t.object.id, Message: message})
}

func (t *trial) refuse(reason Reason, message string, fields ...string) {
	t.refusal = &stages.Refusal{Reason: string(reason), Message: message, Fields: fields}
}

// unseen takes the change to be that against the last release.
func (t *trial) unseen() {
	t.basis, t.fields, t.outcome = stages.BasisRelease, nil, nil
	switch {
	case t.deletion:
		t.action = stages.Delete
		if t.object.kept() {
			t.action = ""
		}
	case t.crds != CRDsRefuse:
		t.unseenDefinition()
	case t.base == nil:
		t.action = stages.Create
	default:
		t.fields = fieldDifferences(t.base.content, t.object.content)
		t.action = stages.Update
		if len(t.fields) == 0 {
			t.action = ""
		}
	}
	t.seen = t.state()
}

// absent takes the object for not being there, as in a namespace that isn't.
func (t *trial) absent() {
	t.basis = stages.BasisRelease
	if !t.deletion {
		t.action = stages.Create
	}
	t.seen = t.state()
}

func (t *trial) create(release, namespace string) error {
	t.action = stages.Create
	own(t.target, release, namespace)
	var err error
	if t.origin != nil {
		_, err = t.s.kube.Update(kube.ResourceList{t.origin}, kube.ResourceList{t.target}, false)
	} else {
		_, err = t.s.kube.Create(kube.ResourceList{t.target})
	}
	return t.settle(err)
}

func (t *trial) update(release, namespace string) error {
	t.action = stages.Update
	own(t.target, release, namespace)
	origin := t.origin
	if !t.claim(release, namespace) {
		t.fields = turned(t.object.deviations(t.live, true))
		return nil
	}
	if t.base == nil {
		origin = t.target
	}
	_, err := t.s.kube.Update(kube.ResourceList{origin}, kube.ResourceList{t.target}, false)
	return t.settle(err)
}

// claim makes out whether Helm would take the live object for one of the release, or
// into it, and refuses it otherwise.
func (t *trial) claim(release, namespace string) bool {
	if t.sameVersion() {
		return true
	}
	if t.base == nil {
		t.action = stages.Adopt
	}
	why := stranger(t.live, release, namespace)
	switch {
	case why != "" && t.s.kube.adopt:
		t.action = stages.Adopt
		if former := releaseOf(t.live); former != namespace+"/"+release {
			t.former = former
		}
		t.note(stages.NoteAdopted, "it exists already and becomes part of the release ("+why+")")
	case why != "":
		t.action = stages.Adopt
		t.refuse(NotOwned, "it exists and is not of this release: "+why+"; delete it, mark it as the release's own, or set TakeOwnership")
		return false
	case t.base == nil:
		t.note(stages.NoteAdopted, "it exists already and is marked as this release's, so it becomes part of it")
	}
	return true
}

// sameVersion reports whether Helm finds the object in the release before, which
// it looks for by version as well.
func (t *trial) sameVersion() bool {
	return t.base != nil && t.base.id.APIVersion == t.object.id.APIVersion
}

func (t *trial) delete() error {
	if t.live == nil || t.live.GetAnnotations()[kube.ResourcePolicyAnno] == kube.KeepPolicy {
		return nil
	}
	t.action = stages.Delete
	// Helm goes on if a deletion fails, and leaves the object behind.
	_, err := t.s.kube.Update(kube.ResourceList{t.origin}, nil, false)
	return t.settle(err)
}

// settle makes out what the API server has said to the change.
func (t *trial) settle(err error) error {
	if t.s.ctx.Err() != nil {
		return t.s.explain(t.s.ctx.Err())
	}
	if status := t.wire.wrote.refused(); status != nil {
		return t.refused(status)
	}
	if err != nil {
		return t.s.explain(fmt.Errorf("try %s: %w", t.object.id, err))
	}
	for _, text := range t.wire.wrote.warnings() {
		t.note(stages.NoteWarning, text)
	}
	if t.action == stages.Create || t.action == stages.Delete {
		t.outcome = t.wire.wrote.object()
		return nil
	}
	if t.outcome = t.wire.wrote.object(); t.outcome == nil { // Nothing was sent.
		t.outcome = t.live.Object
	}
	t.migrate()
	t.fields = fieldDifferences(bare(t.live.Object), bare(t.outcome))
	if len(t.fields) == 0 && t.action == stages.Update {
		t.action = ""
	}
	return nil
}

// refused makes out what a refusal means.
func (t *trial) refused(status *metav1.Status) error {
	failure := newAPIError(t.wire.request, status)
	if failure == nil {
		failure = &APIError{Reason: Refused, Message: status.Message}
	}
	failure.Message, _ = redact(failure.Message, t.s.secrets)
	switch {
	case lacksRight(status):
		t.note(stages.NoteNotCompared, "it is compared with the last release only, because the account lacks a right that a deployment needs: "+failure.Message)
		t.unseen()
	case strings.Contains(status.Message, "does not support dry run"):
		t.note(stages.NoteNotCompared, "it is compared with the last release only: "+failure.Message)
		t.unseen()
	case failure.Reason == Unauthorized, status.Code == http.StatusTooManyRequests, status.Code == http.StatusServiceUnavailable:
		return failure
	default:
		t.refuse(failure.Reason, failure.Message, failure.Fields...)
		if t.live == nil || t.deletion {
			return nil
		}
		t.fields = turned(t.object.deviations(t.live, true))
		if t.wire.request.Method == http.MethodPatch && status.Code == http.StatusUnprocessableEntity {
			return t.freeze(status)
		}
	}
	return nil
}

// lacksRight tells an account without a right from what admission forbids.
func lacksRight(status *metav1.Status) bool {
	return status.Code == http.StatusForbidden && strings.Contains(status.Message, " cannot ")
}

// turned makes of deviations from a manifest what applying it would change.
func turned(deviations []difference) []difference {
	out := make([]difference, len(deviations))
	for i, d := range deviations {
		out[i] = difference{d.path, d.to, d.from}
	}
	return out
}
