package notify

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

var update = flag.Bool("update", false, "write the golden files")

const image = "registry.example/shop@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

func TestConsoleGolden(t *testing.T) {
	for name, tc := range map[string]struct {
		events  []pipeline.Event
		options []ConsoleOption
	}{
		"delivered":       {events: delivered()},
		"delivered-brief": {events: delivered(), options: []ConsoleOption{WithProgress(false), WithDiffLines(0)}},
		"delivered-color": {events: delivered(), options: []ConsoleOption{WithColor(ColorAlways), WithDiffLines(3)}},
		"blocked":         {events: blocked()},
		"rolled-back":     {events: rolledBack()},
		"not-ready":       {events: notReady()},
		"restore-failed":  {events: restoreFailed()},
		"recovered":       {events: recovered()},
		"hostile":         {events: hostile()},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			console := NewConsole(&out, tc.options...)
			for _, e := range tc.events {
				e.Run, e.Pipeline = "r-1", "shop"
				console.Observe(e)
			}
			require.NoError(t, console.Err())
			require.Empty(t, console.runs, "a run that ended must be forgotten")
			golden(t, name+".golden", out.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(name, got, 0o600))
	}
	want, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "go test -update accepts the change")
}

func delivered() []pipeline.Event {
	diff := "@@ -1,9 +1,9 @@\n spec:\n-  image: " + image + "\n+  image: registry.example/shop@sha256:" + strings.Repeat("a", 64) + "\n   replicas: 2\n"
	return []pipeline.Event{
		{Kind: pipeline.KindRunStarted, Subject: "examples/app", Message: "v1.1.0"},
		started(pipeline.StageBuild, "examples/app"),
		{Kind: pipeline.KindProgress, Stage: pipeline.StageBuild, ID: "1", Message: "[build 2/4] RUN go build"},
		done(pipeline.StageBuild, "examples/app", 12340*time.Millisecond, 1),
		started(pipeline.StageScan, image),
		started(pipeline.StagePlan, image),
		done(pipeline.StageScan, image, 300*time.Millisecond, 2),
		decided(pipeline.StageScanGate, stages.Decision{Gate: "vulnerabilities", Verdict: stages.Pass}),
		done(pipeline.StageScanGate, image, 0, 1),
		{Kind: pipeline.KindPlanned, Stage: pipeline.StagePlan, Subject: "shop/shop", Message: "1 to create, 1 to update, 1 to delete", Changes: []stages.Change{
			{Action: stages.Update, Object: object("Deployment", "shop"), Diff: diff},
			{Action: stages.Create, Object: object("Ingress", "shop"), Diff: "+kind: Ingress\n"},
			{Action: stages.Delete, Object: object("ConfigMap", "old")},
		}},
		done(pipeline.StagePlan, image, 500*time.Millisecond, 1),
		started(pipeline.StagePlanGate, "shop/shop"),
		decided(pipeline.StagePlanGate, stages.Decision{Gate: "policy", Verdict: stages.Pass, Warnings: []stages.Reason{
			{Rule: "main.warn_unpinned_image", Subject: "Deployment shop/shop", Message: "pin it by digest"},
		}}),
		done(pipeline.StagePlanGate, "shop/shop", 10*time.Millisecond, 1),
		started(pipeline.StageDeploy, image),
		{Kind: pipeline.KindCheckpointed, Stage: pipeline.StageDeploy, Subject: "release shop/shop"},
		{Kind: pipeline.KindRetrying, Stage: pipeline.StageDeploy, Attempt: 1, Message: "attempt 1 of 3 failed, trying again in 1s", Error: "connection refused"},
		{Kind: pipeline.KindWaiting, Stage: pipeline.StageDeploy, Message: "deploy has not stopped 10s after it was cancelled"},
		done(pipeline.StageDeploy, image, 62*time.Second, 2),
		{Kind: pipeline.KindPlanned, Stage: pipeline.StagePlan, Subject: "shop/shop", Message: "0 to create, 0 to update, 0 to delete"},
		decided(pipeline.StageReleaseGate, stages.Decision{Gate: "errors", Reasons: []stages.Reason{{Rule: "samples", Message: "too few requests"}}}),
		done(pipeline.StageReleaseGate, "shop/shop", time.Second, 1),
		done(pipeline.StageCommit, "shop/shop", 0, 1),
		{Kind: pipeline.KindRunSucceeded, Subject: image, Elapsed: 75*time.Second + 400*time.Millisecond, Outcome: pipeline.OutcomeReleased},
	}
}

