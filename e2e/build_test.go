package e2e_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/buildkit"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// TestBuild builds real images with a real BuildKit.
func TestBuild(t *testing.T) {
	lab := newBuildLab(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *buildLab)
	}{
		{"keeps the contract", testBuildContract},
		{"several stages", testBuildStages},
		{"target", testBuildTarget},
		{"without a tag", testBuildUntagged},
		{"ignored files", testBuildIgnore},
		{"reproducible", testBuildReproducible},
		{"registry cache", testBuildCache},
		{"failing instruction", testBuildFailure},
		{"refused input", testBuildRefused},
		{"cancel", testBuildCancel},
		{"secret", testBuildSecret},
		{"unavailable base image", testBuildBase},
		{"unavailable daemon", testBuildDaemonDown},
		{"unavailable registry", testBuildRegistryDown},
		{"credentials", testBuildCredentials},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) { test.run(t, lab) })
	}
}

const stagesDockerfile = `# syntax=docker/dockerfile:1
ARG GREETING=hello
FROM scratch AS shell
COPY sh /bin/sh

FROM shell AS build
ARG GREETING
ARG NAME=world
RUN write /greeting $GREETING $NAME

FROM scratch AS final
COPY --from=build /greeting /greeting
`

func testBuildContract(t *testing.T, lab *buildLab) {
	stagestest.TestBuilder(t, func(t *testing.T) stagestest.BuilderHarness {
		return stagestest.BuilderHarness{
			Builder: lab.builder(t, func(c *buildkit.Config) { c.Repository = lab.registry + "/contract" }),
			Source:  lab.source(t, stagesDockerfile, nil),
			Broken:  lab.source(t, "FROM scratch\nCOPY sh /bin/sh\nRUN exit 1\n", nil),
		}
	})
}

func testBuildStages(t *testing.T, lab *buildLab) {
	builder := lab.builder(t, func(c *buildkit.Config) {
		c.Dockerfile = "images/Dockerfile"
		c.BuildArgs = map[string]string{"GREETING": "goodbye", "NAME": "config"}
		c.Labels = map[string]string{"team": "harbour"}
		c.Annotations = map[string]string{"org.opencontainers.image.title": "greeting"}
		c.Platform = "linux/amd64"
	})
	src := lab.source(t, "FROM nowhere", map[string]string{"images/Dockerfile": stagesDockerfile})
	src.Tags = []string{"v1", "latest"}
	src.Revision = "4bcd50b"
	src.BuildArgs = map[string]string{"NAME": "source"}
	var told diary
	img, err := builder.Build(told.context(t.Context()), src)
	require.NoError(t, err)

	assert.Equal(t, lab.repository(t), img.Repository())
	pushed := pull(t, img.String())
	assert.Equal(t, map[string]string{"greeting": "goodbye source"}, contents(t, pushed))
	config, err := pushed.ConfigFile()
	require.NoError(t, err)
	assert.Equal(t, "4bcd50b", config.Config.Labels["org.opencontainers.image.revision"])
	assert.Equal(t, "harbour", config.Config.Labels["team"])
	for _, tag := range src.Tags {
		digest, err := pull(t, img.Repository()+":"+tag).Digest()
		require.NoError(t, err)
		assert.Equal(t, img.Digest().String(), digest.String(), tag)
	}
	assert.Contains(t, told.text(), "[build 1/1] RUN write /greeting goodbye source")
	for _, p := range told.records {
		assert.NotContains(t, p.Message, "\n")
		assert.NotEmpty(t, p.ID, p.Message)
	}
}

func testBuildTarget(t *testing.T, lab *buildLab) {
	builder := lab.builder(t, func(c *buildkit.Config) { c.Target = "shell" })
	img, err := builder.Build(t.Context(), lab.source(t, stagesDockerfile, nil))
	require.NoError(t, err)
	assert.Contains(t, contents(t, pull(t, img.String())), "bin/sh")

	_, err = lab.builder(t, func(c *buildkit.Config) { c.Target = "nope" }).Build(t.Context(), lab.source(t, stagesDockerfile, nil))
	failure := requireBuildError(t, err, buildkit.ReasonTarget)
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, failure, `"nope"`)
}

func testBuildUntagged(t *testing.T, lab *buildLab) {
	src := lab.source(t, stagesDockerfile, nil)
	src.Tags = nil
	img, err := lab.builder(t, nil).Build(t.Context(), src)
	if lab.docker() {
		require.ErrorIs(t, err, stages.ErrInvalid)
		return
	}
	require.NoError(t, err)
	assert.Contains(t, contents(t, pull(t, img.String())), "greeting")
}

func testBuildIgnore(t *testing.T, lab *buildLab) {
	src := lab.source(t, "FROM scratch\nCOPY . /\n", map[string]string{
		".dockerignore": "*\n!kept\nkept/*.tmp\n", "kept/a": "1", "kept/b.tmp": "2", "other": "3",
	})
	img, err := lab.builder(t, nil).Build(t.Context(), src)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"kept/a": "1"}, contents(t, pull(t, img.String())))
}

func testBuildReproducible(t *testing.T, lab *buildLab) {
	lab = lab.expendable(t)
	builder := lab.builder(t, func(c *buildkit.Config) { c.SourceDate = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC) })
	first, err := builder.Build(t.Context(), lab.source(t, stagesDockerfile, nil))
	require.NoError(t, err)
	config, err := pull(t, first.String()).ConfigFile()
	require.NoError(t, err)
	assert.Equal(t, 2024, config.Created.Year())
	if lab.docker() {
		return // its classic image store keeps the dates of files
	}
	lab.forget(t)
	second, err := builder.Build(t.Context(), lab.source(t, stagesDockerfile, nil))
	require.NoError(t, err)
	assert.Equal(t, first, second, "the same source, built again from nothing")
}

func testBuildCache(t *testing.T, lab *buildLab) {
	if lab.docker() {
		return // only a buildkitd exports a cache of its own
	}
	lab = lab.expendable(t)
	const step = "[2/2] RUN stamp /built"
	builder := lab.builder(t, func(c *buildkit.Config) {
		c.CacheFrom = []string{c.Repository + ":cache"}
		c.CacheTo = c.CacheFrom
	})
	src := lab.source(t, "FROM scratch\nCOPY sh /bin/sh\nRUN stamp /built\n", nil)
	var told diary
	first, err := builder.Build(told.context(t.Context()), src)
	require.NoError(t, err, "a cache that isn't there yet is no reason to fail")
	assert.NotContains(t, told.text(), step+": cached")

	lab.forget(t)
	told = diary{}
	second, err := builder.Build(told.context(t.Context()), src)
	require.NoError(t, err)
	assert.Contains(t, told.text(), step+": cached")
	assert.Equal(t, contents(t, pull(t, first.String()))["built"], contents(t, pull(t, second.String()))["built"])
}

func testBuildFailure(t *testing.T, lab *buildLab) {
	src := lab.source(t, "FROM scratch\nCOPY sh /bin/sh\n\nRUN echo compiling; \\\n    complain main.go:7: undefined x; \\\n    exit 3\n", nil)
	_, err := lab.builder(t, nil).Build(t.Context(), src)
	failure := requireBuildError(t, err, buildkit.ReasonFailed)
	assert.Equal(t, 4, failure.Line)
	assert.Equal(t, 6, failure.EndLine)
	assert.Equal(t, 3, failure.ExitCode)
	assert.ElementsMatch(t, []string{"compiling", "main.go:7: undefined x"}, failure.Output)
	assert.Equal(t, "Dockerfile:4: RUN echo compiling; complain main.go:7: undefined x; exit 3 failed with exit code 3: main.go:7: undefined x", failure.Error())
	assert.True(t, stages.IsPermanent(err))
	evidence := stages.EvidenceOf(err)
	require.Len(t, evidence, 1)
	assert.EqualValues(t, 3, *evidence[0].ExitCode)
	assert.Equal(t, failure.Output, evidence[0].Logs)
}

func testBuildRefused(t *testing.T, lab *buildLab) {
	for _, test := range []struct {
		name, dockerfile string
		line             int
		reason, text     string
	}{
		{"unknown instruction", "FROM scratch\nRUNN x\n", 2, buildkit.ReasonMalformed, "unknown instruction: RUNN"},
		{"unknown flag", "FROM scratch\nCOPY --zzz a b\n", 2, buildkit.ReasonMalformed, "unknown flag"},
		{"empty base", "ARG B\nFROM $B\n", 2, buildkit.ReasonMalformed, "should not be blank"},
		{"no stage", "RUN x\n", 1, buildkit.ReasonMalformed, "no build stage"},
		{"empty file", "\n", 1, buildkit.ReasonMalformed, "no instructions"},
		{"missing file", "FROM scratch\nCOPY nope /\n", 2, buildkit.ReasonOther, `"/nope": not found`},
		{"missing secret", "FROM scratch\nCOPY sh /bin/sh\nRUN --mount=type=secret,id=x,required=true echo\n", 3, buildkit.ReasonOther, "secret x: not found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := lab.builder(t, func(c *buildkit.Config) { c.Repository = lab.registry + "/refused" }).Build(t.Context(), lab.source(t, test.dockerfile, nil))
			failure := requireBuildError(t, err, test.reason)
			assert.Equal(t, test.line, failure.Line)
			assert.ErrorContains(t, err, test.text)
			assert.True(t, stages.IsPermanent(err))
			assert.Equal(t, test.reason == buildkit.ReasonMalformed, errors.Is(err, stages.ErrInvalid))
		})
	}
}

