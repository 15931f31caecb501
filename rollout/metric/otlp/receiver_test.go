package otlp_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/metrictest"
	"github.com/fairlead-dev/fairlead/rollout/metric/otlp"
	"github.com/fairlead-dev/fairlead/stages"
)

// export is a request in JSON with metrics of a resource.
func export(metrics ...string) string {
	return `{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
		"scopeMetrics":[{"scope":{"name":"app"},"metrics":[` + strings.Join(metrics, ",") + `]}]}]}`
}

// at is a time in nanoseconds as JSON, age ago.
func at(age time.Duration) string { return fmt.Sprintf(`"%d"`, time.Now().Add(-age).UnixNano()) }

func sum(name string, temporality int, points ...string) string {
	return fmt.Sprintf(`{"name":%q,"sum":{"aggregationTemporality":%d,"isMonotonic":true,"dataPoints":[%s]}}`, name, temporality, strings.Join(points, ","))
}

func gauge(name string, points ...string) string {
	return fmt.Sprintf(`{"name":%q,"gauge":{"dataPoints":[%s]}}`, name, strings.Join(points, ","))
}

func number(code string, value float64, age time.Duration) string {
	return fmt.Sprintf(`{"attributes":[{"key":"code","value":{"intValue":%q}}],"startTimeUnixNano":"1","timeUnixNano":%s,"asDouble":%v}`, code, at(age), value)
}

const (
	delta      = 1
	cumulative = 2
)

func receiver(t *testing.T, change func(*otlp.Config)) *otlp.Receiver {
	t.Helper()
	c := otlp.Config{Keep: []string{"requests", "latency", "active"}}
	if change != nil {
		change(&c)
	}
	r, err := otlp.New(c)
	require.NoError(t, err)
	return r
}

