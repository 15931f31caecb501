// Package e2e holds the end-to-end tests: the whole chain of adapters, without
// any fake, delivering the sample service to a real cluster.
package e2e
