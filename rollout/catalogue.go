package rollout

import (
	"context"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/fairlead-dev/fairlead/stages"
)

// catalogue knows what the cluster calls its kinds in a URL. It asks once for a
// kind, and again for one that was not found.
type catalogue struct {
	discovery discovery.ServerResourcesInterfaceWithContext

	mu    sync.Mutex
	known map[stages.Object]entry // by API version and kind
}

type entry struct {
	resource   schema.GroupVersionResource
	namespaced bool
}

func newCatalogue(d discovery.ServerResourcesInterfaceWithContext) *catalogue {
	return &catalogue{discovery: d, known: map[stages.Object]entry{}}
}

// kindKey is what all objects of o's kind have in common.
func kindKey(o stages.Object) stages.Object {
	return stages.Object{APIVersion: o.APIVersion, Kind: o.Kind}
}

// find returns the entry of o's kind. Its error is as the API server's: not found
// where the cluster doesn't serve the kind.
func (c *catalogue) find(ctx context.Context, o stages.Object) (entry, error) {
	key := kindKey(o)
	c.mu.Lock()
	e, known := c.known[key]
	c.mu.Unlock()
	if known {
		return e, nil
	}
	version, err := schema.ParseGroupVersion(o.APIVersion)
	if err != nil {
		return entry{}, apierrors.NewBadRequest(err.Error())
	}
	list, err := c.discovery.ServerResourcesForGroupVersionWithContext(ctx, o.APIVersion)
	if err != nil {
		return entry{}, err
	}
	for _, r := range list.APIResources {
		if r.Kind == o.Kind && !strings.Contains(r.Name, "/") {
			e = entry{version.WithResource(r.Name), r.Namespaced}
			c.mu.Lock()
			c.known[key] = e
			c.mu.Unlock()
			return e, nil
		}
	}
	return entry{}, apierrors.NewNotFound(schema.GroupResource{Group: version.Group, Resource: o.Kind}, o.Name)
}
