package stages

import (
	"fmt"
	"regexp"
	"strings"
)

// Digest is the content address of an OCI manifest, "sha256:" followed by 64
// lower-case hexadecimal digits.
type Digest string

// String returns the digest as written in a reference.
func (d Digest) String() string { return string(d) }

// Short returns the first twelve hexadecimal digits, for people to read.
func (d Digest) Short() string {
	hex := strings.TrimPrefix(string(d), "sha256:")
	return hex[:min(len(hex), 12)]
}

// Image is a container image pinned by digest. The zero value is no image; any
// other can only be made by [ParseImage], so that a tag never travels through a
// pipeline. Images are comparable.
type Image struct {
	repository string
	digest     Digest
}

// The grammar of distribution references, with the lengths that registries
// enforce: https://github.com/distribution/reference/blob/v0.6.0/regexp.go
var (
	hostPattern   = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?$`)
	pathPattern   = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	digestPattern = regexp.MustCompile(`^sha256:[a-f0-9]{64}$`)
)

const maxRepository = 255

// ParseDigest returns s as a digest, or an error matching [ErrInvalid].
func ParseDigest(s string) (Digest, error) {
	if !digestPattern.MatchString(s) {
		return "", fmt.Errorf("%w: digest %s is not sha256: followed by 64 hexadecimal digits", ErrInvalid, quote(s))
	}
	return Digest(s), nil
}

// ParseImage returns the image named by ref, which must have the form
// registry/repository@sha256:… . A tag beside the digest is accepted and
// dropped, because the digest alone decides. A reference without a digest gives
// an error matching [ErrNotPinned], anything else that is malformed one matching
// [ErrInvalid]. The registry must be spelled out: "docker.io/library/nginx",
// not "nginx".
func ParseImage(ref string) (Image, error) {
	name, digest, pinned := strings.Cut(ref, "@")
	if pinned && !strings.HasPrefix(digest, "sha256:") && strings.ContainsAny(digest, "/@") {
		// What stands before the @ may be a password, so it is not repeated.
		return Image{}, fmt.Errorf("%w: image reference …@%s: credentials don't belong in it, and sha256: begins a digest", ErrInvalid, strings.Trim(quote(digest), `"`))
	}
	name, tag, tagged := cutTag(name)
	if err := ValidateRepository(name); err != nil {
		return Image{}, fmt.Errorf("image reference %s: %w", quote(ref), err)
	}
	if tagged && !tagPattern.MatchString(tag) {
		return Image{}, fmt.Errorf("%w: image reference %s: malformed tag", ErrInvalid, quote(ref))
	}
	if !pinned {
		return Image{}, fmt.Errorf("%w: image reference %s: resolve its tag once and use name@sha256:…", ErrNotPinned, quote(ref))
	}
	d, err := ParseDigest(digest)
	if err != nil {
		return Image{}, fmt.Errorf("image reference %s: %w", quote(ref), err)
	}
	return Image{repository: name, digest: d}, nil
}

// ValidateRepository reports, with an error matching [ErrInvalid], why name is
// not a repository of the form registry/path.
func ValidateRepository(name string) error {
	host, path, ok := strings.Cut(name, "/")
	switch {
	case len(name) > maxRepository:
		return fmt.Errorf("%w: repository is longer than %d characters", ErrInvalid, maxRepository)
	case !ok || !hostPattern.MatchString(host) || !strings.ContainsAny(host, ".:") && host != "localhost":
		return fmt.Errorf("%w: repository %s must begin with a registry host, such as ghcr.io/ or localhost:5000/", ErrInvalid, quote(name))
	case !pathPattern.MatchString(path):
		return fmt.Errorf("%w: repository %s has a malformed path; use lower-case letters, digits, '.', '_', '-' and '/'", ErrInvalid, quote(name))
	}
	return nil
}

// ValidateTag reports, with an error matching [ErrInvalid], why tag is not a tag.
func ValidateTag(tag string) error {
	if !tagPattern.MatchString(tag) {
		return fmt.Errorf("%w: tag %s must be 1 to 128 letters, digits, '.', '_' or '-', and begin with none of '.' and '-'", ErrInvalid, quote(tag))
	}
	return nil
}

// cutTag splits a trailing :tag from name, leaving a port alone.
func cutTag(name string) (repository, tag string, tagged bool) {
	colon := strings.LastIndexByte(name, ':')
	if colon < 0 || colon < strings.LastIndexByte(name, '/') || !strings.Contains(name, "/") {
		return name, "", false
	}
	return name[:colon], name[colon+1:], true
}

// Repository returns the name without digest, such as "ghcr.io/acme/shop".
func (i Image) Repository() string { return i.repository }

// Digest returns the content address of the image's manifest or index.
func (i Image) Digest() Digest { return i.digest }

// IsZero reports whether i is no image.
func (i Image) IsZero() bool { return i == Image{} }

// String returns the pinned reference, "repository@sha256:…", or "" for no image.
func (i Image) String() string {
	if i.IsZero() {
		return ""
	}
	return i.repository + "@" + i.digest.String()
}

// MarshalText returns the pinned reference.
func (i Image) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText parses what MarshalText wrote.
func (i *Image) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*i = Image{}
		return nil
	}
	parsed, err := ParseImage(string(text))
	if err != nil {
		return err
	}
	*i = parsed
	return nil
}

// quote renders untrusted input for an error, bounded in length.
func quote(s string) string {
	const limit = 120
	if len(s) > limit {
		return fmt.Sprintf("%q… (%d bytes)", s[:limit], len(s))
	}
	return fmt.Sprintf("%q", s)
}
