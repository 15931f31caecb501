// Package ext stands in for the module of Traefik's that this one is replaced with
// in Traefik's own repository, and that is published nowhere: no options.
package ext

// HTTP extends the HTTP configuration.
type HTTP struct{}

// Router extends a router's.
type Router struct{}
