package registry_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/stages"
)

// serve starts a registry that the test's end stops.
func serve(t testing.TB, opts registry.Options) *registry.Server {
	t.Helper()
	s, err := registry.Serve(context.Background(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close(context.Background())) })
	return s
}

func ref(t testing.TB, s string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(s)
	require.NoError(t, err)
	return r
}

func push(t testing.TB, where string) v1.Image {
	t.Helper()
	img, err := random.Image(2048, 3)
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref(t, where), img))
	return img
}

// annotated returns img with an annotation that makes it another.
func annotated(t testing.TB, img v1.Image, key string) v1.Image {
	t.Helper()
	made, ok := mutate.Annotations(img, map[string]string{key: "here"}).(v1.Image)
	require.True(t, ok)
	return made
}

func TestServePushPull(t *testing.T) {
	s := serve(t, registry.Options{Dir: t.TempDir()})
	img := push(t, s.Addr()+"/team/app:v1")
	pulled, err := remote.Image(ref(t, s.Addr()+"/team/app:v1"))
	require.NoError(t, err)
	require.NoError(t, validate.Image(pulled))
	want, err := img.Digest()
	require.NoError(t, err)
	got, err := pulled.Digest()
	require.NoError(t, err)
	assert.Equal(t, want, got)

	idx, err := random.Index(512, 2, 3)
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref(t, s.Addr()+"/team/app:multi"), idx))
	pulledIdx, err := remote.Index(ref(t, s.Addr()+"/team/app:multi"))
	require.NoError(t, err)
	require.NoError(t, validate.Index(pulledIdx))

	repo, err := name.NewRepository(s.Addr() + "/team/app")
	require.NoError(t, err)
	tags, err := remote.List(repo)
	require.NoError(t, err)
	assert.Equal(t, []string{"multi", "v1"}, tags)
	reg, err := name.NewRegistry(s.Addr())
	require.NoError(t, err)
	repos, err := remote.Catalog(context.Background(), reg)
	require.NoError(t, err)
	assert.Equal(t, []string{"team/app"}, repos)
}

func TestContentSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	s, err := registry.Serve(context.Background(), registry.Options{Dir: dir})
	require.NoError(t, err)
	addr := s.Addr()
	img := push(t, addr+"/app:v1")
	artifact, err := random.Image(16, 1)
	require.NoError(t, err)
	desc, err := remote.Head(ref(t, addr+"/app:v1"))
	require.NoError(t, err)
	withSubject, ok := mutate.Subject(artifact, *desc).(v1.Image)
	require.True(t, ok)
	digest, err := withSubject.Digest()
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref(t, addr+"/app@"+digest.String()), withSubject))
	require.NoError(t, s.Close(context.Background()))

	serve(t, registry.Options{Dir: dir, Listen: []string{addr}})
	pulled, err := remote.Image(ref(t, addr+"/app:v1"))
	require.NoError(t, err)
	require.NoError(t, validate.Image(pulled))
	want, err := img.Digest()
	require.NoError(t, err)
	d, err := name.NewDigest(addr + "/app@" + want.String())
	require.NoError(t, err)
	idx, err := remote.Referrers(d)
	require.NoError(t, err)
	m, err := idx.IndexManifest()
	require.NoError(t, err)
	require.Len(t, m.Manifests, 1)
	assert.Equal(t, digest, m.Manifests[0].Digest)
}

func TestServeSeveralAddresses(t *testing.T) {
	s := serve(t, registry.Options{Listen: []string{"127.0.0.1:0", "127.0.0.2:0"}})
	require.Len(t, s.Addrs(), 2)
	_, first, err := net.SplitHostPort(s.Addrs()[0])
	require.NoError(t, err)
	_, second, err := net.SplitHostPort(s.Addrs()[1])
	require.NoError(t, err)
	assert.Equal(t, first, second)
	push(t, s.Addrs()[0]+"/app:v1")
	other, err := name.ParseReference(s.Addrs()[1]+"/app:v1", name.Insecure)
	require.NoError(t, err)
	_, err = remote.Image(other)
	require.NoError(t, err)
}

func TestServeRefuses(t *testing.T) {
	taken := serve(t, registry.Options{})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	file := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, tc := range map[string]struct {
		ctx  context.Context
		opts registry.Options
		is   error
		text string
	}{
		"malformed address": {context.Background(), registry.Options{Listen: []string{"localhost"}}, stages.ErrInvalid, "host:port"},
		"taken address":     {context.Background(), registry.Options{Listen: []string{"127.0.0.1:0", taken.Addr()}}, nil, "in use"},
		"folder is a file":  {context.Background(), registry.Options{Dir: file}, nil, "content folder"},
		"ended context":     {ended, registry.Options{}, context.Canceled, "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := registry.Serve(tc.ctx, tc.opts)
			require.ErrorContains(t, err, tc.text)
			if tc.is != nil {
				assert.ErrorIs(t, err, tc.is)
			}
		})
	}
}

func TestCloseLetsRequestsFinishUntilContextEnds(t *testing.T) {
	s, err := registry.Serve(context.Background(), registry.Options{})
	require.NoError(t, err)
	body, feed := io.Pipe()
	started := startUpload(t, s.Addr(), "app")
	done, reading := make(chan error, 1), make(chan struct{})
	go func() {
		// The server says 100 when its handler begins to read.
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got100Continue: func() { close(reading) }})
		req, err := http.NewRequestWithContext(ctx, http.MethodPatch, started, body)
		if err == nil {
			req.Header.Set("Expect", "100-continue")
			var resp *http.Response
			if resp, err = http.DefaultClient.Do(req); err == nil {
				err = resp.Body.Close()
			}
		}
		done <- err
	}()
	<-reading
	_, err = feed.Write([]byte("the request is under way"))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Close(ctx), context.DeadlineExceeded)
	require.NoError(t, feed.Close())
	require.Error(t, <-done)
	require.NoError(t, s.Close(context.Background()), "closing again")
}

func TestContextEndStopsServer(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s, err := registry.Serve(ctx, registry.Options{})
	require.NoError(t, err)
	cancel()
	require.NoError(t, s.Close(context.Background()))
	_, err = net.Dial("tcp", s.Addr())
	require.Error(t, err)
}

func TestConcurrentPushes(t *testing.T) {
	s := serve(t, registry.Options{Dir: t.TempDir()})
	img, err := random.Image(4096, 4)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			assert.NoError(t, remote.Write(ref(t, fmt.Sprintf("%s/app:v%d", s.Addr(), i%3)), img))
			assert.NoError(t, remote.Write(ref(t, fmt.Sprintf("%s/other:v%d", s.Addr(), i)), annotated(t, empty.Image, fmt.Sprint(i))))
		})
	}
	wg.Wait()
	pulled, err := remote.Image(ref(t, s.Addr()+"/app:v2"))
	require.NoError(t, err)
	require.NoError(t, validate.Image(pulled))
}

// startUpload returns the address of an upload that was begun.
func startUpload(t testing.TB, addr, repo string) string {
	t.Helper()
	resp, err := http.Post("http://"+addr+"/v2/"+repo+"/blobs/uploads/", "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusAccepted, resp.StatusCode)
	loc := resp.Header.Get("Location")
	require.True(t, strings.HasPrefix(loc, "/v2/"))
	return "http://" + addr + loc
}
