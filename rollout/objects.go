package rollout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// objectsFound is what came of looking for the objects that are no workloads.
type objectsFound struct {
	seen int
	// unseen are the objects that the caller may not read.
	unseen []string
}

// finder looks whether objects exist. It reads nothing but their metadata.
type finder struct {
	discovery discovery.ServerResourcesInterfaceWithContext
	client    metadata.Interface

	mu    sync.Mutex
	known map[stages.Object]metav1.APIResource // by API version and kind
}

func newFinder(config *rest.Config, httpClient *http.Client) (*finder, error) {
	d, err := discovery.NewDiscoveryClientForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("configure discovery at %s: %w", config.Host, err)
	}
	client, err := metadata.NewForConfigAndClient(metadata.ConfigFor(config), httpClient)
	if err != nil {
		return nil, fmt.Errorf("configure the metadata client at %s: %w", config.Host, err)
	}
	return &finder{discovery: d, client: client, known: map[stages.Object]metav1.APIResource{}}, nil
}

// find looks for each of the objects, which are in namespace unless they say
// otherwise, until it has an answer.
func (f *finder) find(ctx context.Context, namespace string, objects []stages.Object) (objectsFound, error) {
	var found objectsFound
	for _, o := range objects {
		err := f.lookUntilKnown(ctx, namespace, o)
		switch {
		case err == nil:
			found.seen++
		case apierrors.IsForbidden(err), apierrors.IsMethodNotSupported(err):
			found.unseen = append(found.unseen, o.String())
		case apierrors.IsNotFound(err):
			return found, stages.Permanent(&Failure{Workload: o, Cause: Missing, Decisive: stages.Evidence{
				Subject: o.String(), Reason: "NotFound", Message: "the object does not exist", Remedy: Missing.remedy(),
			}})
		default:
			return found, err
		}
	}
	return found, nil
}

// lookUntilKnown asks again while the API server gives no answer.
func (f *finder) lookUntilKnown(ctx context.Context, namespace string, o stages.Object) error {
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		err := f.look(ctx, namespace, o)
		if err == nil || refused(err) || apierrors.IsBadRequest(err) {
			return err
		}
		if ctx.Err() != nil || !sleep(ctx, backoff) {
			return fmt.Errorf("look for %s: %w", o, errors.Join(context.Cause(ctx), err))
		}
	}
}

func (f *finder) look(ctx context.Context, namespace string, o stages.Object) error {
	r, err := f.resource(ctx, o)
	if err != nil {
		return err
	}
	var client metadata.ResourceInterface = f.client.Resource(schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Name})
	if r.Namespaced {
		client = f.client.Resource(schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Name}).Namespace(orElse(o.Namespace, namespace))
	}
	_, err = client.Get(ctx, o.Name, metav1.GetOptions{})
	return err
}

// resource asks the server what o's kind is called in a URL, once for a kind.
func (f *finder) resource(ctx context.Context, o stages.Object) (metav1.APIResource, error) {
	key := stages.Object{APIVersion: o.APIVersion, Kind: o.Kind}
	f.mu.Lock()
	r, known := f.known[key]
	f.mu.Unlock()
	if known {
		return r, nil
	}
	version, err := schema.ParseGroupVersion(o.APIVersion)
	if err != nil {
		return metav1.APIResource{}, apierrors.NewBadRequest(err.Error())
	}
	list, err := f.discovery.ServerResourcesForGroupVersionWithContext(ctx, o.APIVersion)
	if err != nil {
		return metav1.APIResource{}, err
	}
	for _, r := range list.APIResources {
		if r.Kind == o.Kind && !strings.Contains(r.Name, "/") {
			r.Group, r.Version = version.Group, version.Version
			f.mu.Lock()
			f.known[key] = r
			f.mu.Unlock()
			return r, nil
		}
	}
	return metav1.APIResource{}, apierrors.NewNotFound(schema.GroupResource{Group: version.Group, Resource: o.Kind}, o.Name)
}

// kindOf returns how to judge o, if it is a workload.
func kindOf(o stages.Object) (kind, bool) {
	group, _, found := strings.Cut(o.APIVersion, "/")
	if !found {
		group = ""
	}
	k, ok := kinds[group+"/"+o.Kind]
	return k, ok
}

// check turns what was found into a line of the verification.
func (o objectsFound) check(elapsed time.Duration) (stages.Check, bool) {
	if o.seen == 0 && len(o.unseen) == 0 {
		return stages.Check{}, false
	}
	c := stages.Check{Name: "objects", Elapsed: elapsed, Message: fmt.Sprintf("%d other objects exist", o.seen)}
	if len(o.unseen) > 0 {
		c.Message += fmt.Sprintf("; not allowed to look at %s", strings.Join(o.unseen, ", "))
	}
	return c, true
}
