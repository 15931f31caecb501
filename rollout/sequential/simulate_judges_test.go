package sequential

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

// judge is asked after every minute with the points so far, one a minute, and
// says whether it gives up on the canary.
type judge func(canary, baseline []float64) (harm bool)

// flagger is an analysis of Flagger's with one metric of a fixed range: each
// minute in which the canary is out of range counts as a failed check, and at the
// threshold of 5 of them, as in its documentation, the canary is rolled back. The
// checks before are not forgotten when one succeeds.
func flagger(most float64) judge {
	failed := 0
	return func(canary, _ []float64) bool {
		if canary[len(canary)-1] > most {
			failed++
		}
		return failed >= 5
	}
}

// pipecd is PipeCD's analysis with the strategy CANARY_BASELINE and deviation
// HIGH: every five minutes, the points of these minutes, both ends included, are
// compared by a one-sided Mann-Whitney test at 0.05, exact for so few points. Its
// failure limit is 0, the default. A test that fails because all points are equal
// counts as a failure, as it does there.
func pipecd() judge {
	const interval, alpha = 5, 0.05
	return func(canary, baseline []float64) bool {
		if len(canary)%interval != 0 {
			return false
		}
		from := max(0, len(canary)-interval-1)
		p, ok := exactMannWhitney(canary[from:], baseline[from:])
		return !ok || p <= alpha
	}
}

// exactMannWhitney returns the probability of a U at least as large among all
// ways to choose which points are the canary's. With ties it counts the next
// half step too, like the original. It is not ok if all points are equal.
func exactMannWhitney(canary, baseline []float64) (p float64, ok bool) {
	all := slices.Concat(canary, baseline)
	ranks := averageRanks(all)
	if slices.Max(all) == slices.Min(all) {
		return 0, false
	}
	var observed float64
	for _, rank := range ranks[:len(canary)] {
		observed += rank
	}
	var beyond, total int
	var choose func(from, left int, sum float64)
	choose = func(from, left int, sum float64) {
		if left == 0 {
			total++
			beyond += count(sum > observed-1)
			return
		}
		for i := from; i <= len(ranks)-left; i++ {
			choose(i+1, left-1, sum+ranks[i])
		}
	}
	choose(0, len(canary), 0)
	return float64(beyond) / float64(total), true
}

// averageRanks gives equal points the mean of their ranks.
func averageRanks(points []float64) []float64 {
	sorted := slices.Clone(points)
	slices.Sort(sorted)
	ranks := make([]float64, len(points))
	for i, x := range points {
		first, _ := slices.BinarySearch(sorted, x)
		after, _ := slices.BinarySearch(sorted, math.Nextafter(x, math.Inf(1)))
		ranks[i] = float64(first+after+1) / 2
	}
	return ranks
}

// kayenta is Kayenta's judge NetflixACAJudge-v1.0 with one metric of direction
// increase and otherwise its defaults: every ten minutes, all points so far are
// classified High if the 98 % confidence interval of the Hodges-Lehmann shift
// lies above a quarter of its estimate and the ratio of the means, its effect
// size, is at least 1. One metric that is High scores 0, which is below any
// marginal score, so that the canary fails.
func kayenta() judge {
	const interval, confidence, tolerance = 10, 0.98, 0.25
	return func(canary, baseline []float64) bool {
		if len(canary)%interval != 0 {
			return false
		}
		experiment, control := slices.Sorted(slices.Values(canary)), slices.Sorted(slices.Values(baseline))
		if slices.Equal(experiment, control) {
			return false
		}
		z := math.Sqrt2 * math.Erfinv(confidence)
		lower, estimate := shift(experiment, control, z), shift(experiment, control, 0)
		return lower > tolerance*math.Abs(estimate) && mean(experiment) >= mean(control)
	}
}

func mean(points []float64) float64 {
	var sum float64
	for _, x := range points {
		sum += x
	}
	return sum / float64(len(points))
}

// shift returns the shift of x, sorted, against y, sorted, at which the normal
// approximation of the Mann-Whitney statistic, corrected for continuity and
// ties, is z: R's wilcox.test as Kayenta has it. The root is bisected to the
// 1e-4 that Kayenta's solver has.
func shift(x, y []float64, z float64) float64 {
	statistic := func(mu float64) float64 {
		n, m := float64(len(x)), float64(len(y))
		var sum, ties float64
		for i, j, rank := 0, 0, 0; i < len(x) || j < len(y); {
			value := math.Inf(1)
			if i < len(x) {
				value = x[i] - mu
			}
			if j < len(y) {
				value = min(value, y[j])
			}
			fromX, fromY := 0, 0
			for ; i < len(x) && x[i]-mu == value; i++ {
				fromX++
			}
			for ; j < len(y) && y[j] == value; j++ {
				fromY++
			}
			tied := float64(fromX + fromY)
			sum += float64(fromX) * (float64(rank) + (tied+1)/2)
			ties += tied*tied*tied - tied
			rank += fromX + fromY
		}
		d := sum - n*(n+1)/2 - n*m/2
		if d != 0 {
			d -= math.Copysign(0.5, d)
		}
		return d / math.Sqrt(n*m/12*(n+m+1-ties/((n+m)*(n+m-1))))
	}
	low, high := x[0]-y[len(y)-1], x[len(x)-1]-y[0]
	if statistic(low) <= z {
		return low
	}
	if statistic(high) >= z {
		return high
	}
	for high-low > 1e-4 {
		if mid := (low + high) / 2; statistic(mid) > z {
			low = mid
		} else {
			high = mid
		}
	}
	return (low + high) / 2
}

// Small cases that can be counted by hand: in the first, U is 10, and 24 of the
// 70 ways to choose four of eight ranks have at least that.
func TestJudgesCompute(t *testing.T) {
	p, ok := exactMannWhitney([]float64{1.1, 2.2, 3.3, 4.4}, []float64{0.5, 1.5, 2.5, 3.5})
	assert.True(t, ok)
	assert.InDelta(t, 24.0/70, p, 1e-12)
	_, ok = exactMannWhitney([]float64{0, 0}, []float64{0, 0})
	assert.False(t, ok)

	x := []float64{11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
	y := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	assert.InDelta(t, 10, shift(x, y, 0), 1e-3)
	assert.Less(t, shift(x, y, 2.326), 10.0)
	assert.True(t, kayenta()(x, y))
	assert.False(t, kayenta()(y, x))
	assert.False(t, kayenta()(x, x))

	check := flagger(1)
	for minute, rate := range []float64{2, 0, 2, 2, 0, 2} {
		assert.False(t, check([]float64{rate}, nil), "minute %d", minute)
	}
	assert.True(t, check([]float64{2}, nil))
}
