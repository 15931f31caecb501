package helmx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	helmregistry "helm.sh/helm/v3/pkg/registry"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// What is read of a registry at most.
const (
	maxManifest = 4 << 20
	maxTags     = 50_000
)

// fromOCI fetches a chart from an OCI registry. A tag is resolved once, and all
// that follows is read by digest and compared with it. The chart may have another
// name than the repository, as in a mirror: who wants one by name has to check.
func (f *fetcher) fromOCI(ctx context.Context, ref ociRef, verify func(context.Context, string) error) (*fetched, error) {
	repository, err := remote.NewRepository(ref.repository.String())
	if err != nil {
		return nil, because(ChartNotFound, "%w", err)
	}
	repository.PlainHTTP = f.source.PlainHTTP
	repository.MaxMetadataBytes = maxManifest
	repository.Client = &auth.Client{Client: f.client, Credential: f.ociCredential, Cache: auth.NewCache(), Header: http.Header{"User-Agent": {"fairlead"}}}

	if ref.version != "" {
		if ref.tag, err = tagFor(ctx, repository, ref.version); err != nil {
			return nil, err
		}
	}
	at := ref.tag
	if at == "" {
		at = ref.digest
	}
	desc, body, err := repository.FetchReference(ctx, at)
	if err != nil {
		return nil, ociProblem("resolve "+at, err)
	}
	defer body.Close()
	if ref.digest != "" && desc.Digest.String() != ref.digest {
		return nil, because(ChartMoved, "tag %s is %s, to be used is %s", ref.tag, desc.Digest, ref.digest)
	}
	raw, err := readBounded(body, desc, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	out := &fetched{digest: desc.Digest.String(), reference: ref.repository.String() + "@" + desc.Digest.String()}
	if ref.version != "" {
		out.version = versionOf(ref.tag)
	}
	if verify != nil {
		if err := verify(ctx, out.reference); err != nil {
			return nil, because(ChartUntrusted, "%s is not accepted: %w", out.reference, err)
		}
	}
	archive, provenance, err := chartLayers(raw)
	if err != nil {
		return nil, err
	}
	fetch := func(what string, layer ocispec.Descriptor, limit int64) ([]byte, error) {
		body, err := repository.Blobs().Fetch(ctx, layer)
		if err != nil {
			return nil, ociProblem("get the "+what, err)
		}
		defer body.Close()
		data, err := readBounded(body, layer, limit)
		if err != nil {
			return nil, fmt.Errorf("get the %s: %w", what, err)
		}
		return data, nil
	}
	if f.source.Keyring != nil {
		if provenance == nil {
			return nil, because(ChartUntrusted, "it is not signed: %s has no provenance layer", out.reference)
		}
		if out.provenance, err = fetch("provenance", *provenance, maxProvenance); err != nil {
			return nil, err
		}
	}
	if out.archive, err = fetch("chart", *archive, maxArchive); err != nil {
		return nil, err
	}
	return out, nil
}

func (f *fetcher) ociCredential(ctx context.Context, host string) (auth.Credential, error) {
	if f.source.Credentials == nil {
		return auth.EmptyCredential, nil
	}
	creds, err := f.source.Credentials(ctx, host)
	if err != nil {
		return auth.EmptyCredential, because(ChartUnauthorized, "get the credentials for %s: %w", host, err)
	}
	return auth.Credential{Username: creds.Username, Password: creds.Password, AccessToken: creds.Token}, nil
}

// tagFor returns the tag of an exact version, or of the newest one that satisfies
// a constraint.
func tagFor(ctx context.Context, repository *remote.Repository, version string) (string, error) {
	if exactVersion(version) {
		return tagOf(version), nil
	}
	var versions []string
	err := repository.Tags(ctx, "", func(tags []string) error {
		for _, tag := range tags {
			versions = append(versions, versionOf(tag))
		}
		if len(versions) > maxTags {
			return because(ChartMalformed, "there are more than %d tags; name an exact version", maxTags)
		}
		return nil
	})
	if err != nil {
		return "", ociProblem("list the versions", err)
	}
	best := newestOf(versions, version)
	if best == "" {
		return "", because(ChartNotFound, "none of the %d versions satisfies %q", len(versions), version)
	}
	return tagOf(best), nil
}

// chartLayers finds the chart, and its signature if there is one, in a manifest.
func chartLayers(raw []byte) (archive, provenance *ocispec.Descriptor, err error) {
	var manifest ocispec.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return nil, nil, because(ChartMalformed, "the manifest is malformed")
	}
	if manifest.Config.MediaType != helmregistry.ConfigMediaType {
		return nil, nil, because(ChartMalformed, "the reference is not to a Helm chart: its configuration is of type %q", manifest.Config.MediaType)
	}
	find := func(types ...string) (*ocispec.Descriptor, error) {
		var found *ocispec.Descriptor
		for _, layer := range manifest.Layers {
			switch {
			case !slices.Contains(types, layer.MediaType):
			case found != nil:
				return nil, because(ChartMalformed, "the manifest has more than one layer of type %s", layer.MediaType)
			case layer.Digest.Validate() != nil:
				return nil, because(ChartMalformed, "the manifest has a malformed digest")
			default:
				found = &layer
			}
		}
		return found, nil
	}
	if archive, err = find(helmregistry.ChartLayerMediaType, helmregistry.LegacyChartLayerMediaType); err != nil {
		return nil, nil, err
	}
	if archive == nil {
		return nil, nil, because(ChartMalformed, "the manifest has no layer of type %s", helmregistry.ChartLayerMediaType)
	}
	provenance, err = find(helmregistry.ProvLayerMediaType)
	return archive, provenance, err
}

// readBounded reads what desc promises and nothing else.
func readBounded(body io.Reader, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, because(ChartMalformed, "%s is larger than %d MiB", desc.Digest, limit>>20)
	}
	data, err := content.ReadAll(body, desc)
	switch {
	case errors.Is(err, content.ErrMismatchedDigest), errors.Is(err, content.ErrTrailingData), errors.Is(err, content.ErrInvalidDescriptorSize),
		errors.Is(err, digest.ErrDigestInvalidFormat):
		return nil, because(ChartMoved, "the registry sent something else than %s: %w", desc.Digest, err)
	case err != nil:
		return nil, because(ChartUnavailable, "%w", err)
	}
	return data, nil
}

// ociProblem classes what a registry, or the way to it, had to say.
func ociProblem(doing string, err error) error {
	if r, ok := errors.AsType[*reasonError](err); ok {
		return r
	}
	if errors.Is(err, errdef.ErrNotFound) {
		return because(ChartNotFound, "%s: the registry does not have it", doing)
	}
	if refused, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		return because(reasonOf(refused.StatusCode), "%s: the registry says %d %s", doing, refused.StatusCode, http.StatusText(refused.StatusCode))
	}
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return because(ChartUnauthorized, "%s: the registry asks for credentials; give them as ChartSource.Credentials", doing)
	}
	return because(ChartUnavailable, "%s: %w", doing, networkCause(err))
}
