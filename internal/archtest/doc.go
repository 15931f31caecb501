// Package archtest holds the architecture of this repository as tests: which
// folder may import which, what each may cost in dependencies, and who alone
// may know a third-party module.
//
// It holds no code of its own. The tables are in rules_test.go and read like
// the architecture they enforce; the checks in check_test.go are pure functions
// on a package graph, so that engine_test.go can show each of them failing.
// A folder is checked from the day it exists: one without a row is an error.
package archtest
