package rollout

import (
	"errors"
	"fmt"
	"net/http"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/fairlead-dev/fairlead/stages"
)

// ClusterConfig configures a [Cluster].
type ClusterConfig struct {
	// REST is how to reach the cluster, required. It is copied. Without a rate
	// limit of its own it gets 50 requests per second in bursts of 100.
	REST *rest.Config
	// Wide watches each kind in the whole cluster, where the caller may, and in
	// each namespace only where it may not: one watch for a kind, however many
	// namespaces releases are in. It is for programs that follow many namespaces
	// at once: all of the cluster's pods are read and kept.
	Wide bool
}

// Cluster is the way to one cluster that any number of verifiers share:
// connections, rate limit, what is known of its kinds, and the watches. While
// two verifications need the same kind in the same namespace, there is one watch
// of it. It is opened by the first that needs it, and closed by the last. A
// Cluster is safe for concurrent use.
type Cluster struct {
	rest     *rest.Config
	http     *http.Client
	client   kubernetes.Interface
	dynamic  dynamic.Interface
	metadata metadata.Interface
	kinds    *catalogue
	hub      *hub
}

// Connect prepares the way to a cluster and sends nothing yet. Its errors match
// [stages.ErrInvalid].
func Connect(config ClusterConfig) (*Cluster, error) {
	c, err := connect(config)
	if err != nil {
		return nil, fmt.Errorf("connect to a cluster: %w", err)
	}
	return c, nil
}

func connect(config ClusterConfig) (*Cluster, error) {
	if config.REST == nil {
		return nil, fmt.Errorf("%w: REST is required", stages.ErrInvalid)
	}
	c := &Cluster{rest: rest.CopyConfig(config.REST)}
	if c.rest.RateLimiter == nil {
		if c.rest.QPS == 0 {
			c.rest.QPS, c.rest.Burst = defaultQPS, defaultBurst
		}
		if c.rest.QPS > 0 { // each client would make a limiter of its own
			c.rest.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(c.rest.QPS, max(c.rest.Burst, 1))
		}
	}
	if err := c.open(); err != nil {
		return nil, errors.Join(stages.ErrInvalid, fmt.Errorf("configure the connection to %s: %w", c.rest.Host, err))
	}
	c.hub = newHub(c, config.Wide)
	return c, nil
}

// open makes the clients, which share one connection.
func (c *Cluster) open() (err error) {
	if c.http, err = rest.HTTPClientFor(c.rest); err != nil {
		return err
	}
	typed := rest.CopyConfig(c.rest)
	if typed.ContentType == "" { // a third of the work of JSON, for both sides
		typed.ContentType = "application/vnd.kubernetes.protobuf"
		typed.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	}
	if c.client, err = kubernetes.NewForConfigAndClient(typed, c.http); err != nil {
		return err
	}
	if c.dynamic, err = dynamic.NewForConfigAndClient(c.rest, c.http); err != nil {
		return err
	}
	if c.metadata, err = metadata.NewForConfigAndClient(metadata.ConfigFor(c.rest), c.http); err != nil {
		return err
	}
	d, err := discovery.NewDiscoveryClientForConfigAndClient(c.rest, c.http)
	if err != nil {
		return err
	}
	c.kinds = newCatalogue(d)
	return nil
}

// RESTConfig returns a configuration for client-go that shares the connections
// and the rate limit, for what else works on the cluster.
func (c *Cluster) RESTConfig() *rest.Config {
	host := c.rest.Host
	if base, _, err := rest.DefaultServerUrlFor(c.rest); err == nil {
		host = base.String() // with the scheme, which else would follow from certificates
	}
	return &rest.Config{
		Host: host, APIPath: c.rest.APIPath, Transport: c.http.Transport, RateLimiter: c.rest.RateLimiter,
		QPS: c.rest.QPS, Burst: c.rest.Burst, Timeout: c.rest.Timeout, UserAgent: c.rest.UserAgent,
	}
}

// StreamConfig returns a configuration for streams, such as port-forwards, which
// need connections of their own. They share the rate limit. It holds the
// credentials.
func (c *Cluster) StreamConfig() *rest.Config { return rest.CopyConfig(c.rest) }

// Close lets go of idle connections. A verification that is under way goes on.
func (c *Cluster) Close() error {
	if c.http != nil {
		utilnet.CloseIdleConnectionsFor(c.http.Transport)
	}
	return nil
}

// sharedOrOwn returns the cluster to use: the one given, or one of the caller's
// own, which it has to close.
func sharedOrOwn(shared *Cluster, config *rest.Config) (c *Cluster, own bool, err error) {
	switch {
	case shared != nil && config != nil:
		return nil, false, fmt.Errorf("%w: set Config.REST or Config.Cluster, not both", stages.ErrInvalid)
	case shared != nil:
		return shared, false, nil
	case config == nil:
		return nil, false, fmt.Errorf("%w: Config.REST or Config.Cluster is required", stages.ErrInvalid)
	}
	c, err = connect(ClusterConfig{REST: config})
	return c, true, err
}
