package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkSign signs a new image each time, in process and with the cosign
// command line, and reports how many times faster the former is.
func BenchmarkSign(b *testing.B) {
	lab := newSignLab(b)
	signer := lab.signer(b, lab.ours, nil)
	var ours, theirs time.Duration
	for b.Loop() {
		img, other := lab.image(b), lab.image(b)
		began := time.Now()
		_, err := signer.Sign(lab.ctx, img)
		ours += time.Since(began)
		require.NoError(b, err)
		began = time.Now()
		lab.cosignSign(b, lab.theirs, other)
		theirs += time.Since(began)
	}
	b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N), "fairlead-ns/op")
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(b.N), "cosign-ns/op")
	b.ReportMetric(float64(theirs)/float64(ours), "times-faster")
}
