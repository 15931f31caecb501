package helmx

import (
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/stages"
)

// FuzzParseDescription checks that what was written is what is read, whatever is in
// the texts, and that nothing else is accepted.
func FuzzParseDescription(f *testing.F) {
	f.Add("run-1", "abc", "Ada", "", "")
	f.Add(`r": released x@sha256:1`, `c", author "Eve`, "\xff\n", `, gates bypassed: "`, `fairlead run "x": released y, commit "z"`)
	img, err := stages.ParseImage("registry.example.com/shop@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, run, commit, author, bypass, text string) {
		want := note{run: run, image: img, commit: commit, author: author, bypass: bypass}
		if got, ok := parseDescription(want.description()); !ok || got != want {
			t.Errorf("%q is read as %+v, %t", want.description(), got, ok)
		}
		if got, ok := parseDescription(text); ok && got.description() != text {
			t.Errorf("%q is read as %+v", text, got)
		}
	})
}
