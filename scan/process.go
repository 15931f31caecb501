package scan

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

const (
	// maxMessage is how much of what Trivy says about a failure is kept.
	maxMessage = 4 << 10
	// lingering is how long a killed process's children may keep its output open.
	lingering = 2 * time.Second
)

// permanentAnswers are a registry's answers, as Trivy prints them, that asking
// again won't change.
var permanentAnswers = []string{"UNAUTHORIZED", "DENIED", "MANIFEST_UNKNOWN", "NAME_UNKNOWN", "unsupported artifact type"}

// run runs Trivy in an empty folder, where no trivy.yaml and no .trivyignore is,
// and returns its output. login is added to the environment and kept out of
// errors.
func (c *Command) run(ctx context.Context, login []string, args ...string) (output []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fairlead-trivy-*")
	if err != nil {
		return nil, fmt.Errorf("make a folder to run Trivy in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	cmd := exec.CommandContext(ctx, c.path, args...) //nolint:gosec // running what the caller configured is the job
	cmd.Dir = dir
	cmd.Env = append(slices.Clone(c.cfg.Env), login...)
	// Trivy leaves temporary files behind when it is killed.
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	if !slices.ContainsFunc(c.cfg.Env, func(v string) bool { return strings.HasPrefix(v, "HOME=") }) {
		cmd.Env = append(cmd.Env, "HOME="+c.cfg.CacheDir)
	}
	stdout := &head{limit: maxReport}
	stderr := &tail{limit: maxMessage}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = lingering
	killGroup(cmd)
	err = cmd.Run()
	if stdout.over {
		return nil, stages.Permanent(fmt.Errorf("run Trivy: it wrote more than %d MiB", maxReport>>20))
	}
	if err != nil {
		return nil, explain(err, redact(stderr.String(), login))
	}
	return stdout.buf.Bytes(), nil
}

// explain joins a failed process with what it said.
func explain(err error, said string) error {
	said = strings.TrimSpace(said)
	if said == "" {
		return fmt.Errorf("run Trivy: %w", err)
	}
	failure := fmt.Errorf("run Trivy: %w: %s", err, said)
	exited, ok := errors.AsType[*exec.ExitError](err)
	if ok && exited.Exited() && slices.ContainsFunc(permanentAnswers, func(a string) bool { return strings.Contains(said, a) }) {
		return stages.Permanent(failure)
	}
	return failure
}

// redact removes the values of login from s.
func redact(s string, login []string) string {
	// The longest first: a user name may be part of a password.
	for _, v := range slices.SortedFunc(slices.Values(login), func(a, b string) int { return cmp.Compare(len(valueOf(b)), len(valueOf(a))) }) {
		if secret := valueOf(v); secret != "" {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return s
}

func valueOf(variable string) string {
	_, value, _ := strings.Cut(variable, "=")
	return value
}

// head keeps what is written to it, and refuses what is over the limit, which ends
// the program that goes on writing.
type head struct {
	limit int
	buf   bytes.Buffer
	over  bool
}

func (h *head) Write(b []byte) (int, error) {
	if h.over = h.over || h.buf.Len()+len(b) > h.limit; h.over {
		return 0, errTooMuch
	}
	return h.buf.Write(b)
}

var errTooMuch = errors.New("there is too much output")

// tail keeps the last bytes that are written to it.
type tail struct {
	limit int
	buf   []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - t.limit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string { return string(t.buf) }
