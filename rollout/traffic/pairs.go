package traffic

import (
	"errors"
	"fmt"
	"strings"
)

// pair is where in a rule the two weights are.
type pair struct {
	rule                       int
	stable, canary             int
	stables, canaries, others  int
	stableWeight, canaryWeight int64
	otherWeight                int64
}

func (p *pair) add(index int, weight int64, stable, canary bool) {
	switch {
	case stable:
		p.stable, p.stableWeight = index, weight
		p.stables++
	case canary:
		p.canary, p.canaryWeight = index, weight
		p.canaries++
	default:
		p.otherWeight += weight
		p.others++
	}
}

func (p *pair) concerned() bool { return p.stables+p.canaries > 0 }

func (p *pair) problem() string {
	switch {
	case p.stables == 0:
		return "sends to the canary, and not to the stable release"
	case p.canaries == 0:
		return "sends to the stable release, and not to the canary"
	case p.stables > 1 || p.canaries > 1:
		return "names a backend twice"
	case p.others > 0:
		return "sends to other backends, too"
	case p.stableWeight < 0 || p.canaryWeight < 0 || p.stableWeight+p.canaryWeight == 0:
		return fmt.Sprintf("has the weights %d and %d, of which nobody can tell a share", p.stableWeight, p.canaryWeight)
	}
	return ""
}

func (p *pair) share() int { return share(p.canaryWeight, p.stableWeight+p.canaryWeight) }

// pairs are the rules that are divided, at least one.
type pairs []pair

// share is the canary's greatest.
func (ps pairs) share() int {
	most := 0
	for _, p := range ps {
		most = max(most, p.share())
	}
	return most
}

// even reports that all rules divide alike.
func (ps pairs) even() bool {
	for _, p := range ps {
		if p.share() != ps[0].share() {
			return false
		}
	}
	return true
}

// check refuses rules that somebody else has changed.
func (ps pairs) check(from, to int) error {
	var errs []error
	for _, p := range ps {
		errs = append(errs, expect(from, to, Split{Canary: p.share(), Detail: ps.String()}))
	}
	return errors.Join(errs...)
}

func (ps pairs) String() string {
	var texts []string
	for _, p := range ps {
		texts = append(texts, fmt.Sprintf("rule %d: stable %d, canary %d", p.rule, p.stableWeight, p.canaryWeight))
	}
	return strings.Join(texts, "; ")
}
