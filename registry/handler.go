package registry

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Handler returns an OCI registry that keeps everything it holds in dir, which
// is made when it is first needed. It implements pull, push (at once, streamed
// and in chunks), mounting, content discovery with referrers, and deletion of
// manifests and tags.
//
// There is no authentication: whoever reaches the handler may read and write.
// Blobs are shared by all repositories. Deleting a manifest doesn't reclaim the
// space of its blobs. Content survives the process being killed at any moment;
// an upload that was under way has to be started again. Where the file system
// ignores case, tags that differ in nothing else are one.
func Handler(dir string) http.Handler { return newHandler(dir, slog.New(slog.DiscardHandler)) }

type handler struct {
	store   *store
	uploads *uploads
	log     *slog.Logger
}

func newHandler(dir string, log *slog.Logger) *handler {
	s := &store{root: dir}
	return &handler{store: s, uploads: newUploads(s), log: log}
}

// apiError is an error in the words of the distribution specification.
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.message }

func fail(status int, code, message string) error { return &apiError{status, code, message} }

var (
	errMethod   = fail(http.StatusMethodNotAllowed, "UNSUPPORTED", "the registry does not support this method here")
	errNoRoute  = fail(http.StatusNotFound, "UNSUPPORTED", "the registry has no such endpoint")
	errBlob     = fail(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to the registry")
	errUpload   = fail(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload unknown to the registry; start it again")
	errManifest = fail(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown to the registry")
	errName     = fail(http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to the registry")
)

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start, rec := time.Now(), &recorder{ResponseWriter: w}
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	err := h.route(rec, r)
	if err != nil {
		h.fail(rec, r, err)
	}
	h.log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", rec.status, "elapsed", time.Since(start))
}

// route finds the endpoint in /v2/<name>/<kind>/<target>, where a name may have
// any number of elements.
func (h *handler) route(w http.ResponseWriter, r *http.Request) error {
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok && r.URL.Path != "/v2" {
		return errNoRoute
	}
	if path == "" || r.URL.Path == "/v2" {
		return writeJSON(w, r, "application/json", struct{}{})
	}
	if path == "_catalog" {
		return h.catalog(w, r)
	}
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	n := len(parts)
	if n < 3 {
		return errNoRoute
	}
	last, kind := parts[n-1], parts[n-2]
	var serve func(w http.ResponseWriter, r *http.Request, repo, target string) error
	repo := strings.Join(parts[:n-2], "/")
	switch {
	case kind == "manifests":
		serve = h.manifest
	case kind == "referrers":
		serve = h.referrers
	case kind == "tags" && last == "list":
		serve = h.tagList
	case kind == "blobs" && last == "uploads":
		serve = h.beginUpload
	case kind == "blobs":
		serve = h.blob
	case kind == "uploads" && n > 3 && parts[n-3] == "blobs":
		repo, serve = strings.Join(parts[:n-3], "/"), h.upload
	default:
		return errNoRoute
	}
	// The host is of no matter here: a name is valid if some image can have it.
	if err := stages.ValidateRepository("localhost/" + repo); err != nil {
		return fail(http.StatusBadRequest, "NAME_INVALID", "invalid repository name")
	}
	return serve(w, r, repo, last)
}

func (h *handler) fail(w *recorder, r *http.Request, err error) {
	if w.status != 0 {
		h.log.Warn("response cut short", "method", r.Method, "path", r.URL.Path, "error", err)
		return
	}
	answer, ok := errors.AsType[*apiError](err)
	if !ok {
		// The cause may name paths on this machine, so only the log has it.
		h.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		answer = &apiError{http.StatusInternalServerError, "UNKNOWN", "the registry could not do this; its log says why"}
	}
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(map[string][]entry{"errors": {{answer.code, answer.message}}})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that has gone needs no answer
	}
}

func writeJSON(w http.ResponseWriter, r *http.Request, mediaType string, v any) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return errMethod
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(body)
	return err
}

// recorder remembers the status for the log, and that a response has begun.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status of the response proper.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write notes that a response has begun.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap serves [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
