package smoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"
)

// tunnel is a connection to a pod's port through the API server. No port is opened
// on this machine, so nobody else can use it.
type tunnel struct {
	net.Conn // our end of a pipe
	inner    net.Conn
	session  httpstream.Connection
	data     httpstream.Stream
	work     sync.WaitGroup
	closing  sync.Once

	told    chan struct{} // closed when the other side has said what went wrong, or nothing
	trouble string        // to be read once told is closed
}

// dial connects to an endpoint. That says that the API server and the kubelet have
// agreed, not that the port is open: see tunnel.refused.
func (c cluster) dial(ctx context.Context, e endpoint) (*tunnel, error) {
	return promptly(ctx, func() (*tunnel, error) {
		session, err := c.session(ctx, e)
		if err != nil {
			return nil, err
		}
		t, err := openTunnel(session, e.port)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("forward port %d of %s: %w", e.port, e, err), session.Close())
		}
		return t, nil
	})
}

// promptly opens a tunnel, or returns once ctx is done: not all that it takes heeds
// a context. What is opened too late is closed.
func promptly(ctx context.Context, open func() (*tunnel, error)) (*tunnel, error) {
	type result struct {
		tunnel *tunnel
		err    error
	}
	done := make(chan result)
	go func() {
		t, err := open()
		select {
		case done <- result{t, err}:
		case <-ctx.Done():
			if t != nil {
				_ = t.Close()
			}
		}
	}()
	select {
	case r := <-done:
		return r.tunnel, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func openTunnel(session httpstream.Connection, port int32) (*tunnel, error) {
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	complaints, err := session.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	if err := complaints.Close(); err != nil { // nothing is written to it
		return nil, err
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := session.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	ours, inner := net.Pipe()
	t := &tunnel{Conn: ours, inner: inner, session: session, data: data, told: make(chan struct{})}
	t.work.Go(func() {
		defer close(t.told)
		text, _ := io.ReadAll(io.LimitReader(complaints, 4<<10)) // ends when the session does
		t.trouble = strings.TrimSpace(string(text))
	})
	t.work.Go(func() {
		_, _ = io.Copy(inner, data) // an error is an end, like any other
		<-t.told
		_ = inner.Close() // ends the reader's wait, and the other copy
	})
	t.work.Go(func() {
		_, _ = io.Copy(data, inner)
		_ = data.Close() // says that nothing more will be written
	})
	return t, nil
}

// Read reads what the pod has sent. Where the port was refused, it says so.
func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		if refusal := t.refused(); refusal != nil {
			return 0, refusal
		}
	}
	return n, err
}

// refused returns why the kubelet could not connect, or lost the connection, as
// far as that is known by now.
func (t *tunnel) refused() error {
	select {
	case <-t.told:
		if t.trouble != "" {
			return fmt.Errorf("port-forward: %s", essence(t.trouble))
		}
	default:
	}
	return nil
}

// essence leaves out of a runtime's message the sandbox and its network namespace.
func essence(message string) string {
	for _, mark := range []string{"dial tcp4 ", "dial tcp "} {
		if i := strings.Index(message, mark); i >= 0 {
			return message[i:]
		}
	}
	return message
}

// settle waits for as long as given to hear whether the port was refused.
func (t *tunnel) settle(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-t.told:
		if err := t.refused(); err != nil {
			return err
		}
		return t.lost()
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lost returns an error if the way to the kubelet has broken off. That the pod has
// closed the connection is no such thing.
func (t *tunnel) lost() error {
	select {
	case <-t.session.CloseChan():
		return &unreachable{errors.New("port-forward: the connection to the API server was lost")}
	default:
		return nil
	}
}

// Close ends the connection and waits for what served it.
func (t *tunnel) Close() error {
	t.closing.Do(func() {
		_ = t.Conn.Close() // a pipe's returns nothing
		_ = t.data.Reset() // nobody is there to hear of an error
		_ = t.session.Close()
		_ = t.inner.Close()
		t.work.Wait()
	})
	return nil
}

// session asks the API server for a connection to a pod: by WebSocket, and by SPDY
// where that is not possible or not permitted, as kubectl does.
func (c cluster) session(ctx context.Context, e endpoint) (httpstream.Connection, error) {
	address := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(e.pod.Namespace).Name(e.pod.Name).SubResource("portforward").URL().String()
	session, err := c.byWebSocket(ctx, address)
	if err == nil {
		return session, nil
	}
	first := err
	if httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err) {
		if session, err = c.bySPDY(ctx, address); err == nil {
			return session, nil
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, errors.Join(context.Cause(ctx), err)
	case forbidden(err):
		return nil, denied(forbiddenError(err), "create", "pods/portforward", e.pod.Namespace, e.pod.Name)
	case gone(err) || gone(first):
		return nil, fmt.Errorf("forward to %s: %w", e, err)
	}
	return nil, &unreachable{fmt.Errorf("forward to %s: %w", e, err)}
}

func (c cluster) byWebSocket(ctx context.Context, address string) (httpstream.Connection, error) {
	transport, holder, err := websocket.RoundTripperFor(c.rest)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	conn, err := websocket.Negotiate(transport, holder, req, tunnelingProtocol)
	if err != nil {
		return nil, err
	}
	return streamspdy.NewClientConnectionWithPings(portforward.NewTunnelingConnection("smoke", conn), portforward.PingPeriod)
}

// tunnelingProtocol is SPDY, as port-forwards speak it, in a WebSocket.
const tunnelingProtocol = "SPDY/3.1+" + portforward.PortForwardProtocolV1Name

func (c cluster) bySPDY(ctx context.Context, address string) (httpstream.Connection, error) {
	transport, upgrader, err := spdy.RoundTripperFor(c.rest)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, nil)
	if err != nil {
		return nil, err
	}
	session, _, err := spdy.NegotiateStreaming(upgrader, &http.Client{Transport: transport}, req, portforward.PortForwardProtocolV1Name)
	return session, err
}

// forbidden and gone look into errors of an upgrade, which carry the API server's
// answer as text at best.
func forbidden(err error) bool {
	return apierrors.IsForbidden(upgradeCause(err)) || strings.Contains(err.Error(), "is forbidden:")
}

func gone(err error) bool {
	return apierrors.IsNotFound(upgradeCause(err)) || strings.Contains(err.Error(), "not found")
}

func upgradeCause(err error) error {
	if upgrade, ok := errors.AsType[*httpstream.UpgradeFailureError](err); ok {
		return upgrade.Cause
	}
	return err
}

// forbiddenError makes an error of the API's kind out of a text that is one.
func forbiddenError(err error) error {
	if cause := upgradeCause(err); apierrors.IsForbidden(cause) {
		return cause
	}
	s := apierrors.NewGenericServerResponse(http.StatusForbidden, "create", corev1.Resource("pods/portforward"), "", err.Error(), 0, true)
	return s
}
