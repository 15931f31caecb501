// Package load sends requests to a service at a steady rate and counts what
// becomes of each, by the version that answered.
//
//	visitors, err := load.Start(ctx, load.Config{URL: "http://10.89.0.2:30080"})
//	if err != nil { ... }
//	...
//	report := visitors.Stop()
//	fmt.Println(report) // how many were served, failed and lost
//
// It hides nothing: requests are sent when they are due, however long earlier ones
// take, nothing is repeated, and every request has a connection of its own, which
// shows each connection that is refused or reset and lets the service's load
// balancing decide about each request. Clients that keep their connections see
// less of it, since Go's repeats what a closing connection leaves unanswered. On a
// machine that is too busy to keep up, fewer requests are sent than asked for; the
// report has those that were.
//
// It is for services on this machine or on a private network: a connection to any
// other address is refused. Rate and duration are bounded.
package load
