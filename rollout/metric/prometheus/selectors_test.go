package prometheus

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSelectors(t *testing.T) {
	for expression, want := range map[string][]string{
		`up`:                       {"up"},
		` up `:                     {"up"},
		`up{job="a"}`:              {`up{job="a"}`},
		`up {job="}'"} `:           {`up {job="}'"}`},
		`{__name__=~"up|x"}`:       {`{__name__=~"up|x"}`},
		`rate(x_total{a="b"}[5m])`: {`x_total{a="b"}`},
		`rate(x[5m:30s])`:          {"x"},
		`sum by (job, code) (x) / on(job) group_left(team) sum without (code) (y)`: {"x", "y"},
		`sum(x) by (job)`:   {"x"},
		`x / ignoring(a) y`: {"x", "y"},
		`(sum(rate(err[1m])) or vector(0)) / sum(rate(all[1m]))`: {"err", "all"},
		`x and y unless z`: {"x", "y", "z"},
		`x AND y`:          {"x", "y"},
		`x > bool 3`:       {"x"},
		`histogram_quantile(0.99, sum by (le) (rate(lat_bucket[5m])))`: {"lat_bucket"},
		`x offset 5m + y`:                          {"y"},
		`rate(x[5m] offset 1d)`:                    nil,
		`x @ end()`:                                nil,
		`x{a="b"} @ 1609746000 - x{a="c"}`:         {`x{a="c"}`},
		`vector(1)`:                                nil,
		`time() - 1e3 + 0x1f - Inf`:                nil,
		`x # up{a="b"}` + "\n+ y":                  {"x", "y"},
		`job:x:rate5m * 5`:                         {"job:x:rate5m"},
		`absent(up{job="a"})`:                      {`up{job="a"}`},
		`label_replace(x, "a", "$1", "b", "(.*)")`: {"x"},
		`x + x`:                  {"x"},
		"count_values('v', up)":  {"up"},
		`topk(3, x) > scalar(y)`: {"x", "y"},
		`.5 * x`:                 {"x"},
	} {
		var got []string
		for _, s := range selectors(expression) {
			got = append(got, s.text)
		}
		assert.Equal(t, want, got, expression)
	}
}

func FuzzSelectors(f *testing.F) {
	for _, seed := range []string{`rate(x{a="b"}[5m])`, `sum by (a) (x)`, `{`, `x{"`, `x[`, "x #", `"\`, `by(`, `1.5e3`, "é{é"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		for _, s := range selectors(expression) {
			require.NotEmpty(t, s.text)
			require.Contains(t, expression, s.text, "a selector must be a part of the expression")
		}
	})
}
