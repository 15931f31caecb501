// Package slug turns text that anybody may have written, such as the name of a
// branch, into part of a Kubernetes name.
//
//	slug.Of(63, "feature/Ünïcode", "branch", "feature/Ünïcode") // "feature-n-code-…", a hash at the end
//
// It never tells two identities apart by what is readable: the hash does that.
package slug
