package helmx

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	"helm.sh/helm/v3/pkg/kube"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/util/csaupgrade"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
)

// parallel bounds the objects of one kind that are written at the same time.
const parallel = 8

// Create creates resources, kind after kind, definitions before all else. It refuses
// objects that exist.
func (k *kubeClient) Create(resources kube.ResourceList) (*kube.Result, error) {
	definitions, others := split(resources)
	if len(definitions) == 0 || len(others) == 0 {
		return k.create(resources)
	}
	made, err := k.create(definitions)
	if err != nil {
		return made, err
	}
	if err := k.waitDefined(definitions); err != nil {
		return made, err
	}
	result, err := k.create(others)
	if result != nil {
		result.Created = append(made.Created, result.Created...)
	}
	return result, err
}

func (k *kubeClient) create(resources kube.ResourceList) (*kube.Result, error) {
	k.awaitAccepted(resources)
	if k.apply.Mode != ServerSide {
		return k.Client.Create(resources)
	}
	err := k.byKind(resources, func(info *resource.Info) error {
		live, err := look(k.helper(info), info)
		switch {
		case err != nil:
			return err
		case live != nil:
			return fmt.Errorf("create %s: it exists already", describeInfo(info))
		}
		return k.applyObject(info, nil)
	})
	if err != nil {
		return nil, err
	}
	return &kube.Result{Created: resources}, nil
}

// Update makes the live objects those of target, definitions before all else, and
// deletes what only original has. Unlike Helm's own, it fails if an object can't be
// deleted. There is a result with any error: Helm looks into it.
func (k *kubeClient) Update(original, target kube.ResourceList, force bool) (*kube.Result, error) {
	result, err := k.updateInOrder(original, target, force)
	if result == nil {
		result = &kube.Result{}
	}
	return result, err
}

func (k *kubeClient) updateInOrder(original, target kube.ResourceList, force bool) (*kube.Result, error) {
	definitions, others := split(target)
	beside := original.Difference(definitions)
	if len(definitions) == 0 || len(others)+len(beside) == 0 {
		return k.update(original, target, force)
	}
	defined, err := k.updateDefinitions(original.Intersect(definitions), definitions, force)
	if err != nil {
		return defined, err
	}
	result, err := k.update(beside, others, force)
	if result != nil {
		result.Created = append(defined.Created, result.Created...)
		result.Updated = append(defined.Updated, result.Updated...)
	}
	return result, err
}

func (k *kubeClient) update(original, target kube.ResourceList, force bool) (*kube.Result, error) {
	original, err := k.reachable(original)
	if err != nil {
		return nil, err
	}
	k.awaitAccepted(target)
	// What target has is updated, spared or not.
	original = append(k.deletable(original.Difference(target)), original.Intersect(target)...)
	if k.apply.Mode != ServerSide {
		update := k.Client.Update
		if k.adopt { // Helm would leave custom resources that it adopts as they are.
			update = k.Client.UpdateThreeWayMerge
		}
		result, err := update(original, target, force)
		if err != nil {
			return result, err
		}
		_, err = k.prune(original.Difference(target))
		return result, err
	}
	result := &kube.Result{}
	existed := make([]bool, len(target))
	position := map[*resource.Info]int{}
	for i, info := range target {
		position[info] = i
	}
	err = k.byKind(target, func(info *resource.Info) error {
		live, err := look(k.helper(info), info)
		if err != nil {
			return err
		}
		existed[position[info]] = live != nil
		return k.applyObject(info, live)
	})
	for i, info := range target {
		if existed[i] {
			result.Updated = append(result.Updated, info)
		} else {
			result.Created = append(result.Created, info)
		}
	}
	if err != nil {
		return result, err
	}
	result.Deleted, err = k.prune(original.Difference(target))
	return result, err
}

// UpdateThreeWayMerge is Update, which Helm asks for so where objects are adopted.
func (k *kubeClient) UpdateThreeWayMerge(original, target kube.ResourceList, force bool) (*kube.Result, error) {
	return k.Update(original, target, force)
}

