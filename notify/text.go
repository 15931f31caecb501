package notify

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxLine bounds a line of text from outside, in bytes.
const maxLine = 2000

// Colours and other commands to terminals, as programs write them to their logs:
// control sequences, strings such as titles and hyperlinks, and short escapes.
var terminalCommand = regexp.MustCompile("(?:\x1b\\[|\u009b)[0-?]*[ -/]*[@-~]" +
	"|(?:\x1b[\\]PX^_]|[\u0090\u0098\u009d\u009e\u009f])[^\x07\x1b\u009c\n]*(?:\x07|\x1b\\\\|\u009c)" +
	"|\x1b[ -/]*[0-~]")

// clean returns text from outside as lines that show what they say and do
// nothing else. Commands to terminals are taken out; any other character that is
// invisible or turns the direction of writing is replaced by U+FFFD, but for the
// joiners that some scripts need.
func clean(text string) []string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("\n\r\u0085\u2028\u2029", r) })
	for i, line := range lines {
		lines[i] = cleanLine(line)
	}
	return lines
}

func cleanLine(line string) string {
	line = clip(terminalCommand.ReplaceAllString(line, ""))
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == '\u200c', r == '\u200d':
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(line, string(utf8.RuneError)))
}

// inline returns text from outside as one line.
func inline(text string) string { return strings.Join(clean(text), " ") }

// clip cuts a line at maxLine bytes, between characters.
func clip(line string) string {
	if len(line) <= maxLine {
		return line
	}
	end := maxLine
	for end > 0 && !utf8.RuneStart(line[end]) {
		end--
	}
	return fmt.Sprintf("%s … (%d bytes)", line[:end], len(line))
}

var fullDigest = regexp.MustCompile(`\bsha256:([0-9a-f]{12})[0-9a-f]{52}\b`)

// short shows digests by their first digits.
func short(text string) string { return fullDigest.ReplaceAllString(text, "sha256:$1") }

// took renders a duration for people: "0.4s", "12.3s", "1m02s", "1h02m".
func took(d time.Duration) string {
	switch {
	case d < 59950*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	default:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
}
