package helmx

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/kube"
	"helm.sh/helm/v3/pkg/release"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/cli-runtime/pkg/resource"

	"github.com/fairlead-dev/fairlead/stages"
)

// CRDs is what becomes of the definitions in a chart's crds folder. They are not
// part of the release: Helm installs them before anything is recorded, never
// updates and never removes them, and a restore leaves them as they are.
// Definitions among the templates, or among manifests, are objects of the release
// like any other, and need none of this.
type CRDs string

// The policies.
const (
	// CRDsRefuse refuses a chart that has such a folder. It is the default.
	CRDsRefuse CRDs = ""
	// CRDsSkip leaves the folder out, as for definitions that somebody else looks after.
	CRDsSkip CRDs = "skip"
	// CRDsCreate makes those that the cluster doesn't have, as Helm does, though with
	// every deployment and not with the first one only.
	CRDsCreate CRDs = "create"
	// CRDsApply makes and updates them, by server-side apply, and takes over what helm and
	// kubectl wrote before. Fields that another field manager owns are refused with an
	// [OwnershipError], unless [Apply.Conflicts] says otherwise. A plan shows what would
	// change, with [stages.DangerCRD].
	CRDsApply CRDs = "apply"
)

func (c CRDs) validate() error {
	switch c {
	case CRDsRefuse, CRDsSkip, CRDsCreate, CRDsApply:
		return nil
	}
	return fmt.Errorf("CRDs: unknown policy %q; use %q, %q or %q", string(c), CRDsSkip, CRDsCreate, CRDsApply)
}

// readDefinitions reads the crds folders of a chart and of what it depends on.
func (s *source) readDefinitions(c *chart.Chart, policy CRDs) error {
	found := c.CRDObjects()
	switch {
	case len(found) == 0 || policy == CRDsSkip:
		return nil
	case policy == CRDsRefuse:
		return fmt.Errorf("it has custom resource definitions (%s), which are installed outside the release and which no restore takes back: say with Config.CRDs whether to %s, %s or %s them",
			found[0].Filename, CRDsCreate, CRDsApply, CRDsSkip)
	}
	for _, crd := range found {
		objects, err := parseObjects("# Source: "+crd.Filename+"\n"+string(crd.File.Data), "", nil)
		if err != nil {
			return err
		}
		for _, o := range objects {
			if !o.isCRD() {
				return fmt.Errorf("%s has %s, which is no CustomResourceDefinition", crd.Filename, o.id)
			}
			s.definitions = append(s.definitions, o)
		}
	}
	return nil
}

// declare tells the session of the kinds that objects of the release define.
func (s *session) declare(objects []object) {
	for _, o := range objects {
		if o.isCRD() {
			s.mapper.kinds.add(o.content)
		}
	}
}

// definer returns the client that writes the definitions of the crds folder. What people
// write by hand, or with other deployments, it takes over; a controller that writes into a
// definition, such as one that injects certificates, is asked about first.
func (s *session) definer() *kubeClient {
	out := *s.kube
	conflicts := map[string]ConflictPolicy{}
	for _, manager := range definers {
		conflicts[manager] = Overwrite
	}
	maps.Copy(conflicts, s.kube.apply.Conflicts)
	out.apply = Apply{Mode: ServerSide, Conflicts: conflicts}
	return &out
}

// definers are the field managers of helm, kubectl and this package.
var definers = []string{
	fieldManager, "fairlead-helmx", "kubectl", "kubectl-client-side-apply", "kubectl-create", "kubectl-edit", "kubectl-patch", "kubectl-replace",
}

// outdate has the cluster asked for its kinds anew where definitions are concerned.
func (d *Deployer) outdate(revisions []*release.Release) {
	concerned := len(d.source.definitions) > 0 || slices.ContainsFunc(revisions, func(r *release.Release) bool {
		return strings.Contains(r.Manifest, "CustomResourceDefinition")
	})
	if concerned {
		d.cluster.outdate()
	}
}

// define writes the definitions of the crds folder, and waits until the cluster
// serves them. One that is being deleted is waited for, and made anew.
func (d *Deployer) define(s *session) error {
	if len(d.source.definitions) == 0 {
		return nil
	}
	k := s.definer()
	ctx, cancel := context.WithTimeoutCause(s.ctx, d.cfg.Timeout, &timeoutError{d.cfg.Timeout})
	defer cancel()
	var written kube.ResourceList
	for _, o := range d.source.definitions {
		info, err := k.build(o, true)
		if err != nil {
			return err
		}
		live, err := look(k.helper(info), info)
		if err == nil && live != nil && live.GetDeletionTimestamp() != nil {
			live, err = nil, s.awaitAbsence(ctx, info)
		}
		if err == nil && (live == nil || d.cfg.CRDs == CRDsApply) {
			if err = k.applyObject(info, live); err == nil {
				k.changed.note(live, info)
				s.markDefined(info, live)
			}
		}
		if err != nil {
			return s.explain(err)
		}
		written = append(written, info)
	}
	return s.explain(k.awaitDefined(ctx, written))
}

