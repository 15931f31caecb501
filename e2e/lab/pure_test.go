package lab

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestParseOSRelease(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		want   osRelease
		debian bool
	}{
		"debian": {
			"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n",
			osRelease{id: "debian", codename: "bookworm", name: "Debian GNU/Linux 12 (bookworm)"}, true,
		},
		"ubuntu": {
			"ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME='noble'\n",
			osRelease{id: "ubuntu", like: []string{"debian"}, codename: "noble"}, true,
		},
		"fedora": {"# comment\nID=fedora\n\nnonsense\n", osRelease{id: "fedora"}, false},
		"empty":  {"", osRelease{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseOSRelease(strings.NewReader(c.text))
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
			assert.Equal(t, c.debian, got.debian())
		})
	}
}

func FuzzParseOSRelease(f *testing.F) {
	f.Add("ID=debian\nVERSION_CODENAME=bookworm\n")
	f.Add("=\nID_LIKE='a b\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		release, err := parseOSRelease(strings.NewReader(text))
		if err == nil && !strings.Contains(text, "debian") {
			assert.False(t, release.debian())
		}
	})
}

func TestBoundingSet(t *testing.T) {
	set, ok := boundingSet("Name:\tgo\nCapBnd:\t000001fffeffffff\n")
	require.True(t, ok)
	assert.Zero(t, set&(1<<capSysResource))

	set, ok = boundingSet("CapBnd:\t000001ffffffffff\n")
	require.True(t, ok)
	assert.NotZero(t, set&(1<<capSysResource))

	_, ok = boundingSet("CapBnd:\tnonsense\n")
	assert.False(t, ok)
	_, ok = boundingSet("")
	assert.False(t, ok)
}

func TestPickMirror(t *testing.T) {
	got, err := pickMirror(osRelease{codename: "bookworm"}, `
http://deb.example/debian/ bookworm main
http://deb.example/debian/ bookworm contrib
http://deb.example/debian/ bookworm-updates main
http://security.example/ bookworm-security main
http://other.example/ bookworm main
`)
	require.NoError(t, err)
	assert.Equal(t, debian{suite: "bookworm", mirror: "http://deb.example/debian/", components: "main,contrib"}, got)

	_, err = pickMirror(osRelease{codename: "trixie"}, "http://deb.example/ bookworm main\n")
	assert.ErrorContains(t, err, "apt-get update")
}

func TestPodmanConfig(t *testing.T) {
	assert.Equal(t, `# Written by fairlead's lab for what this machine does not allow containers.
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
`, podmanNeeds{files: 20000, runc: true}.config())
}

func TestClusterConfigChangesOnlyWhatTheHostNeeds(t *testing.T) {
	assert.Equal(t, []string{hastyStore}, clusterConfig(Engine{cgroups: "2"}, false).KubeadmConfigPatches)

	old := clusterConfig(Engine{cgroups: "1"}, true).KubeadmConfigPatches
	require.Len(t, old, 3)
	assert.Contains(t, old[1], "failCgroupV1: false")
	assert.Contains(t, old[2], "KubeletInUserNamespace: true")
}

func TestPublicNames(t *testing.T) {
	assert.Regexp(t, `^docker\.io/kindest/node@sha256:[0-9a-f]{64}$`, publicNodeImage())
	assert.Regexp(t, `^docker\.io/prom/prometheus@sha256:[0-9a-f]{64}$`, prometheus.public)
	assert.Equal(t, "docker.io/library/golang:1.26-bookworm", publicBaseImages("go1.26.8")[1])
	assert.Equal(t, "docker.io/library/golang:1.27-bookworm", publicBaseImages("go1.27")[1])
}

func TestKeysNameContent(t *testing.T) {
	bookworm, err := baseKey(debian{suite: "bookworm"})
	require.NoError(t, err)
	again, err := baseKey(debian{suite: "bookworm", mirror: "http://elsewhere.example"})
	require.NoError(t, err)
	assert.Equal(t, bookworm, again, "where packages come from does not change what they are")
	trixie, err := baseKey(debian{suite: "trixie"})
	require.NoError(t, err)
	assert.NotEqual(t, bookworm, trixie)
	assert.Regexp(t, `^base-[0-9a-f]{16}$`, bookworm)
}

func TestNodeKeyFindsTheSources(t *testing.T) {
	key, err := nodeKey(t.Context(), debian{suite: "bookworm"})
	require.NoError(t, err)
	assert.Regexp(t, `^node-[0-9a-f]{16}$`, key)
}

