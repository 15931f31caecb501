// Package metrics tests the metric gates against a real Prometheus server. Only
// the server is needed: no cluster. It has nothing but tests.
package metrics
