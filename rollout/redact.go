package rollout

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
)

const masked = "***"

var redactions = []struct {
	pattern *regexp.Regexp
	with    string
}{
	// A private key may be cut off by the limit on log lines, hence the \z.
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z0-9 ]*-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z0-9 ]*-----|\z)`), "-----PRIVATE KEY " + masked + "-----"},
	// Where it ends without having begun, all that was kept of it is before.
	{regexp.MustCompile(`(?s)\A.*?-----END [A-Z0-9 ]*PRIVATE KEY[A-Z0-9 ]*-----`), "-----PRIVATE KEY " + masked + "-----"},
	// scheme://user:password@host; the greedy match takes an @ in the password too.
	{regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/?#"'<>]+@`), "${1}" + masked + "@"},
	// A password with characters that a URL doesn't allow: that is when programs
	// complain about it. What is behind the colon is no port.
	{regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/?#"'<>:@\[]*:(?:[^\s"'<>0-9/]|[0-9]+[^\s"'<>0-9/?])[^\s"'<>]*@`), "${1}" + masked + "@"},
	// user:password@tcp(host:3306)/database
	{regexp.MustCompile(`[^\s:/@"']+:[^\s"']*@((?:tcp|udp)[46]?|unix)\(`), masked + "@${1}("},
	// https://storage/layer?X-Amz-Signature=…, of which registries tell their clients.
	{regexp.MustCompile(`(?i)([?&](?:x-[a-z]+-)?sig(?:nature)?=)[^\s&"'<>]+`), "${1}" + masked},
	{regexp.MustCompile(`(?i)((?:proxy-)?authorization\\*["']?[ \t]*[:=][ \t]*\\*["']?)(?:\[[^\]\n]*\]?|(?:[a-z][a-z0-9-]*[ \t]+)?[^\s"'\\]+(?:,[ \t]*[^\s"'\\]+)*)`), "${1}" + masked},
	{regexp.MustCompile(`(?i)\b(bearer|basic)[ \t]+[a-z0-9._~+/=-]{8,}`), "${1} " + masked},
	{regexp.MustCompile(`(?i)(\b(?:set-)?cookie\\*["']?[ \t]*[:=][ \t]*\\*["']?)[^\s;"'\\\[]+(?:;[ \t]*[^\s;"'\\]+)*`), "${1}" + masked},
	// password=…, "apiKey": "…", DB_PASSWORD: …, --token …, also in a string in a string
	{regexp.MustCompile(`(?i)((?:(?:` + secretWords + `)[a-z0-9_-]*|_pass)\\*["']?[ \t]*(?::=|=>|[:=])[ \t]*)(?:\[[^\]\n]*\]?|\\+"[^"\n]*"?|"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?|[^\s,;&"']+)`), "${1}" + masked},
	{regexp.MustCompile(`(?i)(--?[a-z0-9-]*(?:` + secretWords + `)[a-z0-9-]*[ \t]+)[^\s-][^\s]*`), "${1}" + masked},
	// {"auths":{"registry":{"auth":"…"}}}
	{regexp.MustCompile(`("auth\\*"[ \t]*:[ \t]*\\*")[A-Za-z0-9+/=_-]{8,}`), "${1}" + masked},
	{regexp.MustCompile(`\b(?:AKIA|ASIA)[A-Z0-9]{16}\b`), masked},
	{regexp.MustCompile(`\b(?:gh[pousr]_|github_pat_|glpat-|xox[abpres]-|sk-|hvs\.|dckr_pat_|AIza)[A-Za-z0-9_-]{10,}`), masked},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`), masked},
}

const secretWords = `password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|client[_-]?key|credential|auth[_-]?key|session[_-]?id|cookie`

// Redact masks what is obviously secret in text that a program or a cluster
// wrote: credentials in headers, URLs and key-value pairs, well-known token
// formats, private keys. It is a net, not a proof: a secret that looks like any
// other word passes; use [Config.Redact] for the formats of your own programs.
func Redact(text string) string {
	for _, r := range redactions {
		text = r.pattern.ReplaceAllString(text, r.with)
	}
	return text
}

// ansi are the terminal's escape sequences, which must reach no one's terminal.
var ansi = regexp.MustCompile("\x1b(?:\\[[0-9;?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[@-Z\\\\-_])")

// printable drops escape sequences and control characters, except line feeds, and
// what turns the direction of writing.
func printable(s string) string {
	s = ansi.ReplaceAllString(strings.ToValidUTF8(s, "\uFFFD"), "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0, unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s)
}

// cleaner makes foreign text fit to be shown.
type cleaner struct {
	extra func(string) string
	known []string // secrets that can be masked wherever they stand
}

func (c cleaner) text(s string) string {
	s = printable(s)
	for _, secret := range c.known {
		s = strings.ReplaceAll(s, secret, masked)
	}
	s = Redact(s)
	if c.extra != nil {
		s = c.extra(s)
	}
	return s
}

// minSecret is how long a value must be to be masked wherever it stands: a shorter
// one is as likely part of another word.
const minSecret = 5

var secretName = regexp.MustCompile(`(?i)` + secretWords + `|\bpass\b|_pass$|_key$|_auth$|\bdsn$`)

// secretValues returns the values in a pod's spec that are secret by their
// variable's name, and the passwords in its variables' URLs. That they stand
// there in the clear is no reason to repeat them.
func secretValues(spec *corev1.PodSpec) []string {
	var out []string
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range containers {
			for _, e := range c.Env {
				if len(e.Value) >= minSecret && secretName.MatchString(e.Name) {
					out = append(out, e.Value)
				}
				if u, err := url.Parse(e.Value); err == nil && u.User != nil {
					if password, set := u.User.Password(); set && len(password) >= minSecret {
						out = append(out, password)
					}
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) }) // the longest first
	return out
}

const (
	// maxForeign is how much of a message is looked at.
	maxForeign = 16 << 10
	maxMessage = 600
	maxLogLine = 400
)

// line returns s as one line of bounded length.
func (c cleaner) line(s string) string {
	return cut(strings.Join(strings.Fields(c.text(cut(s, maxForeign))), " "), maxMessage)
}

// tail returns the last lines of a log, bounded in number and bytes.
func (c cleaner) tail(log string, lines, bytes int) []string {
	all := strings.Split(strings.TrimRight(c.text(log), "\n"), "\n")
	var out []string
	for i := len(all) - 1; i >= 0 && len(out) < lines; i-- {
		l := cut(strings.TrimRight(all[i], " \r"), maxLogLine)
		if bytes -= len(l) + 1; bytes < 0 {
			break
		}
		out = append(out, l)
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	if len(out) == 1 && out[0] == "" {
		return nil
	}
	return out
}

// cut shortens s to at most n bytes at a rune's boundary.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}