func blocked() []pipeline.Event {
	d := stages.Decision{Gate: "vulnerabilities", Verdict: stages.Fail, Reasons: []stages.Reason{
		{Rule: "CVE-2024-3094", Subject: "xz-utils in debian 12", Message: "CRITICAL xz-utils 5.6.0 → 5.6.2: malicious code"},
	}}
	for i := range maxReasons {
		d.Reasons = append(d.Reasons, stages.Reason{Rule: fmt.Sprintf("CVE-2025-%04d", i), Subject: "openssl", Message: "HIGH openssl 3.0.1 → 3.0.2"})
	}
	return []pipeline.Event{
		{Kind: pipeline.KindRunStarted, Subject: "examples/app"},
		started(pipeline.StageScanGate, image),
		decided(pipeline.StageScanGate, d),
		failed(pipeline.StageScanGate, image, "gate refused: vulnerabilities", nil),
		{Kind: pipeline.KindStageCancelled, Stage: pipeline.StagePlan, Subject: image, Elapsed: time.Second, Error: "scan-gate failed"},
		{Kind: pipeline.KindRunFailed, Stage: pipeline.StageScanGate, Subject: image, Elapsed: 3 * time.Second, Outcome: pipeline.OutcomeUntouched,
			Error: "pipeline shop: scan-gate: gate refused: vulnerabilities; nothing was deployed; mend what the gate names and run again"},
	}
}

func rolledBack() []pipeline.Event {
	evidence := []stages.Evidence{{
		Subject: "pod shop/shop-7d9f-x2x", Owners: []string{"ReplicaSet shop/shop-7d9f", "Deployment shop/shop"}, Container: "shop",
		Reason: "CrashLoopBackOff", Message: "back-off 10s restarting failed container", ExitCode: new(int32(2)),
		Field: "spec.template.spec.containers[name=shop]", Command: "kubectl logs shop-7d9f-x2x -n shop -c shop --previous",
		Logs: []string{"starting", "panic: DATABASE_URL is not set"}, Events: []string{"BackOff: restarting failed container (x3)"},
		Remedy: "set DATABASE_URL, or look at the container's log",
	}, {Subject: "Deployment shop/shop", Reason: "ReplicaFailure"}}
	return []pipeline.Event{
		{Kind: pipeline.KindRunStarted, Subject: "examples/app", Message: "v1.2.0"},
		started(pipeline.StageVerify, "shop/shop"),
		failed(pipeline.StageVerify, "shop/shop", "release shop/shop can't run:\ncontainer shop of pod shop/shop-7d9f-x2x crashes", evidence),
		{Kind: pipeline.KindRestoring, Stage: pipeline.StageDeploy, Subject: "release shop/shop"},
		restoration(stages.Restored, "rolled back to revision 2"),
		started(pipeline.StageVerifyRestored, "shop/shop"),
		done(pipeline.StageVerifyRestored, "shop/shop", 6*time.Second, 1),
		{Kind: pipeline.KindRunFailed, Stage: pipeline.StageVerify, Subject: "shop/shop", Elapsed: 34 * time.Second, Outcome: pipeline.OutcomeRolledBack,
			Evidence: evidence, Error: "pipeline shop: verify shop/shop: can't run; rolled back; set DATABASE_URL"},
	}
}

