package prometheus_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/prometheus"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestEveryNonAnswerIsTold has a gate that would pass any number ask servers that
// give none, in all the ways there are.
func TestEveryNonAnswerIsTold(t *testing.T) {
	// answer says something to the query for the value, and to the one for its age.
	answer := func(value, age http.HandlerFunc) http.HandlerFunc {
		return handler(func(w http.ResponseWriter, query string, r *http.Request) {
			if strings.Contains(query, "timestamp(") {
				age(w, r)
			} else {
				value(w, r)
			}
		}).ServeHTTP
	}
	says := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	aged := func(age time.Duration, more ...string) http.HandlerFunc {
		return says(200, success(strings.ReplaceAll(vector(ago(age)), `"__name__":"x",`, ""), more...))
	}
	number := says(200, success(vector("1")))
	const warning = `,"warnings":["store 3 is down"]`
	for name, test := range map[string]struct {
		server http.HandlerFunc
		rule   string // none for a pass
	}{
		"a number":                     {answer(number, aged(0)), ""},
		"no data":                      {answer(says(200, success(vector())), aged(0)), "no-data"},
		"nothing":                      {answer(says(200, success(`"resultType":"vector","result":null`)), aged(0)), "no-data"},
		"NaN":                          {answer(says(200, success(vector("NaN"))), aged(0)), "not-finite"},
		"infinite":                     {answer(says(200, success(vector("+Inf"))), aged(0)), "not-finite"},
		"stale":                        {answer(number, aged(4*time.Minute)), "stale"},
		"of unknown age":               {answer(number, says(200, success(vector()))), "stale"},
		"partial":                      {answer(says(200, success(vector("1"), warning)), aged(0)), "partial-answer"},
		"partial and empty":            {answer(says(200, success(vector(), warning)), aged(0)), "partial-answer"},
		"of partial age":               {answer(number, aged(0, warning)), "partial-answer"},
		"a failure when asked its age": {answer(number, says(500, "boom")), "query-server-error"},
		"a refusal when asked its age": {answer(number, says(403, "no")), "query-unauthorized"},
		"unknown":                      {says(401, "who?"), "query-unauthorized"},
		"forbidden":                    {says(403, "no"), "query-unauthorized"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/login", http.StatusFound)
		}, "query-failed"},
		"a login page":        {says(200, "<html>"), "query-server-error"},
		"no content":          {says(204, ""), "query-server-error"},
		"an empty body":       {says(200, ""), "query-server-error"},
		"no result":           {says(200, `{"status":"success"}`), "query-server-error"},
		"an empty object":     {says(200, `{}`), "query-server-error"},
		"no scalar":           {says(200, success(`"resultType":"scalar","result":null`)), "query-server-error"},
		"no value":            {says(200, success(`"resultType":"vector","result":[{"metric":{"pod":"0"}}]`)), "query-server-error"},
		"no sample":           {says(200, success(`"resultType":"vector","result":[null]`)), "query-server-error"},
		"one of two values":   {answer(says(200, strings.Replace(success(vector("1")), "]}]", `]},{"metric":{}}]`, 1)), aged(0)), "query-server-error"},
		"null for a value":    {answer(says(200, strings.Replace(success(vector("1")), `"1"]`, `null]`, 1)), aged(0)), "query-server-error"},
		"half a value":        {answer(says(200, strings.Replace(success(vector("1")), `,"1"]`, `]`, 1)), aged(0)), "query-server-error"},
		"null for an age":     {answer(number, says(200, strings.Replace(success(strings.ReplaceAll(vector("1"), `"__name__":"x",`, "")), `"1"]`, `null]`, 1))), "query-server-error"},
		"null in a histogram": {answer(says(200, success(`"resultType":"vector","result":[{"metric":{},"histogram":[1700000000,{"count":"1","sum":"1","buckets":[[0,"0","1",null]]}]}]`)), aged(0)), "query-server-error"},
		"a book of an error":  {says(400, `{"status":"error","errorType":"bad_data","error":"`+strings.Repeat("x", 9000)+`"}`), "query-bad-expression"},
		"null":                {says(200, `{"status":"success","data":null}`), "query-server-error"},
		"a failed success":    {says(200, `{"status":"error","errorType":"internal","error":"boom"}`), "query-server-error"},
		"a successful error":  {says(400, success(vector("1"))), "query-server-error"},
		"malformed":           {says(400, `{"status":"error","errorType":"bad_data","error":"parse error"}`), "query-bad-expression"},
		"too slow a query":    {says(503, `{"status":"error","errorType":"timeout","error":"timed out"}`), "query-timeout"},
		"too slow a body": {func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush() // an error is the client's to find
			<-r.Context().Done()
		}, "query-timeout"},
		"a body that is cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"status":"success",`)
		}, "query-unreachable"},
		"no answer at all": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "query-unreachable"},
		"too much":         {says(200, success(vector(strings.Repeat("1", 20_000)))), "query-too-many-series"},
		"too much once it is unpacked": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			packed := gzip.NewWriter(w)
			_, _ = packed.Write(make([]byte, 1<<20))
			_ = packed.Close()
		}, "query-too-many-series"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := server(t, func(w http.ResponseWriter, _ string, r *http.Request) { test.server(w, r) }).URL
			source := source(t, url, func(c *prometheus.Config) {
				c.MaxBytes = 10_000
				if test.rule == "query-timeout" {
					c.Timeout = 200 * time.Millisecond
				}
				c.BearerToken = func(context.Context) (string, error) { return canary, nil }
			})
			gate, err := metric.NewThreshold(metric.ThresholdConfig{
				Source: source, Expression: "x", Min: new(-math.MaxFloat64), Max: new(math.MaxFloat64),
				Watch: metric.Watch{Timeout: time.Millisecond, AllowUndecided: true},
			})
			require.NoError(t, err)
			d, err := gate.Decide(t.Context(), stages.Release{Name: "shop", Namespace: "prod"})
			require.NoError(t, err)
			if test.rule == "" {
				assert.Equal(t, stages.Pass, d.Verdict, "%+v", d)
				return
			}
			assert.Equal(t, stages.Inconclusive, d.Verdict, "%+v", d)
			require.Len(t, d.Reasons, 1)
			assert.Equal(t, test.rule, d.Reasons[0].Rule, "%+v", d)
			assert.NotContains(t, d.Reasons[0].Message, canary)
			assert.Less(t, len(d.Reasons[0].Message), 4000)
		})
	}
}

func TestCredentialsThatCanNotBeHadAreNoRefusal(t *testing.T) {
	s := source(t, "http://127.0.0.1:1", func(c *prometheus.Config) {
		c.BearerToken = func(context.Context) (string, error) { return "", errors.New("vault is sealed") }
	})
	gate, err := metric.NewThreshold(metric.ThresholdConfig{Source: s, Expression: "x", Max: new(1.0), Watch: metric.Watch{Timeout: time.Millisecond}})
	require.NoError(t, err)
	d, err := gate.Decide(t.Context(), stages.Release{Name: "shop", Namespace: "prod"})
	require.NoError(t, err)
	assert.Equal(t, stages.Inconclusive, d.Verdict)
	require.Len(t, d.Reasons, 1)
	assert.Equal(t, "query-failed", d.Reasons[0].Rule, "looking again may help")
	assert.Contains(t, d.Reasons[0].Message, "vault is sealed")
}
