package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// killGrace is how long a cancelled program's output pipes may stay open, for
// instance because a daemon it started inherited them.
const killGrace = 5 * time.Second

// command is one run of a program. Only args is required.
type command struct {
	args   []string
	dir    string
	env    []string // added to this process's environment
	stdin  io.Reader
	stdout io.Writer // nil: returned by run
}

// run runs the program to its end and returns what it printed, trimmed. When
// ctx ends, the program and whatever it started are killed.
func (c command) run(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdin = c.stdin
	cmd.WaitDelay = killGrace
	killWholeGroup(cmd)

	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if c.stdout != nil {
		cmd.Stdout = c.stdout
	}
	err := cmd.Run()
	if err == nil {
		return strings.TrimSpace(stdout.String()), nil
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	said := tail(stderr.String()+stdout.String(), 20)
	if said != "" {
		said = ":\n" + said
	}
	return "", fmt.Errorf("%s: %w%s", c, err, said)
}

// String is the command line, cut short when it is long.
func (c command) String() string {
	line := strings.Join(c.args, " ")
	if len(line) > 120 {
		line = line[:117] + "..."
	}
	return line
}

// run runs a program that needs nothing but its arguments.
func run(ctx context.Context, args ...string) (string, error) {
	return command{args: args}.run(ctx)
}

// tail is the last n lines of text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