func notReady() []pipeline.Event {
	evidence := []stages.Evidence{{
		Subject: "pod shop/shop-6c8b-k2k", Container: "shop", Reason: "ErrImagePull", Message: "not found", Remedy: "push the image again",
	}}
	return []pipeline.Event{
		restoration(stages.Restored, "rolled back to revision 2"),
		started(pipeline.StageVerifyRestored, "shop/shop"),
		failed(pipeline.StageVerifyRestored, "shop/shop", "release shop/shop can't run", evidence),
		{Kind: pipeline.KindRunFailed, Stage: pipeline.StageReleaseGate, Subject: "shop/shop", Elapsed: time.Minute, Outcome: pipeline.OutcomeNotReady,
			Error: "pipeline shop: release-gate shop/shop: gate refused; restored but not ready: release shop/shop restored; bring the restored release up first"},
	}
}

func restoreFailed() []pipeline.Event {
	evidence := []stages.Evidence{{Subject: "release shop/shop", Reason: "Timeout", Message: "the API server did not answer"}}
	return []pipeline.Event{
		restoration(stages.Diverged, "replicas differ"),
		{Kind: pipeline.KindRestoreFailed, Stage: pipeline.StageDeploy, Subject: "release shop/shop", Elapsed: time.Minute, Error: "connection refused",
			Restoration: &stages.Restoration{Subject: "release shop/shop"}, Evidence: evidence},
		{Kind: pipeline.KindRunFailed, Stage: pipeline.StageBuild, Elapsed: time.Hour, Outcome: pipeline.OutcomeUnknown, Evidence: evidence, Error: "build failed"},
	}
}

func recovered() []pipeline.Event {
	return []pipeline.Event{
		{Kind: pipeline.KindRecoveryStarted, Message: "1 checkpoints to restore"},
		restoration(stages.Unchanged, "the deployment had never begun"),
		{Kind: pipeline.KindRecoveryFinished, Elapsed: time.Second, Outcome: pipeline.OutcomeRolledBack, Message: "rolled-back"},
		{Kind: pipeline.KindRecoveryStarted, Message: "1 checkpoints to restore"},
		restoration(stages.Impossible, "revision 4 is somebody else's"),
		{Kind: pipeline.KindRecoveryFinished, Elapsed: time.Second, Outcome: pipeline.OutcomeRollbackFailed, Error: "release shop/shop impossible"},
	}
}

func hostile() []pipeline.Event {
	const attack = "\x1b[2J\x1b]0;owned\x07a\x1b[31mred\x1b[0m\rb\x00\u202ec\u009b1md\n✓ shop released\xff\u2028  ✓ deploy"
	return []pipeline.Event{
		{Kind: pipeline.KindRunStarted, Subject: attack, Message: attack},
		{Kind: pipeline.KindProgress, Stage: pipeline.StageBuild, Message: attack},
		{Kind: pipeline.KindPlanned, Subject: attack, Message: attack, Changes: []stages.Change{{Action: stages.Update, Object: object(attack, attack), Diff: attack}}},
		decided(pipeline.StageScanGate, stages.Decision{Gate: attack, Verdict: stages.Fail, Reasons: []stages.Reason{{Rule: attack, Subject: attack, Message: attack}}}),
		failed(pipeline.StageScanGate, attack, attack, nil),
		failed(pipeline.StageVerify, attack, attack, []stages.Evidence{{
			Subject: attack, Owners: []string{attack}, Container: attack, Reason: attack, Message: attack,
			Logs: []string{attack, strings.Repeat("é", maxLine)}, Events: []string{attack}, Remedy: attack, Field: attack, Command: attack,
		}}),
		{Kind: pipeline.KindRunFailed, Stage: pipeline.StageVerify, Error: attack, Outcome: pipeline.OutcomeUntouched},
	}
}

func TestConsoleLetsNothingThrough(t *testing.T) {
	var out bytes.Buffer
	console := NewConsole(&out)
	for _, e := range hostile() {
		console.Observe(e)
	}
	assert.NotContains(t, out.String(), "owned")
	for _, r := range out.String() {
		if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e') {
			t.Fatalf("%U reached the terminal", r)
		}
	}
	for line := range strings.Lines(out.String()) {
		assert.NotRegexp(t, `^✓`, line, "an outsider forged the end of a run")
	}
}