// prune deletes what is no longer part of the release, and returns what it
// deleted. What is gone, going, or to be kept is left alone.
func (k *kubeClient) prune(resources kube.ResourceList) (kube.ResourceList, error) {
	var deleted kube.ResourceList
	var problems []error
	for _, info := range resources {
		helper := k.helper(info)
		live, err := look(helper, info)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if live == nil || live.GetDeletionTimestamp() != nil || strings.EqualFold(live.GetAnnotations()[kube.ResourcePolicyAnno], kube.KeepPolicy) {
			continue
		}
		background := metav1.DeletePropagationBackground
		_, err = helper.DeleteWithOptions(info.Namespace, info.Name, &metav1.DeleteOptions{PropagationPolicy: &background})
		if err != nil && !apierrors.IsNotFound(err) {
			problems = append(problems, fmt.Errorf("delete %s, which the chart no longer has: %w", describeInfo(info), err))
			continue
		}
		deleted = append(deleted, info)
	}
	return deleted, errors.Join(problems...)
}

func (k *kubeClient) helper(info *resource.Info) *resource.Helper {
	return resource.NewHelper(info.Client, info.Mapping).WithFieldManager(fieldManager)
}

// byKind does work for all resources, kinds one after the other as Helm has sorted
// them. It goes on past errors within a kind.
func (k *kubeClient) byKind(resources kube.ResourceList, work func(*resource.Info) error) error {
	for len(resources) > 0 {
		kind := resources[0].Mapping.GroupVersionKind.GroupKind()
		end := slices.IndexFunc(resources, func(i *resource.Info) bool { return i.Mapping.GroupVersionKind.GroupKind() != kind })
		if end < 0 {
			end = len(resources)
		}
		problems := make([]error, end)
		var group errgroup.Group
		group.SetLimit(parallel)
		for i, info := range resources[:end] {
			group.Go(func() error {
				problems[i] = work(info)
				return nil
			})
		}
		group.Wait() //nolint:errcheck // The problems are collected above.
		if err := errors.Join(problems...); err != nil {
			return err
		}
		resources = resources[end:]
	}
	return nil
}

// applyObject applies one object, which is live or does not exist.
func (k *kubeClient) applyObject(info *resource.Info, live *unstructured.Unstructured) error {
	wanted, ok := info.Object.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("apply %s: unexpected object of type %T", describeInfo(info), info.Object)
	}
	if live != nil {
		if err := k.takeOver(info, live); err != nil {
			return err
		}
	}
	content := tree.Clone(wanted.Object)
	// A field that is yielded can turn up another conflict, so this repeats.
	const rounds = 10
	overwrite := false
	for range rounds {
		err := k.patch(info, content, overwrite)
		conflicts := conflictsOf(err)
		if len(conflicts) == 0 {
			return err
		}
		var refused []OwnedField
		yielded := false
		for _, c := range conflicts {
			switch k.policy(info, c.Manager) {
			case Yield:
				without := tree.Clone(content)
				if !removeField(without, c.Path) {
					return fmt.Errorf("apply %s: can't leave %s to %s: the field is not found", describeInfo(info), c.Path, c.Manager)
				}
				if strings.HasSuffix(c.Path, ".image") || k.images(without) < k.images(content) {
					refused = append(refused, c) // What was cleared must run.
					continue
				}
				content, yielded = without, true
			case Refuse:
				refused = append(refused, c)
			case Overwrite:
			}
		}
		if len(refused) > 0 {
			return &OwnershipError{Object: infoID(info), Fields: refused}
		}
		overwrite = !yielded // Once only what is to be overwritten is left.
	}
	return fmt.Errorf("apply %s: conflicts with other field managers did not end", describeInfo(info))
}

// images counts the image references of an object that are held to what was cleared.
func (k *kubeClient) images(content map[string]any) int {
	n := 0
	eachImage(content, k.s.imageFields, func(r imageReference) {
		if r.role != imageUnknown {
			n++
		}
	})
	return n
}

func (k *kubeClient) patch(info *resource.Info, content map[string]any, force bool) error {
	data, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("apply %s: %w", describeInfo(info), err)
	}
	obj, err := k.helper(info).Patch(info.Namespace, info.Name, types.ApplyPatchType, data, &metav1.PatchOptions{Force: &force})
	if err != nil {
		return fmt.Errorf("apply %s: %w", describeInfo(info), err)
	}
	if err := info.Refresh(obj, true); err != nil {
		return fmt.Errorf("apply %s: read the answer: %w", describeInfo(info), err)
	}
	return nil
}

