package helmx

import (
	"context"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"helm.sh/helm/v3/pkg/release"

	"github.com/fairlead-dev/fairlead/stages"
)

// RecordFailure writes into the record of the revision that run made why it failed,
// in one line without secrets, and marks it as failed: helm history shows both, also
// after the release was rolled back. A run whose revision is not the newest has
// nothing to say. Of a first install nothing remains in the cluster once it is undone,
// its record included, as after helm's own: the run's error and journal tell.
func (d *Deployer) RecordFailure(ctx context.Context, run string, cause error) error {
	if run == "" || cause == nil {
		return fmt.Errorf("%w: record why release %s failed: there is no run, or no cause", stages.ErrInvalid, d.name())
	}
	if err := d.recordFailure(ctx, run, cause); err != nil {
		return fmt.Errorf("record why release %s failed: %w", d.name(), err)
	}
	return nil
}

func (d *Deployer) recordFailure(ctx context.Context, run string, cause error) error {
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	history, err := s.history(d.cfg.Release)
	if err != nil {
		return err
	}
	last := newest(history)
	if last == nil || maker(last) != runLabel(run) || restores(last) > 0 || removing(last) != "" || last.Info.Status == release.StatusUninstalled {
		return nil // It has released nothing, or undone it.
	}
	bound, _, done, err := d.locked(ctx, run)
	if err != nil {
		return err
	}
	defer done()
	if s, err = d.session(bound); err != nil {
		return err
	}
	if s.secrets, err = d.secretsOf(s, last); err != nil {
		return err
	}
	// What an interruption has written there is less than what the cause tells.
	return s.markFailed(last, fmt.Sprintf("fairlead run %q: failed: %s", run, shorten(account(cause, d.clean(s)), lineLimit)))
}

// account is what is to know of a failure, without secrets: the first evidence if
// there is some, and else the error.
func account(cause error, clean func(string) string) string {
	found := stages.EvidenceOf(cause)
	if len(found) == 0 {
		return clean(cause.Error())
	}
	e := found[0]
	text := e.Subject
	if e.Container != "" {
		text += ", container " + e.Container
	}
	text += ": " + e.Reason
	if e.ExitCode != nil {
		text += fmt.Sprintf(" (exit code %d)", *e.ExitCode)
	}
	if e.Message != "" {
		text += ": " + shorten(clean(e.Message), messageLimit)
	}
	if e.Remedy != "" {
		text += "; remedy: " + e.Remedy
	}
	return clean(text)
}

// lineLimit bounds what is written into a record's description, messageLimit what of
// it somebody else has said. Both are in bytes.
const (
	lineLimit    = 400
	messageLimit = 200
)

// line is an error as one bounded line without secrets.
func (d *Deployer) line(s *session, err error) string {
	return shorten(d.clean(s)(err.Error()), lineLimit)
}

// clean returns what masks secrets, as far as the session knows them.
func (d *Deployer) clean(s *session) func(string) string {
	secrets := d.source.secrets()
	if s != nil {
		secrets = append(secrets, s.secrets...)
	}
	return func(text string) string {
		text, _ = redact(text, secrets)
		return text
	}
}

// shorten makes text one line of no more than limit bytes, which does nothing to a
// terminal.
func shorten(text string, limit int) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "�")), " ")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, text)
	if len(text) <= limit {
		return text
	}
	cut := limit - len("…")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
