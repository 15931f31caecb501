package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// kindNetwork is the container network that kind puts its nodes on.
const kindNetwork = "kind"

// Gateway is this host's address on the cluster's container network: what
// listens there can be reached from the node and from pods.
func (c *Cluster) Gateway() netip.Addr { return c.gateway }

// ConnectRegistry makes the node pull images named localhost:<port>/... from
// the registry at 127.0.0.1:<port> of this host, over plain HTTP, until the
// cluster is closed. The registry does not need to listen anywhere else: the
// lab forwards connections from the cluster's network.
func (c *Cluster) ConnectRegistry(ctx context.Context, port int) error {
	if err := c.connectRegistry(ctx, port); err != nil {
		return fmt.Errorf("lab: connect cluster %s to the registry at localhost:%d: %w", c.name, port, err)
	}
	return nil
}

func (c *Cluster) connectRegistry(ctx context.Context, port int) error {
	host := "host.docker.internal"
	if runtime.GOOS == "linux" {
		// Elsewhere containers run in a virtual machine that forwards by itself.
		host = c.gateway.String()
		if err := c.forward(ctx, port); err != nil {
			return err
		}
	}
	node, err := c.node()
	if err != nil {
		return err
	}
	url := "http://" + net.JoinHostPort(host, strconv.Itoa(port))
	folder := fmt.Sprintf("/etc/containerd/certs.d/localhost:%d", port)
	write := command{
		args:  []string{c.engine.name, "exec", "--interactive", node, "sh", "-c", "mkdir -p " + folder + " && cat >" + folder + "/hosts.toml"},
		stdin: strings.NewReader(hostsFile(url)),
	}
	if _, err := write.run(ctx); err != nil {
		return err
	}
	if _, err := run(ctx, c.engine.name, "exec", node, "curl", "-fsS", "-m", "10", "-o", "/dev/null", url+"/v2/"); err != nil {
		return fmt.Errorf("the node can't reach it at %s: %w; a firewall on this host may be dropping it", url, err)
	}
	return nil
}

// hostsFile is a containerd hosts.toml that names a registry's real address.
func hostsFile(url string) string {
	return fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", url, url)
}

// node is the name of the cluster's only container.
func (c *Cluster) node() (string, error) {
	nodes, err := c.provider.ListInternalNodes(c.name)
	if err != nil {
		return "", err
	}
	if len(nodes) != 1 {
		return "", fmt.Errorf("%d nodes instead of one", len(nodes))
	}
	return nodes[0].String(), nil
}

// findGateway asks the engine where on the node's network this host is.
func (c *Cluster) findGateway(ctx context.Context) (netip.Addr, error) {
	node, err := c.node()
	if err != nil {
		return netip.Addr{}, err
	}
	text, err := run(ctx, c.engine.name, "inspect", "--format", "{{json .NetworkSettings.Networks}}", node)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the host's address on its network: %w", err)
	}
	return parseGateway(text)
}

// parseGateway reads the networks of an inspected container, which Docker and
// Podman describe alike.
func parseGateway(text string) (netip.Addr, error) {
	var networks map[string]struct{ Gateway string }
	if err := json.Unmarshal([]byte(text), &networks); err != nil {
		return netip.Addr{}, fmt.Errorf("find the host's address on its network: %w", err)
	}
	gateway, err := netip.ParseAddr(networks[kindNetwork].Gateway)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the host's address on network %s: %w", kindNetwork, err)
	}
	return gateway, nil
}

// forward starts passing connections to the gateway's port on to the same port
// of the loopback address, unless a listener is there already.
func (c *Cluster) forward(ctx context.Context, port int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	from := net.JoinHostPort(c.gateway.String(), strconv.Itoa(port))
	if taken, err := (&net.Dialer{}).DialContext(ctx, "tcp", from); err == nil {
		return taken.Close()
	}
	f, err := startForward(ctx, from, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	c.forwards = append(c.forwards, f)
	return nil
}

// forward passes TCP connections from one address to another.
type forward struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu    sync.Mutex
	done  bool
	conns map[net.Conn]struct{}
}

func startForward(ctx context.Context, from, to string) (*forward, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", from)
	if err != nil {
		return nil, fmt.Errorf("forward %s to %s: %w", from, to, err)
	}
	f := &forward{listener: listener, target: to, conns: map[net.Conn]struct{}{}}
	f.running.Go(f.serve)
	return f, nil
}

func (f *forward) serve() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return // closed
		}
		f.running.Go(func() { f.pass(conn) })
	}
}

// pass copies both ways until both ends are done, or the forward is closed.
func (f *forward) pass(conn net.Conn) {
	defer f.drop(conn)
	if !f.keep(conn) {
		return
	}
	target, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", f.target) // on this machine: it answers or refuses at once
	if err != nil {
		return // the client sees its connection closed, as if nobody listened
	}
	defer f.drop(target)
	if !f.keep(target) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { copyAndCloseWrite(conn, target) })
	copyAndCloseWrite(target, conn)
	back.Wait()
}

// copyAndCloseWrite copies until src ends and then says so to dst, which may
// still be answering.
func copyAndCloseWrite(dst, src net.Conn) {
	// A connection that breaks ends both directions; there is nobody to tell.
	_, _ = io.Copy(dst, src)
	if tcp, ok := dst.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

func (f *forward) keep(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return false
	}
	f.conns[conn] = struct{}{}
	return true
}

func (f *forward) drop(conn net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, conn)
	_ = conn.Close()
}

// close ends every connection and returns when nothing is passed any more.
func (f *forward) close() error {
	err := f.listener.Close()
	f.mu.Lock()
	f.done = true
	for conn := range f.conns {
		err = errors.Join(err, conn.Close())
	}
	f.mu.Unlock()
	f.running.Wait()
	return err
}