// takeOver makes fields that were written by client-side means fields that were
// applied, so that taking them out of the chart takes them out of the object.
func (k *kubeClient) takeOver(info *resource.Info, live *unstructured.Unstructured) error {
	const attempts = 10 // Controllers may write to the object at the same time.
	for attempt := 1; ; attempt++ {
		data, err := csaupgrade.UpgradeManagedFieldsPatch(live, k.predecessors(info), fieldManager)
		if err != nil {
			return fmt.Errorf("take over %s: read who owns its fields: %w", describeInfo(info), err)
		}
		if len(data) == 0 {
			return nil
		}
		_, err = k.helper(info).Patch(info.Namespace, info.Name, types.JSONPatchType, data, nil)
		switch {
		case err == nil:
			return nil
		case !apierrors.IsConflict(err) || attempt == attempts:
			return fmt.Errorf("take over %s: %w", describeInfo(info), err)
		}
		if live, err = look(k.helper(info), info); live == nil || err != nil {
			return err
		}
	}
}

// predecessors are the field managers whose fields of an object become the release's
// where they were written by client-side means: our own and, with TakeOwnership, for an
// object that is new to the release, kubectl's, unless the configuration says otherwise.
func (k *kubeClient) predecessors(info *resource.Info) sets.Set[string] {
	out := sets.New(fieldManager)
	gvk := info.Mapping.GroupVersionKind
	if _, released := k.base[identity{gvk.Group, gvk.Kind, info.Namespace, info.Name}]; released || !k.adopt {
		return out
	}
	for _, manager := range []string{"kubectl-client-side-apply", "kubectl-create"} {
		if _, named := k.apply.Conflicts[manager]; !named {
			out.Insert(manager)
		}
	}
	return out
}

// policy says what becomes of a field of an object that somebody owns.
func (k *kubeClient) policy(info *resource.Info, manager string) ConflictPolicy {
	if k.predecessors(info).Has(manager) {
		return Overwrite
	}
	return k.apply.policy(manager)
}

var conflictingManager = regexp.MustCompile(`^conflict with "((?:[^"\\]|\\.)*)"`)

// conflictsOf returns the fields that others own, if that is what err is about.
func conflictsOf(err error) []OwnedField {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.Status().Details == nil {
		return nil
	}
	var out []OwnedField
	for _, cause := range status.Status().Details.Causes {
		if cause.Type != metav1.CauseTypeFieldManagerConflict {
			continue
		}
		manager := "another field manager"
		if m := conflictingManager.FindStringSubmatch(cause.Message); m != nil {
			manager = m[1]
		}
		out = append(out, OwnedField{Path: cause.Field, Manager: manager})
	}
	return out
}

// removeField deletes a field by the path that API servers write: ".name" for a
// field, whose name may have dots in it, and "[name=\"x\"]" or "[0]" for an
// element of a list. It reports whether there was one.
func removeField(v any, path string) bool {
	switch v := v.(type) {
	case map[string]any:
		rest, ok := strings.CutPrefix(path, ".")
		if !ok {
			return false
		}
		for _, key := range sortedKeys(v) {
			after, ok := strings.CutPrefix(rest, key)
			switch {
			case !ok:
			case after == "":
				delete(v, key)
				return true
			case after[0] == '.' || after[0] == '[':
				if elements, isList := v[key].([]any); isList {
					if left, removed := removeElement(elements, after); removed {
						v[key] = left
						return true
					}
				} else if removeField(v[key], after) {
					return true
				}
			}
		}
	}
	return false
}

func removeElement(list []any, path string) ([]any, bool) {
	selector, rest, ok := strings.Cut(strings.TrimPrefix(path, "["), "]")
	if !ok || path == "" || path[0] != '[' {
		return list, false
	}
	i := slices.IndexFunc(list, func(item any) bool { return selected(item, selector) })
	if n, err := strconv.Atoi(selector); err == nil && n >= 0 && n < len(list) {
		i = n
	}
	switch {
	case i < 0:
		return list, false
	case rest == "":
		return slices.Delete(slices.Clone(list), i, i+1), true
	}
	return list, removeField(list[i], rest)
}

// selected reports whether an element has all the keys of `name="x",port=80`, or
// is the value of `="x"`.
func selected(item any, selector string) bool {
	for _, part := range strings.Split(selector, ",") {
		key, text, ok := strings.Cut(part, "=")
		if !ok {
			return false
		}
		var want any
		if json.Unmarshal([]byte(text), &want) != nil {
			return false
		}
		got := item
		if key != "" {
			m, isMap := item.(map[string]any)
			if !isMap {
				return false
			}
			got = m[key]
		}
		if !same(want, got) {
			return false
		}
	}
	return true
}
