package buildkitd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// stopGrace is how long the daemon may take to end its builds.
	stopGrace = 15 * time.Second

	// keptLog is how much of the daemon's log, in bytes, an error shows.
	keptLog = 2 << 10
)

// process is a running daemon. A nil process is one that never started.
type process struct {
	cmd    *exec.Cmd
	log    *tail
	exited chan struct{}
	err    error // valid once exited is closed
}

// startProcess starts the program.
func startProcess(program, config string, log io.Writer) (*process, error) {
	//nolint:noctx // it outlives the context that it is started under, see stop
	p := &process{cmd: exec.Command(program, "--config", config), log: &tail{to: log}, exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	// Containers that a killed daemon leaves behind may hold on to its output.
	p.cmd.WaitDelay = time.Second
	bindToParent(p.cmd)

	started := make(chan error)
	go func() {
		// See bindToParent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// onExit calls cancel with the reason if the process ends before stop is called.
func (p *process) onExit(cancel context.CancelCauseFunc) (stop func()) {
	stopped := make(chan struct{})
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		select {
		case <-p.exited:
			cause := p.err
			if cause == nil {
				cause = errors.New("exit status 0")
			}
			cancel(fmt.Errorf("it ended: %w; its log ends with:\n%s", cause, p.log))
		case <-stopped:
		}
	}()
	return func() {
		close(stopped)
		<-joined
	}
}

// stop ends the process, by force if need be.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
	force := time.AfterFunc(stopGrace, func() { _ = p.cmd.Process.Signal(os.Kill) })
	defer force.Stop()
	<-p.exited
}

// tail passes on what is written to it, and keeps the end.
type tail struct {
	mu   sync.Mutex
	to   io.Writer
	kept []byte
}

func (t *tail) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, data...)
	if len(t.kept) > keptLog {
		t.kept = t.kept[len(t.kept)-keptLog:]
	}
	if t.to != nil {
		// A reader who closed the pipe must not stop the daemon.
		_, _ = t.to.Write(data)
	}
	return len(data), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.kept))
}
