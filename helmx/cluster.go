package helmx

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chartutil"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/fairlead-dev/fairlead/stages"
)

// discoveryAge is for how long the cluster's kinds are taken as known. A kind that
// is not among them is looked for again at once.
const discoveryAge = 10 * time.Minute

// Cluster is the way to one cluster that any number of Deployers share:
// connections, rate limit, knowledge of the cluster's kinds, and a count of the
// requests. Helm's own way, a new set for every action, leaks memory and repeats
// the discovery. It is safe for concurrent use.
type Cluster struct {
	base      *rest.Config
	host      string
	transport http.RoundTripper
	limiter   flowcontrol.RateLimiter
	calls     callCounter
	silence   silence
	plans     planMemory

	mu    sync.Mutex
	known *knowledge
	// holds are the locks that runs have, whichever Deployer took them.
	holds map[holdKey]*hold
}

// knowledge is a filled discovery cache; nothing in it changes any more.
type knowledge struct {
	discovery discovery.CachedDiscoveryInterface
	version   *version.Info
	caps      *chartutil.Capabilities
	learned   time.Time
}

// Connect prepares the way to a cluster and sends nothing yet. Its errors match
// [stages.ErrInvalid].
func Connect(k Kubernetes) (*Cluster, error) {
	base, err := k.RESTConfig()
	if err != nil {
		return nil, err
	}
	c, err := newCluster(base)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", stages.ErrInvalid, err)
	}
	return c, nil
}

func newCluster(base *rest.Config) (*Cluster, error) {
	url, _, err := rest.DefaultServerUrlFor(base)
	if err != nil {
		return nil, fmt.Errorf("address of the API server: %w", err)
	}
	if base.UserAgent == "" {
		base.UserAgent = "fairlead-helmx"
	}
	transport, err := rest.TransportFor(base)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return &Cluster{
		base: base, host: url.String(), transport: transport,
		limiter: flowcontrol.NewTokenBucketRateLimiter(base.QPS, base.Burst),
	}, nil
}

// Close gives up idle connections. Deployers that still use the cluster open new
// ones.
func (c *Cluster) Close() error {
	utilnet.CloseIdleConnectionsFor(c.transport)
	return nil
}

// RESTConfig returns a configuration for client-go that shares the connections,
// the rate limit and the count of requests, for what else works on the cluster.
func (c *Cluster) RESTConfig() *rest.Config {
	return &rest.Config{
		Host:        c.host,
		Transport:   sharedTransport{c},
		RateLimiter: c.limiter,
		QPS:         c.base.QPS,
		Burst:       c.base.Burst,
		Timeout:     c.base.Timeout,
		UserAgent:   c.base.UserAgent,
	}
}

// Calls returns how many requests of each sort were sent so far.
func (c *Cluster) Calls() map[Call]int { return c.calls.snapshot() }

// config returns a configuration whose requests are bound to ctx. Credentials and
// TLS are in the shared transport already.
func (c *Cluster) config(ctx context.Context, log *failureLog, warnings rest.WarningHandler) *rest.Config {
	return &rest.Config{
		Host: c.host,
		// JSON, so that refusals can be read on their way, see failureLog.
		ContentConfig:  rest.ContentConfig{ContentType: runtime.ContentTypeJSON, AcceptContentTypes: runtime.ContentTypeJSON},
		Transport:      &boundTransport{ctx: ctx, base: sharedTransport{c}, log: log},
		RateLimiter:    &boundLimiter{RateLimiter: c.limiter, ctx: ctx},
		QPS:            c.base.QPS,
		Burst:          c.base.Burst,
		Timeout:        c.base.Timeout,
		WarningHandler: warnings,
	}
}

// remembered returns what is known of the cluster, or nil.
func (c *Cluster) remembered() *knowledge {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || time.Since(c.known.learned) > discoveryAge {
		return nil
	}
	return c.known
}

// outdate has the cluster asked for its kinds anew.
func (c *Cluster) outdate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = nil
}

// learn asks the cluster for its kinds with the given configuration.
func (c *Cluster) learn(cfg *rest.Config) (*knowledge, error) {
	client, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a discovery client: %w", err)
	}
	k := &knowledge{discovery: memory.NewMemCacheClient(client), learned: time.Now()}
	if k.version, err = client.ServerVersion(); err != nil {
		return nil, fmt.Errorf("ask the API server for its version: %w", err)
	}
	versions, err := action.GetVersionSet(k.discovery)
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, fmt.Errorf("ask the API server for its kinds: %w", err)
	}
	k.caps = &chartutil.Capabilities{
		APIVersions: versions,
		KubeVersion: chartutil.KubeVersion{Version: k.version.GitVersion, Major: k.version.Major, Minor: k.version.Minor},
		HelmVersion: chartutil.DefaultCapabilities.HelmVersion,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = k
	return k, nil
}
