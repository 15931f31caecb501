package pipeline_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// A victim is this test binary run again as a process that delivers, or
// recovers, until it reaches a step, says so, and waits to be killed.
const (
	victimVariable = "FAIRLEAD_TEST_VICTIM" // "<run or recover> <step> <folder>"
	reached        = "reached"
	notKilled      = 7 // exit status
)

func victim() {
	order := strings.SplitN(os.Getenv(victimVariable), " ", 3)
	p, err := disk{folder: order[2], step: order[1]}.pipeline()
	if err == nil && order[0] == "run" {
		_, err = p.Run(context.Background(), source)
	} else if err == nil {
		_, err = p.Recover(context.Background())
	}
	fmt.Println("ended:", err)
	os.Exit(notKilled)
}

// disk is a pipeline whose cluster and journal are files in a folder.
type disk struct{ folder, step string }

func (d disk) cluster() string { return filepath.Join(d.folder, "cluster") }
func (d disk) record() string  { return filepath.Join(d.folder, "record") }

func (d disk) pipeline() (*pipeline.Pipeline, error) {
	img, err := stages.ParseImage("registry.test/shop@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		return nil, err
	}
	f := &fake{img: img, on: map[string]func(context.Context, int) error{}, counts: map[string]int{}}
	for _, call := range []string{"build", "sign", "verify", "release-gate"} {
		f.on[call] = func(context.Context, int) error { d.at(call); return nil }
	}
	if strings.HasPrefix(d.step, "restore") {
		f.fail("release-gate", errors.New("too many errors"))
	}
	c := config(f)
	c.Deployer, c.PlanGates = d, nil
	c.Journal = pipeline.FileJournal(filepath.Join(d.folder, "journal"))
	return pipeline.New(c)
}

// at stops the victim at its step, until it is killed or its parent is gone.
func (d disk) at(step string) {
	if step == d.step {
		fmt.Println(reached)
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(notKilled)
	}
}

func (d disk) Deploy(_ context.Context, req stages.DeployRequest) (stages.Release, error) {
	d.at("deploy")
	if err := os.WriteFile(d.cluster(), []byte("half of v2"), 0o600); err != nil {
		return stages.Release{}, err
	}
	d.at("deploy-half")
	err := os.WriteFile(d.cluster(), []byte("v2"), 0o600)
	d.at("deploy-whole")
	return stages.Release{Image: req.Clearance.Image(), Namespace: "shop", Name: "shop"}, err
}

