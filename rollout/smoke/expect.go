package smoke

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/stages"
)

// Expect is what the release must answer. The zero value wants one request to
// succeed; over HTTP that is a status below 400.
type Expect struct {
	// Status is the status that every request must return: HTTP's, or whatever a
	// [DialConfig.Try] makes of it.
	Status int
	// Contains is what the body, or the output, must contain.
	Contains string
	// Matches is a regular expression that it must match, in RE2's syntax; see
	// package regexp.
	Matches string
	// JSON are assertions on a body that must be JSON.
	JSON []JSON
	// MaxLatency is how long a request may take, connecting included, but not the
	// setting up of a port-forward; for a job, a run of its program. Through a
	// port-forward the way over the API server counts.
	MaxLatency time.Duration

	// Attempts is how many requests are made and judged, one after the other, and
	// Successes how many of them must pass. Default 1, and all.
	Attempts  int
	Successes int
	// Retries and Interval are for a release that can't be reached yet: before
	// requests are counted, one is repeated until something answers, and with no
	// status that is an error unless one is expected. Default 4 retries, 1 second
	// apart; none if Retries is negative. They never hide a failure of a request
	// that is counted.
	Retries  int
	Interval time.Duration
}

// JSON is an assertion on a body.
type JSON struct {
	// Path is a JSONPath as kubectl takes it, such as "{.checks[0].status}".
	Path string
	// Want is what each value that it finds must be, of which there must be one at
	// least: a string, number, boolean, nil, or what they make up in slices and
	// maps. Numbers are compared by value.
	Want any
}

// The defaults and bounds of [Expect].
const (
	DefaultRetries  = 4
	DefaultInterval = time.Second

	maxAttempts = 1000
	// maxBody is how much of a body is read and judged.
	maxBody = 1 << 20
)

// expectation is an Expect that was checked and completed.
type expectation struct {
	Expect
	// noErrors refuses HTTP's statuses of errors, where none is expected.
	noErrors bool
	matches  *regexp.Regexp
	paths    []path
}

// compile checks and completes e.
func (e Expect) compile() (expectation, error) {
	e.Attempts = cmp.Or(e.Attempts, 1)
	e.Successes = cmp.Or(e.Successes, e.Attempts)
	e.Retries = max(cmp.Or(e.Retries, DefaultRetries), 0)
	e.Interval = cmp.Or(e.Interval, DefaultInterval)
	switch {
	case e.Attempts < 1 || e.Attempts > maxAttempts:
		return expectation{}, fmt.Errorf("%w: Expect.Attempts must be between 1 and %d", stages.ErrInvalid, maxAttempts)
	case e.Successes < 1 || e.Successes > e.Attempts:
		return expectation{}, fmt.Errorf("%w: Expect.Successes must be between 1 and Attempts, %d", stages.ErrInvalid, e.Attempts)
	case e.MaxLatency < 0 || e.Interval < 0:
		return expectation{}, fmt.Errorf("%w: Expect.MaxLatency and Interval can't be negative", stages.ErrInvalid)
	case e.Status < 0:
		return expectation{}, fmt.Errorf("%w: Expect.Status can't be negative", stages.ErrInvalid)
	}
	out := expectation{Expect: e}
	if e.Matches != "" {
		r, err := regexp.Compile(e.Matches)
		if err != nil {
			return expectation{}, fmt.Errorf("%w: Expect.Matches: %w", stages.ErrInvalid, err)
		}
		out.matches = r
	}
	for _, j := range e.JSON {
		p, err := parsePath(j)
		if err != nil {
			return expectation{}, err
		}
		out.paths = append(out.paths, p)
	}
	out.JSON = slices.Clone(e.JSON)
	return out, nil
}

// forHTTP checks what only HTTP's status can be.
func (e Expect) forHTTP() error {
	if e.Status != 0 && (e.Status < 100 || e.Status > 599) {
		return fmt.Errorf("%w: Expect.Status %d is no HTTP status", stages.ErrInvalid, e.Status)
	}
	return nil
}

// forbidStatus checks that e asks for nothing that the test has not.
func (e Expect) forbidStatus(what string) error {
	if e.Status != 0 {
		return fmt.Errorf("%w: %s has no status to expect", stages.ErrInvalid, what)
	}
	return nil
}

func (e Expect) readsBody() bool { return e.Contains != "" || e.Matches != "" || len(e.JSON) > 0 }

// wantsError reports whether an HTTP status that is an error is what is expected.
func (e Expect) wantsError() bool { return e.Status >= 400 }

// Answer is what one request came to.
type Answer struct {
	// Status is the response's, 0 where the protocol has none.
	Status int
	// Body is the response's; no more than a MiB of it is judged.
	Body []byte
	// Latency is how long the request took. Where a [DialConfig.Try] leaves it 0 it
	// is the time that Try took.
	Latency time.Duration
	// Message says more in a few words, such as "SERVING".
	Message string
}

// judge returns what is wrong with an answer, "" for nothing. What it quotes of the
// answer, it has masked before it cuts it.
func (e expectation) judge(a Answer, mask func(string) string) string {
	body, whole := a.Body, true
	if len(body) > maxBody {
		body, whole = body[:maxBody], false
	}
	switch {
	case e.Status != 0 && a.Status != e.Status:
		return fmt.Sprintf("returned status %d, expected %d", a.Status, e.Status)
	case e.noErrors && a.Status >= 400:
		return fmt.Sprintf("returned status %d, expected one below 400", a.Status)
	case !strings.Contains(string(body), e.Contains):
		return fmt.Sprintf("the %s doesn't contain %q", sized(body, whole), shorten(e.Contains, 80))
	case e.matches != nil && !e.matches.Match(body):
		return fmt.Sprintf("the %s doesn't match %q", sized(body, whole), shorten(e.Matches, 80))
	}
	if problem := e.judgeJSON(body, whole, mask); problem != "" {
		return problem
	}
	if e.MaxLatency > 0 && a.Latency > e.MaxLatency {
		return fmt.Sprintf("took %s, more than %s", rounded(a.Latency), e.MaxLatency)
	}
	return ""
}

func sized(body []byte, whole bool) string {
	if !whole {
		return fmt.Sprintf("body's first %d bytes", len(body))
	}
	return fmt.Sprintf("body of %d bytes", len(body))
}

func rounded(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// shorten cuts s to at most n bytes at a rune's boundary.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
