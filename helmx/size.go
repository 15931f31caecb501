package helmx

import (
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/release"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// Contributor is a part of a release record.
type Contributor struct {
	// Name is a file of the chart, "values", "manifest" or "hook name".
	Name string
	// Bytes is what it adds to the record, as far as that can be told apart: the size
	// of it alone, compressed and encoded like the whole.
	Bytes int
}

// RecordTooLargeError is a release whose record doesn't fit into a Secret, where
// Helm keeps it. Nothing was changed. It matches [stages.ErrInvalid].
type RecordTooLargeError struct {
	Release, Namespace string
	// Bytes is the size of the record as it would be stored, Limit what the API
	// server allows.
	Bytes, Limit int
	// Contributors are the largest parts, largest first.
	Contributors []Contributor
}

// Error names the largest parts and what to do.
func (e *RecordTooLargeError) Error() string {
	var parts []string
	for _, c := range e.Contributors {
		parts = append(parts, fmt.Sprintf("\n  %8d  %s", c.Bytes, c.Name))
	}
	return fmt.Sprintf("the record of release %s/%s is %d bytes, and a Secret holds %d; keep files that no template needs out of the chart with .helmignore, split the chart, or move large data out of it; its largest parts, in bytes:%s",
		e.Namespace, e.Release, e.Bytes, e.Limit, strings.Join(parts, ""))
}

// Unwrap returns the class.
func (e *RecordTooLargeError) Unwrap() error { return stages.ErrInvalid }

// maxContributors is how many parts an error names.
const maxContributors = 10

// checkRecordSize returns a [RecordTooLargeError] if Helm couldn't store rel.
func checkRecordSize(rel *release.Release) error {
	bytes, err := recordSize(rel)
	if err != nil {
		return fmt.Errorf("measure the release record: %w", err)
	}
	if bytes <= corev1.MaxSecretSize {
		return nil
	}
	parts, err := contributors(rel)
	if err != nil {
		return fmt.Errorf("measure the release record: %w", err)
	}
	return &RecordTooLargeError{
		Release: rel.Name, Namespace: rel.Namespace, Bytes: bytes, Limit: corev1.MaxSecretSize,
		Contributors: parts[:min(len(parts), maxContributors)],
	}
}

// recordSize returns the size of v as Helm's storage driver encodes it: JSON,
// compressed, in base64.
func recordSize(v any) (int, error) {
	counter := &byteCounter{}
	encoder := base64.NewEncoder(base64.StdEncoding, counter)
	zipped, err := gzip.NewWriterLevel(encoder, gzip.BestCompression)
	if err != nil {
		return 0, fmt.Errorf("compress: %w", err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("encode: %w", err)
	}
	if _, err := zipped.Write(text); err != nil {
		return 0, fmt.Errorf("compress: %w", err)
	}
	for _, c := range []io.Closer{zipped, encoder} {
		if err := c.Close(); err != nil {
			return 0, fmt.Errorf("compress: %w", err)
		}
	}
	return counter.n, nil
}

type byteCounter struct{ n int }

func (c *byteCounter) Write(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}

// contributors returns the parts of a record, largest first. Helm keeps no more of
// dependencies than what they rendered to.
func contributors(rel *release.Release) ([]Contributor, error) {
	var out []Contributor
	var failed error
	add := func(name string, part any) {
		bytes, err := recordSize(part)
		failed = cmp.Or(failed, err)
		out = append(out, Contributor{name, bytes})
	}
	file := func(f *chart.File) { add(path.Join(rel.Chart.Name(), f.Name), f) }
	for _, f := range rel.Chart.Templates {
		file(f)
	}
	for _, f := range rel.Chart.Files {
		file(f)
	}
	add(path.Join(rel.Chart.Name(), "values.yaml"), rel.Chart.Values)
	add(path.Join(rel.Chart.Name(), "values.schema.json"), rel.Chart.Schema)
	add("values", rel.Config)
	add("manifest", rel.Manifest)
	add("notes", rel.Info.Notes)
	for _, h := range rel.Hooks {
		add("hook "+h.Name, h)
	}
	slices.SortStableFunc(out, func(a, b Contributor) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Name, b.Name))
	})
	return out, failed
}
