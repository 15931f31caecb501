package e2e_test

import (
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

// cable connects clients to the API server, until it is cut.
type cable struct {
	listener net.Listener
	server   string

	mu     sync.Mutex
	ends   map[net.Conn]net.Conn // of each connection: the client's, the server's
	cutFor int                   // as many connections are refused yet; negative for all
	hung   bool                  // nothing passes until a client has given up
}

// cable returns access to the cluster that can be cut off.
func (w *world) cable(t *testing.T) (*rest.Config, *cable) {
	t.Helper()
	at, err := url.Parse(w.rest.Host)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cable{listener: listener, server: at.Host, ends: map[net.Conn]net.Conn{}}
	t.Cleanup(func() { listener.Close(); c.cut(-1) })
	go c.serve()
	access := rest.CopyConfig(w.rest)
	access.Host = "https://" + listener.Addr().String()
	access.ServerName = at.Hostname()
	return access, c
}

func (c *cable) serve() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		go c.connect(client)
	}
}

func (c *cable) connect(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.server)
	if err != nil {
		return
	}
	defer server.Close()
	if !c.join(client, server) {
		return
	}
	go c.pass(server, client)
	c.pass(client, server)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ends, client)
	c.hung = false // The client has gone, by itself or because of a cut.
}

// join reports whether the two may be connected.
func (c *cable) join(client, server net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cutFor != 0 {
		c.cutFor = max(c.cutFor-1, -1)
		return false
	}
	c.ends[client] = server
	return true
}

// pass copies what from says to to, or drops it while the cable hangs.
func (c *cable) pass(from, to net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		c.mu.Lock()
		hung := c.hung
		c.mu.Unlock()
		if n > 0 && !hung {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cut ends all connections, and refuses as many that follow; all if it is negative.
func (c *cable) cut(refused int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutFor = refused
	for client, server := range c.ends {
		client.Close()
		server.Close()
	}
}

// mend lets connections pass again.
func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutFor = 0
}

// hang lets nothing pass in connections that stay open, until a client gives one up.
func (c *cable) hang() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hung = true
}
