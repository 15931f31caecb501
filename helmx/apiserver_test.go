package helmx_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

type content = map[string]any

type resourceKind struct {
	group, version, kind, plural string
	cluster                      bool
}

var served = []resourceKind{
	{"", "v1", "Namespace", "namespaces", true},
	{"", "v1", "Secret", "secrets", false},
	{"", "v1", "ConfigMap", "configmaps", false},
	{"", "v1", "Service", "services", false},
	{"", "v1", "Pod", "pods", false},
	{"", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", false},
	{"apps", "v1", "StatefulSet", "statefulsets", false},
	{"apps", "v1", "Deployment", "deployments", false},
	{"batch", "v1", "Job", "jobs", false},
	{"coordination.k8s.io", "v1", "Lease", "leases", false},
	{"", "v1", "ServiceAccount", "serviceaccounts", false},
	{"autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", false},
	{"networking.k8s.io", "v1", "Ingress", "ingresses", false},
	{"rbac.authorization.k8s.io", "v1", "Role", "roles", false},
	{"rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", false},
	{"rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", true},
	{"scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", true},
	{"apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", true},
}

// apiServer is as much of a Kubernetes API server as Helm needs, over real HTTP.
type apiServer struct {
	t       testing.TB
	server  *httptest.Server
	mu      sync.Mutex
	objects map[string]content
	version int
	log     []string
	watches map[chan content]string
	// intercept may answer a request in the server's stead.
	intercept func(w http.ResponseWriter, r *http.Request) bool
	// jobs is the condition that Jobs get at once; empty for none.
	jobs string
	// hold keeps definitions from being established.
	hold bool
}

func newAPIServer(t testing.TB, namespaces ...string) *apiServer {
	t.Helper()
	a := &apiServer{t: t, objects: map[string]content{}, watches: map[chan content]string{}, jobs: "Complete"}
	for _, name := range namespaces {
		a.put("/api/v1/namespaces/"+name, content{"apiVersion": "v1", "kind": "Namespace", "metadata": content{"name": name}})
	}
	a.server = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.server.Close)
	return a
}

func (a *apiServer) rest() *rest.Config { return &rest.Config{Host: a.server.URL} }

// onRequest installs an interceptor.
func (a *apiServer) onRequest(f func(w http.ResponseWriter, r *http.Request) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.intercept = f
}

// requests returns "METHOD path" of all requests so far that the filter accepts.
func (a *apiServer) requests(filter func(string) bool) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, r := range a.log {
		if filter == nil || filter(r) {
			out = append(out, r)
		}
	}
	return out
}

// mutating accepts requests that change something other than the lock. Questions
// about rights are posted, too.
func mutating(request string) bool {
	return !strings.HasPrefix(request, http.MethodGet) && !strings.HasPrefix(request, "DRYRUN ") &&
		!strings.Contains(request, "/leases") && !strings.Contains(request, "/selfsubject")
}

// get returns an object, or nil.
func (a *apiServer) get(path string) content {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.objects[path]
}

// edit changes an object, or deletes it where the function returns nil.
func (a *apiServer) edit(path string, f func(content) content) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if changed := f(a.objects[path]); changed != nil {
		a.put(path, changed)
	} else {
		a.drop(path)
	}
}

