package helmx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	"helm.sh/helm/v3/pkg/repo"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"sigs.k8s.io/yaml"
)

// What is downloaded at most. The largest public index is near 30 MiB, the
// largest public chart near 2 MiB.
const (
	maxIndex      = 64 << 20
	maxProvenance = 1 << 20
	maxRedirects  = 5
)

// fetcher gets charts over the network. It is made for one [Open].
type fetcher struct {
	source *ChartSource
	client *http.Client
	// indexes are the repositories' indexes, by URL.
	indexes map[string]*repo.IndexFile
}

// fetched is a packaged chart as downloaded. What is in it is not yet known to be
// harmless.
type fetched struct {
	archive []byte
	// provenance is the signed statement about the archive, if there is one and it
	// is wanted.
	provenance []byte
	// digest identifies the content: the manifest's for OCI, else the archive's.
	digest string
	// reference is where the content is, without credentials.
	reference string
	// name and version are what the chart must say of itself, where known.
	name, version string
}

func newFetcher(s *ChartSource) *fetcher {
	transport := s.Transport
	if transport == nil {
		own := &http.Transport{ForceAttemptHTTP2: true}
		if s.CA != nil {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(s.CA)
			own.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		}
		transport = own
	}
	if !s.PlainHTTP {
		transport = encrypted{transport}
	}
	return &fetcher{source: s, indexes: map[string]*repo.IndexFile{}, client: &http.Client{
		Transport: transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("redirected more than %d times", maxRedirects)
			}
			if req.URL.Host != via[0].URL.Host { // The client would trust subdomains and other ports.
				req.Header.Del("Authorization")
			}
			return nil
		},
	}}
}

// encrypted refuses requests in plain text, wherever a server sends the client: by
// a redirect, or to get a token.
type encrypted struct{ http.RoundTripper }

// RoundTrip passes on what is encrypted.
func (e encrypted) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is not encrypted; allow it with ChartSource.PlainHTTP", req.URL.Host)
	}
	return e.RoundTripper.RoundTrip(req)
}

// CloseIdleConnections lets the client give them up.
func (e encrypted) CloseIdleConnections() {
	utilnet.CloseIdleConnectionsFor(e.RoundTripper)
}

// close gives up idle connections of the fetcher's own transport.
func (f *fetcher) close() {
	if f.source.Transport == nil {
		f.client.CloseIdleConnections()
	}
}

