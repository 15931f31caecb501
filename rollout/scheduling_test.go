package rollout

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Messages as schedulers of several versions write them.
var schedulerMessages = map[string]Scheduling{
	"0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.": {
		Nodes: 1, Predicates: []Predicate{{Kind: PredicateResource, Nodes: 1, Resource: "cpu", Message: "Insufficient cpu"}},
	},
	"0/5 nodes are available: 1 Too many pods, 2 Insufficient example.com/gpu, 3 node(s) had untolerated taint(s). preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling.": {
		Nodes: 5, Predicates: []Predicate{
			{Kind: PredicateTooManyPods, Nodes: 1, Message: "Too many pods"},
			{Kind: PredicateResource, Nodes: 2, Resource: "example.com/gpu", Message: "Insufficient example.com/gpu"},
			{Kind: PredicateTaint, Nodes: 3, Message: "node(s) had untolerated taint(s)"},
		},
	},
	"0/2 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/x: a, b}, 1 node(s) were unschedulable.": {
		Nodes: 2, Predicates: []Predicate{
			{Kind: PredicateTaint, Nodes: 1, Message: "node(s) had untolerated taint {node.kubernetes.io/x: a, b}"},
			{Kind: PredicateCordoned, Nodes: 1, Message: "node(s) were unschedulable"},
		},
	},
	`0/3 nodes are available: persistentvolumeclaim "data" not found. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.`: {
		Nodes: 3, Predicates: []Predicate{{Kind: PredicateVolume, Nodes: 3, Message: `persistentvolumeclaim "data" not found`}},
	},
	"0/4 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) didn't match pod affinity rules, 1 node(s) didn't match pod anti-affinity rules, 1 node(s) didn't match pod topology spread constraints.": {
		Nodes: 4, Predicates: []Predicate{
			{Kind: PredicateNodeAffinity, Nodes: 1, Message: "node(s) didn't match Pod's node affinity/selector"},
			{Kind: PredicatePodAffinity, Nodes: 1, Message: "node(s) didn't match pod affinity rules"},
			{Kind: PredicatePodAntiAffinity, Nodes: 1, Message: "node(s) didn't match pod anti-affinity rules"},
			{Kind: PredicateTopologySpread, Nodes: 1, Message: "node(s) didn't match pod topology spread constraints"},
		},
	},
	"0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.": {
		Nodes: 1, Predicates: []Predicate{{Kind: PredicateHostPort, Nodes: 1, Message: "node(s) didn't have free ports for the requested pod ports"}},
	},
	"0/2 nodes are available: 1 node(s) didn't satisfy plugin(s) [NodeAffinity], 1 node(s) had untolerated taint(s).": {
		Nodes: 2, Predicates: []Predicate{
			{Kind: PredicateNodeAffinity, Nodes: 1, Message: "node(s) didn't satisfy plugin(s) [NodeAffinity]"},
			{Kind: PredicateTaint, Nodes: 1, Message: "node(s) had untolerated taint(s)"},
		},
	},
	"0/0 nodes are available: ": {},
}

func TestParseScheduling(t *testing.T) {
	for message, want := range schedulerMessages {
		got, ok := parseScheduling(message)
		require.True(t, ok, message)
		assert.Equal(t, want, got, message)
	}
	for _, message := range []string{"", "no nodes available to schedule pods", "0/x nodes are available: 1 y", "0/99999999999999999999 nodes are available: "} {
		_, ok := parseScheduling(message)
		assert.False(t, ok, message)
	}
}

func FuzzParseScheduling(f *testing.F) {
	for message := range schedulerMessages {
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message string) {
		s, ok := parseScheduling(message)
		if !ok && (s.Nodes != 0 || s.Predicates != nil) {
			t.Fatal("a message that isn't understood says nothing")
		}
		for _, p := range s.Predicates {
			if p.Nodes < 0 || p.Kind == "" {
				t.Fatalf("%+v", p)
			}
		}
	})
}

// However many parts a message has, reading it takes time in proportion to its length.
func TestSchedulingMessageOfManyParts(t *testing.T) {
	const parts = 500_000
	s, ok := parseScheduling("0/3 nodes are available: 1 a" + strings.Repeat(", b", parts) + ", 2 c")
	assert.True(t, ok)
	require.Len(t, s.Predicates, 2)
	assert.Len(t, s.Predicates[0].Message, 1+len(", b")*parts)
	assert.Equal(t, "c", s.Predicates[1].Message)
}