func TestParseGateway(t *testing.T) {
	got, err := parseGateway(`{"kind":{"Gateway":"10.89.0.1","IPAddress":"10.89.0.2"}}`)
	require.NoError(t, err)
	assert.Equal(t, "10.89.0.1", got.String())

	for _, bad := range []string{"", "null", "{}", `{"kind":{"Gateway":""}}`, `{"other":{"Gateway":"10.0.0.1"}}`} {
		_, err := parseGateway(bad)
		assert.Error(t, err, bad)
	}
}

func TestHostsFile(t *testing.T) {
	assert.Equal(t, `server = "http://10.89.0.1:5000"

[host."http://10.89.0.1:5000"]
  capabilities = ["pull", "resolve"]
`, hostsFile("http://10.89.0.1:5000"))
}

func TestCommandReportsWhatFailed(t *testing.T) {
	_, err := run(t.Context(), "go", "tool", "no-such-tool")
	require.Error(t, err)
	assert.ErrorContains(t, err, "go tool no-such-tool")
	assert.ErrorContains(t, err, "no such tool")
}

func TestTail(t *testing.T) {
	assert.Equal(t, "b\nc", tail("a\nb\nc\n", 2))
	assert.Empty(t, tail("\n", 2))
}

func TestStepSaysHowItWent(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	require.NoError(t, p.step("first", time.Minute, func() error { return nil }))
	cause := errors.New("no")
	require.ErrorIs(t, p.step("second", time.Second, func() error { return cause }), cause)
	assert.Contains(t, out.String(), "first (usually 1m0s)")
	assert.Contains(t, out.String(), "first: done in")
	assert.Contains(t, out.String(), "second: failed in")
}

func TestStoredImageIsCreatedOnce(t *testing.T) {
	l, err := New(Config{CacheDir: t.TempDir()})
	require.NoError(t, err)
	want, err := random.Image(100, 2)
	require.NoError(t, err)
	created, cleaned := 0, 0
	for range 2 {
		got, err := l.storedImage("docker.io/some:tag", func() (v1.Image, func(), error) {
			created++
			return want, func() { cleaned++ }, nil
		})
		require.NoError(t, err)
		wantDigest, err := want.Digest()
		require.NoError(t, err)
		gotDigest, err := got.Digest()
		require.NoError(t, err)
		assert.Equal(t, wantDigest, gotDigest)
	}
	assert.Equal(t, 1, created)
	assert.Equal(t, 1, cleaned)
}

func TestEntrypointIsTakenOutOfAnImage(t *testing.T) {
	l, err := New(Config{CacheDir: t.TempDir()})
	require.NoError(t, err)
	archive := filepath.Join(t.TempDir(), "program.tar")
	require.NoError(t, writeProgramTar(archive, "bin/program", []byte("#!/bin/sh\necho works\n")))
	image, err := appendTar(linuxImage(), archive, nil)
	require.NoError(t, err)
	for entrypoint, works := range map[string]bool{"/bin/program": true, "/bin/other": false} {
		image, err := mutate.Config(image, v1.Config{Entrypoint: []string{entrypoint}})
		require.NoError(t, err)
		for range 2 {
			program, err := l.entrypoint(image)
			if !works {
				require.ErrorIs(t, err, fs.ErrNotExist)
				continue
			}
			require.NoError(t, err)
			said, err := exec.Command(program).Output()
			require.NoError(t, err)
			assert.Equal(t, "works\n", string(said))
		}
	}
	_, err = l.entrypoint(image)
	require.ErrorContains(t, err, "no entrypoint")
	left, err := os.ReadDir(filepath.Join(l.cache, "programs"))
	require.NoError(t, err)
	assert.Len(t, left, 1, "what failed leaves nothing")
}

func TestForwardPassesBothWaysAndStops(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	f, err := startForward(t.Context(), "127.0.0.1:0", echo.Addr().String())
	require.NoError(t, err)

	conn, err := net.Dial("tcp", f.listener.Addr().String())
	require.NoError(t, err)
	_, err = conn.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(answer))
	require.NoError(t, conn.Close())

	idle, err := net.Dial("tcp", f.listener.Addr().String())
	require.NoError(t, err)
	require.NoError(t, f.close())
	_, err = idle.Read(make([]byte, 1))
	assert.Error(t, err, "closing the forward ends idle connections")
	require.NoError(t, idle.Close())
	require.NoError(t, echo.Close())
	<-served
}

func TestArchitectureIsSet(t *testing.T) {
	config, err := linuxImage().ConfigFile()
	require.NoError(t, err)
	assert.Equal(t, runtime.GOARCH, config.Architecture)
	assert.Equal(t, "linux", config.OS)
}
