package load_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fairlead-dev/fairlead/e2e/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers is a service that behaves otherwise from one request to the next.
func answers(t *testing.T, handlers ...http.HandlerFunc) (url string, sent *atomic.Int64, connections *atomic.Int64) {
	t.Helper()
	sent, connections = new(atomic.Int64), new(atomic.Int64)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers[int(sent.Add(1)-1)%len(handlers)](w, r)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, sent, connections
}

func start(t *testing.T, config load.Config) *load.Generator {
	t.Helper()
	g, err := load.Start(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { g.Stop() })
	return g
}

// requireEnded waits until n requests have ended.
func requireEnded(t *testing.T, g *load.Generator, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return g.Report().Sent() >= n }, 20*time.Second, 5*time.Millisecond)
}

func TestEachRequestIsCountedOnce(t *testing.T) {
	url, sent, connections := answers(t,
		func(w http.ResponseWriter, r *http.Request) {
			if r.Host == "shop.example" {
				w.Header().Set("X-Version", "1.0.0")
			}
		},
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Version", "1.1.0")
			http.Error(w, "out of order", http.StatusInternalServerError)
		},
		func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no backend", http.StatusServiceUnavailable)
		},
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	)
	g := start(t, load.Config{URL: url, Host: "shop.example", Rate: 200})
	requireEnded(t, g, 40)
	report := g.Stop()
	t.Log(report)

	n := int(sent.Load())
	assert.Equal(t, n, report.Sent(), "nothing is repeated, and what is under way is waited for")
	assert.EqualValues(t, n, connections.Load(), "each request has its own connection")
	assert.InDelta(t, n/4, report.Versions["1.0.0"].Served, 1)
	assert.Zero(t, report.Versions["1.0.0"].Failed)
	assert.Greater(t, report.Versions["1.0.0"].Last, report.Versions["1.0.0"].First)
	assert.InDelta(t, n/4, report.Versions["1.1.0"].Failed, 1)
	assert.InDelta(t, n/4, report.Lost["HTTP 503"], 1)
	assert.InDelta(t, n/4, report.Lost["connection closed early"], 1)
	assert.Equal(t, report.Lost["HTTP 503"]+report.Lost["connection closed early"], report.LostTotal())
	assert.Equal(t, report.Sent(), g.Stop().Sent(), "stopping again changes nothing")
}

func TestSlowAnswersDoNotHoldOthersBack(t *testing.T) {
	const delay, enough = time.Second, 30
	url, _, _ := answers(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(delay):
			w.Header().Set("X-Version", "1.0.0")
		case <-r.Context().Done():
		}
	})
	g := start(t, load.Config{URL: url, Rate: 100, Timeout: 20 * time.Second})
	requireEnded(t, g, enough)
	assert.Less(t, g.Report().Elapsed, enough*delay/2, "one after the other takes twice as long at least")
	assert.GreaterOrEqual(t, g.Report().Versions["1.0.0"].Quantile(0.5), delay)
}

func TestWhatIsLostHasAName(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := "http://" + listener.Addr().String()
	require.NoError(t, listener.Close())
	hangs, _, _ := answers(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })

	for name, c := range map[string]struct{ url, want string }{
		"nobody listens": {nobody, "connection refused"},
		"no answer":      {hangs, "timeout"},
		"not ours":       {"http://192.0.2.1", "neither this machine nor on a private network"},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, load.Config{URL: c.url, Rate: 50, Timeout: 50 * time.Millisecond})
			requireEnded(t, g, 2)
			report := g.Stop()
			assert.Equal(t, map[string]int{c.want: report.Sent()}, report.Lost)
		})
	}
}

func TestConfigIsBounded(t *testing.T) {
	for name, c := range map[string]load.Config{
		"no URL":       {},
		"another kind": {URL: "ftp://127.0.0.1"},
		"too fast":     {URL: "http://127.0.0.1", Rate: load.MaxRate + 1},
		"too long":     {URL: "http://127.0.0.1", For: load.MaxFor + 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load.Start(t.Context(), c)
			assert.Error(t, err)
		})
	}
}