// get downloads at most limit bytes.
func (f *fetcher) get(ctx context.Context, from *url.URL, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("User-Agent", "fairlead")
	if f.source.Credentials != nil {
		creds, err := f.source.Credentials(ctx, from.Host)
		if err != nil {
			return nil, because(ChartUnauthorized, "get the credentials for %s: %w", from.Host, err)
		}
		switch {
		case creds.Token != "":
			req.Header.Set("Authorization", "Bearer "+creds.Token)
		case creds.Username+creds.Password != "":
			req.SetBasicAuth(creds.Username, creds.Password)
		}
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, because(ChartUnavailable, "get %s: %w", plainURL(from), networkCause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, because(reasonOf(resp.StatusCode), "get %s: the server says %s", plainURL(from), resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, because(ChartUnavailable, "get %s: %w", plainURL(from), err)
	case int64(len(data)) > limit:
		return nil, because(ChartMalformed, "%s is larger than %d MiB", plainURL(from), limit>>20)
	}
	return data, nil
}

// plainURL leaves out the query, which may hold the signature of a pre-signed URL.
func plainURL(u *url.URL) string {
	plain := *u
	plain.RawQuery, plain.Fragment, plain.User = "", "", nil
	return plain.String()
}

// networkCause drops the URL from an error of the HTTP client.
func networkCause(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// reasonOf classes an HTTP status.
func reasonOf(status int) ChartReason {
	switch {
	case status == http.StatusNotFound || status == http.StatusGone:
		return ChartNotFound
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return ChartUnauthorized
	default:
		return ChartUnavailable
	}
}

// fromRepository fetches a chart from an HTTP repository, or from the OCI registry
// that the repository's index refers to. The archive is what the index says by
// digest, or what wantDigest says. See [ChartSource.Verify] for verify.
func (f *fetcher) fromRepository(ctx context.Context, repository, name, version, wantDigest string, verify func(context.Context, string) error) (*fetched, error) {
	base, err := f.source.parseURL(repository)
	if err != nil {
		return nil, because(ChartNotFound, "repository: %w", err)
	}
	index, err := f.index(ctx, base)
	if err != nil {
		return nil, err
	}
	entry, err := chosen(index, name, version)
	if err != nil {
		return nil, because(ChartNotFound, "repository %s: %w", plainURL(base), err)
	}
	promised := entry.Digest
	if promised != "" && !strings.Contains(promised, ":") {
		promised = "sha256:" + promised
	}
	switch {
	case promised != "" && digest.Digest(promised).Validate() != nil:
		return nil, because(ChartMalformed, "the index of %s has a malformed digest for version %s", plainURL(base), entry.Version)
	case len(entry.URLs) == 0:
		return nil, because(ChartMalformed, "the index of %s has no URL for version %s", plainURL(base), entry.Version)
	case isOCI(entry.URLs[0]):
		return f.referred(ctx, entry, name, promised, wantDigest, verify)
	case verify != nil:
		return nil, because(ChartUntrusted, "version %s is not in an OCI registry, so ChartSource.Verify can't be asked about it; use Keyring", entry.Version)
	case promised == "" && wantDigest == "" && f.source.Keyring == nil:
		return nil, because(ChartUntrusted, "the index of %s names no digest for version %s; pin it with ChartSource.Digest, or check signatures with Keyring", plainURL(base), entry.Version)
	case promised != "" && wantDigest != "" && promised != wantDigest:
		return nil, because(ChartMoved, "version %s is %s, to be used is %s", entry.Version, promised, wantDigest)
	}
	at, err := f.resolveURL(base, entry.URLs[0])
	if err != nil {
		return nil, because(ChartMalformed, "version %s: %w", entry.Version, err)
	}
	out := &fetched{reference: plainURL(at), name: name, version: entry.Version}
	if out.archive, err = f.get(ctx, at, maxArchive); err != nil {
		return nil, err
	}
	out.digest = digest.FromBytes(out.archive).String()
	for _, want := range []string{promised, wantDigest} {
		if err := out.keeps(want); err != nil {
			return nil, err
		}
	}
	if f.source.Keyring != nil {
		beside := *at
		beside.Path, beside.RawPath = at.Path+".prov", ""
		if out.provenance, err = f.get(ctx, &beside, maxProvenance); err != nil {
			if r, ok := errors.AsType[*reasonError](err); ok && r.reason == ChartNotFound {
				return nil, because(ChartUntrusted, "it is not signed: there is no %s", plainURL(&beside))
			}
			return nil, err
		}
	}
	return out, nil
}

// referred fetches what an index keeps in an OCI registry, as many do that have
// moved there. The index may promise the digest of the archive, or of the manifest,
// which names the archive's; wantDigest is the manifest's.
func (f *fetcher) referred(ctx context.Context, entry *repo.ChartVersion, name, promised, wantDigest string, verify func(context.Context, string) error) (*fetched, error) {
	ref, err := parseOCI(entry.URLs[0], "", "")
	if err != nil { // The URL may leave the tag to the version.
		ref, err = parseOCI(entry.URLs[0], entry.Version, "")
	}
	switch {
	case err != nil:
		return nil, because(ChartMalformed, "version %s: its URL is not of the form oci://host/repository:version", entry.Version)
	case ref.digest != "" && wantDigest != "" && ref.digest != wantDigest:
		return nil, because(ChartMoved, "version %s is %s, to be used is %s", entry.Version, ref.digest, wantDigest)
	case ref.digest == "":
		ref.digest = wantDigest
	}
	out, err := f.fromOCI(ctx, ref, verify)
	if err != nil {
		return nil, err
	}
	out.name, out.version = name, entry.Version
	if promised != out.digest {
		if err := out.keeps(promised); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// keeps compares the archive with the digest that was promised, if one was.
func (got *fetched) keeps(promised string) error {
	if promised == "" {
		return nil
	}
	if is := digest.Digest(promised).Algorithm().FromBytes(got.archive).String(); is != promised {
		return because(ChartMoved, "the archive at %s is %s, promised was %s", got.reference, is, promised)
	}
	return nil
}

// resolveURL makes a chart's URL absolute, relative ones being below the repository.
func (f *fetcher) resolveURL(base *url.URL, text string) (*url.URL, error) {
	relative, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("its URL is malformed")
	}
	folder := *base
	folder.Path, folder.RawPath = strings.TrimSuffix(base.Path, "/")+"/", ""
	at := folder.ResolveReference(relative)
	if !relative.IsAbs() && at.Host == base.Host {
		at.RawQuery = base.RawQuery // Some repositories authenticate by it.
	}
	return f.source.parseURL(at.String())
}

func (f *fetcher) index(ctx context.Context, base *url.URL) (*repo.IndexFile, error) {
	if known := f.indexes[base.String()]; known != nil {
		return known, nil
	}
	at := *base
	at.Path, at.RawPath = strings.TrimSuffix(base.Path, "/")+"/index.yaml", ""
	data, err := f.get(ctx, &at, maxIndex)
	if err != nil {
		return nil, err
	}
	index := &repo.IndexFile{}
	if err := yaml.Unmarshal(data, index); err != nil || index.Entries == nil {
		return nil, because(ChartMalformed, "%s is not the index of a chart repository", plainURL(&at))
	}
	f.indexes[base.String()] = index
	return index, nil
}

// chosen returns the newest entry for a chart that satisfies version.
func chosen(index *repo.IndexFile, name, version string) (*repo.ChartVersion, error) {
	entries, ok := index.Entries[name]
	if !ok {
		return nil, fmt.Errorf("it has no chart %q", name)
	}
	var versions []string
	for _, e := range entries {
		if usable(e) {
			versions = append(versions, e.Version)
		}
	}
	best := newestOf(versions, version)
	for _, e := range entries {
		if best != "" && usable(e) && e.Version == best {
			return e, nil
		}
	}
	return nil, fmt.Errorf("none of the %d versions of chart %q satisfies %q", len(versions), name, version)
}

func usable(e *repo.ChartVersion) bool { return e != nil && e.Metadata != nil && !e.Removed }
