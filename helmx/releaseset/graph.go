package releaseset

import (
	"slices"
	"strings"
)

// resolve turns needs into indices and returns what is wrong with them.
func (s *Set) resolve() []error {
	var problems []error
	index := make(map[string]int, len(s.members))
	for i, m := range s.members {
		if _, taken := index[m.id]; taken {
			problems = append(problems, &DuplicateError{Member: m.id})
			continue
		}
		index[m.id] = i
	}
	for i := range s.members {
		m := &s.members[i]
		seen := make(map[int]bool, len(m.Needs))
		for _, need := range m.Needs {
			at, ok := index[needID(m.Namespace, need)]
			switch {
			case !ok:
				problems = append(problems, &NeedError{Member: m.id, Need: need})
			case s.members[at].Remove && !m.Remove:
				problems = append(problems, &RemovedNeedError{Member: m.id, Need: s.members[at].id})
			case !seen[at]:
				seen[at] = true
				m.needs = append(m.needs, at)
			}
		}
	}
	if cycle := s.cycle(); cycle != nil {
		problems = append(problems, &CycleError{Members: cycle})
	}
	return problems
}

func needID(namespace, need string) string {
	if strings.Contains(need, "/") {
		return need
	}
	return namespace + "/" + need
}

// order returns the indices, each after all that it needs, and otherwise as
// configured. Members of a cycle are left out.
func (s *Set) order() []int {
	waiting := make([]int, len(s.members))
	for i, m := range s.members {
		waiting[i] = len(m.needs)
	}
	dependents := s.dependents()
	order := make([]int, 0, len(s.members))
	placed := make([]bool, len(s.members))
	for progress := true; progress; {
		progress = false
		for i := range s.members {
			if placed[i] || waiting[i] > 0 {
				continue
			}
			placed[i], progress = true, true
			order = append(order, i)
			for _, d := range dependents[i] {
				waiting[d]--
			}
		}
	}
	return order
}

// schedule returns the indices in an order in which they could be applied: those to
// be deployed, each after all that it needs, and then those to be removed, each
// after all that needs it.
func (s *Set) schedule() []int {
	var deployed, removed []int
	for _, i := range s.order() {
		if s.members[i].Remove {
			removed = append(removed, i)
		} else {
			deployed = append(deployed, i)
		}
	}
	slices.Reverse(removed)
	return append(deployed, removed...)
}

// dependents returns, for each member, those that need it.
func (s *Set) dependents() [][]int {
	out := make([][]int, len(s.members))
	for i, m := range s.members {
		for _, need := range m.needs {
			out[need] = append(out[need], i)
		}
	}
	return out
}

// cycle returns the IDs along one cycle of needs, beginning and ending with the
// same member, or nil.
func (s *Set) cycle() []string {
	inOrder := make([]bool, len(s.members))
	for _, i := range s.order() {
		inOrder[i] = true
	}
	at := -1
	for i := range s.members {
		if !inOrder[i] {
			at = i
			break
		}
	}
	if at < 0 {
		return nil
	}
	// Whatever is left needs something else that is left, so this walk comes back to
	// where it was.
	visited := map[int]int{}
	var path []int
	for {
		if start, again := visited[at]; again {
			path = append(path[start:], at)
			break
		}
		visited[at] = len(path)
		path = append(path, at)
		for _, need := range s.members[at].needs {
			if !inOrder[need] {
				at = need
				break
			}
		}
	}
	ids := make([]string, len(path))
	for i, p := range path {
		ids[i] = s.members[p].id
	}
	return ids
}