// definitionNeeds is for the definitions of the crds folder.
func (d *Deployer) definitionNeeds(n *needs) {
	for _, o := range d.source.definitions {
		on := Right{Group: o.gvk().Group, Resource: "customresourcedefinitions", Name: o.id.Name}
		n.allow(on, "get", "create", "patch", "watch")
	}
}

// foresee tells the session of the kinds that the crds folder will have defined, as a
// chart may ask for them: Helm asks the cluster once it has made them. A definition that
// is there stays as it is under [CRDsCreate], whatever versions the folder has.
func (s *session) foresee(definitions []object, policy CRDs) {
	for _, o := range definitions {
		own := kinds{}
		own.add(o.content)
		for gvk, mapping := range own {
			if policy == CRDsCreate {
				if _, err := s.mapper.RESTMapper.RESTMapping(gvk.GroupKind()); !meta.IsNoMatchError(err) {
					continue
				}
			}
			s.expect(mapping)
		}
	}
}

// expect tells the session of a kind that will have been defined by the time that the
// chart is rendered for good.
func (s *session) expect(mapping *meta.RESTMapping) {
	gvk := mapping.GroupVersionKind
	s.mapper.kinds[gvk] = mapping
	s.declared = append(s.declared, gvk.GroupVersion().String(), gvk.GroupVersion().String()+"/"+gvk.Kind)
	slices.Sort(s.declared)
	s.declared = slices.Compact(s.declared)
}

// definitionTrials try the definitions of the crds folder.
func (s *session) definitionTrials(definitions []object, policy CRDs) ([]*trial, error) {
	var out []*trial
	for _, o := range definitions {
		t, err := s.newTrial(o, nil, false)
		if err != nil {
			return nil, s.explain(err)
		}
		t.crds = policy
		t.s.kube.apply = s.definer().apply
		out = append(out, t)
	}
	return out, nil
}

// define tries a definition of the crds folder.
func (t *trial) define() error {
	var err error
	switch {
	case t.live != nil && t.live.GetDeletionTimestamp() != nil:
		t.absent()
		t.note(stages.NoteNotTried, "it is being deleted; the deployment waits until it is gone, and makes it anew")
		return nil
	case t.live == nil:
		t.action = stages.Create
		_, err = t.s.kube.Create(kube.ResourceList{t.target})
	case t.crds == CRDsApply:
		t.action = stages.Update
		_, err = t.s.kube.Update(kube.ResourceList{t.target}, kube.ResourceList{t.target}, false)
	default:
		return nil
	}
	return t.settle(err)
}

// unseenDefinition goes by what the cluster serves: a definition of that is there.
func (t *trial) unseenDefinition() {
	defined := kinds{}
	defined.addAll(t.object.content)
	t.action = stages.Create
	for gvk := range defined {
		if _, err := t.s.mapper.RESTMapper.RESTMapping(gvk.GroupKind()); meta.IsNoMatchError(err) {
			continue
		}
		if t.action = ""; t.crds == CRDsApply {
			t.action = stages.Update
		}
	}
}

// reachable returns resources, with those in a version that is not served any more in
// one that is: what is stored stays, and is to be deleted.
func (k *kubeClient) reachable(resources kube.ResourceList) (kube.ResourceList, error) {
	out := slices.Clone(resources)
	for i, info := range out {
		mapping, err := k.s.mapper.reach(info.Mapping.GroupVersionKind)
		if meta.IsNoMatchError(err) || err == nil && mapping.GroupVersionKind == info.Mapping.GroupVersionKind {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up kind %s: %w", info.Mapping.GroupVersionKind.Kind, err)
		}
		client, err := k.s.clientFor(mapping)
		if err != nil {
			return nil, err
		}
		moved := *info
		moved.Client, moved.Mapping = client, mapping
		out[i] = &moved
	}
	return out, nil
}

// checkOwners refuses an object that is there in another version than the one that is yet
// to be served, in which Helm doesn't find it, and that is not the release's own.
func (d *Deployer) checkOwners(s *session, objects []object) error {
	if d.cfg.TakeOwnership {
		return nil
	}
	for _, o := range objects {
		if !s.mapper.ahead(o.gvk()) {
			continue
		}
		live, err := s.live(o)
		if err != nil {
			return s.explain(err)
		}
		if live == nil {
			continue
		}
		if why := stranger(live, d.cfg.Release, d.cfg.Namespace); why != "" {
			return &APIError{
				Reason: NotOwned, Verb: "update", Group: o.gvk().Group, Resource: s.mapper.kinds[o.gvk()].Resource.Resource,
				Namespace: o.id.Namespace, Name: o.id.Name, Message: "it exists and is not of this release: " + why,
			}
		}
	}
	return nil
}

// split parts definitions from the other resources.
func split(resources []*resource.Info) (definitions, others []*resource.Info) {
	for _, info := range resources {
		if info.Mapping.GroupVersionKind.Kind == "CustomResourceDefinition" {
			definitions = append(definitions, info)
		} else {
			others = append(others, info)
		}
	}
	return definitions, others
}