func TestConsoleServesSeveralRunsAtOnce(t *testing.T) {
	var out bytes.Buffer
	console := NewConsole(&out)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for _, e := range rolledBack() {
				e.Run, e.Pipeline = fmt.Sprint(i), "shop"
				console.Observe(e)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, 8, strings.Count(out.String(), "└ remedy: set DATABASE_URL"))
	assert.Empty(t, console.runs)
}

func TestConsoleSurvivesAWriterThatFails(t *testing.T) {
	broken := errors.New("broken pipe")
	console := NewConsole(writerFunc(func([]byte) (int, error) { return 0, broken }))
	for _, e := range delivered() {
		console.Observe(e)
	}
	require.ErrorIs(t, console.Err(), broken)
}

func TestConsoleColorsOnlyATerminal(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer func() { assert.NoError(t, file.Close()) }()
	for _, options := range [][]ConsoleOption{nil, {WithColor(ColorAuto)}, {WithColor(ColorAlways), WithColor(ColorNever)}} {
		assert.False(t, NewConsole(file, options...).style.colored)
	}
}

func TestTook(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 449 * time.Millisecond: "0.4s", 59940 * time.Millisecond: "59.9s", 59960 * time.Millisecond: "1m00s",
		3*time.Minute + 5*time.Second: "3m05s", 61 * time.Minute: "1h01m",
	} {
		assert.Equal(t, want, took(d))
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m\r\n\x1b]8;;http://x\x1b\\link\x07")
	f.Add("\u009b2J\u202e\xff")
	f.Fuzz(func(t *testing.T, text string) {
		for _, line := range clean(text) {
			for _, r := range line {
				require.False(t, r < ' ' || r >= 0x7f && r < 0xa0, "%U", r)
			}
			require.Less(t, len(line), 3*maxLine+100)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func started(s pipeline.Stage, subject string) pipeline.Event {
	return pipeline.Event{Kind: pipeline.KindStageStarted, Stage: s, Subject: subject}
}

func done(s pipeline.Stage, subject string, elapsed time.Duration, attempt int) pipeline.Event {
	return pipeline.Event{Kind: pipeline.KindStageDone, Stage: s, Subject: subject, Elapsed: elapsed, Attempt: attempt}
}

func failed(s pipeline.Stage, subject, err string, evidence []stages.Evidence) pipeline.Event {
	return pipeline.Event{Kind: pipeline.KindStageFailed, Stage: s, Subject: subject, Elapsed: 2 * time.Second, Attempt: 1, Error: err, Evidence: evidence}
}

func decided(s pipeline.Stage, d stages.Decision) pipeline.Event {
	return pipeline.Event{Kind: pipeline.KindDecided, Stage: s, Decision: &d, Message: d.Verdict.String()}
}

func restoration(outcome stages.RestoreOutcome, message string) pipeline.Event {
	return pipeline.Event{
		Kind: pipeline.KindRestored, Stage: pipeline.StageDeploy, Subject: "release shop/shop", Message: message, Elapsed: 2 * time.Second,
		Restoration: &stages.Restoration{Subject: "release shop/shop", Outcome: outcome, Message: message},
	}
}

func object(kind, name string) stages.Object {
	return stages.Object{APIVersion: "v1", Kind: kind, Namespace: "shop", Name: name}
}

// What can't be seen can't make two names look the same.
func TestInvisibleCharactersAreShown(t *testing.T) {
	for _, r := range "\u00ad\u200b\u2060\u2066\u202e\ufeff\U000e0041\u061c" {
		assert.Equal(t, "shop\ufffdweb", inline("shop"+string(r)+"web"), "%U", r)
	}
	assert.Equal(t, "می\u200cخواهم", inline("می\u200cخواهم"))
}