// RecordFailure adds a line to a file.
func (d disk) RecordFailure(_ context.Context, _ string, cause error) error {
	f, err := os.OpenFile(d.record(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%q\n", cause.Error())
	return errors.Join(err, f.Close())
}

func (d disk) Checkpoint(context.Context, stages.CheckpointRequest) (stages.Checkpoint, error) {
	d.at("checkpoint")
	content, err := os.ReadFile(d.cluster())
	if errors.Is(err, fs.ErrNotExist) {
		return stages.Checkpoint{Subject: "cluster", State: json.RawMessage("null")}, nil
	}
	state, _ := json.Marshal(string(content))
	return stages.Checkpoint{Subject: "cluster", State: state}, err
}

func (d disk) Restore(_ context.Context, _ string, cp stages.Checkpoint) (stages.Restoration, error) {
	d.at("restore")
	var before *string
	if err := json.Unmarshal(cp.State, &before); err != nil {
		return stages.Restoration{}, err
	}
	now, err := os.ReadFile(d.cluster())
	switch {
	case before == nil && errors.Is(err, fs.ErrNotExist), before != nil && err == nil && string(now) == *before:
		return stages.Restoration{Outcome: stages.Unchanged}, nil
	case before == nil:
		err = os.Remove(d.cluster())
	default:
		if err = os.WriteFile(d.cluster(), []byte("half of v1"), 0o600); err == nil {
			d.at("restore-half")
			err = os.WriteFile(d.cluster(), []byte(*before), 0o600)
		}
	}
	d.at("restore-whole")
	return stages.Restoration{Outcome: stages.Restored}, err
}

// kill runs a victim to its step and kills it there.
func kill(t *testing.T, mode, step, folder string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", victimVariable, mode, step, folder))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // held open, so that the victim waits
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, reached+"\n", line)

	p, err := disk{folder: folder}.pipeline()
	require.NoError(t, err)
	_, err = p.Recover(t.Context())
	require.ErrorIs(t, err, pipeline.ErrBusy, "the victim still lives")
	_, err = p.Run(t.Context(), source)
	require.ErrorIs(t, err, pipeline.ErrBusy)

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.NotEqual(t, notKilled, cmd.ProcessState.ExitCode())
}

func TestRecoverAfterKill(t *testing.T) {
	const (
		silent = `: the process ended without a word; it may have been killed"`
		known  = `too many errors` // by the run itself
	)
	for _, tc := range []struct {
		steps   []string // the first of a run, the others of recoveries
		outcome pipeline.Outcome
		record  string
	}{
		{[]string{"build"}, pipeline.OutcomeUntouched, ""},
		{[]string{"sign"}, pipeline.OutcomeUntouched, ""},
		{[]string{"checkpoint"}, pipeline.OutcomeUntouched, ""},
		{[]string{"deploy"}, pipeline.OutcomeRolledBack, `"deploy` + silent},
		{[]string{"deploy-half"}, pipeline.OutcomeRolledBack, `"deploy` + silent},
		{[]string{"deploy-whole"}, pipeline.OutcomeRolledBack, `"deploy` + silent},
		{[]string{"verify"}, pipeline.OutcomeRolledBack, `"after deploy` + silent},
		{[]string{"release-gate"}, pipeline.OutcomeRolledBack, `"after deploy` + silent},
		{[]string{"restore"}, pipeline.OutcomeRolledBack, known},
		{[]string{"restore-half"}, pipeline.OutcomeRolledBack, known},
		{[]string{"restore-whole"}, pipeline.OutcomeRolledBack, known},
		{[]string{"deploy-half", "restore", "restore-half", "restore-whole"}, pipeline.OutcomeRolledBack, `"deploy` + silent},
	} {
		for _, before := range []string{"v1", ""} {
			if before == "" && strings.Contains(strings.Join(tc.steps, " "), "restore-half") {
				continue // removing a file has no half
			}
			t.Run(strings.Join(tc.steps, "+")+" "+before, func(t *testing.T) {
				d := disk{folder: t.TempDir()}
				if before != "" {
					require.NoError(t, os.WriteFile(d.cluster(), []byte(before), 0o600))
				}
				for i, step := range tc.steps {
					kill(t, map[bool]string{true: "run", false: "recover"}[i == 0], step, d.folder)
				}
				p, err := d.pipeline()
				require.NoError(t, err)
				_, err = p.Run(t.Context(), source)
				require.ErrorIs(t, err, pipeline.ErrUnfinished)

				recovered, err := p.Recover(t.Context())
				require.NoError(t, err)
				require.Len(t, recovered, 1)
				assert.Equal(t, tc.outcome, recovered[0].Outcome)
				now, err := os.ReadFile(d.cluster())
				if before == "" {
					require.ErrorIs(t, err, fs.ErrNotExist)
				} else {
					require.NoError(t, err)
				}
				assert.Equal(t, before, string(now))
				record, err := os.ReadFile(d.record())
				if tc.record == "" {
					require.ErrorIs(t, err, fs.ErrNotExist)
				} else {
					require.NoError(t, err)
				}
				assert.Contains(t, string(record), tc.record)
				assert.LessOrEqual(t, strings.Count(string(record), "\n"), 1, "once, by whoever knew it")

				recovered, err = p.Recover(t.Context())
				require.NoError(t, err)
				assert.Empty(t, recovered)
				_, err = p.Run(t.Context(), source)
				require.NoError(t, err)
				now, err = os.ReadFile(d.cluster())
				require.NoError(t, err)
				assert.Equal(t, "v2", string(now))
			})
		}
	}
}