func (a *apiServer) paths(contains string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for path := range a.objects {
		if strings.Contains(path, contains) {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

func (a *apiServer) put(path string, obj content) content {
	a.version++
	metadata := section(obj, "metadata")
	metadata["resourceVersion"] = strconv.Itoa(a.version)
	for _, lasting := range []string{"uid", "creationTimestamp"} {
		if was := section(a.objects[path], "metadata")[lasting]; was != nil {
			metadata[lasting] = was
		}
	}
	if metadata["uid"] == nil {
		metadata["uid"] = fmt.Sprintf("uid-%d", a.version)
	}
	if metadata["creationTimestamp"] == nil {
		metadata["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
	}
	encode(obj)
	if obj["kind"] == "Job" && a.jobs != "" {
		obj["status"] = content{"conditions": []any{content{"type": a.jobs, "status": "True", "reason": "BackoffLimitExceeded", "message": "it has failed"}}}
	}
	if obj["kind"] == "CustomResourceDefinition" {
		a.establish(a.objects[path], obj)
	}
	event := "MODIFIED"
	if a.objects[path] == nil {
		event = "ADDED"
	}
	a.objects[path] = obj
	a.announce(event, path, obj)
	return obj
}

func (a *apiServer) drop(path string) {
	if obj := a.objects[path]; obj != nil {
		delete(a.objects, path)
		a.announce("DELETED", path, obj)
		a.undefine(path)
	}
}

func (a *apiServer) announce(event, path string, obj content) {
	for ch, watched := range a.watches {
		if watched == path {
			ch <- content{"type": event, "object": obj}
		}
	}
}

func (a *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	entry := r.Method + " " + r.URL.Path
	if dryRun(r) {
		entry = "DRYRUN " + entry
	}
	a.log = append(a.log, entry)
	intercept := a.intercept
	a.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	switch path := strings.Trim(r.URL.Path, "/"); path {
	case "version":
		reply(w, 200, content{"major": "1", "minor": "37", "gitVersion": "v1.37.2"})
	case "api":
		reply(w, 200, content{"kind": "APIVersions", "versions": []string{"v1"}})
	case "apis":
		groups := []any{}
		versions := map[string][]any{}
		for _, gv := range a.servedGroups() {
			versions[gv.Group] = append(versions[gv.Group], content{"groupVersion": gv.String(), "version": gv.Version})
		}
		for name, all := range versions {
			groups = append(groups, content{"name": name, "versions": all, "preferredVersion": all[0]})
		}
		reply(w, 200, content{"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
	case "apis/authorization.k8s.io/v1/selfsubjectrulesreviews": // It is an administrator who asks.
		all := []string{"*"}
		reply(w, 201, content{"status": content{"resourceRules": []any{content{"verbs": all, "apiGroups": all, "resources": all}}}})
	case "api/v1":
		reply(w, 200, a.resourceList(path))
	default:
		if slices.ContainsFunc(a.servedGroups(), func(gv schema.GroupVersion) bool { return path == "apis/"+gv.String() }) {
			reply(w, 200, a.resourceList(path))
			return
		}
		a.object(w, r, path)
	}
}

// object serves one object or a collection: [api v1] or [apis group v1], then
// [namespaces ns], resource, name.
func (a *apiServer) object(w http.ResponseWriter, r *http.Request, path string) {
	parts := strings.Split(path, "/")
	skip := 2
	group, version := "", "v1"
	if parts[0] == "apis" && len(parts) > 2 {
		skip, group, version = 3, parts[1], parts[2]
	}
	rest := parts[min(skip, len(parts)):]
	namespace := ""
	if len(rest) > 2 && rest[0] == "namespaces" {
		namespace, rest = rest[1], rest[2:]
	}
	dry := dryRun(r)
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	kinds := a.kinds()
	i := slices.IndexFunc(kinds, func(k resourceKind) bool {
		return len(rest) > 0 && k.group == group && k.version == version && k.plural == rest[0]
	})
	if i < 0 {
		fail(w, 404, metav1.StatusReasonNotFound, "no such path "+path)
		return
	}
	kind, full := kinds[i], "/"+path
	if i >= len(served) { // An object is the same one in all versions.
		full = strings.Replace(full, group+"/"+version, group+"/any", 1)
	}
	if len(rest) == 1 {
		a.collection(w, r, kind, namespace, full, body)
		return
	}
	current := a.objects[full]
	if current != nil && i >= len(served) {
		current = maps.Clone(current)
		current["apiVersion"] = group + "/" + version
	}
	switch r.Method {
	case http.MethodGet:
		if current == nil {
			fail(w, 404, metav1.StatusReasonNotFound, fmt.Sprintf("%s %q not found", kind.plural, rest[1]))
			return
		}
		reply(w, 200, current)
	case http.MethodPut:
		obj := content{}
		require.NoError(a.t, json.Unmarshal(body, &obj))
		switch wanted := dig(obj, "metadata", "resourceVersion"); {
		case current == nil:
			fail(w, 404, metav1.StatusReasonNotFound, fmt.Sprintf("%s %q not found", kind.plural, rest[1]))
		case wanted != nil && wanted != dig(current, "metadata", "resourceVersion"):
			fail(w, 409, metav1.StatusReasonConflict, "the object has been modified")
		default:
			a.prune(kind, obj)
			reply(w, 200, a.put(full, obj))
		}
	case http.MethodPatch:
		changed := a.patch(r.Header.Get("Content-Type"), kind, current, body)
		a.prune(kind, changed)
		switch {
		case current != nil && kind.group == "apps" && !reflect.DeepEqual(dig(current, "spec", "selector"), dig(changed, "spec", "selector")):
			fail(w, 422, metav1.StatusReasonInvalid, "the selector: field is immutable",
				metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: "spec.selector", Message: "Invalid value: field is immutable"})
		case dry:
			encode(changed)
			reply(w, 200, changed)
		default:
			reply(w, 200, a.put(full, changed))
		}
	case http.MethodDelete:
		if current == nil {
			fail(w, 404, metav1.StatusReasonNotFound, "not found")
			return
		}
		if !dry {
			a.drop(full)
		}
		reply(w, 200, content{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	}
}

func (a *apiServer) patch(contentType string, kind resourceKind, current content, patch []byte) content {
	if current == nil {
		current = content{} // It is applied.
	}
	before, err := json.Marshal(current)
	require.NoError(a.t, err)
	if current == nil { // It is applied.
		before = []byte("{}")
	}
	var after []byte
	if strings.Contains(contentType, "strategic") {
		typed, newErr := scheme.Scheme.New(schema.GroupVersionKind{Group: kind.group, Version: kind.version, Kind: kind.kind})
		require.NoError(a.t, newErr)
		after, err = strategicpatch.StrategicMergePatch(before, patch, typed)
	} else {
		after, err = jsonpatch.MergePatch(before, patch)
	}
	require.NoError(a.t, err)
	obj := content{}
	require.NoError(a.t, json.Unmarshal(after, &obj))
	return obj
}

func (a *apiServer) collection(w http.ResponseWriter, r *http.Request, kind resourceKind, namespace, full string, body []byte) {
	if r.Method == http.MethodPost {
		obj := content{}
		require.NoError(a.t, json.Unmarshal(body, &obj))
		metadata := section(obj, "metadata")
		path := fmt.Sprint(full, "/", metadata["name"])
		switch {
		case namespace != "" && a.objects["/api/v1/namespaces/"+namespace] == nil:
			fail(w, 404, metav1.StatusReasonNotFound, fmt.Sprintf("namespaces %q not found", namespace))
			return
		case a.objects[path] != nil:
			fail(w, 409, metav1.StatusReasonAlreadyExists, fmt.Sprintf("%s %q already exists", kind.plural, metadata["name"]))
			return
		case namespace != "":
			metadata["namespace"] = namespace
		}
		if prefix, ok := metadata["generateName"]; ok && metadata["name"] == nil {
			metadata["name"] = fmt.Sprint(prefix, "x7k2p")
			path = fmt.Sprint(full, "/", metadata["name"])
		}
		obj["apiVersion"], obj["kind"] = schema.GroupVersion{Group: kind.group, Version: kind.version}.String(), kind.kind
		a.prune(kind, obj)
		if dryRun(r) {
			encode(obj)
			reply(w, 201, obj)
			return
		}
		reply(w, 201, a.put(path, obj))
		return
	}
	query := r.URL.Query()
	if query.Get("watch") != "" {
		a.watch(w, r, full+"/"+strings.TrimPrefix(query.Get("fieldSelector"), "metadata.name="), query.Get("resourceVersion"))
		return
	}
	selector, err := labels.Parse(query.Get("labelSelector"))
	require.NoError(a.t, err)
	items := []any{}
	for path, obj := range a.objects {
		if !collected(path, full, namespace == "" && !kind.cluster) {
			continue
		}
		set := labels.Set{}
		own := section(section(obj, "metadata"), "labels")
		for k, v := range own {
			set[k] = fmt.Sprint(v)
		}
		if selector.Matches(set) {
			items = append(items, obj)
		}
	}
	list := content{"apiVersion": "v1", "kind": kind.kind + "List", "metadata": content{"resourceVersion": strconv.Itoa(a.version)}, "items": items}
	if strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadataList") {
		list["apiVersion"], list["kind"] = "meta.k8s.io/v1", "PartialObjectMetadataList"
	}
	reply(w, 200, list)
}

// watch streams events of one object. It is called with the lock held.
func (a *apiServer) watch(w http.ResponseWriter, r *http.Request, path, since string) {
	ch := make(chan content, 100)
	if obj := a.objects[path]; obj == nil {
		ch <- content{"type": "DELETED", "object": content{"apiVersion": "v1", "kind": "Pod", "metadata": content{"name": "gone"}}}
	} else if dig(obj, "metadata", "resourceVersion") != since {
		ch <- content{"type": "MODIFIED", "object": obj}
	}
	a.watches[ch] = path
	a.mu.Unlock()
	defer a.mu.Lock() // The caller unlocks.
	defer func() {
		a.mu.Lock()
		delete(a.watches, ch)
		a.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	stream := http.NewResponseController(w)
	stream.Flush() //nolint:errcheck // The client may be gone.
	for {
		select {
		case <-r.Context().Done():
			return
		case event := <-ch:
			a.mu.Lock()
			data, err := json.Marshal(event)
			a.mu.Unlock()
			if err != nil {
				return
			}
			w.Write(append(data, '\n')) //nolint:errcheck // The client may be gone.
			stream.Flush()              //nolint:errcheck // The client may be gone.
		}
	}
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body) //nolint:errcheck // The client may be gone.
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason, message string, causes ...metav1.StatusCause) {
	reply(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure",
		Code: int32(code), Reason: reason, Message: message, Details: &metav1.StatusDetails{Causes: causes},
	})
}
