package smoke

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ns = "shop"

func image(t testing.TB, repository, digit string) stages.Image {
	t.Helper()
	img, err := stages.ParseImage("localhost:5001/lab/" + repository + "@sha256:" + strings.Repeat(digit, 64))
	require.NoError(t, err)
	return img
}

func release(t testing.TB) stages.Release {
	return stages.Release{
		Image: image(t, "shop", "a"), Name: "shop", Namespace: ns, Revision: 3,
		Objects: []stages.Object{{APIVersion: "apps/v1", Kind: "Deployment", Namespace: ns, Name: "shop"}},
	}
}

// lab is a cluster in which nothing happens by itself. Its logs say "fake logs".
type lab struct {
	t      *testing.T
	client *fake.Clientset
}

func newLab(t *testing.T, objects ...runtime.Object) lab {
	return lab{t, fake.NewSimpleClientset(objects...)}
}

func (l lab) cluster() cluster { return cluster{client: l.client, close: func() {}} }

func (l lab) pods() []corev1.Pod {
	list, err := l.client.CoreV1().Pods(ns).List(context.Background(), metav1.ListOptions{})
	require.NoError(l.t, err)
	return list.Items
}

// outcome is a watcher that has seen something.
func outcome(err error) stages.Verifier {
	return stages.VerifierFunc(func(context.Context, stages.Release) (stages.Verification, error) {
		return stages.Verification{}, err
	})
}

// waiting is a watcher that waits for ever.
var waiting = stages.VerifierFunc(func(ctx context.Context, _ stages.Release) (stages.Verification, error) {
	<-ctx.Done()
	return stages.Verification{}, context.Cause(ctx)
})

// ended is what the watcher says of a program that ended so.
func ended(cause rollout.Cause, code int32) error {
	return stages.Permanent(&rollout.Failure{Cause: cause, Decisive: stages.Evidence{Subject: "pod shop/x", Reason: string(cause), Message: "it ended", ExitCode: &code}})
}

func requireFailure(t *testing.T, err error) *rollout.Failure {
	t.Helper()
	var f *rollout.Failure
	require.ErrorAs(t, err, &f)
	require.True(t, stages.IsPermanent(err))
	return f
}

// dialled has a test talk to handler, as if it were each of pods in turn.
func dialled(t *testing.T, d *dialTest, handler http.Handler, pods ...string) *Test {
	t.Helper()
	d.cluster = newLab(t).cluster()
	d.endpoints = func(context.Context, stages.Release) ([]endpoint, error) {
		var all []endpoint
		for _, name := range pods {
			all = append(all, endpoint{pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(name)}}})
		}
		return all, nil
	}
	listener := newPipes()
	server := &http.Server{Handler: handler}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() { _ = server.Close(); <-served })
	d.dial = func(ctx context.Context, _ endpoint) (net.Conn, error) { return listener.dial(ctx) }
	return d.test()
}

// pipes is a listener in the process, so that tests can turn the clock.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// inBubble runs f with a clock of its own.
func inBubble(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }
