package buildkit

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestNewRefuses(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"no address", func(c *Config) { c.Address = "" }, "must begin with one of"},
		{"unknown scheme", func(c *Config) { c.Address = "http://x" }, "must begin with one of"},
		{"relative socket", func(c *Config) { c.Address = "unix://x.sock" }, "not complete"},
		{"no pipe", func(c *Config) { c.Address = "npipe://" }, "not complete"},
		{"no port", func(c *Config) { c.Address = "tcp://x" }, "no port"},
		{"no host", func(c *Config) { c.Address = "docker-container://" }, "not complete"},
		{"docker by way of a container", func(c *Config) { c.Address = DockerEngine("docker-container://x") }, "must begin with one of"},
		{"TLS on a socket", func(c *Config) { c.TLS = new(tls.Config) }, "TLS is for tcp://"},
		{"no repository", func(c *Config) { c.Repository = "" }, "must begin with a registry host"},
		{"tagged repository", func(c *Config) { c.Repository += ":v1" }, "malformed path"},
		{"Dockerfile outside", func(c *Config) { c.Dockerfile = "../Dockerfile" }, "below the source folder"},
		{"absolute Dockerfile", func(c *Config) { c.Dockerfile = "/Dockerfile" }, "below the source folder"},
		{"Dockerfile is the folder", func(c *Config) { c.Dockerfile = "./" }, "below the source folder"},
		{"platform", func(c *Config) { c.Platform = "linux/" }, "os/architecture"},
		{"two platforms", func(c *Config) { c.Platform = "linux/amd64,linux/arm64" }, "os/architecture"},
		{"build argument", func(c *Config) { c.BuildArgs = map[string]string{"A=B": ""} }, "no identifier"},
		{"secret id", func(c *Config) { c.Secrets = map[string][]byte{"a b": nil} }, "secret id"},
		{"huge secret", func(c *Config) { c.Secrets = map[string][]byte{"a": make([]byte, 600<<10)} }, "BuildKit takes"},
		{"untagged cache", func(c *Config) { c.CacheTo = []string{"ghcr.io/acme/shop"} }, "names no tag"},
		{"malformed cache", func(c *Config) { c.CacheFrom = []string{"ghcr.io/Acme:x"} }, "cache reference"},
		{"source date", func(c *Config) { c.SourceDate = time.Unix(-1, 0) }, "before 1970"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := Config{Address: "unix:///run/buildkit/buildkitd.sock", Repository: "ghcr.io/acme/shop"}
			test.edit(&cfg)
			_, err := New(cfg)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, test.want)
		})
	}
}

func TestNewAccepts(t *testing.T) {
	for _, address := range []string{
		"unix:///run/buildkit/buildkitd.sock", "tcp://builder:1234", "docker-container://buildx", "podman-container://b",
		"kube-pod://pod", "ssh://host", "npipe:////./pipe/buildkitd", DockerEngine("unix:///var/run/docker.sock"), DockerEngine("tcp://docker:2376"),
	} {
		_, err := New(Config{Address: address, Repository: "localhost:5000/shop"})
		assert.NoError(t, err, address)
	}
}

func TestNoPasswordInErrors(t *testing.T) {
	for _, address := range []string{"http://user:hunter2@x", "tcp://user:hunter2@x", "tcp://user:hunter2@[x"} {
		_, err := New(Config{Address: address, Repository: "ghcr.io/acme/shop"})
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "hunter2")
	}
}

func TestConfigIsCopied(t *testing.T) {
	secrets := map[string][]byte{"token": []byte("before")}
	b, err := New(Config{Address: "unix:///x", Repository: "ghcr.io/acme/shop", Secrets: secrets})
	require.NoError(t, err)
	copy(secrets["token"], "after!")
	assert.Equal(t, "before", string(b.cfg.Secrets["token"]))
}

// What can be seen to fail is refused before the daemon, which there is none of
// here, is asked.
func TestBuildRefuses(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o755))
	require.NoError(t, os.Symlink("/etc/hostname", filepath.Join(dir, "outside")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\n"), 0o644))
	for _, test := range []struct {
		name, address, dockerfile string
		src                       stages.Source
		want                      string
	}{
		{"missing folder", "unix:///x", "", stages.Source{Dir: filepath.Join(dir, "nope")}, "open the source folder"},
		{"missing Dockerfile", "unix:///x", "nope", stages.Source{Dir: dir}, "there is no nope in the source folder"},
		{"Dockerfile is a folder", "unix:///x", "folder", stages.Source{Dir: dir}, "not a file"},
		{"Dockerfile leads outside", "unix:///x", "outside", stages.Source{Dir: dir}, "find the Dockerfile"},
		{"build argument", "unix:///x", "", stages.Source{Dir: dir, BuildArgs: map[string]string{"": ""}}, "no identifier"},
		{"Docker without a tag", DockerEngine("unix:///x"), "", stages.Source{Dir: dir}, "without a tag"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := New(Config{Address: test.address, Repository: "ghcr.io/acme/shop", Dockerfile: test.dockerfile})
			require.NoError(t, err)
			_, err = b.Build(t.Context(), test.src)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, test.want)
		})
	}
}
