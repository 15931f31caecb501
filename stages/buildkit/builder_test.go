package buildkit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func source(t *testing.T) stages.Source {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\n"), 0o644))
	return stages.Source{Dir: dir, Tags: []string{"v1"}}
}

func builder(t *testing.T, d *fakeDaemon, edit func(*Config)) *Builder {
	cfg := Config{Address: d.address, Repository: "ghcr.io/acme/shop"}
	if edit != nil {
		edit(&cfg)
	}
	b, err := New(cfg)
	require.NoError(t, err)
	return b
}

func TestContract(t *testing.T) {
	stagestest.TestBuilder(t, func(t *testing.T) stagestest.BuilderHarness {
		daemon := startFake(t, func(_ context.Context, req *controlapi.SolveRequest, _ func(*client.SolveStatus)) (map[string]string, error) {
			if req.FrontendAttrs["build-arg:BROKEN"] != "" {
				return nil, failedRun(1)
			}
			return map[string]string{"containerimage.digest": pushedDigest}, nil
		})
		broken := source(t)
		broken.BuildArgs = map[string]string{"BROKEN": "yes"}
		return stagestest.BuilderHarness{Builder: builder(t, daemon, nil), Source: source(t), Broken: broken}
	})
}

func TestRequest(t *testing.T) {
	var asked *controlapi.SolveRequest
	daemon := startFake(t, func(_ context.Context, req *controlapi.SolveRequest, _ func(*client.SolveStatus)) (map[string]string, error) {
		asked = req
		return map[string]string{"containerimage.digest": pushedDigest}, nil
	})
	b := builder(t, daemon, func(c *Config) {
		c.Target, c.Platform = "final", "linux/arm64"
		c.BuildArgs = map[string]string{"A": "config", "B": "config"}
		c.Labels = map[string]string{"team": "harbour"}
		c.Annotations = map[string]string{"title": "shop"}
		c.Secrets = map[string][]byte{"token": []byte("hidden")}
		c.CacheFrom, c.CacheTo = []string{"ghcr.io/acme/shop:cache"}, []string{"cache.internal/shop:cache"}
		c.InsecureRegistries = []string{"cache.internal"}
		c.SourceDate = time.Unix(1_700_000_000, 0)
	})
	src := source(t)
	src.Tags = []string{"v1", "latest", "v1"}
	src.Revision = "4bcd50b"
	src.BuildArgs = map[string]string{"B": "source"}
	img, err := b.Build(t.Context(), src)
	require.NoError(t, err)
	assert.Equal(t, "ghcr.io/acme/shop@"+pushedDigest, img.String())

	assert.Equal(t, map[string]string{
		"filename": "Dockerfile", "cmdline": "dockerfile.v0", "target": "final", "platform": "linux/arm64",
		"build-arg:A": "config", "build-arg:B": "source", "build-arg:SOURCE_DATE_EPOCH": "1700000000",
		"label:team": "harbour", "label:org.opencontainers.image.revision": "4bcd50b",
	}, withoutCache(asked.FrontendAttrs))
	require.Len(t, asked.Exporters, 1)
	assert.Equal(t, "image", asked.Exporters[0].Type)
	assert.Equal(t, map[string]string{
		"name": "ghcr.io/acme/shop:latest,ghcr.io/acme/shop:v1", "push": "true", "push-by-digest": "false",
		"oci-mediatypes": "true", "rewrite-timestamp": "true", "annotation-manifest.title": "shop",
	}, asked.Exporters[0].Attrs)
	require.Len(t, asked.Cache.Exports, 1)
	assert.Equal(t, map[string]string{
		"ref": "cache.internal/shop:cache", "mode": "max", "oci-mediatypes": "true", "image-manifest": "true", "registry.insecure": "true",
	}, asked.Cache.Exports[0].Attrs)
	require.Len(t, asked.Cache.Imports, 1)
	assert.Equal(t, map[string]string{"ref": "ghcr.io/acme/shop:cache"}, asked.Cache.Imports[0].Attrs)
	assert.NotContains(t, asked.String(), "hidden")
}

// withoutCache leaves out what the client adds for old daemons.
func withoutCache(attrs map[string]string) map[string]string {
	kept := make(map[string]string)
	for name, value := range attrs {
		if !strings.HasPrefix(name, "cache-") {
			kept[name] = value
		}
	}
	return kept
}

