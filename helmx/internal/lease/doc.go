// Package lease is a lock that outlives neither its holder nor its loss: a
// Kubernetes Lease that is renewed as long as the holder lives, and a context that
// ends before anybody else can take it over.
//
//	lock, err := lease.Acquire(ctx, client, lease.Options{Name: "release-shop", Holder: "run-17", TTL: 15 * time.Second})
//	work(lock.Context())
//	err = lock.Release(ctx)
//
// A holder is proven dead by watching its Lease: if nothing changes for as long as
// the Lease says it is valid, by the watcher's own clock, nobody renews it. The
// clocks of two machines are never compared.
package lease
