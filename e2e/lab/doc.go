// Package lab gives a test or a demonstration a real place to deliver to: a
// throwaway Kubernetes cluster of one node (kind, in a container), connected to
// an image registry on this host, two base images to build samples from, and images
// of Prometheus, which is there as a program as well, and Traefik.
//
// It serves two kinds of machine with the same calls. Where container images
// can be pulled, kind's own node image and public Debian images are used. Where
// they cannot, the lab builds the same things from Go modules and Debian
// packages, which needs Linux, root, and a few minutes the first time; results
// are cached under the user's cache directory, keyed by what they are made of.
//
// The smallest use, with a registry already serving on port 5000:
//
//	l, err := lab.New(lab.Config{Progress: os.Stderr})
//	if err != nil { ... }
//	cluster, err := l.StartCluster(ctx)
//	if err != nil { ... }
//	defer cluster.Close()
//	err = cluster.ConnectRegistry(ctx, 5000) // pods may now run localhost:5000/...
//
// The lab never touches ~/.kube/config, never installs a system package unless
// Config.InstallPackages says so, and never leaves a cluster behind: Close
// deletes it, StartCluster deletes what it could not finish, and the next
// StartCluster deletes what a killed process left.
package lab
