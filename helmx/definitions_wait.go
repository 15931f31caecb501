package helmx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"helm.sh/helm/v3/pkg/kube"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/discovery"
)

// changedKinds are those whose definitions have just been changed, in the versions that
// they had.
type changedKinds map[schema.GroupKind]kinds

// note compares a definition with how it was, nil for one that is new: of such a one
// the API server knows nothing that could be outdated.
func (c changedKinds) note(was *unstructured.Unstructured, info *resource.Info) {
	now, ok := info.Object.(*unstructured.Unstructured)
	if !ok || was == nil || was.GetGeneration() == now.GetGeneration() {
		return
	}
	defined, former := kinds{}, kinds{}
	defined.add(now.Object)
	former.addAll(was.Object)
	for gvk := range defined {
		c[gvk.GroupKind()] = former
	}
}

// versions are those of a definition, of now and of before it has changed, and whether
// each is served.
func (c changedKinds) versions(definition map[string]any) map[*meta.RESTMapping]bool {
	serving, all := kinds{}, kinds{}
	serving.add(definition)
	all.addAll(definition)
	for gvk := range serving {
		maps.Copy(all, c[gvk.GroupKind()])
	}
	out := map[*meta.RESTMapping]bool{}
	for gvk, mapping := range all {
		_, out[mapping] = serving[gvk]
	}
	return out
}

// updateDefinitions updates definitions, and waits until they are served.
func (k *kubeClient) updateDefinitions(original, definitions kube.ResourceList, force bool) (*kube.Result, error) {
	before := make([]*unstructured.Unstructured, len(definitions))
	for i, info := range definitions {
		var err error
		if before[i], err = look(k.helper(info), info); err != nil {
			return nil, err
		}
	}
	result, err := k.update(original, definitions, force)
	if err != nil {
		return result, err
	}
	for i, info := range definitions {
		k.changed.note(before[i], info)
	}
	return result, k.waitDefined(definitions)
}

// waitDefined waits until definitions are served.
func (k *kubeClient) waitDefined(definitions kube.ResourceList) error {
	ctx, cancel := context.WithTimeoutCause(k.s.ctx, k.timeout, &timeoutError{k.timeout})
	defer cancel()
	return k.awaitDefined(ctx, definitions)
}

// awaitDefined waits until definitions are established, and the API server serves the
// versions that they say and no others. The condition alone is true of the definition as
// it was before. Then the cluster is asked for its kinds anew.
func (k *kubeClient) awaitDefined(ctx context.Context, definitions kube.ResourceList) error {
	outdated := false
	for _, info := range definitions {
		var live *unstructured.Unstructured
		err := k.s.await(ctx, info, func(obj *unstructured.Unstructured) (bool, error) {
			live = obj
			return established(info, obj)
		})
		if err != nil {
			return err
		}
		versions := k.changed.versions(live.Object)
		if err := k.s.awaitServed(ctx, versions); err != nil {
			return err
		}
		outdated = outdated || k.s.mapper.outdated(versions)
	}
	if outdated {
		k.s.mapper.Reset()
	}
	return nil
}

// established reports whether a definition is, which is all that there is to wait for.
func established(info *resource.Info, obj *unstructured.Unstructured) (bool, error) {
	if obj == nil {
		return false, fmt.Errorf("%s was deleted while waiting for it", describeInfo(info))
	}
	return obj.GetKind() != "CustomResourceDefinition" || condition(obj, "Established") != nil, nil
}

// pollDefinitions is how often the API server is asked whether it has caught up with a
// definition. There is nothing to watch.
const pollDefinitions = 100 * time.Millisecond

// awaitServed waits until the API server serves some versions, and others not any more.
func (s *session) awaitServed(ctx context.Context, versions map[*meta.RESTMapping]bool) error {
	client, err := discovery.NewDiscoveryClientForConfig(s.rest)
	if err != nil {
		return fmt.Errorf("make a discovery client: %w", err)
	}
	for mapping, want := range versions {
		gvk := mapping.GroupVersionKind
		var away error
		err := wait.PollUntilContextCancel(ctx, pollDefinitions, true, func(context.Context) (bool, error) {
			is, err := lists(client, gvk.GroupVersion(), mapping.Resource.Resource)
			if away = err; err != nil && isAway(err) {
				return false, nil
			}
			return is == want, err
		})
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return fmt.Errorf("wait until %s of %s is served as its definition says: %w", gvk.Kind, gvk.GroupVersion(), errors.Join(context.Cause(ctx), away))
		default:
			return fmt.Errorf("ask whether %s is served: %w", gvk, err)
		}
	}
	return nil
}

// lists reports whether a group and version has a resource.
func lists(client discovery.DiscoveryInterface, gv schema.GroupVersion, name string) (bool, error) {
	found, err := client.ServerResourcesForGroupVersion(gv.String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err //nolint:wrapcheck // The caller says what it is about.
	}
	for _, r := range found.APIResources {
		if r.Name == name {
			return true, nil
		}
	}
	return false, nil
}

// catchUp is how long objects are held back until the API server accepts them after a
// change of their definition. It takes over a new schema at a time of its own, mostly
// within milliseconds, and no answer tells whether it has.
const catchUp = 5 * time.Second

// awaitAccepted waits until the API server, asked for a dry run that is strict about
// fields, accepts the objects whose definitions have just changed. After some seconds
// they are taken for wrong, which writing them will tell.
func (k *kubeClient) awaitAccepted(resources kube.ResourceList) {
	ctx, cancel := context.WithTimeout(k.s.ctx, catchUp)
	defer cancel()
	for _, info := range resources {
		if _, changed := k.changed[info.Mapping.GroupVersionKind.GroupKind()]; !changed {
			continue
		}
		_ = wait.PollUntilContextCancel(ctx, pollDefinitions, true, func(context.Context) (bool, error) { return !k.outdated(info), nil })
	}
}

// outdated reports whether an object is refused as one of another schema would be. Where
// what is live doesn't fit the schema any more, that is the new one.
func (k *kubeClient) outdated(info *resource.Info) bool {
	data, err := json.Marshal(info.Object)
	if err != nil {
		return false
	}
	force := true
	_, err = k.helper(info).DryRun(true).WithFieldValidation(metav1.FieldValidationStrict).
		Patch(info.Namespace, info.Name, types.ApplyPatchType, data, &metav1.PatchOptions{Force: &force})
	if apierrors.IsInternalError(err) {
		return !strings.Contains(err.Error(), "failed to create typed live object")
	}
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}
