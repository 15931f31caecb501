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
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// discoveryAge is for how long the cluster's kinds are taken as known. A kind that
// is not among them is looked for again at once.
const discoveryAge = 10 * time.Minute

// cluster is what all operations of a Deployer share: connections, rate limit,
// and the knowledge of the cluster's kinds. Helm's own way, a new set for every
// action, leaks memory and repeats the discovery.
type cluster struct {
	base      *rest.Config
	host      string
	transport http.RoundTripper
	limiter   flowcontrol.RateLimiter

	mu    sync.Mutex
	known *knowledge
}

// knowledge is a filled discovery cache; nothing in it changes any more.
type knowledge struct {
	discovery discovery.CachedDiscoveryInterface
	version   *version.Info
	caps      *chartutil.Capabilities
	learned   time.Time
}

func newCluster(base *rest.Config) (*cluster, error) {
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
	return &cluster{
		base: base, host: url.String(), transport: transport,
		limiter: flowcontrol.NewTokenBucketRateLimiter(base.QPS, base.Burst),
	}, nil
}

// config returns a configuration whose requests are bound to ctx. Credentials and
// TLS are in the shared transport already.
func (c *cluster) config(ctx context.Context, log *failureLog, warnings rest.WarningHandler) *rest.Config {
	return &rest.Config{
		Host: c.host,
		// JSON, so that refusals can be read on their way, see failureLog.
		ContentConfig:  rest.ContentConfig{ContentType: runtime.ContentTypeJSON, AcceptContentTypes: runtime.ContentTypeJSON},
		Transport:      &boundTransport{ctx: ctx, base: c.transport, log: log},
		RateLimiter:    &boundLimiter{RateLimiter: c.limiter, ctx: ctx},
		QPS:            c.base.QPS,
		Burst:          c.base.Burst,
		Timeout:        c.base.Timeout,
		WarningHandler: warnings,
	}
}

// remembered returns what is known of the cluster, or nil.
func (c *cluster) remembered() *knowledge {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || time.Since(c.known.learned) > discoveryAge {
		return nil
	}
	return c.known
}

// learn asks the cluster for its kinds with the given configuration.
func (c *cluster) learn(cfg *rest.Config) (*knowledge, error) {
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