func post(t *testing.T, r http.Handler, body string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/v1/metrics", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

func send(t *testing.T, r http.Handler, metrics ...string) string {
	t.Helper()
	w := post(t, r, export(metrics...))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	return w.Body.String()
}

func query(t *testing.T, r metric.Source, expression string) []metric.Sample {
	t.Helper()
	result, err := r.Query(t.Context(), metric.Query{Expression: expression})
	require.NoError(t, err)
	return result.Samples
}

func TestReceiverKeepsTheLastPoint(t *testing.T) {
	r := receiver(t, nil)
	send(t, r, sum("requests", cumulative, number("200", 5, time.Minute), number("500", 1, time.Minute)), sum("other", cumulative, number("200", 1, 0)))
	send(t, r, sum("requests", cumulative, number("200", 9, 30*time.Second)))
	list := query(t, r, `requests{code="200"}`)
	require.Len(t, list, 1)
	assert.Equal(t, map[string]string{"service.name": "shop", "otel.scope.name": "app", "code": "200"}, list[0].Labels)
	assert.InDelta(t, 9, list[0].Value, 0)
	assert.WithinDuration(t, time.Now().Add(-30*time.Second), list[0].Time, 5*time.Second)
	assert.Equal(t, time.Unix(0, 1), list[0].Start)
	assert.Len(t, query(t, r, "requests"), 2)
	assert.Contains(t, send(t, r, sum("requests", cumulative, number("200", 7, time.Hour))), "later point", "a late point must be refused")
	assert.InDelta(t, 9, query(t, r, `requests{code="200"}`)[0].Value, 0)
}

func TestReceiverAddsUpDeltas(t *testing.T) {
	r := receiver(t, nil)
	for i, second := range []int64{1, 2, 2, 3} { // one is sent twice
		send(t, r, sum("requests", delta, fmt.Sprintf(`{"timeUnixNano":"%d","asInt":"%d"}`, 1_000_000_000*second, i+1)))
		send(t, r, fmt.Sprintf(`{"name":"latency","histogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"%d","count":"3","bucketCounts":["1","2"],"explicitBounds":[0.1]}]}}`, 1_000_000_000*second))
	}
	assert.InDelta(t, 1+2+4, query(t, r, "requests")[0].Value, 0)
	assert.InDelta(t, 9, query(t, r, "latency")[0].Histogram.Total(), 0)
}

func TestReceiverRejects(t *testing.T) {
	for name, test := range map[string]struct{ metric, why string }{
		"no temporality":                    {sum("requests", 0, number("200", 1, 0)), "temporality"},
		"no temporality either":             {`{"name":"latency","histogram":{"dataPoints":[{}]}}`, "temporality"},
		"odd buckets":                       {`{"name":"latency","histogram":{"aggregationTemporality":2,"dataPoints":[{"bucketCounts":["1"],"explicitBounds":[1,2]}]}}`, "bounds"},
		"descending buckets":                {`{"name":"latency","histogram":{"aggregationTemporality":2,"dataPoints":[{"bucketCounts":["1","1","1"],"explicitBounds":[2,1]}]}}`, "bounds"},
		"an odd temporality":                {sum("requests", 3, number("200", 1, 0)), "temporality"},
		"too many buckets":                  {`{"name":"latency","histogram":{"aggregationTemporality":2,"dataPoints":[{"bucketCounts":["1"` + strings.Repeat(`,"1"`, 1000) + `],"explicitBounds":[` + ascending(1000) + `]}]}}`, "too many"},
		"exponential without temporality":   {exponential(0, `{}`), "temporality"},
		"explicit counts that don't add up": {`{"name":"latency","histogram":{"aggregationTemporality":2,"dataPoints":[{"count":"100","bucketCounts":["0","0"],"explicitBounds":[0.1]}]}}`, "its count"},
		"an attribute without measure":      {gauge("active", `{"asInt":"1","attributes":[{"key":"a","value":{"stringValue":"`+strings.Repeat("x", 20<<10)+`"}}]}`), "attributes"},
		"counts that don't add up":          {exponential(2, `{"count":"1"}`), "contradict"},
		"a scale too low":                   {exponential(2, `{"scale":-11,"count":"1","positive":{"bucketCounts":["1"]}}`), "contradict"},
		"an endless threshold":              {exponential(2, `{"zeroThreshold":"Infinity","count":"1","zeroCount":"1"}`), "contradict"},
		"a threshold that is not a number":  {exponential(2, `{"zeroThreshold":"NaN","count":"1","zeroCount":"1"}`), "contradict"},
		"buckets beyond all numbers":        {exponential(2, `{"scale":0,"count":"1","positive":{"offset":1024,"bucketCounts":["1"]}}`), "contradict"},
		"too many exponential buckets":      {exponential(2, `{"scale":9,"count":"1001","negative":{"bucketCounts":["1"`+strings.Repeat(`,"1"`, 1000)+`]}}`), "too many"},
		"summaries":                         {`{"name":"latency","summary":{"dataPoints":[{"count":"1"}]}}`, "summaries"},
	} {
		r := receiver(t, nil)
		reply := send(t, r, test.metric)
		assert.Contains(t, reply, test.why, name)
		assert.Contains(t, reply, `"1"`, name)
		assert.Empty(t, query(t, r, "requests"), name)
		assert.Empty(t, query(t, r, "latency"), name)
	}
}

// ascending are numbers in JSON.
func ascending(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = strconv.Itoa(i)
	}
	return strings.Join(list, ",")
}

func TestNestedAttributesAreCut(t *testing.T) {
	value := `{"stringValue":"x"}`
	for range 50 {
		value = `{"arrayValue":{"values":[{"stringValue":"y"},` + value + `]}}`
	}
	r := receiver(t, nil)
	send(t, r, gauge("active", `{"asInt":"1","attributes":[{"key":"deep","value":`+value+`}]}`))
	assert.Equal(t, strings.Repeat("y,", 8)+"…,…", query(t, r, "active")[0].Labels["deep"])
}

