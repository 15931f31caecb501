package metrics_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// prometheusProgram returns the server's program: the machine's own, or the one
// of Debian's package, which is unpacked into the user's cache and not installed,
// so that no service is started.
func prometheusProgram(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("prometheus"); err == nil {
		return path
	}
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	dir := filepath.Join(cache, "fairlead", "prometheus-debian")
	program := filepath.Join(dir, "usr", "bin", "prometheus")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	if err := unpackPackage(t.Context(), "prometheus", dir); err != nil {
		if os.Getenv("CI") != "" {
			require.NoError(t, err, "a skipped test proves nothing")
		}
		t.Skipf("SKIPPED, NOTHING WAS TESTED: there is no prometheus on the PATH, and Debian's package can't be had: %v", err)
	}
	return program
}

// unpackPackage unpacks a Debian package into dir, whole or not at all.
func unpackPackage(ctx context.Context, name, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "unpack-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	download := func() error {
		cmd := exec.CommandContext(ctx, "apt-get", "download", "-q", name)
		cmd.Dir = work
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", cmd, err, out)
		}
		return nil
	}
	if err := download(); err != nil {
		// The package lists may be missing or old.
		if out, updateErr := exec.CommandContext(ctx, "apt-get", "update", "-q").CombinedOutput(); updateErr != nil {
			return fmt.Errorf("%w; apt-get update: %w: %s", err, updateErr, out)
		}
		if err := download(); err != nil {
			return err
		}
	}
	archives, err := filepath.Glob(filepath.Join(work, name+"_*.deb"))
	if err != nil || len(archives) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", name, len(archives))
	}
	unpacked := filepath.Join(work, "unpacked")
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", archives[0], unpacked).CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg-deb -x: %w: %s", err, out)
	}
	if err := os.Rename(unpacked, dir); err != nil && !os.IsExist(err) {
		return err
	}
	return nil
}

// startPrometheus starts a server that scrapes the jobs every second, and waits
// until it is ready. It returns its URL.
func startPrometheus(t *testing.T, jobs map[string]string) string {
	t.Helper()
	program := prometheusProgram(t)
	dir := t.TempDir()
	config := "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n"
	for job, target := range jobs {
		config += fmt.Sprintf("- {job_name: %q, static_configs: [{targets: [%q]}]}\n", job, target)
	}
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	address := freeAddress(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--query.max-samples=2000")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was interrupted
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("Prometheus said:\n%s", text)
		}
	})
	url := "http://" + address
	require.Eventually(t, func() bool {
		resp, err := http.Get(url + "/-/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 30*time.Second, 50*time.Millisecond, "Prometheus must become ready")
	return url
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
