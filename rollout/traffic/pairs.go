package traffic

import (
	"fmt"
	"strings"
)

// pair is where in a rule the two weights are.
type pair struct {
	rule                       int
	stable, canary             int
	stables, canaries, others  int
	stableWeight, canaryWeight int64
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
		p.others++
	}
}

func (p *pair) concerned() bool { return p.stables+p.canaries > 0 }

// problem says why nobody can tell what the rule sends where.
func (p *pair) problem() string {
	switch {
	case p.stables == 0:
		return "sends to the canary, and not to the stable release"
	case p.stables > 1 || p.canaries > 1:
		return "names a backend twice"
	case p.stableWeight < 0 || p.canaryWeight < 0 || p.canaries > 0 && p.others == 0 && p.stableWeight+p.canaryWeight == 0:
		return fmt.Sprintf("has the weights %d and %d, of which nobody can tell a share", p.stableWeight, p.canaryWeight)
	}
	return ""
}

// undivided says why the canary can't be given a share. It can be taken from it.
func (p *pair) undivided() string {
	switch {
	case p.canaries == 0:
		return "sends to the stable release, and not to the canary"
	case p.others > 0:
		return "sends to other backends, too"
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

// undivided returns the first rule that can't be divided, and why.
func (ps pairs) undivided() (rule int, problem string) {
	for _, p := range ps {
		if problem := p.undivided(); problem != "" {
			return p.rule, problem
		}
	}
	return 0, ""
}

// check refuses rules that somebody else has changed.
func (ps pairs) check(from, to int) error {
	for _, p := range ps {
		if err := expect(from, to, Split{Canary: p.share(), Detail: ps.String()}); err != nil {
			return err
		}
	}
	return nil
}

// patch sets the weights of all rules, which are a list in a list. Where there are
// other backends, those keep their share.
func (ps pairs) patch(list, sub string, to int) (patch []operation) {
	for _, p := range ps {
		stable := int64(100 - to)
		if p.others > 0 {
			stable = p.stableWeight + p.canaryWeight
		}
		if p.canaries > 0 {
			patch = append(patch,
				operation{Op: "add", Path: pointer("spec", list, p.rule, sub, p.stable, "weight"), Value: stable},
				operation{Op: "add", Path: pointer("spec", list, p.rule, sub, p.canary, "weight"), Value: to})
		}
	}
	return patch
}

func (ps pairs) String() string {
	var texts []string
	for _, p := range ps {
		texts = append(texts, fmt.Sprintf("rule %d: stable %d, canary %d", p.rule, p.stableWeight, p.canaryWeight))
	}
	return strings.Join(texts, "; ")
}
