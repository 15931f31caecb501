package scan

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// DefaultMaxDatabaseAge is how old a database may be where a policy doesn't say.
// The public database is made anew every few hours.
const DefaultMaxDatabaseAge = 7 * 24 * time.Hour

// clockSkew is how far ahead of this clock a database's date may be.
const clockSkew = time.Hour

// gateName is what a policy's decisions are signed with.
const gateName = "vulnerabilities"

// Exception is a finding that somebody has looked at and accepts.
type Exception struct {
	// ID is the advisory, such as "CVE-2024-3094", required; case is ignored.
	ID string `json:"id"`
	// Package narrows the exception to one package; empty covers all.
	Package string `json:"package,omitempty"`
	// Reason says why it is acceptable, required. It appears as a warning.
	Reason string `json:"reason"`
	// Until is when the exception ends; zero means never.
	Until time.Time `json:"until,omitzero"`
}

func (e Exception) covers(f stages.Finding) bool {
	return strings.EqualFold(e.ID, f.ID) && (e.Package == "" || e.Package == f.Package)
}

func (e Exception) expired(now time.Time) bool { return !e.Until.IsZero() && !now.Before(e.Until) }

// PolicyConfig says what a [Policy] refuses.
type PolicyConfig struct {
	// Threshold is the lowest severity that blocks. The zero value stands for
	// [stages.SeverityHigh].
	Threshold stages.Severity
	// IgnoreUnfixed turns findings that no version mends yet into warnings.
	IgnoreUnfixed bool
	// Ignore lists accepted findings. They become warnings; an exception that has
	// ended no longer applies, and a warning says so.
	Ignore []Exception
	// MaxDatabaseAge is how old the scanner's database may be. The zero value
	// stands for [DefaultMaxDatabaseAge].
	MaxDatabaseAge time.Duration
	// AllowEmpty accepts a report in which no package was recognised, which is
	// what a correct scan of a static binary on an empty base looks like, and
	// a scan that went wrong too.
	AllowEmpty bool
}

// Policy is the gate on a scan report. It is immutable and safe for concurrent
// use.
//
// It says Fail, with one reason for each blocking finding, when there is any;
// else Inconclusive when the report proves nothing, because nothing was
// recognised in the image or the database is too old or of unknown age; else
// Pass. Findings of unknown severity don't block, but are warned about.
type Policy struct {
	cfg PolicyConfig
}

var _ stages.Gate[stages.Report] = (*Policy)(nil)

// NewPolicy returns a policy, or an error matching [stages.ErrInvalid] that says
// what is wrong with cfg.
func NewPolicy(cfg PolicyConfig) (*Policy, error) {
	if cfg.Threshold == stages.SeverityUnknown {
		cfg.Threshold = stages.SeverityHigh
	}
	if cfg.MaxDatabaseAge == 0 {
		cfg.MaxDatabaseAge = DefaultMaxDatabaseAge
	}
	if cfg.Threshold < stages.SeverityLow || cfg.Threshold > stages.SeverityCritical {
		return nil, fmt.Errorf("%w: scan policy: threshold %s is no severity", stages.ErrInvalid, cfg.Threshold)
	}
	if cfg.MaxDatabaseAge < 0 {
		return nil, fmt.Errorf("%w: scan policy: maximum database age %s is negative", stages.ErrInvalid, cfg.MaxDatabaseAge)
	}
	for i, e := range cfg.Ignore {
		if strings.TrimSpace(e.ID) == "" {
			return nil, fmt.Errorf("%w: scan policy: exception %d has no advisory ID", stages.ErrInvalid, i+1)
		}
		if strings.TrimSpace(e.Reason) == "" {
			return nil, fmt.Errorf("%w: scan policy: exception for %s gives no reason", stages.ErrInvalid, e.ID)
		}
	}
	cfg.Ignore = slices.Clone(cfg.Ignore)
	return &Policy{cfg: cfg}, nil
}

