package notify

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// render returns the lines that an event becomes.
func (c *Console) render(run *runView, e pipeline.Event) []byte {
	p := &page{style: c.style}
	switch e.Kind {
	case pipeline.KindRunStarted:
		p.line(0, p.paint(bold, "▶ "+inline(e.Pipeline)), "  ", title(e.Subject, e.Message), p.paint(faint, "  run "+inline(e.Run)))
	case pipeline.KindRecoveryStarted:
		p.line(0, p.paint(bold, "▶ "+inline(e.Pipeline)), "  recovering run ", inline(e.Run), ": ", inline(e.Message))
	case pipeline.KindStageStarted:
		if !instant(e.Stage) {
			p.line(1, p.paint(faint, "· "), stageName(e.Stage), p.paint(faint, short(inline(e.Subject))))
		}
	case pipeline.KindProgress:
		if c.progress {
			p.line(2, p.paint(faint, "│ "+stageName(e.Stage)+short(inline(e.Message))))
		}
	case pipeline.KindWaiting:
		p.mark(yellow, "…", e, e.Message)
	case pipeline.KindRetrying:
		p.mark(yellow, "↻", e, e.Message)
		p.quote(3, plain, e.Error)
	case pipeline.KindDecided:
		run.decisions[e.Stage] = e.Decision
	case pipeline.KindPlanned:
		c.plan(p, e)
	case pipeline.KindCheckpointed:
		if c.progress {
			p.line(2, p.paint(faint, "│ "+stageName(e.Stage)+"checkpoint of "+inline(e.Subject)))
		}
	case pipeline.KindStageDone, pipeline.KindStageFailed, pipeline.KindStageCancelled:
		stageEnd(p, run, e)
	case pipeline.KindFailureNotRecorded:
		p.mark(yellow, "!", e, "the release's record does not say why it failed")
		p.quote(3, plain, e.Error)
	case pipeline.KindRestoring:
		p.mark(yellow, "↩", e, "restoring "+e.Subject)
	case pipeline.KindRestored, pipeline.KindRestoreFailed:
		restored(p, e)
	case pipeline.KindRunSucceeded, pipeline.KindRunFailed, pipeline.KindRecoveryFinished:
		runEnd(p, run, e)
	}
	return p.out.Bytes()
}

// mark adds a line about a stage, led by a sign.
func (p *page) mark(color ink, sign string, e pipeline.Event, message string) {
	p.line(1, p.paint(color, sign), " ", stageName(e.Stage), short(inline(message)))
}

// stageEnd tells how a stage went; for a gate, with what it decided.
func stageEnd(p *page, run *runView, e pipeline.Event) {
	color, sign := red, "✗"
	switch e.Kind {
	case pipeline.KindStageDone:
		color, sign = green, "✓"
	case pipeline.KindStageCancelled:
		color, sign = yellow, "⊘"
	}
	decision := run.decisions[e.Stage]
	delete(run.decisions, e.Stage)
	if decision != nil && decision.Verdict == stages.Inconclusive && e.Kind == pipeline.KindStageDone {
		color, sign = yellow, "?"
	}

	message := short(inline(e.Subject))
	if decision != nil {
		message = inline(decision.Gate) + ": " + decision.Verdict.String()
	} else if e.Kind == pipeline.KindStageCancelled {
		message = "stopped: " + inline(e.Error)
	}
	if e.Attempt > 1 {
		message += fmt.Sprintf(" (attempt %d)", e.Attempt)
	}
	p.line(1, p.paint(color, sign), " ", stageName(e.Stage), fmt.Sprintf("%7s  ", took(e.Elapsed)), message)

	switch {
	case decision != nil:
		p.reasons(color, decision.Reasons)
		p.reasons(yellow, decision.Warnings)
	case e.Kind == pipeline.KindStageFailed:
		p.quote(2, red, e.Error)
	}
	if len(e.Evidence) > 0 {
		p.evidence(e.Evidence)
		run.explained = true
	}
}

// maxReasons bounds the reasons and warnings shown of one decision, each.
const maxReasons = 100

func (p *page) reasons(color ink, reasons []stages.Reason) {
	sign := "✗"
	if color != red {
		sign = "!"
	}
	for i, r := range reasons {
		if i == maxReasons {
			p.line(3, p.paint(faint, fmt.Sprintf("and %d more", len(reasons)-maxReasons)))
			return
		}
		subject := ""
		if r.Subject != "" {
			subject = "  " + short(inline(r.Subject))
		}
		p.line(3, p.paint(color, sign+" "+inline(r.Rule)), p.paint(faint, subject), "  ", inline(r.Message))
	}
}

