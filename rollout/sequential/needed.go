package sequential

import "math"

// shortfall is how far the counts are from the required minimum.
type shortfall struct{ canary, baseline, required uint64 }

func (s shortfall) any() bool { return s.canary < s.required || s.baseline < s.required }

// mostProjected is as many requests as a projection looks ahead.
const mostProjected = 1e12

// needed returns how many more requests the canary has to serve until its counts
// multiplied by a factor decide and the minimum is reached. unit is how many
// requests the factor 1 stands for.
func (s shortfall) needed(have uint64, unit float64, decides func(factor float64) bool) uint64 {
	most := mostProjected / unit
	high := 1.0
	for !decides(high) {
		if high >= most {
			return Never
		}
		high *= 4
	}
	low := high / 4
	for high > 1 && high/low > 1.02 {
		if mid := math.Sqrt(low * high); decides(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	total := unit * high
	// The minimum of each side, at the observed split.
	total = max(total, float64(s.required))
	if s.baseline < s.required && s.baseline > 0 && have > 0 {
		total = max(total, float64(s.required)/float64(s.baseline)*float64(have))
	}
	return uint64(math.Ceil(max(1, total-float64(have))))
}