// Decide judges report. It errs only on a cancelled context and, matching
// [stages.ErrInvalid], on a report about no image.
func (p *Policy) Decide(ctx context.Context, report stages.Report) (stages.Decision, error) {
	if err := context.Cause(ctx); err != nil {
		return stages.Decision{Gate: gateName}, err
	}
	if report.Image.IsZero() {
		return stages.Decision{Gate: gateName}, fmt.Errorf("%w: scan policy: the report is about no image", stages.ErrInvalid)
	}
	now := time.Now()
	d := stages.Decision{Gate: gateName}
	for _, f := range report.Findings {
		p.judge(f, now, &d)
	}
	doubts := p.doubts(report, now)
	switch {
	case len(d.Reasons) > 0:
		d.Verdict = stages.Fail
		d.Warnings = append(d.Warnings, doubts...)
	case len(doubts) > 0:
		d.Verdict = stages.Inconclusive
		d.Reasons = doubts
	default:
		d.Verdict = stages.Pass
	}
	return d, nil
}

// judge files f under the decision's reasons or warnings.
func (p *Policy) judge(f stages.Finding, now time.Time, d *stages.Decision) {
	r := stages.Reason{Rule: f.ID, Subject: subjectOf(f), Message: describe(f)}
	if f.Severity == stages.SeverityUnknown {
		d.Warnings = append(d.Warnings, r)
		return
	}
	if f.Severity < p.cfg.Threshold {
		return
	}
	var ended []Exception
	for _, e := range p.cfg.Ignore {
		switch {
		case !e.covers(f):
		case e.expired(now):
			ended = append(ended, e)
		default:
			r.Message += "; accepted" + until(e) + ": " + e.Reason
			d.Warnings = append(d.Warnings, r)
			return
		}
	}
	for _, e := range ended {
		d.Warnings = append(d.Warnings, stages.Reason{
			Rule: f.ID, Subject: r.Subject,
			Message: fmt.Sprintf("the exception ended on %s and no longer applies: %s", e.Until.UTC().Format(time.DateOnly), e.Reason),
		})
	}
	if f.Fixed == "" && p.cfg.IgnoreUnfixed {
		d.Warnings = append(d.Warnings, r)
		return
	}
	d.Reasons = append(d.Reasons, r)
}

// doubts are the reasons why report proves nothing.
func (p *Policy) doubts(report stages.Report, now time.Time) []stages.Reason {
	var doubts []stages.Reason
	if report.Packages == 0 && !p.cfg.AllowEmpty {
		doubts = append(doubts, stages.Reason{
			Rule: "packages", Subject: report.Image.String(),
			Message: "the scanner recognised no package, so finding nothing means nothing; allow empty reports if the image holds none on purpose",
		})
	}
	age := now.Sub(report.Database)
	var message string
	switch {
	case report.Database.IsZero():
		message = "it is not known when the vulnerability database was made"
	case age < -clockSkew:
		message = fmt.Sprintf("the vulnerability database is dated %s, in the future; check the clocks", report.Database.UTC().Format(time.RFC3339))
	case age > p.cfg.MaxDatabaseAge:
		message = fmt.Sprintf("the vulnerability database was made %s ago (%s), allowed are %s; update it",
			age.Round(time.Minute), report.Database.UTC().Format(time.RFC3339), p.cfg.MaxDatabaseAge)
	default:
		return doubts
	}
	return append(doubts, stages.Reason{Rule: "database-age", Subject: report.Scanner, Message: message})
}

func until(e Exception) string {
	if e.Until.IsZero() {
		return ""
	}
	return " until " + e.Until.UTC().Format(time.DateOnly)
}

func subjectOf(f stages.Finding) string {
	if f.Target == "" {
		return f.Package
	}
	return f.Package + " in " + f.Target
}

func describe(f stages.Finding) string {
	s := fmt.Sprintf("%s %s %s", f.Severity, f.Package, f.Installed)
	if f.Fixed == "" {
		s += ", no fix yet"
	} else {
		s += " → " + f.Fixed
	}
	if f.Title != "" {
		s += ": " + f.Title
	}
	return s
}
