package sequential_test

import (
	"errors"
	"fmt"

	"github.com/fairlead-dev/fairlead/rollout/sequential"
)

func Example() {
	rate, err := sequential.NewRate(sequential.RateConfig{Tolerance: 0.005})
	if err != nil {
		fmt.Println(err)
		return
	}
	// After every scrape, with what was counted since the comparison began.
	for _, look := range []struct{ canary, baseline sequential.Counts }{
		{sequential.Counts{Requests: 200, Failures: 4}, sequential.Counts{Requests: 1800, Failures: 8}},
		{sequential.Counts{Requests: 1200, Failures: 35}, sequential.Counts{Requests: 10800, Failures: 51}},
	} {
		result, err := rate.Compare(look.canary, look.baseline)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(result)
	}
	// Output:
	// undecided: failure rate +1.56 percentage points (-0.937 to +8.27), tolerated +0.5, on 200 canary and 1800 baseline requests; about 2100 more canary requests are needed
	// harm: failure rate +2.44 percentage points (+0.769 to +4.93), tolerated +0.5, on 1200 canary and 10800 baseline requests
}

func ExampleRate_Against() {
	rate, err := sequential.NewRate(sequential.RateConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := rate.Against(sequential.Counts{Requests: 2000, Failures: 1}, 0.01)
	fmt.Println(result, err)
	// Output: safe: failure rate 0.05% (7.19e-06% to 0.511%), limit 1%, on 2000 canary requests <nil>
}

func ExampleQuantile_Compare() {
	quantile, err := sequential.NewQuantile(sequential.QuantileConfig{Quantile: 0.95, Tolerance: 0.2})
	if err != nil {
		fmt.Println(err)
		return
	}
	bounds := []float64{0.1, 0.125, 0.15, 0.2, 0.25}
	result, err := quantile.Compare(
		sequential.Histogram{UpperBounds: bounds, Counts: []uint64{1500, 200, 150, 150, 0}},
		sequential.Histogram{UpperBounds: bounds, Counts: []uint64{15000, 4500, 400, 100, 0}},
	)
	fmt.Println(result, err)
	// Output: harm: latency 1.36 times the baseline's (1.2 to 2), tolerated 1.2 times, on 2000 canary and 20000 baseline requests <nil>
}

// Where buckets are coarser than the tolerance, the share of slow requests can
// still be compared.
func ExampleHistogram_Slower() {
	canary := sequential.Histogram{UpperBounds: []float64{0.1, 0.25, 1}, Counts: []uint64{1800, 150, 50}}
	slow, err := canary.Slower(0.25)
	fmt.Println(slow.Failures, "of", slow.Requests, err)
	// Output: 50 of 2000 <nil>
}

func ExampleCounts_Since() {
	before := sequential.Counts{Requests: 90_000, Failures: 40}
	_, err := sequential.Counts{Requests: 120}.Since(before)
	reset, ok := errors.AsType[*sequential.ResetError](err)
	fmt.Println(ok, reset.Counter, reset.Before, reset.After)
	// Output: true Requests 90000 120
}
