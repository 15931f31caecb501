package prometheus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/metrictest"
	"github.com/fairlead-dev/fairlead/rollout/metric/prometheus"
	"github.com/fairlead-dev/fairlead/stages"
)

// vector is an answer with one sample for each value, evaluated now.
func vector(values ...string) string {
	var list []string
	for i, v := range values {
		list = append(list, fmt.Sprintf(`{"metric":{"__name__":"x","pod":"%d"},"value":[%.3f,%q]}`, i, float64(time.Now().UnixMilli())/1000, v))
	}
	return `"resultType":"vector","result":[` + strings.Join(list, ",") + `]`
}

func success(data string, more ...string) string {
	return `{"status":"success","data":{` + data + `}` + strings.Join(more, "") + `}`
}

func ago(d time.Duration) string {
	return fmt.Sprintf("%.3f", float64(time.Now().Add(-d).UnixMilli())/1000)
}

// server answers queries by their expression.
func server(t *testing.T, answer func(w http.ResponseWriter, query string, r *http.Request)) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler(answer))
	t.Cleanup(s.Close)
	return s
}

func handler(answer func(w http.ResponseWriter, query string, r *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r.FormValue("query"), r) })
}

// says answers every query but that for the age, which is none.
func says(status int, body string) func(http.ResponseWriter, string, *http.Request) {
	return func(w http.ResponseWriter, query string, _ *http.Request) {
		if strings.Contains(query, "timestamp(") {
			body := success(strings.ReplaceAll(vector(ago(0)), `"__name__":"x",`, ""))
			_, _ = io.WriteString(w, body)
			return
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func source(t *testing.T, url string, change func(*prometheus.Config)) *prometheus.Source {
	t.Helper()
	c := prometheus.Config{URL: url}
	if change != nil {
		change(&c)
	}
	s, err := prometheus.New(c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

func TestClasses(t *testing.T) {
	failure := func(kind, message string) string {
		return fmt.Sprintf(`{"status":"error","errorType":%q,"error":%q}`, kind, message)
	}
	for name, test := range map[string]struct {
		status int
		body   string
		class  metric.Class
	}{
		"bad expression":       {400, failure("bad_data", "parse error"), metric.BadExpression},
		"many to many":         {422, failure("execution", "many-to-many matching not allowed"), metric.BadExpression},
		"too many samples":     {422, failure("execution", "query processing would load too many samples into memory in query execution"), metric.TooManySeries},
		"storage":              {422, failure("execution", "corruption"), metric.ServerError},
		"timeout":              {503, failure("timeout", "query timed out in expression evaluation"), metric.Timeout},
		"internal":             {500, failure("internal", "boom"), metric.ServerError},
		"a proxy's error":      {502, "<html>", metric.ServerError},
		"unauthorized":         {401, "<html>", metric.Unauthorized},
		"forbidden":            {403, failure("bad_data", "no org id"), metric.Unauthorized},
		"not found":            {404, "<html>", metric.Failed},
		"rate limited":         {429, "slow down", metric.ServerError},
		"no JSON":              {200, "<html>", metric.ServerError},
		"a string":             {200, success(`"resultType":"string","result":[1,"x"]`), metric.BadExpression},
		"a matrix":             {200, success(`"resultType":"matrix","result":[]`), metric.BadExpression},
		"a redirect elsewhere": {302, "", metric.Failed},
		"too many series":      {200, success(vector("1", "2", "3")), metric.TooManySeries},
		"too many bytes":       {200, success(vector(strings.Repeat("1", 5000))), metric.TooManySeries},
	} {
		t.Run(name, func(t *testing.T) {
			s := source(t, server(t, says(test.status, test.body)).URL, func(c *prometheus.Config) { c.MaxSeries = 2; c.MaxBytes = 2000 })
			_, err := s.Query(t.Context(), metric.Query{Expression: "x"})
			require.ErrorIs(t, err, metric.ErrQuery)
			failed, ok := errors.AsType[*metric.QueryError](err)
			require.True(t, ok)
			assert.Equal(t, test.class, failed.Class, "%v", err)
			assert.Contains(t, failed.Source, "Prometheus http://127.0.0.1:")
		})
	}
}

func TestTimeout(t *testing.T) {
	stop := make(chan struct{})
	s := source(t, server(t, func(_ http.ResponseWriter, _ string, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}).URL, func(c *prometheus.Config) { c.Timeout = 30 * time.Millisecond })
	t.Cleanup(func() { close(stop) })
	_, err := s.Query(t.Context(), metric.Query{Expression: "x"})
	failed, ok := errors.AsType[*metric.QueryError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, metric.Timeout, failed.Class)
}

func TestWarningsMakeAnAnswerPartial(t *testing.T) {
	for _, accept := range []bool{false, true} {
		s := source(t, server(t, says(200, success(vector("1"), `,"warnings":["store 3 is down"],"infos":["metric might not be a counter"]`))).URL,
			func(c *prometheus.Config) { c.AcceptPartial = accept })
		r, err := s.Query(t.Context(), metric.Query{Expression: "x"})
		require.NoError(t, err)
		assert.Equal(t, !accept, r.Partial)
		assert.Equal(t, []string{"store 3 is down", "metric might not be a counter"}, r.Warnings)
	}
	s := source(t, server(t, says(200, success(vector("1"), `,"infos":["fyi"]`))).URL, nil)
	r, err := s.Query(t.Context(), metric.Query{Expression: "x"})
	require.NoError(t, err)
	assert.False(t, r.Partial)
	assert.Equal(t, []string{"fyi"}, r.Warnings)
}

func TestSamplesHaveTheirOwnTime(t *testing.T) {
	// pods answers what an expression asks for by a time for each pod.
	pods := func(times ...string) string {
		return success(strings.ReplaceAll(vector(times...), `"__name__":"x",`, ""))
	}
	for name, test := range map[string]struct {
		expression string
		answers    map[string]string
		ages       []time.Duration // -1 for unknown
	}{
		"one selector": {
			`x`, map[string]string{"x": success(vector("1", "2")), "timestamp(x)": pods(ago(time.Second), ago(4*time.Minute))},
			[]time.Duration{time.Second, 4 * time.Minute},
		},
		"one series without a time": {
			`x`, map[string]string{"x": success(vector("1", "2")), "timestamp(x)": pods(ago(time.Second))}, []time.Duration{time.Second, -1},
		},
		"several selectors take the oldest": {
			`x/y`, map[string]string{
				"x/y": success(vector("1")),
				`label_replace(max(timestamp(x)), "fairlead_selector", "0", "", "") or label_replace(max(timestamp(y)), "fairlead_selector", "1", "", "")`: pods(ago(time.Minute), ago(time.Second)),
			}, []time.Duration{time.Minute},
		},
		"none at present": {
			`sum(x)`, map[string]string{
				"sum(x)": success(vector("1")),
				`label_replace(max(timestamp(x)), "fairlead_selector", "0", "", "")`:                        success(vector()),
				`label_replace(max(max_over_time(timestamp(x)[15m:1m])), "fairlead_selector", "0", "", "")`: pods(ago(7 * time.Minute)),
			}, []time.Duration{7 * time.Minute},
		},
		"a constant": {`vector(1)`, map[string]string{"vector(1)": success(vector("1"))}, []time.Duration{-1}},
		"a scalar": {
			`scalar(x)`, map[string]string{
				"scalar(x)": success(`"resultType":"scalar","result":[` + ago(0) + `,"3"]`),
				`label_replace(max(timestamp(x)), "fairlead_selector", "0", "", "")`: pods(ago(time.Second)),
			}, []time.Duration{time.Second},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var at []string
			s := source(t, server(t, func(w http.ResponseWriter, query string, r *http.Request) {
				body, ok := test.answers[query]
				if !ok {
					t.Errorf("unexpected query %s", query)
				}
				at = append(at, r.FormValue("time"))
				_, _ = io.WriteString(w, body)
			}).URL, nil)
			r, err := s.Query(t.Context(), metric.Query{Expression: test.expression})
			require.NoError(t, err)
			require.Len(t, r.Samples, len(test.ages))
			for i, age := range test.ages {
				if age < 0 {
					assert.Zero(t, r.Samples[i].Time)
				} else {
					assert.WithinDuration(t, time.Now().Add(-age), r.Samples[i].Time, 5*time.Second)
				}
			}
			assert.Empty(t, at[0], "the first question is about the server's present")
			for _, later := range at[1:] {
				same, err := strconv.ParseFloat(later, 64)
				require.NoError(t, err)
				assert.InDelta(t, float64(r.Evaluated.UnixMilli())/1000, same, 1e-3, "the others are about the same time")
			}
		})
	}
}

func TestNativeHistograms(t *testing.T) {
	data := `"resultType":"vector","result":[{"metric":{"pod":"0"},"histogram":[` + ago(0) + `,{"count":"9","sum":"9","buckets":[[3,"-0","0","2"],[0,"0.5","1","3"],[0,"2","4","4"]]}]}]`
	s := source(t, server(t, says(200, success(data))).URL, nil)
	r, err := s.Query(t.Context(), metric.Query{Expression: "x"})
	require.NoError(t, err)
	require.Len(t, r.Samples, 1)
	const tiny = math.SmallestNonzeroFloat64
	assert.Equal(t, &metric.Histogram{Buckets: []metric.Bucket{{Lower: -tiny, Upper: tiny, Count: 2}, {Lower: 0.5, Upper: 1, Count: 3}, {Lower: 2, Upper: 4, Count: 4}}}, r.Samples[0].Histogram)
}

const canary = "c4n4ry"

func TestNewRefuses(t *testing.T) {
	secret := func(context.Context) (string, error) { return "", nil }
	for name, c := range map[string]prometheus.Config{
		"no URL":              {},
		"no scheme":           {URL: "prometheus:9090"},
		"another scheme":      {URL: "ftp://prometheus"},
		"a password":          {URL: "http://me:" + canary + "@prometheus"},
		"a hidden password":   {URL: "http://me:" + canary + "@prometheus:port"},
		"a query":             {URL: "http://prometheus?key=" + canary},
		"two credentials":     {URL: "http://p", BearerToken: secret, Username: "me", Password: secret},
		"half of them":        {URL: "http://p", Username: "me"},
		"a split header":      {URL: "http://p", Headers: map[string]string{"X": canary + "\r\nY: z"}},
		"a malformed header":  {URL: "http://p", Headers: map[string]string{"X Y": canary}},
		"authorization aside": {URL: "http://p", Headers: map[string]string{"authorization": canary}},
		"no authority":        {URL: "https://p", CA: []byte(canary)},
		"no key":              {URL: "https://p", Certificate: []byte(canary)},
		"two transports":      {URL: "https://p", ServerName: "q", Transport: http.DefaultTransport},
		"negative":            {URL: "http://p", Timeout: -1},
	} {
		_, err := prometheus.New(c)
		require.ErrorIs(t, err, stages.ErrInvalid, name)
		assert.NotContains(t, err.Error(), canary, name)
	}
}

func TestConformance(t *testing.T) {
	metrictest.TestSource(t, func(t *testing.T) metrictest.Harness {
		s := server(t, func(w http.ResponseWriter, query string, _ *http.Request) {
			nameless := func(v string) string { return success(strings.ReplaceAll(vector(v), `"__name__":"x",`, "")) }
			body, ok := map[string]string{
				"x": success(vector("1")), "timestamp(x)": nameless(ago(time.Second)),
				"nothing": success(vector()),
				"nan":     success(vector("NaN")), "timestamp(nan)": nameless(ago(time.Second)),
				"old": success(vector("1")), "timestamp(old)": nameless(ago(4 * time.Minute)),
			}[query]
			if !ok {
				w.WriteHeader(http.StatusBadRequest)
				body = `{"status":"error","errorType":"bad_data","error":"parse error"}`
			}
			_, _ = io.WriteString(w, body)
		})
		return metrictest.Harness{
			Source: source(t, s.URL, nil), Present: "x", Absent: "nothing", Malformed: "x{", NotANumber: "nan", Stale: "old",
			Unreachable: source(t, "http://127.0.0.1:1", nil),
		}
	})
}
