package helmx

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/strvals"

	"github.com/fairlead-dev/fairlead/stages"
)

// ImageValues names the values that the chart composes its image reference of,
// as dotted paths such as "image.repository". One of these sets is required:
//
//   - Reference, for charts that take a whole reference: it becomes
//     "repository@sha256:…".
//   - Repository and Digest, for charts that put an '@' between them.
//   - Repository and Tag, for charts that only know "repository:tag": the tag
//     becomes "<short digest>@sha256:…", which makes a valid reference that every
//     container runtime resolves by the digest alone.
type ImageValues struct {
	Reference  string
	Repository string
	Digest     string
	Tag        string
	// Registry takes the registry host, for charts that keep it apart from the
	// repository. Optional, and only with Repository.
	Registry string
}

func (v ImageValues) validate() error {
	switch {
	case v.Reference != "" && v.Repository+v.Digest+v.Tag+v.Registry != "":
		return errors.New("Image: Reference stands alone; drop it or the other paths")
	case v.Reference == "" && (v.Repository == "" || (v.Digest == "") == (v.Tag == "")):
		return errors.New("Image: give Reference, or Repository with Digest, or Repository with Tag")
	}
	trial, seen := map[string]any{}, map[string]bool{}
	for _, a := range v.assign(stages.Image{}) {
		if strings.ContainsAny(a.path, "=,{}\"'`\n\r\t ") {
			return fmt.Errorf("Image: %q is not a path such as image.repository", a.path)
		}
		if err := strvals.ParseLiteralInto(a.path+"=x", trial); err != nil || seen[a.path] {
			return fmt.Errorf("Image: %q is not a path such as image.repository, or contradicts another one", a.path)
		}
		seen[a.path] = true
	}
	return nil
}

// assignment is a value for a path.
type assignment struct{ path, value string }

// assign returns the value of every configured path for img, outermost first, so
// that paths which contradict each other are noticed whatever their order.
func (v ImageValues) assign(img stages.Image) []assignment {
	if v == (ImageValues{}) {
		return nil
	}
	var out []assignment
	put := func(path, value string) {
		if path != "" {
			out = append(out, assignment{path, value})
		}
	}
	repository := img.Repository()
	if v.Registry != "" {
		host, path, _ := strings.Cut(repository, "/")
		put(v.Registry, host)
		repository = path
	}
	put(v.Reference, img.String())
	put(v.Repository, repository)
	put(v.Digest, img.Digest().String())
	put(v.Tag, img.Digest().Short()+"@"+img.Digest().String())
	slices.SortFunc(out, func(a, b assignment) int { return strings.Compare(a.path, b.path) })
	return out
}

// inject writes img into values.
func (v ImageValues) inject(values map[string]any, img stages.Image) error {
	for _, a := range v.assign(img) {
		if err := strvals.ParseLiteralInto(a.path+"="+a.value, values); err != nil {
			return fmt.Errorf("%w: the values have something at %q, or above it, that an image can't be written into", stages.ErrInvalid, a.path)
		}
	}
	return nil
}

// checkPinned returns an error matching [stages.ErrInvalid] unless a pod template, or
// a declared field, among objects runs img, and none among objects and hooks runs or
// mounts the same repository in any other way. With no image it asks for nothing.
func checkPinned(img stages.Image, objects, hooks []object, fields []ImageField) error {
	if img.IsZero() {
		return nil
	}
	found := false
	var others []string
	for i, obj := range append(append([]object(nil), objects...), hooks...) {
		eachImage(obj.content, fields, func(r imageReference) {
			repository, digest := splitReference(r.image)
			switch {
			case r.role == imageUnknown || repository != familiar(img.Repository()):
			case digest != img.Digest().String():
				others = append(others, fmt.Sprintf("%s, %s: %s", obj.id, r.where, r.image))
			case r.role == imageRuns:
				found = found || i < len(objects)
			}
		})
	}
	switch {
	case len(others) > 0:
		return fmt.Errorf("%w: the chart runs %s other than by the digest to be released, %s:\n  %s\nlet every one of them take the image from the values that Image names",
			stages.ErrInvalid, img.Repository(), img.Digest(), strings.Join(others, "\n  "))
	case !found:
		return fmt.Errorf("%w: no pod template of the rendered chart runs %s; name with Image the values that the chart composes its image of", stages.ErrInvalid, img)
	}
	return nil
}

// splitReference returns the full repository name and the digest, if any, of an
// image reference as it may be written in a pod.
func splitReference(ref string) (repository, digest string) {
	name, digest, _ := strings.Cut(strings.TrimSpace(ref), "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return familiar(name), digest
}

// familiar spells out what Docker's short names leave out, and leaves out of a host's
// name what makes no difference.
func familiar(name string) string {
	host, path, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(host, ".:") || strings.EqualFold(host, "localhost")) {
		host = strings.ToLower(strings.TrimSuffix(host, ":443"))
		name = host + "/" + path
	}
	switch {
	case !ok:
		return "docker.io/library/" + name
	case host == "index.docker.io" || host == "registry-1.docker.io" || host == "docker.io":
		if !strings.Contains(path, "/") {
			path = "library/" + path
		}
		return "docker.io/" + path
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return "docker.io/" + name
	}
	return name
}
