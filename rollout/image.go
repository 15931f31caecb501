package rollout

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// proof is what a container says about the image it runs.
type proof int

const (
	unconcerned proof = iota // another repository's image
	unknown                  // not started yet
	proven                   // the runtime reports the expected digest
	pinned                   // the pod pins the digest; the runtime reports another name of it
	foreign                  // another digest
)

// splitReference returns the repository, spelled out, and the digest of an image
// reference as Kubernetes takes it.
func splitReference(ref string) (repository string, digest stages.Digest) {
	name, d, _ := strings.Cut(ref, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	host, rest, found := strings.Cut(name, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = "docker.io", name
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return host + "/" + rest, stages.Digest(d)
}

// reportedDigest returns the digest in a container status' imageID, which is
// "repository@sha256:…", "docker-pullable://repository@sha256:…" or, for an
// image that was loaded instead of pulled, "sha256:…" of its configuration.
func reportedDigest(imageID string) stages.Digest {
	return stages.Digest(imageID[strings.LastIndexAny(imageID, "@/")+1:])
}

// prove tells whether a container runs want. A runtime reports one of the names
// that it knows an image's content by: the digest it was asked for (for an index
// the index's, not the platform's), but where the same content was pulled under
// several digests, any of them, and a configuration digest where it was loaded.
// So a different imageID refutes only a reference that doesn't pin the digest;
// strict makes it refute either.
func prove(want stages.Image, spec string, status corev1.ContainerStatus, strict bool) (proof, stages.Digest) {
	repository, digest := splitReference(spec)
	expected, _ := splitReference(want.Repository())
	running := reportedDigest(status.ImageID)
	switch {
	case repository != expected && digest != want.Digest():
		return unconcerned, ""
	case digest != "" && digest != want.Digest():
		return foreign, digest
	case status.ImageID == "":
		return unknown, ""
	case running == want.Digest():
		return proven, running
	case digest == want.Digest() && !strict:
		return pinned, running
	}
	return foreign, running
}

// uses reports whether a pod template asks for want, and which container of it
// pins another digest of the same repository.
func uses(want stages.Image, spec corev1.PodSpec) (used bool, wrong *corev1.Container) {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i, c := range containers {
			switch p, _ := prove(want, c.Image, corev1.ContainerStatus{}, false); p {
			case unknown:
				used = true
			case foreign:
				return true, &containers[i]
			}
		}
	}
	return used, nil
}

// pins reports whether a pod template names want by its digest.
func pins(want stages.Image, spec corev1.PodSpec) bool {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range containers {
			if _, digest := splitReference(c.Image); digest == want.Digest() {
				return true
			}
		}
	}
	return false
}

// RunsImage reports whether pod is seen to run img: at least one container that
// has started runs its digest, as [Verifier] would prove it, and none another
// digest of its repository.
func RunsImage(pod *corev1.Pod, img stages.Image) bool {
	specs, seen := specImages(pod), false
	for _, s := range allStatuses(pod) {
		switch p, _ := prove(img, specs[s.Name], s, false); p {
		case proven, pinned:
			seen = true
		case foreign:
			return false
		}
	}
	return seen
}