func TestReceiverForgets(t *testing.T) {
	r := receiver(t, func(c *otlp.Config) { c.Retention = time.Nanosecond })
	send(t, r, gauge("active", number("200", 1, 0)))
	assert.Empty(t, query(t, r, "active"), "after the retention")

	r = receiver(t, nil)
	send(t, r, gauge("active", number("200", 1, time.Second)))
	send(t, r, gauge("active", fmt.Sprintf(`{"attributes":[{"key":"code","value":{"intValue":"200"}}],"timeUnixNano":%s,"flags":1}`, at(0))))
	assert.Empty(t, query(t, r, "active"), "the sender says that there is no value any more")
}

func TestReceiverIsBounded(t *testing.T) {
	r := receiver(t, func(c *otlp.Config) { c.MaxSeries = 2; c.MaxBytes = 2000 })
	reply := send(t, r, gauge("active", number("1", 1, 0), number("2", 1, 0), number("3", 1, 0)))
	assert.Contains(t, reply, "there are 2 series already")
	result, err := r.Query(t.Context(), metric.Query{Expression: "active"})
	require.NoError(t, err)
	assert.Len(t, result.Samples, 2)
	assert.True(t, result.Partial, "what was left out must not look like it isn't there")

	assert.Equal(t, http.StatusRequestEntityTooLarge, post(t, r, strings.Repeat(" ", 2001)).Code)
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	_, err = w.Write(make([]byte, 1<<20))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.Less(t, bomb.Len(), 2000)
	req := httptest.NewRequest(http.MethodPost, "/", &bomb)
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	answer := httptest.NewRecorder()
	r.ServeHTTP(answer, req)
	assert.Equal(t, http.StatusRequestEntityTooLarge, answer.Code)
}

func TestReceiverSpeaksTheProtocol(t *testing.T) {
	message := &collector.ExportMetricsServiceRequest{}
	require.NoError(t, protojson.Unmarshal([]byte(export(gauge("active", number("200", 3, 0)))), message))
	body, err := proto.Marshal(message)
	require.NoError(t, err)
	zip := func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, _ = w.Write(b)
		_ = w.Close()
		return out.Bytes()
	}
	for name, test := range map[string]struct {
		method, contentType, encoding string
		body                          []byte
		status                        int
	}{
		"protobuf":             {http.MethodPost, "application/x-protobuf", "", body, http.StatusOK},
		"compressed":           {http.MethodPost, "application/x-protobuf", "gzip", zip(body), http.StatusOK},
		"JSON with a charset":  {http.MethodPost, "application/json; charset=utf-8", "", []byte(export()), http.StatusOK},
		"an unknown field":     {http.MethodPost, "application/json", "", []byte(`{"new":1}`), http.StatusOK},
		"GET":                  {http.MethodGet, "application/json", "", nil, http.StatusMethodNotAllowed},
		"text":                 {http.MethodPost, "text/plain", "", body, http.StatusUnsupportedMediaType},
		"no content type":      {http.MethodPost, "", "", body, http.StatusUnsupportedMediaType},
		"another compression":  {http.MethodPost, "application/x-protobuf", "br", body, http.StatusUnsupportedMediaType},
		"not compressed":       {http.MethodPost, "application/x-protobuf", "gzip", body, http.StatusBadRequest},
		"cut":                  {http.MethodPost, "application/x-protobuf", "", body[:len(body)-1], http.StatusBadRequest},
		"cut while compressed": {http.MethodPost, "application/x-protobuf", "gzip", zip(body)[:20], http.StatusBadRequest},
		"no JSON":              {http.MethodPost, "application/json", "", []byte("{"), http.StatusBadRequest},
	} {
		r := receiver(t, nil)
		req := httptest.NewRequest(test.method, "/v1/metrics", bytes.NewReader(test.body))
		req.Header.Set("Content-Type", test.contentType)
		req.Header.Set("Content-Encoding", test.encoding)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		assert.Equal(t, test.status, w.Code, "%s: %s", name, w.Body)
		if test.status == http.StatusOK {
			assert.Equal(t, strings.Split(test.contentType, ";")[0], w.Header().Get("Content-Type"))
		}
	}
}

