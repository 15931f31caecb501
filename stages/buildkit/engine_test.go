package buildkit

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// startEngine serves handler as Docker Engine would be, and returns its address.
func startEngine(t *testing.T, handler http.Handler) string {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := &http.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return "unix://" + socket
}

// engineProxy lends a fake daemon the front of Docker Engine.
func engineProxy(t *testing.T, daemon *fakeDaemon, push http.HandlerFunc) string {
	mux := http.NewServeMux()
	hijack := func(w http.ResponseWriter) net.Conn {
		conn, _, err := http.NewResponseController(w).Hijack()
		require.NoError(t, err)
		_, err = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
		require.NoError(t, err)
		return conn
	}
	mux.HandleFunc("POST /grpc", func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "h2c", r.Header.Get("Upgrade"))
		front := hijack(w)
		defer front.Close()
		back, err := net.Dial("unix", strings.TrimPrefix(daemon.address, "unix://"))
		if !assert.NoError(t, err) {
			return
		}
		defer back.Close()
		go func() { _, _ = io.Copy(back, front); _ = back.Close() }()
		_, _ = io.Copy(front, back)
	})
	mux.HandleFunc("POST /session", func(w http.ResponseWriter, r *http.Request) {
		assert.NotEmpty(t, r.Header.Get("X-Docker-Expose-Session-Uuid"))
		assert.Contains(t, r.Header["X-Docker-Expose-Session-Grpc-Method"], "/moby.filesync.v1.Auth/Credentials")
		conn := hijack(w)
		defer conn.Close()
		_, _ = io.Copy(io.Discard, conn)
	})
	mux.HandleFunc("POST /images/{name...}", push)
	return DockerEngine(startEngine(t, mux))
}

func TestDockerEngine(t *testing.T) {
	const password = "pass-5b1e77aa"
	var pushed []string
	push := func(w http.ResponseWriter, r *http.Request) {
		pushed = append(pushed, r.PathValue("name")+" "+r.URL.Query().Get("tag"))
		header, err := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Auth"))
		assert.NoError(t, err)
		var auth map[string]string
		assert.NoError(t, json.Unmarshal(header, &auth))
		assert.Equal(t, map[string]string{"username": "robot", "password": password, "identitytoken": "", "serveraddress": "ghcr.io"}, auth)
		_, _ = io.WriteString(w, `{"status":"Pushed"}{"aux":{"Tag":"v1","Digest":"`+pushedDigest+`","Size":1}}`)
	}
	cfg := Config{
		Address: engineProxy(t, startFake(t, nil), push), Repository: "ghcr.io/acme/shop",
		Auth: StaticAuth(map[string]Credentials{"ghcr.io": {Username: "robot", Password: password}}),
	}
	b, err := New(cfg)
	require.NoError(t, err)
	src := source(t)
	src.Tags = []string{"v1", "latest"}
	img, err := b.Build(t.Context(), src)
	require.NoError(t, err)
	assert.Equal(t, "ghcr.io/acme/shop@"+pushedDigest, img.String())
	assert.Equal(t, []string{"acme/shop/push v1", "acme/shop/push latest"}, trimHost(pushed))
}

// trimHost leaves the registry out of the names.
func trimHost(names []string) []string {
	for i, name := range names {
		names[i] = strings.TrimPrefix(name, "ghcr.io/")
	}
	return names
}

func TestDockerEngineRefusesPush(t *testing.T) {
	const password = "pass-5b1e77aa"
	for _, test := range []struct {
		name      string
		push      http.HandlerFunc
		want      string
		permanent bool
	}{
		{"denied", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"status":"x"}{"errorDetail":{"message":"denied: `+password+`"},"error":"denied: `+password+`"}`)
		}, "push ghcr.io/acme/shop:v1: denied: [redacted]", true},
		{"engine's own refusal", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"message":"An image does not exist locally"}`)
		}, "does not exist locally", false},
		{"no digest", func(http.ResponseWriter, *http.Request) {}, "did not report a digest", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := New(Config{
				Address: engineProxy(t, startFake(t, nil), test.push), Repository: "ghcr.io/acme/shop",
				Auth: StaticAuth(map[string]Credentials{"ghcr.io": {Password: password}}),
			})
			require.NoError(t, err)
			_, err = b.Build(t.Context(), source(t))
			require.ErrorContains(t, err, test.want)
			assert.NotContains(t, err.Error(), password)
			assert.Equal(t, test.permanent, stages.IsPermanent(err))
		})
	}
}

func TestHijackRefused(t *testing.T) {
	address := startEngine(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"message":"not for you"}`)
	}))
	e, err := newEngine(address, nil)
	require.NoError(t, err)
	_, err = e.dialGRPC(t.Context(), "")
	require.ErrorContains(t, err, "403 Forbidden: not for you")
}

func TestHijackStopsWithContext(t *testing.T) {
	asked := make(chan struct{})
	address := startEngine(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	e, err := newEngine(address, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	_, err = e.dialGRPC(ctx, "")
	require.Error(t, err)
}

func TestAuthAsksForDockerHubByName(t *testing.T) {
	failing := errors.New("vault is sealed")
	server := &authServer{redactor: new(redactor), lookup: func(_ context.Context, host string) (Credentials, error) {
		if host != "docker.io" {
			return Credentials{}, failing
		}
		return Credentials{IdentityToken: "token-1"}, nil
	}}
	found, err := server.find(t.Context(), "registry-1.docker.io")
	require.NoError(t, err)
	assert.Equal(t, "token-1", found.IdentityToken)
	assert.Equal(t, "[redacted]", server.redactor.text("token-1"))
	_, err = server.find(t.Context(), "ghcr.io")
	require.ErrorIs(t, err, failing)
}

func FuzzReadPush(f *testing.F) {
	f.Add(`{"status":"x"}{"aux":{"Tag":"v1","Digest":"sha256:1","Size":1}}`)
	f.Add(`{"error":"denied"}`)
	f.Fuzz(func(t *testing.T, report string) {
		digest, err := readPush(strings.NewReader(report))
		assert.Equal(t, err == nil, digest != "")
	})
}
