package environment

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-dev/fairlead/helmx/internal/slug"
	"github.com/fairlead-dev/fairlead/stages"
)

// Kind is what a [Ref] is.
type Kind string

// The kinds.
const (
	KindBranch      Kind = "branch"
	KindTag         Kind = "tag"
	KindPullRequest Kind = "pull request"
)

// maxName is the longest name of a branch or tag, in bytes. Git's own limit is
// that of the file system's paths.
const maxName = 1024

// Ref is what is to be delivered: a branch, a tag, or a pull request into a
// branch. Its name may hold anything, because whoever may push chooses it. The
// zero value is no ref.
type Ref struct {
	kind   Kind
	name   string
	number int
}

// Branch is a branch, by its name without "refs/heads/".
func Branch(name string) Ref { return Ref{kind: KindBranch, name: name} }

// Tag is a tag, by its name without "refs/tags/".
func Tag(name string) Ref { return Ref{kind: KindTag, name: name} }

// PullRequest is a pull request, by its number and the branch that it is to be
// merged into. The branch that it comes from decides nothing: its author names it.
func PullRequest(number int, target string) Ref {
	return Ref{kind: KindPullRequest, name: target, number: number}
}

// ParseRef returns the branch or tag that a full ref names, such as
// "refs/heads/main", or an error matching [stages.ErrInvalid].
func ParseRef(full string) (Ref, error) {
	var ref Ref
	if name, ok := strings.CutPrefix(full, "refs/heads/"); ok {
		ref = Branch(name)
	} else if name, ok := strings.CutPrefix(full, "refs/tags/"); ok {
		ref = Tag(name)
	} else {
		return Ref{}, fmt.Errorf("%w: ref %s begins with neither refs/heads/ nor refs/tags/; a pull request is given by number and target", stages.ErrInvalid, quote(full))
	}
	return ref, ref.Validate()
}

// Kind returns what r is.
func (r Ref) Kind() Kind { return r.kind }

// Name returns the name of the branch or tag, or the branch that the pull request
// is to be merged into.
func (r Ref) Name() string { return r.name }

// Number returns the number of the pull request, else 0.
func (r Ref) Number() int { return r.number }

// String describes r for people, with the name quoted.
func (r Ref) String() string {
	switch r.kind {
	case KindBranch, KindTag:
		return fmt.Sprintf("%s %s", r.kind, quote(r.name))
	case KindPullRequest:
		return fmt.Sprintf("pull request %d into %s", r.number, quote(r.name))
	}
	return "no ref"
}

// Label returns a value for a label that is valid whatever the name holds and that
// no other ref has.
func (r Ref) Label() string {
	return slug.Of(validation.LabelValueMaxLength, r.name, string(r.kind), r.name, strconv.Itoa(r.number))
}

// Validate reports, with an error matching [stages.ErrInvalid], why r is unusable.
func (r Ref) Validate() error {
	switch {
	case r.kind == "":
		return fmt.Errorf("%w: there is no ref; use Branch, Tag, PullRequest or ParseRef", stages.ErrInvalid)
	case r.name == "":
		return fmt.Errorf("%w: the %s has no name", stages.ErrInvalid, r.kind)
	case len(r.name) > maxName:
		return fmt.Errorf("%w: the name of the %s is longer than %d bytes", stages.ErrInvalid, r.kind, maxName)
	case r.kind == KindPullRequest && r.number < 1:
		return fmt.Errorf("%w: pull requests are numbered from 1, not %d", stages.ErrInvalid, r.number)
	}
	return nil
}

// quote renders untrusted input for an error, bounded in length.
func quote(s string) string {
	const limit = 120
	if len(s) > limit {
		return fmt.Sprintf("%q… (%d bytes)", s[:limit], len(s))
	}
	return strconv.Quote(s)
}
