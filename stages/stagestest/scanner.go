package stagestest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// ScannerHarness is a scanner with images to try it on.
type ScannerHarness struct {
	// Scanner is the implementation.
	Scanner stages.Scanner
	// Image can be scanned, preferably with findings.
	Image stages.Image
	// Missing does not exist.
	Missing stages.Image
}

// TestScanner checks that an implementation keeps the contract of
// [stages.Scanner].
func TestScanner(t *testing.T, newHarness func(*testing.T) ScannerHarness) {
	runChecks(t, newHarness, scannerChecks)
}

var scannerChecks = []check[ScannerHarness]{
	{"reports on the image it was given", func(t T, h ScannerHarness) {
		report, err := h.Scanner.Scan(t.Context(), h.Image)
		require.NoError(t, err)
		assert.Equal(t, h.Image, report.Image, "the report must be about the image that was asked for")
		assert.NotEmpty(t, report.Scanner, "the report must name its scanner")
		assert.False(t, report.Database.IsZero(), "the report must say how old its database is")
	}},
	{"orders findings worst first", func(t T, h ScannerHarness) {
		report, err := h.Scanner.Scan(t.Context(), h.Image)
		require.NoError(t, err)
		assert.True(t, slices.IsSortedFunc(report.Findings, func(a, b stages.Finding) int {
			return cmp.Or(-cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.ID, b.ID),
				cmp.Compare(a.Package, b.Package), cmp.Compare(a.Target, b.Target))
		}), "findings must be ordered by severity, ID, package and target")
	}},
	{"finds the same twice", func(t T, h ScannerHarness) {
		first, err := h.Scanner.Scan(t.Context(), h.Image)
		require.NoError(t, err)
		second, err := h.Scanner.Scan(t.Context(), h.Image)
		require.NoError(t, err)
		assert.Equal(t, first.Findings, second.Findings)
	}},
	{"refuses no image", func(t T, h ScannerHarness) {
		_, err := h.Scanner.Scan(t.Context(), stages.Image{})
		requireInvalid(t, err, "no image")
	}},
	{"fails on a missing image", func(t T, h ScannerHarness) {
		report, err := h.Scanner.Scan(t.Context(), h.Missing)
		require.Error(t, err, "an image that isn't there must not be reported as clean")
		assert.True(t, report.Image.IsZero(), "a failed scan must not return a report")
	}},
	{"stops when cancelled", func(t T, h ScannerHarness) {
		requireCancelled(t, func(ctx context.Context) error {
			_, err := h.Scanner.Scan(ctx, h.Image)
			return err
		})
	}},
	{"is safe for concurrent use", func(t T, h ScannerHarness) {
		require.NoError(t, inParallel(func() error {
			report, err := h.Scanner.Scan(t.Context(), h.Image)
			if err == nil && report.Image != h.Image {
				return fmt.Errorf("reported on %q", report.Image)
			}
			return err
		}))
	}},
}
