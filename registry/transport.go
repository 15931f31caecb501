package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// guard is the transport under everything that the client asks. It enforces
// what go-containerregistry leaves open: no plain HTTP except where it was
// allowed, no answer without bound, no manifest with another digest than asked
// for or promised.
type guard struct {
	inner   http.RoundTripper
	plain   func(host string) bool
	secrets *secrets
}

var (
	errPlain    = errors.New("plain HTTP is not allowed for this registry")
	errTooLarge = errors.New("the answer is too large")
)

// RoundTrip implements [http.RoundTripper].
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !g.plain(req.URL.Host) {
		if req.Body != nil {
			_ = req.Body.Close() // as a transport must; the error returned says more
		}
		return nil, errPlain
	}
	if _, credential, ok := strings.Cut(req.Header.Get("Authorization"), " "); ok {
		g.secrets.add(credential)
	}
	resp, err := g.inner.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	kind, target := endpoint(first(req).URL.Path)
	switch {
	case kind == "manifests" && req.Method == http.MethodGet && resp.StatusCode == http.StatusOK:
		return checkManifest(resp, target)
	case kind != "blobs":
		resp.Body = &boundedBody{resp.Body, maxManifest}
	}
	return resp, nil
}

// first returns the request that led to req by redirects, or req.
func first(req *http.Request) *http.Request {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return req
}

// endpoint returns the last two elements of a path under /v2/. A path that is
// not the registry's own is a blob's, at a place it redirected to.
func endpoint(path string) (kind, target string) {
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	if n := len(parts); n > 3 && parts[1] == "v2" {
		switch parts[n-2] {
		case "manifests", "referrers", "tags":
			return parts[n-2], parts[n-1]
		}
	}
	if path == "/v2/" {
		return "ping", ""
	}
	return "blobs", ""
}

// checkManifest reads a manifest and compares it with the digest in the request,
// or else with the one in the answer.
func checkManifest(resp *http.Response, target string) (*http.Response, error) {
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if len(content) > maxManifest {
		return nil, fmt.Errorf("%w: the manifest has more than %d bytes", errTooLarge, maxManifest)
	}
	got := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	for _, want := range []string{target, resp.Header.Get("Docker-Content-Digest")} {
		if strings.HasPrefix(want, "sha256:") && want != got {
			return nil, fmt.Errorf("%w: asked for or promised was %.71s, the content is %s", ErrDigestMismatch, want, got)
		}
	}
	// The configuration is read whole, as far as the manifest says that it goes.
	var manifest struct {
		Config struct {
			Size int64 `json:"size"`
		} `json:"config"`
	}
	if err := json.Unmarshal(content, &manifest); err == nil && (manifest.Config.Size < 0 || manifest.Config.Size > maxConfig) {
		return nil, fmt.Errorf("%w: the image's configuration has %d bytes, no more than %d are accepted", errTooLarge, manifest.Config.Size, maxConfig)
	}
	resp.Body = io.NopCloser(bytes.NewReader(content))
	return resp, nil
}

// maxConfig bounds an image's configuration, in bytes.
const maxConfig = 32 << 20

// boundedBody ends with an error where a body is longer than it may be.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return n - 1, errTooLarge
	}
	return n, err
}
