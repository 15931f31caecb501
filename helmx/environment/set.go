package environment

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fairlead-dev/fairlead/stages"
)

// Set is a checked declaration of environments. It is safe for concurrent use.
type Set struct {
	environments []Environment
	namespaces   []template
	claims       map[Kind][]claim
}

// fieldOf names the field that holds the patterns for a kind.
var fieldOf = map[Kind]string{KindBranch: "branches", KindTag: "tags", KindPullRequest: "pullRequests"}

// claim is a pattern of an environment.
type claim struct {
	pattern
	environment int
	line        int
}

// New checks environments that are declared in Go. Its errors match
// [stages.ErrInvalid] and hold a [ConfigError] for each mistake. Values files are
// taken as given and are not looked at.
func New(environments ...Environment) (*Set, error) {
	declared := make([]declaration, len(environments))
	for i, e := range environments {
		declared[i] = declaration{Environment: e.clone()}
	}
	return newSet("", declared)
}

// All returns the environments as they are declared, in order.
func (s *Set) All() []Environment {
	out := make([]Environment, len(s.environments))
	for i, e := range s.environments {
		out[i] = e.clone()
	}
	return out
}

// Get returns the environment with that name, as it is declared.
func (s *Set) Get(name string) (Environment, bool) {
	i := slices.IndexFunc(s.environments, func(e Environment) bool { return e.Name == name })
	if i < 0 {
		return Environment{}, false
	}
	return s.environments[i].clone(), true
}

// Resolve returns the environment that ref is delivered to, with its namespace
// filled in. A ref that nothing matches gives an error matching
// [ErrNoEnvironment], a malformed one an error matching [stages.ErrInvalid].
//
// Of several patterns that match, the narrower one wins: the one that matches
// some of the names that the other matches. The order of declaration never
// decides, and [New] has refused what this leaves undecided.
func (s *Set) Resolve(ref Ref) (Environment, error) {
	if err := ref.Validate(); err != nil {
		return Environment{}, fmt.Errorf("resolve the environment: %w", err)
	}
	var found []claim
	for _, c := range s.claims[ref.kind] {
		if c.matches(ref.name) {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return Environment{}, fmt.Errorf("resolve the environment of %s: %w", ref, ErrNoEnvironment)
	}
	i := narrowest(found)
	e := s.environments[i].clone()
	e.Namespace = s.namespaces[i].expand(ref)
	for j, other := range s.environments {
		if j != i && s.namespaces[j].fill == "" && other.Namespace == e.Namespace && other.Context == e.Context {
			return Environment{}, fmt.Errorf("%w: %s would go to namespace %s, which is environment %s", stages.ErrInvalid, ref, e.Namespace, other.Name)
		}
	}
	return e, nil
}

// narrowest returns the environment whose claim is within every claim of another
// environment. Claims of the same environment need not be comparable.
func narrowest(found []claim) int {
	i := slices.IndexFunc(found, func(c claim) bool {
		return !slices.ContainsFunc(found, func(other claim) bool {
			if other.environment == c.environment {
				return false
			}
			rel, _ := compare(c.pattern, other.pattern)
			return rel != narrower
		})
	})
	return found[i].environment
}

// newSet checks what was declared in a file, or in Go if it has no name.
func newSet(file string, declared []declaration) (*Set, error) {
	s := &Set{claims: map[Kind][]claim{}}
	c := &checker{file: file}
	if len(declared) == 0 {
		c.refuse(1, "", BadValue, "no environment is declared")
	}
	for i, d := range declared {
		s.environments = append(s.environments, d.Environment)
		s.namespaces = append(s.namespaces, c.environment(d))
		for _, kind := range []Kind{KindBranch, KindTag, KindPullRequest} {
			for j, text := range d.patterns(kind) {
				p, err := parsePattern(text)
				if err != nil {
					c.refuse(d.line(fieldOf[kind], j), d.Name, BadPattern, "%s", err)
					continue
				}
				s.claims[kind] = append(s.claims[kind], claim{p, i, d.line(fieldOf[kind], j)})
			}
		}
	}
	c.names(declared)
	c.promotions(declared)
	c.sharedNamespaces(declared, s.namespaces)
	for _, kind := range []Kind{KindBranch, KindTag, KindPullRequest} {
		c.overlaps(kind, s)
	}
	if len(c.problems) > 0 {
		return nil, errors.Join(c.problems...)
	}
	return s, nil
}
