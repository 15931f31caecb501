package environment

import (
	"slices"
	"strings"
)

// relation is how the names that two patterns match are related.
type relation int

const (
	disjoint relation = iota // They share none.
	equal                    // They are the same.
	narrower                 // The first's are some of the second's.
	wider                    // The second's are some of the first's.
	crossing                 // They share some, and each has others.
	unknown                  // Too many wildcards to tell.
)

// maxStates bounds the comparison. It takes a dozen wildcards to come near it.
const maxStates = 2000

// compare decides how p and q are related. Where both match some name, it returns
// the shortest one that both do.
//
// Both are walked side by side, as deterministic automata, over all names that
// they could tell apart.
func compare(p, q pattern) (relation, string) {
	if !prefixesAgree(p, q) {
		return disjoint, ""
	}
	type state struct{ p, q positions }
	type visit struct {
		state
		name string
	}
	alphabet := distinguishing(p, q)
	first := state{p.start(), q.start()}
	seen := map[state]bool{first: true}
	var both, onlyP, onlyQ bool
	var witness string
	for queue := []visit{{state: first}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		inP, inQ := p.accepts(at.p), q.accepts(at.q)
		if inP && inQ && !both {
			both, witness = true, at.name
		}
		onlyP, onlyQ = onlyP || inP && !inQ, onlyQ || inQ && !inP
		for _, c := range alphabet {
			next := state{p.step(at.p, c), q.step(at.q, c)}
			if next == (state{}) || seen[next] {
				continue
			}
			if len(seen) >= maxStates {
				return unknown, ""
			}
			seen[next] = true
			queue = append(queue, visit{next, at.name + string([]byte{c})})
		}
	}
	switch {
	case !both:
		return disjoint, ""
	case onlyP && onlyQ:
		return crossing, witness
	case onlyP:
		return wider, witness
	case onlyQ:
		return narrower, witness
	}
	return equal, witness
}

// prefixesAgree reports whether what stands before the first wildcard of each
// allows for a common name. Most patterns of a file end here.
func prefixesAgree(p, q pattern) bool {
	a, _, _ := strings.Cut(p.text, "*")
	b, _, _ := strings.Cut(q.text, "*")
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

// distinguishing returns every byte that p and q treat in a way of its own, and
// one for all the others, which for the witness's sake is a letter if possible.
func distinguishing(p, q pattern) []byte {
	out := []byte{'/'}
	for _, t := range slices.Concat(p.tokens, q.tokens) {
		if t.wild == literal && !slices.Contains(out, t.char) {
			out = append(out, t.char)
		}
	}
	for _, c := range []byte("xyzabcdefghijklmnopqrstuvw0123456789-_.") {
		if !slices.Contains(out, c) {
			return append(out, c)
		}
	}
	for c := byte(1); ; c++ { // 255 bytes can't hold all that there are.
		if !slices.Contains(out, c) {
			return append(out, c)
		}
	}
}
