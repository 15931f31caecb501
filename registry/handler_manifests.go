package registry

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fairlead-dev/fairlead/stages"
)

func (h *handler) manifest(w http.ResponseWriter, r *http.Request, repo, target string) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return h.serveManifest(w, r, repo, target)
	case http.MethodPut:
		return h.acceptManifest(w, r, repo, target)
	case http.MethodDelete:
		if err := h.store.deleteManifest(repo, target); err != nil {
			return unknown(err, errManifest)
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	return errMethod
}

func (h *handler) serveManifest(w http.ResponseWriter, r *http.Request, repo, target string) error {
	m, err := h.store.getManifest(repo, target)
	if err != nil {
		return unknown(err, errManifest)
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(m.content)))
	w.Header().Set("Docker-Content-Digest", m.digest.String())
	w.Header().Set("Etag", `"`+m.digest.String()+`"`)
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(m.content)
	return err
}

func (h *handler) acceptManifest(w http.ResponseWriter, r *http.Request, repo, target string) error {
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fail(http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("the manifest is larger than %d bytes", maxManifest))
	}
	if err != nil {
		return fail(http.StatusBadRequest, "MANIFEST_INVALID", errBody.Error())
	}
	m := manifest{digest: stages.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(content))), content: content}
	tag := ""
	if stages.ValidateTag(target) == nil {
		tag = target
	} else if d, err := parseDigest(target); err != nil {
		return fail(http.StatusBadRequest, "MANIFEST_INVALID", "a manifest is put under a tag or a sha256 digest")
	} else if d != m.digest {
		return fail(http.StatusBadRequest, "DIGEST_INVALID", errDigest.Error())
	}
	fields, err := h.checkManifest(r.Header.Get("Content-Type"), &m)
	if err != nil {
		return err
	}
	if err := h.store.putManifest(repo, tag, m, fields); err != nil {
		return err
	}
	if fields.Subject != nil {
		w.Header().Set("OCI-Subject", fields.Subject.Digest.String())
	}
	created(w, repo, "manifests", m.digest)
	return nil
}

// checkManifest reads m, sets its media type, and refuses a manifest whose
// parts the registry doesn't have. A subject may come later.
func (h *handler) checkManifest(contentType string, m *manifest) (manifestFields, error) {
	invalid := func(why string) (manifestFields, error) {
		return manifestFields{}, fail(http.StatusBadRequest, "MANIFEST_INVALID", why)
	}
	var fields manifestFields
	if err := json.Unmarshal(m.content, &fields); err != nil {
		return invalid("the manifest is not JSON of the expected form")
	}
	m.mediaType = fields.MediaType
	if contentType != "" {
		mediaType, _, err := mime.ParseMediaType(contentType)
		if err != nil || fields.MediaType != "" && mediaType != fields.MediaType {
			return invalid("the Content-Type is not the manifest's media type")
		}
		m.mediaType = mediaType
	}
	kind := types.MediaType(m.mediaType)
	var parts []v1.Descriptor
	switch {
	case kind.IsIndex():
		parts = fields.Manifests
	case kind.IsImage() && fields.Config != nil:
		parts = append(slices.Clone(fields.Layers), *fields.Config)
	default:
		return invalid("the manifest is neither an image nor an index")
	}
	for _, part := range parts {
		digest, err := stages.ParseDigest(part.Digest.String())
		if err != nil {
			return invalid("the manifest refers to something by another digest than sha256")
		}
		// A build cache is an index of blobs, so an index may refer to both.
		if !h.store.hasBlob(digest) && part.MediaType.IsDistributable() && len(part.URLs) == 0 {
			return manifestFields{}, fail(http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "the manifest refers to "+digest.String()+", which has not been pushed")
		}
	}
	if fields.Subject != nil {
		if _, err := stages.ParseDigest(fields.Subject.Digest.String()); err != nil {
			return invalid("the manifest's subject has another digest than sha256")
		}
	}
	return fields, nil
}

// referrers answers which manifests have the target as their subject.
func (h *handler) referrers(w http.ResponseWriter, r *http.Request, repo, target string) error {
	subject, err := parseDigest(target)
	if err != nil {
		return err
	}
	found, err := h.store.listReferrers(repo, subject)
	if err != nil {
		return err
	}
	if want := r.URL.Query().Get("artifactType"); want != "" {
		found = slices.DeleteFunc(found, func(d v1.Descriptor) bool { return d.ArtifactType != want })
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if found == nil {
		found = []v1.Descriptor{}
	}
	return writeJSON(w, r, string(types.OCIImageIndex), v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: found,
	})
}

func (h *handler) tagList(w http.ResponseWriter, r *http.Request, repo, _ string) error {
	tags, err := h.store.listTags(repo)
	if err != nil {
		return unknown(err, errName)
	}
	tags, err = page(w, r, tags)
	if err != nil {
		return err
	}
	return writeJSON(w, r, "application/json", map[string]any{"name": repo, "tags": tags})
}

func (h *handler) catalog(w http.ResponseWriter, r *http.Request) error {
	repos, err := h.store.listRepositories()
	if err != nil {
		return err
	}
	repos, err = page(w, r, repos)
	if err != nil {
		return err
	}
	return writeJSON(w, r, "application/json", map[string]any{"repositories": repos})
}

// page cuts what the query asks for out of an ordered list, and links to what
// follows it.
func page(w http.ResponseWriter, r *http.Request, list []string) ([]string, error) {
	query := r.URL.Query()
	if last := query.Get("last"); last != "" {
		at, found := slices.BinarySearch(list, last)
		if found {
			at++
		}
		list = list[at:]
	}
	if limit := query.Get("n"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 0 {
			return nil, fail(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n must be a number, 0 or greater")
		}
		if n < len(list) {
			list = list[:n]
			if n > 0 {
				next := url.Values{"n": {limit}, "last": {list[n-1]}}
				w.Header().Set("Link", "<"+r.URL.Path+"?"+next.Encode()+`>; rel="next"`)
			}
		}
	}
	if list == nil {
		list = []string{}
	}
	return list, nil
}

// unknown returns answer in place of errAbsent.
func unknown(err, answer error) error {
	if errors.Is(err, errAbsent) {
		return answer
	}
	return err
}
