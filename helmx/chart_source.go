package helmx

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry"

	"github.com/fairlead-dev/fairlead/helmx/internal/address"
	"github.com/fairlead-dev/fairlead/stages"
)

// ChartSource says where a chart that is not a local one comes from, and what has
// to be true of a chart, wherever it comes from. The zero value is right for a
// chart folder that is trusted because it is part of the source.
//
// Nothing ambient is consulted: no Helm repository list or cache, no Docker
// credentials, no environment.
type ChartSource struct {
	// Repository is the URL of an HTTP chart repository; [Config.Chart] is then the
	// name of a chart in it. The repository's index may refer to an OCI registry.
	Repository string
	// Version chooses the chart's version: an exact one such as "1.4.2", or a
	// constraint such as "~1.4", of which the newest is taken. Remote charts need it,
	// unless their reference has a tag or digest. A chart of another version is
	// refused.
	Version string
	// Digest pins the content, as "sha256:…": of the manifest for a chart from an OCI
	// registry, also where a repository's index refers to it, of the archive for any
	// other packaged one, and for a folder what [ChartInfo.Digest] said before. A
	// chart with another digest is refused, so a tag that was moved is noticed.
	Digest string
	// Keyring holds OpenPGP public keys, binary or armored. When it is set, the chart
	// and the dependencies fetched for it must have a provenance file (.prov) that
	// one of the keys signed.
	Keyring []byte
	// Verify, when set, decides whether a chart from an OCI registry may be used, for
	// example by its cosign signature. It gets "host/repository@sha256:…" before the
	// chart's content is fetched. It isn't asked about dependencies. A chart that a
	// repository's index finds elsewhere is refused.
	Verify func(ctx context.Context, reference string) error
	// Credentials returns what to present to a host, such as
	// "charts.example.com:8443"; zero credentials mean none. It is asked for each
	// host by its own name, so that no credentials follow a redirect.
	Credentials func(ctx context.Context, host string) (Credentials, error)
	// CA holds PEM certificates that are trusted instead of the system's.
	CA []byte
	// Transport carries the requests, for proxies and client certificates. By default
	// there is no proxy. It excludes CA.
	Transport http.RoundTripper
	// PlainHTTP allows, and for OCI demands, http:// instead of https://.
	PlainHTTP bool
	// Unlocked fetches dependencies by the constraints in Chart.yaml if Chart.lock is
	// missing or out of date. [ChartInfo.Dependencies] tells what they came to.
	Unlocked bool
}

// Credentials are a user name and password, or a bearer token.
type Credentials struct {
	Username, Password string
	Token              string
}

// String hides the credentials, and so does every way to print them.
func (Credentials) String() string { return Redacted }

// GoString hides the credentials.
func (Credentials) GoString() string { return Redacted }

const ociScheme = address.OCI

func isOCI(chart string) bool { return strings.HasPrefix(chart, ociScheme) }

// remoteChart reports whether the chart has to be fetched.
func (c *Config) remoteChart() bool { return isOCI(c.Chart) || c.ChartSource.Repository != "" }