func TestQueriesAboutThePastAreRefused(t *testing.T) {
	_, err := receiver(t, nil).Query(t.Context(), metric.Query{Expression: "active", At: time.Now()})
	require.ErrorIs(t, err, metric.ErrQuery)
	_, err = receiver(t, nil).Query(t.Context(), metric.Query{Expression: "unkept"})
	require.ErrorContains(t, err, "Config.Keep")
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []otlp.Config{{}, {Keep: []string{"a b"}}, {Keep: []string{`a{b="c"}`}}, {Keep: []string{"a"}, MaxSeries: -1}} {
		_, err := otlp.New(c)
		require.ErrorIs(t, err, stages.ErrInvalid)
	}
}

func TestConformance(t *testing.T) {
	metrictest.TestSource(t, func(t *testing.T) metrictest.Harness {
		r := receiver(t, nil)
		send(t, r, gauge("active", number("200", 1, 0), `{"asDouble":"NaN","timeUnixNano":`+at(0)+`}`),
			sum("requests", cumulative, number("200", 1, 3*time.Minute)),
			`{"name":"latency","histogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":`+at(0)+`,"count":"3","bucketCounts":["1","2"],"explicitBounds":[0.1]}]}}`)
		return metrictest.Harness{Source: r, Present: "active", Absent: `active{code="404"}`, Malformed: "active{", NotANumber: "active", Stale: "requests"}
	})
}

func FuzzServeHTTP(f *testing.F) {
	f.Add("application/json", "", []byte(export(gauge("active", number("200", 1, 0)))))
	f.Add("application/x-protobuf", "gzip", []byte{0x1f, 0x8b})
	f.Add("application/x-protobuf", "", []byte{0x0a, 0x02, 0x12, 0x00})
	f.Fuzz(func(t *testing.T, contentType, encoding string, body []byte) {
		r, err := otlp.New(otlp.Config{Keep: []string{"active"}, MaxSeries: 10, MaxBytes: 1 << 16})
		require.NoError(t, err)
		req := httptest.NewRequest(http.MethodPost, "/", io.NopCloser(bytes.NewReader(body)))
		req.Header.Set("Content-Type", contentType)
		req.Header.Set("Content-Encoding", encoding)
		r.ServeHTTP(httptest.NewRecorder(), req)
		result, err := r.Query(t.Context(), metric.Query{Expression: "active"})
		require.NoError(t, err)
		require.LessOrEqual(t, len(result.Samples), 10)
	})
}

func TestASendersClockCanNotKeepAPointFresh(t *testing.T) {
	r := receiver(t, nil)
	send(t, r, gauge("active", number("200", 1, -time.Hour)))
	list := query(t, r, "active")
	require.Len(t, list, 1)
	assert.WithinDuration(t, time.Now(), list[0].Time, 10*time.Second)
}

// TestAttributesAreBounded has one small request name a large resource with many
// series, each of which would keep all of it.
func TestAttributesAreBounded(t *testing.T) {
	r := receiver(t, nil)
	var points []string
	for i := range 200 {
		points = append(points, number(strconv.Itoa(i), 1, 0))
	}
	body := strings.Replace(export(sum("requests", cumulative, points...)), `"stringValue":"shop"`, `"stringValue":"`+strings.Repeat("x", 1<<20)+`"`, 1)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := post(t, r, body)
	runtime.ReadMemStats(&after)
	require.Equal(t, http.StatusOK, w.Code)
	assert.Contains(t, w.Body.String(), `"rejectedDataPoints":"200"`)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "a request of a MiB must not take many times that")
	assert.Empty(t, query(t, r, "requests"))

	many := make([]string, 300)
	for i := range many {
		many[i] = fmt.Sprintf(`{"key":"k%d","value":{"intValue":"1"}}`, i)
	}
	assert.Contains(t, send(t, r, gauge("active", `{"asInt":"1","attributes":[`+strings.Join(many, ",")+`]}`)), "attributes")
	assert.NotContains(t, send(t, r, gauge("active", `{"asInt":"1","attributes":[`+strings.Join(many[:128], ",")+`]}`)), "attributes")
	assert.Len(t, query(t, r, "active"), 1)
}
