package registry

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

func (h *handler) blob(w http.ResponseWriter, r *http.Request, _, target string) error {
	digest, err := parseDigest(target)
	switch {
	case err != nil:
		return err
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return errMethod
	}
	f, err := h.store.openBlob(digest)
	if errors.Is(err, errAbsent) {
		return errBlob
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	w.Header().Set("Docker-Content-Digest", digest.String())
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Etag", `"`+digest.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// beginUpload answers POST: a mount, a whole blob, or the start of an upload.
func (h *handler) beginUpload(w http.ResponseWriter, r *http.Request, repo, _ string) error {
	if r.Method != http.MethodPost {
		return errMethod
	}
	query := r.URL.Query()
	// A mount needs no source repository, since all share their blobs.
	if mount, err := stages.ParseDigest(query.Get("mount")); err == nil && h.store.hasBlob(mount) {
		created(w, repo, "blobs", mount)
		return nil
	}
	var digest stages.Digest
	if whole := query.Get("digest"); whole != "" {
		var err error
		if digest, err = parseDigest(whole); err != nil {
			return err
		}
	}
	up, err := h.uploads.begin()
	if err != nil {
		return err
	}
	if digest == "" {
		accepted(w, repo, up)
		return nil
	}
	up.writing.Lock()
	defer h.uploads.release(up)
	return h.finishUpload(w, r, repo, up, digest)
}

// upload answers what is asked about an upload that was started.
func (h *handler) upload(w http.ResponseWriter, r *http.Request, repo, id string) error {
	up, err := h.uploads.find(id)
	switch {
	case errors.Is(err, errAbsent):
		return errUpload
	case errors.Is(err, errBusy):
		return fail(http.StatusConflict, "BLOB_UPLOAD_INVALID", err.Error())
	case err != nil:
		return err
	}
	defer h.uploads.release(up)
	switch r.Method {
	case http.MethodGet:
		progress(w, repo, up)
		w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodPatch:
		if err := checkRange(w, r, repo, up); err != nil {
			return err
		}
		if err := h.writeUpload(up, r); err != nil {
			return err
		}
		accepted(w, repo, up)
		return nil
	case http.MethodPut:
		digest, err := parseDigest(r.URL.Query().Get("digest"))
		if err != nil {
			return err
		}
		if err := checkRange(w, r, repo, up); err != nil {
			return err
		}
		return h.finishUpload(w, r, repo, up, digest)
	case http.MethodDelete:
		if err := h.uploads.cancel(up); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return errMethod
}

func (h *handler) finishUpload(w http.ResponseWriter, r *http.Request, repo string, up *upload, digest stages.Digest) error {
	if err := h.writeUpload(up, r); err != nil {
		return err
	}
	err := h.uploads.finish(up, digest)
	if errors.Is(err, errDigest) {
		return fail(http.StatusBadRequest, "DIGEST_INVALID", errDigest.Error())
	}
	if err != nil {
		return err
	}
	created(w, repo, "blobs", digest)
	return nil
}

func (h *handler) writeUpload(up *upload, r *http.Request) error {
	err := h.uploads.write(up, r.Body)
	if errors.Is(err, errBody) {
		return fail(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", errBody.Error())
	}
	return err
}

// checkRange refuses a chunk that does not follow what is there.
func checkRange(w http.ResponseWriter, r *http.Request, repo string, up *upload) error {
	header := r.Header.Get("Content-Range")
	if header == "" {
		return nil
	}
	var first, last int64
	if n, err := fmt.Sscanf(header, "%d-%d", &first, &last); err == nil && n == 2 && first == up.size {
		return nil
	}
	progress(w, repo, up)
	return fail(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID",
		fmt.Sprintf("the next chunk must begin at %d", up.size))
}

func progress(w http.ResponseWriter, repo string, up *upload) {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+up.id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(up.size-1, 0)))
	w.Header().Set("Docker-Upload-UUID", up.id)
}

func accepted(w http.ResponseWriter, repo string, up *upload) {
	progress(w, repo, up)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusAccepted)
}

func created(w http.ResponseWriter, repo, kind string, digest stages.Digest) {
	w.Header().Set("Location", "/v2/"+repo+"/"+kind+"/"+digest.String())
	w.Header().Set("Docker-Content-Digest", digest.String())
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
}

func parseDigest(s string) (stages.Digest, error) {
	d, err := stages.ParseDigest(s)
	if err != nil {
		return "", fail(http.StatusBadRequest, "DIGEST_INVALID", "the digest must be sha256: followed by 64 hexadecimal digits")
	}
	return d, nil
}