// validate reports what contradicts itself, given the chart that is asked for.
func (s *ChartSource) validate(chart string) error {
	var problems []error
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	switch {
	case isOCI(chart) && s.Repository != "":
		refuse("Chart %s is complete; drop ChartSource.Repository", redactURL(chart))
	case isOCI(chart):
		if _, err := parseOCI(chart, s.Version, s.Digest); err != nil {
			problems = append(problems, err)
		}
	case strings.Contains(chart, "://"):
		refuse("Chart %s: give the URL of the repository as ChartSource.Repository, and the chart's name as Chart; or use oci://", redactURL(chart))
	case s.Repository != "":
		if _, err := s.parseURL(s.Repository); err != nil {
			refuse("ChartSource.Repository: %w", err)
		}
		if strings.ContainsAny(chart, `/\`) {
			refuse("Chart %q is not the name of a chart in a repository", chart)
		}
		if s.Version == "" {
			refuse("ChartSource.Version is empty; say which version of %s to take", chart)
		}
	}
	if s.Version != "" {
		if _, err := semver.NewConstraint(s.Version); err != nil {
			refuse("ChartSource.Version %q is neither a version nor a constraint such as ~1.4", s.Version)
		}
	}
	if s.Digest != "" && digest.Digest(s.Digest).Validate() != nil {
		refuse("ChartSource.Digest %q is not a digest such as sha256:…", s.Digest)
	}
	if s.Verify != nil && !isOCI(chart) && s.Repository == "" {
		refuse("ChartSource.Verify is for charts from an OCI registry; use Keyring for others")
	}
	if s.CA != nil && s.Transport != nil {
		refuse("ChartSource: CA and Transport exclude each other; trust the CA in the transport")
	}
	if s.CA != nil && !x509.NewCertPool().AppendCertsFromPEM(s.CA) {
		refuse("ChartSource.CA has no PEM certificate")
	}
	if s.Keyring != nil {
		if _, err := readKeyring(s.Keyring); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// parseURL parses the URL of a repository, or of something in one.
func (s *ChartSource) parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return nil, fmt.Errorf("%q is not a URL such as https://charts.example.com", redactURL(text))
	case u.User != nil:
		return nil, fmt.Errorf("%s: take the credentials out of the URL and give them as ChartSource.Credentials", u.Redacted())
	case u.Scheme == "http" && !s.PlainHTTP:
		return nil, fmt.Errorf("%s is not encrypted; use https, or allow it with ChartSource.PlainHTTP", text)
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%s: only http and https are supported", text)
	}
	return u, nil
}

// redactURL hides the user and password that may be in a URL or an OCI reference.
func redactURL(text string) string { return address.Redacted(text, Redacted) }

// ociRef is a chart in an OCI registry. Of version and tag one is set at most; if
// both are empty, digest isn't.
type ociRef struct {
	repository registry.Reference
	// tag was given as such, version is to be found among the tags.
	tag, version string
	digest       string
}

// parseOCI parses oci://host/repository[:tag][@digest].
func parseOCI(text, version, wantDigest string) (ociRef, error) {
	refuse := func(format string, args ...any) (ociRef, error) {
		return ociRef{}, fmt.Errorf("chart %q: "+format, append([]any{redactURL(text)}, args...)...)
	}
	rest, found := strings.CutPrefix(text, ociScheme)
	if !found {
		return refuse("does not begin with oci://")
	}
	name, pinned, hasDigest := strings.Cut(rest, "@")
	ref := ociRef{digest: pinned, version: version}
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		ref.tag, name = name[colon+1:], name[:colon]
		if stages.ValidateTag(ref.tag) != nil {
			return refuse("the tag is malformed; write oci://host/repository:version")
		}
	}
	var err error
	if ref.repository, err = registry.ParseReference(name); err != nil || ref.repository.Reference != "" {
		return refuse("write oci://host/repository:version")
	}
	switch {
	case hasDigest && digest.Digest(pinned).Validate() != nil:
		return refuse("what follows the last @ is not a digest such as sha256:…")
	case wantDigest != "" && digest.Digest(wantDigest).Validate() != nil:
		return refuse("%q is not a digest such as sha256:…", wantDigest)
	case hasDigest && wantDigest != "" && pinned != wantDigest:
		return refuse("the reference and ChartSource.Digest name different digests")
	case ref.digest == "":
		ref.digest = wantDigest
	}
	switch {
	case ref.tag != "" && version != "":
		switch {
		case ref.tag == tagOf(version):
			ref.tag = ""
		case sameVersion(versionOf(ref.tag), version):
			ref.version = "" // The tag is the one that there is.
		default:
			return refuse("the reference and ChartSource.Version name different versions")
		}
	case ref.tag+version+ref.digest == "":
		return refuse("name a version, as oci://host/repository:version or as ChartSource.Version")
	}
	return ref, nil
}

// tagOf returns the tag that Helm stores a version under: tags can't have a '+'.
func tagOf(version string) string { return strings.ReplaceAll(version, "+", "_") }

// versionOf is the inverse of [tagOf]: versions can't have a '_'.
func versionOf(tag string) string { return strings.ReplaceAll(tag, "_", "+") }

// sameVersion reports whether a and b differ at most by a leading "v", which many
// tags have and few charts.
func sameVersion(a, b string) bool {
	return strings.TrimPrefix(a, "v") == strings.TrimPrefix(b, "v")
}

// exactVersion reports whether version is one, not a constraint.
func exactVersion(version string) bool {
	_, err := semver.StrictNewVersion(strings.TrimPrefix(version, "v"))
	return err == nil
}

// newestOf returns the newest of versions that satisfies constraint, or "".
func newestOf(versions []string, constraint string) string {
	wanted, err := semver.NewConstraint(constraint)
	if err != nil {
		return ""
	}
	var best *semver.Version
	for _, text := range versions {
		if text == constraint {
			return text
		}
		v, err := semver.NewVersion(text)
		if err == nil && wanted.Check(v) && (best == nil || v.GreaterThan(best)) {
			best = v
		}
	}
	if best == nil {
		return ""
	}
	return best.Original()
}
