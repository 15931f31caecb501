package smoke

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

const masked = "***"

// cleaner makes foreign text fit to be shown, without secrets.
type cleaner struct {
	extra  func(string) string // the user's; nil for none
	secret []string            // values that must not be shown
}

const maxLine = 600

// line returns s as one line of bounded length.
func (c cleaner) line(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return shorten(strings.Join(strings.Fields(c.mask(s)), " "), maxLine)
}

// mask returns s without secrets. What cuts a text does so afterwards, because half
// a secret isn't recognised.
func (c cleaner) mask(s string) string {
	for _, secret := range c.secret {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, masked)
		}
	}
	s = rollout.Redact(s[:min(len(s), maxRedacted)])
	if c.extra != nil {
		s = c.extra(s)
	}
	return s
}

// maxRedacted is how much of a text is searched for what looks like a secret; no
// more is shown.
const maxRedacted = 64 << 10

// forms returns secrets as they are and as they are written in JSON, in URLs and in
// Go, the longest first, because one may be part of another.
func forms(secrets []string) []string {
	var all []string
	for _, s := range secrets {
		quoted, asGo := strings.Builder{}, strconv.Quote(s)
		encoder := json.NewEncoder(&quoted)
		encoder.SetEscapeHTML(false)
		if encoder.Encode(s) == nil {
			text := strings.TrimSuffix(quoted.String(), "\n")
			all = append(all, text[1:len(text)-1])
		}
		if escaped, err := json.Marshal(s); err == nil {
			all = append(all, string(escaped[1:len(escaped)-1]))
		}
		all = append(all, s, asGo[1:len(asGo)-1], url.QueryEscape(s), url.PathEscape(s))
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return slices.Compact(all)
}

// credentialHeader matches names of headers whose values are secret.
var credentialHeader = regexp.MustCompile(`(?i)^(proxy-)?authorization$|cookie|token|secret|passw|credential|api-?key|access-?key|private-?key|session|signature`)

// headerName is a field name of HTTP.
var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// checkHeaders refuses headers that are none, and those that hold credentials.
func checkHeaders(headers map[string]string, instead string) error {
	for name, value := range headers {
		switch {
		case !headerName.MatchString(name) || strings.ContainsAny(value, "\r\n\x00"):
			return fmt.Errorf("%w: Headers: %q is no header, or its value has a line break", stages.ErrInvalid, name)
		case credentialHeader.MatchString(name), rollout.Redact(name+": "+value) != name+": "+value:
			return fmt.Errorf("%w: Headers: %s looks like a credential: use %s, which keeps it out of arguments, objects and logs", stages.ErrInvalid, name, instead)
		}
	}
	return nil
}

// checkURL refuses what is no address to fetch, and credentials.
func checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		// The error of package url repeats the text.
		return nil, fmt.Errorf("%w: URL can't be parsed", stages.ErrInvalid)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%w: URL must be an absolute http or https URL", stages.ErrInvalid)
	}
	return u, checkNoCredentials(u)
}

func checkNoCredentials(u *url.URL) error {
	if query, err := url.QueryUnescape(u.RawQuery); u.User != nil || err != nil || rollout.Redact(u.Path+"?"+query) != u.Path+"?"+query {
		return fmt.Errorf("%w: URL must not hold credentials: it appears in objects, arguments and logs; use a header", stages.ErrInvalid)
	}
	return nil
}
