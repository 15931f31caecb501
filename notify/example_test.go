package notify_test

import (
	"os"
	"time"

	"github.com/fairlead-dev/fairlead/notify"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// A console hears of a gate that refused. The engine sends the events; here they
// are written out.
func ExampleNewConsole() {
	color := notify.ColorAuto
	if os.Getenv("NO_COLOR") != "" {
		color = notify.ColorNever
	}
	console := notify.NewConsole(os.Stdout, notify.WithColor(color))

	for _, event := range []pipeline.Event{
		{Kind: pipeline.KindRunStarted, Pipeline: "shop", Run: "r-1", Subject: "./app", Message: "v1.3.0"},
		{Kind: pipeline.KindDecided, Run: "r-1", Stage: pipeline.StageScanGate, Decision: &stages.Decision{
			Gate: "vulnerabilities", Verdict: stages.Fail,
			Reasons: []stages.Reason{{Rule: "CVE-2024-3094", Subject: "xz-utils in debian 12", Message: "CRITICAL xz-utils 5.6.0 → 5.6.2"}},
		}},
		{Kind: pipeline.KindStageFailed, Run: "r-1", Stage: pipeline.StageScanGate, Elapsed: 200 * time.Millisecond},
		{Kind: pipeline.KindRunFailed, Pipeline: "shop", Run: "r-1", Stage: pipeline.StageScanGate, Elapsed: 4 * time.Second,
			Outcome: pipeline.OutcomeUntouched, Error: "gate refused: vulnerabilities; nothing was deployed"},
	} {
		console.Observe(event)
	}
	// Output:
	// ▶ shop  ./app at v1.3.0  run r-1
	//   ✗ scan-gate           0.2s  vulnerabilities: fail
	//       ✗ CVE-2024-3094  xz-utils in debian 12  CRITICAL xz-utils 5.6.0 → 5.6.2
	// ✗ shop failed at scan-gate: untouched after 4.0s
	//   │ gate refused: vulnerabilities; nothing was deployed
}

// One JSON object per event, for a program to read.
func ExampleNewNDJSON() {
	notify.NewNDJSON(os.Stdout).Observe(pipeline.Event{
		Run: "r-1", Pipeline: "shop", Seq: 1, Time: time.Date(2025, 5, 31, 12, 0, 0, 0, time.UTC),
		Kind: pipeline.KindRunStarted, Subject: "./app",
	})
	// Output:
	// {"run":"r-1","pipeline":"shop","seq":1,"time":"2025-05-31T12:00:00Z","kind":"run-started","subject":"./app"}
}