func TestUntaggedIsPushedByDigest(t *testing.T) {
	var attrs map[string]string
	daemon := startFake(t, func(_ context.Context, req *controlapi.SolveRequest, _ func(*client.SolveStatus)) (map[string]string, error) {
		attrs = req.Exporters[0].Attrs
		return map[string]string{"containerimage.digest": pushedDigest}, nil
	})
	src := source(t)
	src.Tags = nil
	_, err := builder(t, daemon, func(c *Config) { c.FollowSyntaxLine = true }).Build(t.Context(), src)
	require.NoError(t, err)
	assert.Equal(t, "ghcr.io/acme/shop", attrs["name"])
	assert.Equal(t, "true", attrs["push-by-digest"])
}

func TestNoDigest(t *testing.T) {
	daemon := startFake(t, func(context.Context, *controlapi.SolveRequest, func(*client.SolveStatus)) (map[string]string, error) {
		return nil, nil
	})
	_, err := builder(t, daemon, nil).Build(t.Context(), source(t))
	assert.ErrorContains(t, err, "did not say under which digest")
}

func TestCancelDuringBuild(t *testing.T) {
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan struct{})
	daemon := startFake(t, func(ctx context.Context, _ *controlapi.SolveRequest, _ func(*client.SolveStatus)) (map[string]string, error) {
		defer close(ended)
		cancel(enough)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, err := builder(t, daemon, nil).Build(ctx, source(t))
	require.ErrorIs(t, err, enough)
	<-ended
}

// failedRun is how BuildKit reports that line 2 of a Dockerfile exited with code.
func failedRun(code uint32) error {
	const dockerfile = "FROM scratch\nRUN go build \\\n    # everything\n    ./...\n"
	err := error(&gateway.ExitError{ExitCode: code})
	err = wrapf(err, `process "/bin/sh -c go build ./..." did not complete successfully`)
	err = errdefs.WrapVertex(err, digest.Digest("sha256:step"))
	return errdefs.WithSource(err, &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: "Dockerfile", Data: []byte(dockerfile)},
		Ranges: []*pb.Range{{Start: &pb.Position{Line: 2}, End: &pb.Position{Line: 2}}, {Start: &pb.Position{Line: 4}, End: &pb.Position{Line: 4}}},
	})
}

func wrapf(err error, text string) error {
	return &plainError{text: text + ": " + err.Error(), error: err}
}

func TestProgressAndFailure(t *testing.T) {
	const secret = "s3cr3t-canary"
	const id = digest.Digest("sha256:step")
	daemon := startFake(t, func(_ context.Context, _ *controlapi.SolveRequest, tell func(*client.SolveStatus)) (map[string]string, error) {
		vertex := client.Vertex{Digest: id, Name: "[build 1/1] RUN go build \\\n ./...", Started: timeAt(0)}
		tell(&client.SolveStatus{Vertexes: []*client.Vertex{&vertex}})
		for _, part := range []string{"one\ntwo s3cr", "3t-canary\r\nthree\x1b[31m\n50%\r100%\nunfin", "ished"} {
			tell(&client.SolveStatus{Logs: []*client.VertexLog{{Vertex: id, Stream: 1, Data: []byte(part)}}})
		}
		tell(&client.SolveStatus{Warnings: []*client.VertexWarning{{Vertex: id, Short: []byte("careful with " + secret)}}})
		done := vertex
		done.Completed, done.Error = timeAt(1.5), "exit code: 2"
		tell(&client.SolveStatus{Vertexes: []*client.Vertex{&done}})
		return nil, failedRun(2)
	})
	var mu sync.Mutex
	var told []string
	ctx := stages.WithProgress(t.Context(), func(p stages.Progress) {
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, id.String(), p.ID)
		told = append(told, p.Message)
	})
	_, err := builder(t, daemon, func(c *Config) { c.Secrets = map[string][]byte{"token": []byte(secret)} }).Build(ctx, source(t))
	assert.Equal(t, []string{
		"[build 1/1] RUN go build \\ ./...", "one", "two [redacted]", "three", "100%",
		"warning: careful with [redacted]", "unfinished", "[build 1/1] RUN go build \\ ./...: failed: exit code: 2",
	}, told)

	var failure *BuildError
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, ReasonFailed, failure.Reason)
	assert.Equal(t, []int{2, 4}, []int{failure.Line, failure.EndLine})
	assert.Equal(t, "RUN go build ./...", failure.Instruction)
	assert.Equal(t, []string{"one", "two [redacted]", "three", "100%", "unfinished"}, failure.Output)
	assert.Equal(t, "Dockerfile:2: RUN go build ./... failed with exit code 2: unfinished", failure.Error())
	assert.True(t, stages.IsPermanent(err))
	assert.NotErrorIs(t, err, stages.ErrInvalid)
	evidence := stages.EvidenceOf(err)
	require.Len(t, evidence, 1)
	assert.Equal(t, "Dockerfile:2", evidence[0].Subject)
	assert.Equal(t, failure.Output, evidence[0].Logs)
}
