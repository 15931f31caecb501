package smoke

import (
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxOutput is how much of the program's output is read.
const maxOutput = 4 << 20

// script is what curl is asked to do, and how to read what it writes: first one
// request that is repeated until something answers, then those that are counted.
// Each ends with a mark that no body can hold, because it is made up for the pod.
type script struct {
	arguments []string
	mark      string
	reaching  bool
}

func newScript(p *podTest, address string) script {
	s := script{mark: "fairlead-smoke-" + rand.Text(), reaching: p.expect.Retries > 0}
	options := p.options()
	// Errors go where the bodies go, so that the order is known.
	s.arguments = []string{"--disable", "--silent", "--show-error", "--stderr", "-"}
	if s.reaching {
		s.arguments = append(s.arguments, options...)
		s.arguments = append(s.arguments,
			"--retry", strconv.Itoa(p.expect.Retries), "--retry-delay", strconv.FormatInt(wholeSeconds(p.expect.Interval), 10), "--retry-all-errors",
			"--write-out", `\n`+s.mark+` reached\n`)
		if !p.expect.wantsError() {
			s.arguments = append(s.arguments, "--fail")
		}
		s.arguments = append(s.arguments, "--url", address, "--next")
	}
	s.arguments = append(s.arguments, options...)
	s.arguments = append(s.arguments, "--write-out", `\n`+s.mark+` %{http_code} %{time_total} %{exitcode} %{errormsg}\n`)
	for range p.expect.Attempts {
		s.arguments = append(s.arguments, "--url", address)
	}
	return s
}

// options are those of every request.
func (p *podTest) options() []string {
	out := []string{"--globoff", "--max-time", seconds(p.RequestTimeout)}
	if p.Redirects > 0 {
		out = append(out, "--location", "--max-redirs", strconv.Itoa(p.Redirects), "--proto-redir", "=http,https")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
		out = append(out, "--header", name+": "+p.Headers[name])
	}
	if !p.HeadersFrom.isZero() {
		out = append(out, "--header", "@"+headerPath+"/headers")
	}
	if !p.CAFrom.isZero() {
		out = append(out, "--cacert", caPath+"/ca.pem")
	}
	if p.DangerouslyTrustAnyCertificate {
		out = append(out, "--insecure")
	}
	return out
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

// parse reads what the program wrote, as far as it goes.
func (s script) parse(output string) (fetched []attempt) {
	if s.reaching {
		_, rest, found := strings.Cut(output, "\n"+s.mark+" reached\n")
		if !found {
			return nil
		}
		output = rest
	}
	for {
		body, rest, found := strings.Cut(output, "\n"+s.mark+" ")
		if !found {
			return fetched
		}
		line, rest, found := strings.Cut(rest, "\n")
		a, ok := parseMark(line)
		if !found || !ok {
			return fetched
		}
		if a.err == nil {
			a.Body = []byte(body)
		}
		fetched = append(fetched, a)
		output = rest
	}
}

// parseMark reads "status seconds exit-code message".
func parseMark(line string) (attempt, bool) {
	fields := strings.SplitN(line, " ", 4)
	if len(fields) < 3 {
		return attempt{}, false
	}
	status, err1 := strconv.Atoi(fields[0])
	took, err2 := strconv.ParseFloat(strings.Replace(fields[1], ",", ".", 1), 64)
	code, err3 := strconv.Atoi(fields[2])
	if err1 != nil || err2 != nil || err3 != nil || status < 0 || !(took >= 0 && took < 1e6) {
		return attempt{}, false
	}
	a := attempt{Answer: Answer{Status: status, Latency: time.Duration(took * float64(time.Second))}}
	if code != 0 {
		message := ""
		if len(fields) == 4 {
			message = fields[3]
		}
		a.err = curlError(code, message)
	} else if status == 0 {
		return attempt{}, false
	}
	return a, true
}

// curlCodes are the exit codes of curl that a smoke test meets, from its manual.
var curlCodes = map[int]string{
	3: "malformed URL", 6: "the host's name doesn't resolve", 7: "connection refused", 28: "timed out", 35: "TLS handshake failed",
	47: "too many redirects", 52: "empty reply", 56: "connection reset", 60: "certificate not trusted",
}

// curlError says why curl failed.
func curlError(code int, message string) error {
	text := fmt.Sprintf("exit code %d", code)
	if meaning, known := curlCodes[code]; known {
		text += " (" + meaning + ")"
	}
	if message = strings.TrimSpace(message); message != "" {
		text = message + ": " + text
	}
	return fmt.Errorf("%s", text)
}
