package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fairlead-dev/fairlead/pipeline"
)

// summary is the table that the demonstration ends with.
type summary struct {
	rows       []string
	unexpected int
}

func (s *summary) add(version string, result *pipeline.Result, err error, ok bool) {
	verdict := "as it should"
	if !ok {
		verdict = "NOT AS IT SHOULD"
		s.unexpected++
	}
	if result == nil {
		result = &pipeline.Result{}
	}
	stoppedAt := "-"
	if failure, ok := errors.AsType[*pipeline.Error](err); ok {
		stoppedAt = string(failure.Stage)
	}
	s.rows = append(s.rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", version, result.Outcome, stoppedAt, verdict,
		result.Elapsed.Round(100*time.Millisecond), stagesOf(result)))
}

// stagesOf lists where a run's time went.
func stagesOf(result *pipeline.Result) string {
	var parts []string
	for _, t := range result.Timings {
		if t.Elapsed >= 100*time.Millisecond {
			parts = append(parts, fmt.Sprintf("%s %s", t.Stage, t.Elapsed.Round(100*time.Millisecond)))
		}
	}
	return strings.Join(parts, ", ")
}

// print writes the table, and returns an error if any release went otherwise
// than it should.
func (s *summary) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "\nVERSION\tOUTCOME\tSTOPPED AT\tWENT\tTIME\tOF WHICH")
	for _, row := range s.rows {
		_, _ = fmt.Fprintln(table, row)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if s.unexpected > 0 {
		return fmt.Errorf("%d of the releases did not go as they should", s.unexpected)
	}
	return nil
}
