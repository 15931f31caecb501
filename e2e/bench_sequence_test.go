package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages/buildkit"
)

// BenchmarkSequence delivers one new version after the other of the sample service,
// with the library's pipeline and with the commands of a Jenkinsfile, each to a
// namespace of its own. The commands are the real ones, started one after the other:
// buildctl, trivy, cosign, helm diff, helm upgrade, kubectl rollout status, and a pod
// that runs curl. The pipeline does more: it also evaluates policies, verifies the
// signature, holds a lock and is ready to roll back. What is measured as waiting is
// BuildKit's and the cluster's work: to build, to roll out, and to run curl in a pod.
func BenchmarkSequence(b *testing.B) {
	w := newWorld(b)
	s := newCommandLines(b, w)
	var waiting time.Duration
	cfg := w.delivery(b, w.namespace(b))
	cfg.Observers = []pipeline.Observer{pipeline.ObserverFunc(func(e pipeline.Event) {
		switch e.Stage {
		case pipeline.StageBuild, pipeline.StageVerify, pipeline.StageVerify + "-2":
			if e.Kind == pipeline.KindStageDone {
				waiting += e.Elapsed
			}
		}
	})}
	p, err := pipeline.New(cfg)
	require.NoError(b, err)
	deliver := func(version string) {
		_, err := p.Run(labtest.Context(b), source(version))
		require.NoError(b, err)
	}
	// Both find an older version running and their caches warm.
	deliver("0.0.0")
	s.deliver(b, "0.0.0")
	var c comparison
	waiting = 0
	for i := 0; b.Loop(); i++ {
		version := fmt.Sprintf("1.%d.0", i)
		c.ours(func() { deliver(version + "-ours") })
		c.theirs(func() { s.deliver(b, version+"-theirs") })
	}
	c.report(b, "shell")
	b.ReportMetric(float64(waiting.Nanoseconds())/float64(b.N), "fairlead-waiting-ns/op")
}

// commandLines are the sequence of commands.
type commandLines struct {
	w                                *world
	repository, home                 string
	buildctl, trivy, cosign, kubectl string
	helm                             helmCommand
	diff                             helmDiff
	key                              cosignKey
}

func newCommandLines(b *testing.B, w *world) *commandLines {
	b.Helper()
	if strings.HasPrefix(w.box.BuildKit, buildkit.DockerEngine("")) {
		b.Skip("SKIPPED, NOTHING MEASURED: buildctl doesn't speak to Docker Engine's own BuildKit")
	}
	ns := w.namespace(b)
	trivy := exec.CommandContext(labtest.Context(b), "go", "tool", "-n", "trivy")
	trivy.Dir = "../scan/trivy"
	path, err := trivy.Output()
	require.NoError(b, err)
	key := cosignKey{password: "password"}
	key.KeyPair, err = sign.GenerateKeyPair([]byte(key.password))
	require.NoError(b, err)
	return &commandLines{
		w: w, repository: w.box.Registry + "/" + ns, home: b.TempDir(), key: key,
		trivy:    strings.TrimSpace(string(path)),
		buildctl: tool(b, "lab/buildkitd/program", "buildctl", "github.com/moby/buildkit/cmd/buildctl"),
		cosign:   tool(b, "tools", "cosign", "github.com/sigstore/cosign/v2/cmd/cosign"),
		kubectl:  tool(b, "nodeimage", "kubectl", "k8s.io/kubernetes/cmd/kubectl"),
		helm:     w.helm(b, ns), diff: w.helmDiff(b, ns),
	}
}

// deliver is a Jenkinsfile's stages. Images go by digest where the commands take one:
// that is not slower, and the sample chart demands it.
func (s *commandLines) deliver(b *testing.B, version string) {
	b.Helper()
	s.run(b, nil, s.buildctl, "--addr", s.w.box.BuildKit, "build", "--frontend", "dockerfile.v0",
		"--local", "context="+appDir, "--local", "dockerfile="+appDir, "--opt", "build-arg:VERSION="+version,
		"--opt", "build-arg:BUILD_IMAGE="+s.w.box.Base.Go, "--opt", "build-arg:RUNTIME_IMAGE="+s.w.box.Base.Base,
		"--output", "type=image,push=true,oci-mediatypes=true,name="+s.repository+":"+version)
	img, err := s.w.images.Resolve(labtest.Context(b), s.repository+":"+version)
	require.NoError(b, err)
	s.run(b, nil, s.trivy, "image", "--image-src", "remote", "--insecure", "--cache-dir", filepath.Join(s.home, "trivy"),
		"--db-repository", s.w.box.Database, "--skip-java-db-update", "--scanners", "vuln", "--severity", "HIGH,CRITICAL",
		"--ignore-unfixed", "--exit-code", "1", img.String())
	s.run(b, []string{"COSIGN_PASSWORD=" + s.key.password, "PRIVATE_KEY=" + string(s.key.Private)}, s.cosign,
		"sign", "--key", "env://PRIVATE_KEY", "--tlog-upload=false", "--yes", "--allow-http-registry", "--allow-insecure-registry", img.String())
	values := []string{release, chartDir, "--set", "image.repository=" + img.Repository() + ",image.digest=" + img.Digest().String()}
	s.diff.run(b, append([]string{"upgrade", "--allow-unreleased"}, values...)...)
	s.helm.run(b, append([]string{"upgrade", "--install"}, values...)...)
	s.kube(b, "rollout", "status", "deploy/"+release, "--timeout=240s")
	s.kube(b, "run", "curltest", "--rm", "-i", "--restart=Never", "--image="+s.w.box.Base.Base, "--command", "--",
		"curl", "-fsS", "http://"+release+"."+s.helm.namespace+".svc/healthz/ready")
}

func (s *commandLines) kube(b *testing.B, args ...string) {
	b.Helper()
	s.run(b, nil, s.kubectl, append([]string{"--kubeconfig", s.helm.kubeconfig, "--namespace", s.helm.namespace}, args...)...)
}

func (s *commandLines) run(b *testing.B, env []string, program string, args ...string) {
	b.Helper()
	cmd := exec.CommandContext(labtest.Context(b), program, args...)
	cmd.Env = append(env, "HOME="+s.home, "PATH="+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	require.NoError(b, err, "%s: %s", filepath.Base(program), out)
}
