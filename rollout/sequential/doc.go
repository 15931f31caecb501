// Package sequential tells harm from noise while the requests are still coming
// in. It compares a canary with its baseline by failure rate or by a quantile of
// the latency, may be asked after every scrape, and stays honest all the same:
// the chance that it ever cries harm over a canary that does none is bounded by
// [RateConfig.Alpha], however often and whenever it is asked.
//
//	rate, err := sequential.NewRate(sequential.RateConfig{Tolerance: 0.005})
//	…
//	result, err := rate.Compare(
//		sequential.Counts{Requests: 1200, Failures: 35},  // the canary's since the start
//		sequential.Counts{Requests: 10800, Failures: 51}, // the baseline's since the start
//	)
//	fmt.Println(result) // harm: …, or safe: …, or undecided: … about 2100 more canary requests are needed
//
// # What the answer means
//
// [Harm]: the canary is worse than the baseline by more than the tolerance. Over
// all looks of a comparison together, this is said of a canary within tolerance
// with a probability of at most Alpha: one comparison in a hundred by default.
//
// [Safe]: the increase, if any, is below the tolerance. It is said wrongly with
// a probability of at most Beta. That is more than "no harm was seen": with few
// requests nothing is ever safe, and a canary that sits exactly at the tolerance
// is neither.
//
// [Undecided]: the numbers admit both. [Result.Needed] estimates how many more
// requests the canary has to serve; Undecided is never a pass.
//
// Lower and Upper hold at all looks at once: the true value is below some Lower
// ever shown with a probability of at most Alpha, and above some Upper with at
// most Beta. Estimate is the plain observation, of which nothing is promised.
//
// # What it takes for granted
//
// The counts are cumulative since the comparison began, and both sides are
// counted over the same period. Given the side that a request went to, it fails
// independently of the others with that side's rate. Nothing is assumed about
// how traffic is split, so the split may be lopsided, may drift, and may follow
// what was seen; nor about when somebody looks, so one may look at will, in
// batches of any size, and stop as soon as there is an answer.
//
// Three things break it. Failures that come in clumps, such as one broken
// connection with twenty requests on it, count one fact twenty times: set
// Dispersion to the largest number of requests that hang together. If rates rise
// and fall over the day and the split is changed meanwhile, the sides saw
// different hours, and their totals differ without any harm: begin a new
// comparison with each traffic step, and share Alpha out over the steps, as over
// failures and latency where both are compared: errors add up. Counters
// that start again from zero, or extrapolated numbers such as those of PromQL's
// increase, aren't counts: sum up raw differences with [Counts.Since].
//
// # How it works
//
// For each side, and each rate that it may have, imagine bets against that rate:
// on another rate, drawn from a fixed prior, at the odds of the one tested. What
// they win is the likelihood of what was observed, averaged over the prior,
// divided by its likelihood at the rate tested. If that is the true rate, the
// winnings are a martingale that begins at 1 (Robbins 1970), and exceed 1/Alpha
// with a probability of at most Alpha over all time (Ville 1939); so the rates
// against which they never did are a confidence sequence (Howard, Ramdas,
// McAuliffe and Sekhon, arXiv:1810.08240; Lindon and Malek, arXiv:2011.03567).
// Part of the stake is bet at the odds of a Poisson distribution, which for
// requests that fail or don't are worse than fair: a supermartingale, for which
// the same holds.
//
// Two sides have such winnings each, and so has their product, because which side
// the next request goes to is settled before it fails; the weighted mean of all
// three is a supermartingale too. A claim such as "worse by more than the
// tolerance" is made when that mean is at least 1/Alpha at every pair of rates
// that contradicts it (the idea of Wasserman, Ramdas and Balakrishnan,
// arXiv:1912.11436). Its logarithm is convex in the two rates, so that the least
// one is found, and bounded from below by a tangent.
//
// With Dispersion m, the likelihoods are taken to the power 1/m. By Hölder's
// inequality what was a supermartingale remains one, whichever way the outcomes of
// up to m requests depend on each other, if the size of a clump doesn't depend on
// its outcome. (That of retries does: count calls instead.)
//
// A quantile is compared at the bounds of the histogram's buckets, where the
// number of faster requests is a count like any other (Howard and Ramdas,
// arXiv:1906.09712). That takes no correction for the number of buckets, and
// claims nothing about what lies inside one: buckets wider than the tolerance
// leave a comparison undecided for ever, which the result says. Where buckets
// are coarse, compare the share of requests slower than one of the bounds
// instead: [Histogram.Slower] makes failures of them, for [Rate].
//
// COMPARISON.md shows measured false alarms and delays of this package, and of
// judges by fixed thresholds and by repeated Mann-Whitney tests, on the same
// streams.
//
// # What it never does
//
// It keeps no state, reads no clock, starts nothing, and never takes missing
// data for a pass. The type [Rate] and the type [Quantile] are safe for
// concurrent use.
package sequential
