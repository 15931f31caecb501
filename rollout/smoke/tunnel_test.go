package smoke

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/fairlead-dev/fairlead/stages"
)

// kubelet is the other end of a port-forward.
type kubelet struct {
	conn    net.Conn
	session httpstream.Connection // the near end's
	streams chan httpstream.Stream
}

func newKubelet(t *testing.T) kubelet {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	far, err := listener.Accept()
	require.NoError(t, err)
	k := kubelet{conn: far, streams: make(chan httpstream.Stream, 2)}
	_, err = streamspdy.NewServerConnection(far, func(s httpstream.Stream, _ <-chan struct{}) error {
		k.streams <- s
		return nil
	})
	require.NoError(t, err)
	k.session, err = streamspdy.NewClientConnection(near)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, _ = k.session.Close(), far.Close() // whichever the test has left open
	})
	return k
}

// TestALostTunnelIsNoOpenPort has the way to the kubelet break off before that has
// said whether the port is open.
func TestALostTunnelIsNoOpenPort(t *testing.T) {
	t.Run("lost", func(t *testing.T) {
		k := newKubelet(t)
		tunnel, err := openTunnel(k.session, 80)
		require.NoError(t, err)
		defer tunnel.Close()
		require.NoError(t, k.conn.Close())
		err = tunnel.settle(t.Context(), time.Minute)
		_, unasked := errors.AsType[*unreachable](err)
		assert.True(t, unasked, "%v", err)
	})
	t.Run("closed by the pod", func(t *testing.T) {
		k := newKubelet(t)
		tunnel, err := openTunnel(k.session, 80)
		require.NoError(t, err)
		defer tunnel.Close()
		for range 2 {
			require.NoError(t, (<-k.streams).Close())
		}
		require.NoError(t, tunnel.settle(t.Context(), time.Minute))
	})
	t.Run("refused", func(t *testing.T) {
		k := newKubelet(t)
		tunnel, err := openTunnel(k.session, 80)
		require.NoError(t, err)
		defer tunnel.Close()
		complaints := <-k.streams
		say(complaints, "dial tcp4 127.0.0.1:80: connect: connection refused")
		require.NoError(t, complaints.Close())
		require.ErrorContains(t, tunnel.settle(t.Context(), time.Minute), "connection refused")
	})
}

func TestOpeningATunnelEndsWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		began := time.Now()
		_, err := promptly(ctx, func() (*tunnel, error) {
			time.Sleep(time.Minute) // as long as streams take that nobody answers
			return nil, errors.New("timed out")
		})
		require.ErrorContains(t, err, "enough")
		assert.Equal(t, time.Second, time.Since(began))
		time.Sleep(time.Minute)
	})
}

// TestAPortForwardThatHangsIsIndeterminate has an API server not open a connection:
// the release was never asked.
func TestAPortForwardThatHangsIsIndeterminate(t *testing.T) {
	hang := func(ctx context.Context, _ endpoint) (net.Conn, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	t.Run("HTTP", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			d, err := prepareHTTP(HTTPConfig{})
			require.NoError(t, err)
			test := dialled(t, d, nil, "a")
			d.dial = hang
			_, err = test.Verify(t.Context(), release(t))
			require.ErrorIs(t, err, stages.ErrIndeterminate)
			assert.False(t, stages.IsPermanent(err))
		})
	})
	t.Run("TCP, until the test's timeout", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			d, err := prepareTCP(TCPConfig{Timeout: 3 * time.Second})
			require.NoError(t, err)
			test := dialled(t, d, nil, "a")
			d.dial = hang
			_, err = test.Verify(t.Context(), release(t))
			require.ErrorIs(t, err, stages.ErrIndeterminate)
			assert.False(t, stages.IsPermanent(err))
		})
	})
}

func TestAConnectionThatComesTooLateIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, err := prepareDial(DialConfig{Name: "x", Try: func(ctx context.Context, to Endpoint) (Answer, error) {
			go func() { _, _ = to.Dial(context.WithoutCancel(ctx)) }()
			time.Sleep(time.Millisecond)
			return Answer{}, nil
		}})
		require.NoError(t, err)
		test := dialled(t, d, nil, "a")
		ours, theirs := net.Pipe()
		d.dial = func(context.Context, endpoint) (net.Conn, error) {
			time.Sleep(time.Second)
			return ours, nil
		}
		_, err = test.Verify(t.Context(), release(t))
		require.NoError(t, err)
		_, err = theirs.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	})
}

// TestSecretsAreMaskedInEveryForm has a server repeat a secret so that it is cut, or
// written otherwise.
func TestSecretsAreMaskedInEveryForm(t *testing.T) {
	secret := `<k"é&y>` + strings.Repeat("0123456789", 40)
	quoted, err := json.Marshal(secret)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		expect Expect
		body   string
	}{
		"cut by the excerpt":   {Expect{Status: 204}, strings.Repeat("\n", 1100) + secret},
		"cut after much white": {Expect{Status: 204}, strings.Repeat(" ", maxRedacted-100) + secret},
		"a JSON value":         {Expect{JSON: []JSON{{"{.key}", "x"}}}, `{"key":` + string(quoted) + `}`},
		"in a JSON value":      {Expect{JSON: []JSON{{"{.h}", 1}}}, `{"h":{"a":[` + string(quoted) + `]}}`},
		"part of another one":  {Expect{Status: 204}, secret + "-and-more"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				check := overHTTP(t, func(c *HTTPConfig) {
					c.Expect = test.expect
					c.SecretHeaders = func(context.Context) (http.Header, error) {
						return http.Header{"X-Odd": {secret}, "X-Odder": {secret + "-and-more"}}, nil
					}
				}, func(w http.ResponseWriter, _ *http.Request) { say(w, test.body) })
				_, err := check.Verify(t.Context(), release(t))
				f := requireFailure(t, err)
				all := err.Error() + strings.Join(f.Decisive.Logs, "\n")
				assert.NotContains(t, all, "01234")
				assert.NotContains(t, all, "-and-more")
				assert.Contains(t, all, masked)
			})
		})
	}
}

// TestTooFewRequestsInTimeSaysSo has every request pass, and the time end before
// all were made.
func TestTooFewRequestsInTimeSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var tries atomic.Int32
		d, err := prepareDial(DialConfig{Name: "x", Timeout: 3 * time.Second, Expect: Expect{Attempts: 9}, Try: func(context.Context, Endpoint) (Answer, error) {
			tries.Add(1)
			time.Sleep(2 * time.Second)
			return Answer{}, nil
		}})
		require.NoError(t, err)
		_, err = dialled(t, d, nil, "a").Verify(t.Context(), release(t))
		f := requireFailure(t, err)
		assert.Equal(t, "x: 2 of 9 requests passed within the test's timeout, 9 required", f.Decisive.Message)
		assert.EqualValues(t, 2, tries.Load())
	})
}
