package environment

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-dev/fairlead/helmx/internal/slug"
)

// placeholders are what a namespace may hold, and the kind of ref that fills it.
var placeholders = map[string]Kind{
	"Branch":      KindBranch,
	"Tag":         KindTag,
	"PullRequest": KindPullRequest,
}

var placeholder = regexp.MustCompile(`\{\{ *\.([A-Za-z]+) *\}\}`)

const (
	// maxNumber is as long as the number of a pull request can get.
	maxNumber = 20
	// minSlug leaves some room for the readable part beside the hash.
	minSlug = slug.HashLength + 7
)

// template is a parsed namespace: before + what fills it + after.
type template struct {
	before, after string
	fill          Kind // Empty for a plain name.
}

func parseNamespace(text string) (template, error) {
	found := placeholder.FindAllStringSubmatchIndex(text, -1)
	switch {
	case len(found) == 0 && strings.Contains(text, "{{"):
		return template{}, fmt.Errorf("namespace %s: the placeholders are {{.Branch}}, {{.Tag}} and {{.PullRequest}}", quote(text))
	case len(found) == 0:
		if errs := validation.IsDNS1123Label(text); len(errs) > 0 {
			return template{}, fmt.Errorf("namespace %s: %s", quote(text), errs[0])
		}
		return template{before: text}, nil
	case len(found) > 1:
		return template{}, fmt.Errorf("namespace %s: one placeholder is enough to tell refs apart", quote(text))
	}
	at := found[0]
	t := template{before: text[:at[0]], after: text[at[1]:]}
	var known bool
	if t.fill, known = placeholders[text[at[2]:at[3]]]; !known {
		return template{}, fmt.Errorf("namespace %s: the placeholders are {{.Branch}}, {{.Tag}} and {{.PullRequest}}", quote(text))
	}
	// Any filling is a valid label itself, so one trial speaks for all.
	if errs := validation.IsDNS1123Label(t.before + "x" + t.after); len(errs) > 0 {
		return template{}, fmt.Errorf("namespace %s: around the placeholder: %s", quote(text), errs[0])
	}
	room := validation.DNS1123LabelMaxLength - len(t.before) - len(t.after)
	if room < minSlug || room < maxNumber {
		return template{}, fmt.Errorf("namespace %s leaves %d characters for the placeholder, which needs %d", quote(text), room, max(minSlug, maxNumber))
	}
	return t, nil
}

// expand returns the namespace for ref. Two refs never get the same one.
func (t template) expand(ref Ref) string {
	room := validation.DNS1123LabelMaxLength - len(t.before) - len(t.after)
	switch t.fill {
	case KindBranch, KindTag:
		return t.before + slug.Of(room, ref.name, string(ref.kind), ref.name) + t.after
	case KindPullRequest:
		return t.before + strconv.Itoa(ref.number) + t.after
	}
	return t.before
}
