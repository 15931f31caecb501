package helmx_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	pathpkg "path"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// dryRun reports whether a request must change nothing. As with a real server, the
// query of a deletion that has a body says nothing.
func dryRun(r *http.Request) bool {
	if r.Method != http.MethodDelete {
		return r.URL.Query().Get("dryRun") == "All"
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var options metav1.DeleteOptions
	return json.Unmarshal(body, &options) == nil && slices.Equal(options.DryRun, []string{"All"})
}

// encode writes stringData into data.
func encode(obj content) {
	text, ok := obj["stringData"].(content)
	if !ok {
		return
	}
	data, _ := obj["data"].(content)
	if data == nil {
		data = content{}
	}
	for k, v := range text {
		data[k] = base64.StdEncoding.EncodeToString(fmt.Append(nil, v))
	}
	obj["data"] = data
	delete(obj, "stringData")
}

// dig returns the value at a path of keys and list indices, or nil.
func dig(v any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(content)
			v = m[step]
		case int:
			list, _ := v.([]any)
			if step >= len(list) {
				return nil
			}
			v = list[step]
		}
	}
	return v
}

// section returns a map within a map, or an empty one.
func section(obj content, key string) content {
	if m, ok := obj[key].(content); ok {
		return m
	}
	return content{}
}

// collected reports whether an object is of a collection, be it in one namespace or in
// all of them.
func collected(path, collection string, everywhere bool) bool {
	if folder, resource := pathpkg.Split(collection); everywhere {
		rest, ok := strings.CutPrefix(path, folder+"namespaces/")
		parts := strings.Split(rest, "/")
		return ok && len(parts) == 3 && parts[1] == resource
	}
	return pathpkg.Dir(path) == collection
}