func testBuildCancel(t *testing.T, lab *buildLab) {
	const marker = "fairlead-cancel-marker"
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	var cancelled time.Time
	var told diary
	told.when("waiting", func() { cancelled = time.Now(); cancel(enough) })
	_, err := lab.builder(t, nil).Build(told.context(ctx), lab.source(t, "FROM scratch\nCOPY sh /bin/sh\nRUN echo waiting; wait "+marker+"\n", nil))
	require.ErrorIs(t, err, enough)
	assert.Less(t, time.Since(cancelled), promptly)
	assert.False(t, running(marker), "the instruction must not run on")
}

func testBuildSecret(t *testing.T, lab *buildLab) {
	const canary = "canary-7f3a9c51"
	builder := lab.builder(t, func(c *buildkit.Config) { c.Secrets = map[string][]byte{"token": []byte(canary + "\n")} })
	// A secret is no part of what BuildKit caches by, so the instruction is a new
	// one each time.
	mount := "FROM scratch\nCOPY sh /bin/sh\nRUN --mount=type=secret,id=token echo " + time.Now().Format(time.RFC3339Nano) + "; "
	for _, dockerfile := range []string{
		mount + "cat /run/secrets/token; echo read\n",
		mount + "cat /run/secrets/token; exit 1\n",
	} {
		var told diary
		_, err := builder.Build(told.context(t.Context()), lab.source(t, dockerfile, nil))
		assert.Contains(t, told.text(), "[redacted]", "the instruction does read it")
		assert.NotContains(t, told.text(), canary)
		if err != nil {
			assert.NotContains(t, err.Error(), canary)
			require.Len(t, stages.EvidenceOf(err), 1)
			assert.Contains(t, stages.EvidenceOf(err)[0].Logs, "[redacted]")
			assert.NotContains(t, strings.Join(stages.EvidenceOf(err)[0].Logs, "\n"), canary)
		}
	}
}

func testBuildBase(t *testing.T, lab *buildLab) {
	base := lab.registry + "/nobody/knows:it"
	_, err := lab.builder(t, nil).Build(t.Context(), lab.source(t, "FROM "+base+"\n", nil))
	failure := requireBuildError(t, err, buildkit.ReasonImage)
	assert.Equal(t, 1, failure.Line)
	assert.ErrorContains(t, err, base)
	assert.True(t, stages.IsPermanent(err), "%v", err)

	_, err = lab.builder(t, nil).Build(t.Context(), lab.source(t, "FROM localhost:1/no/registry:here\n", nil))
	requireBuildError(t, err, buildkit.ReasonUnreachable)
	assert.False(t, stages.IsPermanent(err), "%v", err)
}

func testBuildDaemonDown(t *testing.T, lab *buildLab) {
	for _, address := range []string{"unix:///nowhere/buildkitd.sock", buildkit.DockerEngine("unix:///nowhere/docker.sock"), "tcp://127.0.0.1:1"} {
		builder := lab.builder(t, func(c *buildkit.Config) { c.Address = address })
		_, err := builder.Build(t.Context(), lab.source(t, stagesDockerfile, nil))
		require.ErrorContains(t, err, address)
		assert.False(t, stages.IsPermanent(err), "%v", err)
	}
}

func testBuildRegistryDown(t *testing.T, lab *buildLab) {
	builder := lab.builder(t, func(c *buildkit.Config) { c.Repository = "localhost:1/no/registry" })
	_, err := builder.Build(t.Context(), lab.source(t, stagesDockerfile, nil))
	require.ErrorContains(t, err, "localhost:1")
	assert.False(t, stages.IsPermanent(err), "%v", err)
}

func testBuildCredentials(t *testing.T, lab *buildLab) {
	const user, password = "robot", "pass-5b1e77aa"
	open := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	guarded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		open.ServeHTTP(w, r)
	}))
	t.Cleanup(guarded.Close)
	host := strings.TrimPrefix(guarded.URL, "http://")
	build := func(c buildkit.Credentials) error {
		_, err := lab.builder(t, func(cfg *buildkit.Config) {
			cfg.Repository = host + "/private"
			cfg.Auth = buildkit.StaticAuth(map[string]buildkit.Credentials{host: c})
		}).Build(t.Context(), lab.source(t, stagesDockerfile, nil))
		return err
	}
	require.NoError(t, build(buildkit.Credentials{Username: user, Password: password}))
	for _, wrong := range []buildkit.Credentials{{}, {Username: user, Password: "wrong-0c9d"}} {
		err := build(wrong)
		require.Error(t, err)
		assert.True(t, stages.IsPermanent(err), "%v", err)
		assert.NotContains(t, err.Error(), "wrong-0c9d")
	}
}

func requireBuildError(t *testing.T, err error, reason string) *buildkit.BuildError {
	t.Helper()
	var failure *buildkit.BuildError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, reason, failure.Reason, "%v", err)
	return failure
}
