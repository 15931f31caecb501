package traffic

import (
	"fmt"
	"slices"
	"strings"
)

// side is whose a backend is.
type side int

const (
	ofOthers side = iota
	ofStable
	ofCanary
)

// backend is one that a rule sends to.
type backend struct {
	side   side
	weight int64
}

// routeRule is one of a route.
type routeRule struct {
	// name is what people call it.
	name string
	// path is that of its list of backends in the object.
	path     []any
	backends []backend
}

// at is the path of a backend, or of something in it.
func (r routeRule) at(backend int, field ...any) []any {
	return slices.Concat(r.path, []any{backend}, field)
}

func (r routeRule) count(s side) (n int) {
	for _, b := range r.backends {
		if b.side == s {
			n++
		}
	}
	return n
}

func (r routeRule) weight(s side) (sum int64) {
	for _, b := range r.backends {
		if b.side == s {
			sum += b.weight
		}
	}
	return sum
}

func (r routeRule) concerned() bool { return r.count(ofStable)+r.count(ofCanary) > 0 }

// odd says why the canary can't be given a share of the rule.
func (r routeRule) odd() string {
	stable, canary := r.weight(ofStable), r.weight(ofCanary)
	switch {
	case r.count(ofStable) == 0:
		return "sends to the canary, and not to the stable release"
	case r.count(ofCanary) == 0:
		return "sends to the stable release, and not to the canary"
	case r.count(ofStable) > 1 || r.count(ofCanary) > 1:
		return "names a backend twice"
	case r.count(ofOthers) > 0:
		return "sends to other backends, too"
	case stable < 0 || canary < 0 || stable+canary == 0:
		return fmt.Sprintf("has the weights %d and %d, of which nobody can tell a share", stable, canary)
	}
	return ""
}

func (r routeRule) share() int {
	stable, canary := r.weight(ofStable), r.weight(ofCanary)
	return share(canary, stable+canary)
}

// give are the operations that give the canary its share of a rule that isn't odd.
func (r routeRule) give(to int) (patch []operation) {
	for i, b := range r.backends {
		weight := to
		if b.side == ofStable {
			weight = 100 - to
		}
		patch = append(patch, operation{Op: "add", Path: pointer(r.at(i, "weight")...), Value: weight})
	}
	return patch
}

// takeBack are the operations that send to the stable release what the canary has of
// a rule, whoever has made that what it is. Other backends keep their share.
func (r routeRule) takeBack(toStable func(path []any) []operation) (patch []operation) {
	stable, canary, others := r.weight(ofStable), r.weight(ofCanary), r.weight(ofOthers)
	if r.count(ofCanary) == 0 || canary == 0 && stable+others > 0 {
		return nil
	}
	first := func(s side) int { return slices.IndexFunc(r.backends, func(b backend) bool { return b.side == s }) }
	set := func(backend int, weight int64) {
		patch = append(patch, operation{Op: "add", Path: pointer(r.at(backend, "weight")...), Value: weight})
	}
	heir := first(ofStable)
	for i, b := range r.backends {
		switch {
		case b.side != ofCanary:
		case heir < 0: // There is none to inherit, so it becomes one.
			patch = append(patch, toStable(r.at(i))...)
		default:
			set(i, 0)
		}
	}
	switch {
	case heir < 0 && canary+others > 0:
	case heir < 0:
		set(first(ofCanary), 100)
	case r.count(ofStable)+r.count(ofCanary) == len(r.backends) && r.count(ofStable) == 1:
		set(heir, 100)
	default:
		set(heir, max(1, r.backends[heir].weight+canary))
	}
	return patch
}

// routeRules are those of a route.
type routeRules []routeRule

// concerned are those that send to either release.
func (rs routeRules) concerned() (out routeRules) {
	for _, r := range rs {
		if r.concerned() {
			out = append(out, r)
		}
	}
	return out
}

// share is the canary's greatest.
func (rs routeRules) share() int {
	most := 0
	for _, r := range rs {
		most = max(most, r.share())
	}
	return most
}

// even reports that all rules divide alike.
func (rs routeRules) even() bool {
	return !slices.ContainsFunc(rs, func(r routeRule) bool { return r.share() != rs[0].share() })
}

// check refuses rules that somebody else has changed.
func (rs routeRules) check(from, to int) error {
	for _, r := range rs {
		if err := expect(from, to, Split{Canary: r.share(), Detail: rs.String()}); err != nil {
			return err
		}
	}
	return nil
}

// patch is what brings the weight about; nothing if that is what there is.
func (rs routeRules) patch(to int, toStable func(path []any) []operation) (patch []operation) {
	for _, r := range rs {
		switch {
		case to == 0:
			patch = append(patch, r.takeBack(toStable)...)
		case r.share() != to:
			patch = append(patch, r.give(to)...)
		}
	}
	return patch
}

func (rs routeRules) String() string {
	var texts []string
	for _, r := range rs {
		texts = append(texts, fmt.Sprintf("%s: stable %d, canary %d", r.name, r.weight(ofStable), r.weight(ofCanary)))
	}
	return strings.Join(texts, "; ")
}