// plan tells what a deployment would change.
func (c *Console) plan(p *page, e pipeline.Event) {
	if len(e.Changes) == 0 {
		p.mark(cyan, "Δ", e, "nothing would change in "+e.Subject)
		return
	}
	p.mark(cyan, "Δ", e, e.Subject+": "+e.Message)
	signs := map[stages.Action]struct {
		sign  string
		color ink
	}{stages.Create: {"+", green}, stages.Update: {"~", yellow}, stages.Delete: {"-", red}, stages.Recreate: {"!", red}, stages.Adopt: {"=", yellow}}
	for _, change := range e.Changes {
		sign := signs[change.Action]
		p.line(3, p.paint(sign.color, sign.sign+" "+inline(change.Object.String())))
		// A new object is all additions, which its manifest tells better.
		if change.Action == stages.Update {
			c.diff(p, change.Diff)
		}
	}
}

func (c *Console) diff(p *page, diff string) {
	lines := clean(diff)
	for i, l := range lines {
		if i == c.diffLines {
			if i > 0 {
				p.line(4, p.paint(faint, fmt.Sprintf("and %d lines more", len(lines)-i)))
			}
			return
		}
		color := plain
		switch {
		case strings.HasPrefix(l, "+"):
			color = green
		case strings.HasPrefix(l, "-"):
			color = red
		case strings.HasPrefix(l, "@"):
			color = faint
		}
		p.line(4, p.paint(faint, "│ "), p.paint(color, l))
	}
}

// evidence tells what was observed about a failure.
func (p *page) evidence(evidence []stages.Evidence) {
	for _, ev := range evidence {
		head := inline(ev.Subject)
		if ev.Container != "" {
			head += ", container " + inline(ev.Container)
		}
		reason := inline(ev.Reason)
		if ev.ExitCode != nil {
			reason += " (exit code " + strconv.Itoa(int(*ev.ExitCode)) + ")"
		}
		p.line(2, p.paint(red, "┌ "), p.paint(bold, head), ": ", p.paint(red, reason))
		if len(ev.Owners) > 0 {
			p.line(2, p.paint(red, "│ "), p.paint(faint, "of "+inline(strings.Join(ev.Owners, ", of "))))
		}
		for _, l := range clean(ev.Message) {
			p.line(2, p.paint(red, "│ "), l)
		}
		p.listed("last log lines", ev.Logs)
		p.listed("events", ev.Events)
		if ev.Remedy != "" {
			p.line(2, p.paint(red, "└ "), p.paint(bold, "remedy: "), inline(ev.Remedy))
		}
	}
}

func (p *page) listed(name string, entries []string) {
	if len(entries) == 0 {
		return
	}
	p.line(2, p.paint(red, "│ "), p.paint(faint, name+":"))
	for _, entry := range entries {
		for _, l := range clean(entry) {
			p.line(2, p.paint(red, "│ "), p.paint(faint, "│ "), l)
		}
	}
}

// restored tells what became of a checkpoint.
func restored(p *page, e pipeline.Event) {
	color, sign, outcome := red, "✗", "restore failed"
	if e.Restoration != nil && e.Kind == pipeline.KindRestored {
		outcome = string(e.Restoration.Outcome)
		if e.Restoration.Outcome == stages.Restored || e.Restoration.Outcome == stages.Unchanged {
			color, sign = green, "↩"
		}
	}
	p.line(1, p.paint(color, sign), " ", stageName(e.Stage), fmt.Sprintf("%7s  ", took(e.Elapsed)),
		inline(e.Subject), " ", p.paint(color, outcome))
	message := e.Message
	if e.Error != "" {
		message = e.Error
	}
	p.quote(2, plain, message)
	p.evidence(e.Evidence)
}

// runEnd tells how a run or a recovery ended.
func runEnd(p *page, run *runView, e pipeline.Event) {
	name, after := inline(e.Pipeline), " after "+took(e.Elapsed)
	switch {
	case e.Kind == pipeline.KindRunSucceeded:
		p.line(0, p.paint(green, "✓ "+name+" "+string(e.Outcome)), after, "  ", short(inline(e.Subject)))
		return
	case e.Kind == pipeline.KindRecoveryFinished && e.Error == "":
		p.line(0, p.paint(green, "✓ "+name+" recovered"), after, "  ", inline(e.Message))
		return
	case e.Kind == pipeline.KindRecoveryFinished:
		p.line(0, p.paint(red, "✗ "+name+" not recovered: "+string(e.Outcome)), after)
	default:
		p.line(0, p.paint(red, "✗ "+name+" failed at "+string(e.Stage)+": "+string(e.Outcome)), after)
	}
	if !run.explained {
		p.evidence(e.Evidence)
	}
	p.quote(1, plain, e.Error)
}

// instant reports whether a stage is over before its beginning is worth a line.
func instant(s pipeline.Stage) bool {
	return strings.Contains(string(s), "gate") || s == pipeline.StageClear || s == pipeline.StageCommit
}

// stageName pads a stage's name, so that what follows lines up.
func stageName(s pipeline.Stage) string { return fmt.Sprintf("%-17s", inline(string(s))) }

// title names what a run delivers.
func title(subject, revision string) string {
	if revision == "" {
		return inline(subject)
	}
	return inline(subject) + " at " + inline(revision)
}
