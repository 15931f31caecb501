package smoke

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// TCPConfig configures a smoke test over TCP by port-forward; see [NewTCP].
type TCPConfig struct {
	// REST is how to reach the cluster. It is copied. Required, unless Cluster is set.
	REST *rest.Config
	// Cluster is a connection to share with verifiers and other tests, see
	// [rollout.Connect]. Closing the test leaves it open.
	Cluster *rollout.Cluster
	// Target is whom to ask.
	Target Target
	// Send is what to send, such as "PING\r\n". Credentials are refused.
	Send string
	// Expect is what must be answered; there is no Status. Where it looks at the body,
	// as much is read as it takes, until the other side closes or the request times
	// out. Where it doesn't, a connection that isn't refused passes.
	Expect Expect
	// RequestTimeout bounds one request. Default 5 seconds.
	RequestTimeout time.Duration
	// Timeout bounds everything. Default 1 minute.
	Timeout time.Duration
	// Redact masks secrets in what is shown, after [rollout.Redact]. It must be safe
	// for concurrent use.
	Redact func(text string) string
}

// openAfter is how long a connection that nothing is expected on must last: an
// open port says nothing, a closed one is told by the kubelet in no time.
const openAfter = 500 * time.Millisecond

// NewTCP returns a smoke test that connects to a port of a ready pod of the
// release, from here, by port-forward. It asks the cluster nothing yet. Its error
// matches [stages.ErrInvalid].
func NewTCP(config TCPConfig) (*Test, error) {
	d, err := prepareTCP(config)
	if err == nil {
		err = d.connect()
	}
	if err != nil {
		return nil, fmt.Errorf("smoke test over TCP: %w", err)
	}
	return d.test(), nil
}

func prepareTCP(c TCPConfig) (*dialTest, error) {
	if rollout.Redact(c.Send) != c.Send {
		return nil, fmt.Errorf("%w: Send looks like a credential: use NewDial and get it in the function", stages.ErrInvalid)
	}
	if err := c.Expect.forbidStatus("TCP"); err != nil {
		return nil, err
	}
	name := "connect to " + cmp.Or(c.Target.Name, DefaultTarget)
	if c.Target.Port != "" {
		name += ":" + c.Target.Port
	}
	t := &tcpTest{send: c.Send}
	d, err := prepareDial(DialConfig{
		REST: c.REST, Cluster: c.Cluster, Name: name, Target: c.Target, Try: t.try, Expect: c.Expect,
		RequestTimeout: c.RequestTimeout, Timeout: c.Timeout, Redact: c.Redact,
	})
	if err != nil {
		return nil, err
	}
	t.expect = d.expect
	return d, nil
}

type tcpTest struct {
	send   string
	expect expectation
}

// try connects, sends, and reads until what it has is as expected.
func (t *tcpTest) try(ctx context.Context, to Endpoint) (a Answer, err error) {
	conn, err := to.Dial(ctx)
	if err != nil {
		return Answer{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // ends reads and writes
	defer stop()
	began := time.Now()
	if _, err := io.WriteString(conn, t.send); err != nil && t.send != "" {
		return Answer{}, fmt.Errorf("send: %w", err)
	}
	if !t.expect.readsBody() {
		return Answer{Latency: time.Since(began), Message: "connected"}, lasting(ctx, conn)
	}
	buffer := make([]byte, 32<<10)
	content := t.expect
	content.MaxLatency = 0
	for len(a.Body) <= maxBody {
		n, err := conn.Read(buffer)
		a.Body, a.Latency = append(a.Body, buffer[:n]...), time.Since(began)
		switch {
		case content.judge(a, plainly) == "":
			return a, nil
		case errors.Is(err, io.EOF) && len(a.Body) == 0:
			return a, errNoAnswer
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded) && len(a.Body) > 0:
			return a, nil // to be judged as it is
		case err != nil:
			return a, fmt.Errorf("read: %w", err)
		}
	}
	return a, nil
}

// plainly masks nothing, of what is not shown.
func plainly(text string) string { return text }

// lasting waits a little to hear that the port was refused.
func lasting(ctx context.Context, conn net.Conn) error {
	if t, ok := conn.(*tunnel); ok {
		return t.settle(ctx, openAfter)
	}
	return nil
}
