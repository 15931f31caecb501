package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"path"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// reachTimeout is how long a node may take to accept a connection: a new service
	// gets through a moment after its endpoints are known.
	reachTimeout = 5 * time.Second
	// reachRetry is how often that is tried meanwhile.
	reachRetry = 100 * time.Millisecond
)

// localService is a service of the cluster that answers at an address of this
// machine.
type localService struct {
	// URL has no slash at its end.
	URL    string
	server *http.Server
	served chan error
}

// serveService makes a service's port reachable from this process through the API
// server's proxy. Unlike a node port that needs no way to the cluster but the one
// that the kubeconfig describes, whatever that is. What answers is one of the
// service's ready endpoints, of the API server's choice.
func serveService(ctx context.Context, access *rest.Config, namespace, service, port string) (*localService, error) {
	transport, err := rest.TransportFor(access)
	if err != nil {
		return nil, fmt.Errorf("reach service %s/%s: %w", namespace, service, err)
	}
	api, _, err := rest.DefaultServerUrlFor(access)
	if err != nil {
		return nil, fmt.Errorf("reach service %s/%s: %w", namespace, service, err)
	}
	target := *api
	target.Path = path.Join("/", api.Path, "api/v1/namespaces", namespace, "services", "http:"+service+":"+port, "proxy")
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("reach service %s/%s: %w", namespace, service, err)
	}
	s := &localService{
		URL: "http://" + listener.Addr().String(),
		server: &http.Server{
			Handler: &httputil.ReverseProxy{
				Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&target) },
				Transport: transport,
				// Whoever asks gets a 502 with nothing else to it; there is no log to write to.
				ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
					http.Error(w, err.Error(), http.StatusBadGateway)
				},
			},
			ReadHeaderTimeout: 5 * time.Second,
		},
		served: make(chan error, 1),
	}
	go func() { s.served <- s.server.Serve(listener) }()
	return s, nil
}

// Close stops answering.
func (s *localService) Close() error {
	err := s.server.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// ServiceURL is an http URL, without a slash at its end, at which this machine
// reaches the first port of a service of type NodePort. That is the node itself,
// where every new connection goes to an endpoint of kube-proxy's choice as it would
// inside of the cluster; or, where this machine has no way to the node, the API
// server's proxy, which chooses by itself.
func (b *Sandbox) ServiceURL(ctx context.Context, namespace, service string) (string, error) {
	url, err := b.serviceURL(ctx, namespace, service)
	if err != nil {
		return "", fmt.Errorf("sandbox: reach service %s/%s: %w", namespace, service, err)
	}
	return url, nil
}

func (b *Sandbox) serviceURL(ctx context.Context, namespace, service string) (string, error) {
	access, err := clientcmd.BuildConfigFromFlags("", b.Kubeconfig)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", b.Kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return "", err
	}
	found, err := client.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if len(found.Spec.Ports) == 0 || found.Spec.Ports[0].NodePort == 0 {
		return "", errors.New("it has no node port")
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	port := found.Spec.Ports[0]
	for _, node := range nodes.Items {
		for _, address := range node.Status.Addresses {
			at := net.JoinHostPort(address.Address, strconv.Itoa(int(port.NodePort)))
			if address.Type == corev1.NodeInternalIP && reachable(ctx, at) {
				return "http://" + at, nil
			}
		}
	}
	proxied, err := serveService(ctx, access, namespace, service, strconv.Itoa(int(port.Port)))
	if err != nil {
		return "", err
	}
	b.closeWith(proxied.Close)
	return proxied.URL, nil
}

// reachable reports whether something accepts connections there, or soon does.
func reachable(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	retry := time.NewTicker(reachRetry)
	defer retry.Stop()
	for {
		if conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address); err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-retry.C:
		}
	}
}
