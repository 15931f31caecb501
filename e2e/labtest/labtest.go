// Package labtest gives tests a lab and a cluster to share.
//
// It decides in one place what a missing container engine means: on a build
// server (CI is set) the test fails, because a skipped test proves nothing
// there; on a developer's machine it is skipped, and says loudly why.
//
// It never starts a cluster for a test that does not ask for one. The smallest
// use, in a package's test files:
//
//	func TestMain(m *testing.M) { labtest.Main(m) }
//
//	func TestDelivery(t *testing.T) {
//		cluster := labtest.Cluster(t)
//		...
//	}
package labtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/e2e/lab"
)

// LogDirEnv names the environment variable with the folder that receives the
// logs of clusters whose tests failed. Unset means a temporary folder.
const LogDirEnv = "FAIRLEAD_LOG_DIR"

// interruptGrace is how long tests may take to end after an interrupt.
const interruptGrace = time.Minute

// interrupted is the exit status of a shell command ended by Ctrl-C.
const interrupted = 130

// shared is what the tests of one process have in common.
var shared struct {
	lab     func() (*lab.Lab, error)
	cluster func() (*lab.Cluster, error)

	mu      sync.Mutex
	started *lab.Cluster
	failed  bool
	closers []func() error

	ctx context.Context //nolint:containedctx // the process's own: an interrupt ends it
}

func init() {
	shared.ctx = context.Background()
	shared.lab = sync.OnceValues(func() (*lab.Lab, error) {
		return lab.New(lab.Config{Progress: os.Stderr, LogDir: logDir()})
	})
	shared.cluster = sync.OnceValues(startShared)
}

// Main runs a package's tests and exits. Whatever happens to them, the shared
// cluster is deleted first; its logs are collected if a test that used it failed.
//
// An interrupt ends the tests' contexts (see Context) and gives them a minute to
// clean up what is their own; a second one ends the process at once.
func Main(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	shared.ctx = ctx //nolint:fatcontext // set once
	result := make(chan int, 1)
	go func() { result <- m.Run() }()

	code := interrupted
	select {
	case code = <-result:
	case <-ctx.Done():
		stop()
		fmt.Fprintln(os.Stderr, "labtest: interrupted, cleaning up; interrupt again to leave everything as it is")
		select {
		case <-result:
		case <-time.After(interruptGrace):
		}
	}
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, "labtest:", err)
		code = max(code, 1)
	}
	stop()
	os.Exit(code)
}

// Context is a context that ends with the test, or when the run is interrupted.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stop := context.AfterFunc(shared.ctx, cancel)
	t.Cleanup(func() { stop(); cancel() })
	return ctx
}

// Require returns a lab whose container engine works. Without one it fails the
// test if CI is set in the environment, and otherwise skips it.
func Require(t testing.TB) *lab.Lab {
	t.Helper()
	l, err := shared.lab()
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Engine(Context(t))
	switch {
	case err == nil:
		return l
	case errors.Is(err, lab.ErrNoEngine) && os.Getenv("CI") == "":
		t.Skipf("SKIPPED, NOTHING PROVEN: %v\nrun: go run ./e2e/cmd/setup", err)
	default:
		t.Fatal(err)
	}
	return nil
}

// Cluster returns the cluster that the tests of this package share, starting it
// for the first one that asks. The package's TestMain must call Main. Tests keep
// apart by namespace.
func Cluster(t testing.TB) *lab.Cluster {
	t.Helper()
	Require(t)
	cluster, err := shared.cluster()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			shared.mu.Lock()
			defer shared.mu.Unlock()
			shared.failed = true
		}
	})
	return cluster
}

func startShared() (*lab.Cluster, error) {
	l, err := shared.lab()
	if err != nil {
		return nil, err
	}
	// Held while starting, so that closeShared waits for the outcome.
	shared.mu.Lock()
	defer shared.mu.Unlock()
	cluster, err := l.StartCluster(shared.ctx)
	shared.started = cluster
	return cluster, err
}

// AtExit has Main call stop when the package's tests are over, before the shared
// cluster is deleted; what was registered last is called first.
func AtExit(stop func() error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.closers = append(shared.closers, stop)
}

func closeShared() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	var errs []error
	for _, stop := range slices.Backward(shared.closers) {
		errs = append(errs, stop())
	}
	if shared.started == nil {
		return errors.Join(errs...)
	}
	if shared.failed {
		dir := filepath.Join(logDir(), shared.started.Name())
		fmt.Fprintln(os.Stderr, "labtest: collecting logs in", dir)
		errs = append(errs, shared.started.CollectLogs(dir))
	}
	return errors.Join(append(errs, shared.started.Close())...)
}

func logDir() string {
	if dir := os.Getenv(LogDirEnv); dir != "" {
		return dir
	}
	return filepath.Join(os.TempDir(), "fairlead-logs")
}
