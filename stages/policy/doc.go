// Package policy decides on a planned release with Rego, before anything is
// written to a cluster. Its [Gate] judges each rendered manifest by the rules
// that conftest knows: deny and violation refuse the release, warn is reported.
//
//	package main
//
//	deny contains msg if {
//		input.kind == "Service"
//		input.spec.type == "NodePort"
//		msg := "node ports are not for applications"
//	}
//
// The smallest use is the built-in rules:
//
//	gate, err := policy.New(policy.Config{Modules: []fs.FS{policy.Baseline()}})
//
// # Rules
//
// A rule is named deny, violation or warn, or begins with one of these and an
// underscore, such as deny_latest_tag. It is a set of messages: strings, or
// objects with a string under "msg", whose other fields are shown behind it. A
// plain rule, such as "deny if …", counts when it is true. What conftest would
// let through in silence, rules of any other shape, is refused by [New], and a
// built-in function that fails is an error, not an undefined value.
// Conftest's exception rules are not known.
//
// # Input
//
// Each Kubernetes object of the plan's manifests is the input once. Lists are
// taken apart, and the YAML is read as Kubernetes reads it. A stream with no
// object in it is inconclusive, because nothing was judged.
//
// # What it never does
//
// Policies can't reach the network, unless hosts are named in the Config, nor
// the process, its environment or its files. The gate never passes what it
// could not judge: a manifest that is malformed or oversized, or a rule that
// fails, is an error.
package policy
