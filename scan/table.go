package scan

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/fairlead-dev/fairlead/stages"
)

// titleWidth is where a title is cut, so that a line stays readable.
const titleWidth = 60

// WriteTable writes report as aligned text for people: what was scanned with
// what, then a line for each finding, in the report's order.
func WriteTable(w io.Writer, report stages.Report) error {
	made := "unknown"
	if !report.Database.IsZero() {
		made = report.Database.UTC().Format(time.RFC3339)
	}
	system := report.OS
	if system == "" {
		system = "no distribution"
	}
	if _, err := fmt.Fprintf(w, "%s\n%s, database of %s, %s, %d packages, %s\n",
		report.Image, plain(report.Scanner), made, plain(system), report.Packages, count(report.Findings)); err != nil {
		return fmt.Errorf("write scan table: %w", err)
	}
	if len(report.Findings) == 0 {
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	table := []string{"\nSEVERITY\tID\tPACKAGE\tINSTALLED\tFIXED\tTARGET\tTITLE"}
	for _, f := range report.Findings {
		cells := []string{f.Severity.String(), f.ID, f.Package, f.Installed, f.Fixed, f.Target, shorten(f.Title)}
		for i, c := range cells {
			cells[i] = plain(c)
		}
		table = append(table, strings.Join(cells, "\t"))
	}
	_, err := fmt.Fprintln(tw, strings.Join(table, "\n"))
	if err := errors.Join(err, tw.Flush()); err != nil {
		return fmt.Errorf("write scan table: %w", err)
	}
	return nil
}

// count sums findings up by severity, worst first.
func count(findings []stages.Finding) string {
	if len(findings) == 0 {
		return "no findings"
	}
	n := map[stages.Severity]int{}
	for _, f := range findings {
		n[f.Severity]++
	}
	var parts []string
	for s := stages.SeverityCritical; s >= stages.SeverityUnknown; s-- {
		if n[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[s], s))
		}
	}
	return strings.Join(parts, ", ")
}

func shorten(s string) string {
	runes := []rune(s)
	if len(runes) <= titleWidth {
		return s
	}
	return string(runes[:titleWidth-1]) + "…"
}

// plain replaces an empty cell, and what would break the table or steer the
// terminal: package metadata comes out of the image and is not to be trusted.
func plain(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}
