package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// liar is a registry that answers as the first part of a repository's name says,
// and otherwise as the real one.
type liar struct {
	server *http.Server
	addr   string
	real   *httputil.ReverseProxy

	mu    sync.Mutex
	asked map[string]int // manifests, by repository
}

// slowness is how long a slow pull takes; the kubelet pulls one image at a time.
const slowness = 6 * time.Second

func startLiar(ctx context.Context, registry string) (*liar, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the lying registry: %w", err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("start the lying registry: %w", err)
	}
	l := &liar{
		addr: net.JoinHostPort("localhost", port), asked: map[string]int{},
		real: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry}),
	}
	l.server = &http.Server{Handler: l, ReadHeaderTimeout: 10 * time.Second}
	go l.server.Serve(listener) //nolint:errcheck // it ends with Close
	return l, nil
}

func (l *liar) port() (int, error) {
	_, port, err := net.SplitHostPort(l.addr)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

func (l *liar) Close() error { return l.server.Close() }

// ServeHTTP answers /v2/<lie>/<number of times>/<repository>/...
func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/v2/"), "/", 4)
	if len(parts) < 4 {
		w.WriteHeader(http.StatusOK)
		return
	}
	lie, key := parts[0], strings.Join(parts[:2], "/")
	times, _, _ := strings.Cut(parts[1], "-")
	limit, err := strconv.Atoi(times)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	// A registry that wants credentials wants them for blobs as well: containerd looks
	// for a manifest among those too.
	if (lie == "unauthorized" || strings.Contains(r.URL.Path, "/manifests/")) && l.lies(key, limit) && l.answer(w, r, lie) {
		return
	}
	r.URL.Path = "/v2/" + parts[2] + "/" + parts[3]
	l.real.ServeHTTP(w, r)
}

// lies counts, and reports whether this request is to be lied to; 0 is always.
func (l *liar) lies(key string, limit int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[key]++
	return limit == 0 || l.asked[key] <= limit
}

func (l *liar) answer(w http.ResponseWriter, r *http.Request, lie string) bool {
	refuse := func(status int, code, message string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
	}
	switch lie {
	case "unauthorized":
		w.Header().Set("Www-Authenticate", `Basic realm="lab"`)
		refuse(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	case "limited":
		refuse(http.StatusTooManyRequests, "TOOMANYREQUESTS", "You have reached your pull rate limit.")
	case "down":
		refuse(http.StatusServiceUnavailable, "UNAVAILABLE", "try again later")
	case "slow":
		select {
		case <-time.After(slowness):
		case <-r.Context().Done():
		}
		return false
	}
	return true
}

// lying is a reference to the base image by way of the liar, who lies so many
// times, or always if 0. who keeps cases apart.
func (m *matrix) lying(lie string, times int, who string) string {
	_, digest, _ := strings.Cut(m.world.box.Base.Base, "@")
	return fmt.Sprintf("%s/%s/%d-%s/lab/base@%s", m.liar.addr, lie, times, who, digest)
}

// pushForeign pushes an image index for another architecture only.
func pushForeign(ctx context.Context, registry string) (string, error) {
	image, err := random.Image(64, 1)
	if err != nil {
		return "", err
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
	})
	tag, err := name.NewTag(registry + "/lab/foreign:1")
	if err != nil {
		return "", err
	}
	digest, err := index.Digest()
	return tag.Digest(digest.String()).String(), errors.Join(err, remote.WriteIndex(tag, index, remote.WithContext(ctx)))
}
