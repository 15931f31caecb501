package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestShop(t *testing.T) {
	s := newShop("1.2.3", "hello")
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := get("/"); code != http.StatusOK || !strings.Contains(body, "shop 1.2.3: hello") {
		t.Errorf("GET /: %d %q", code, body)
	}
	for _, path := range []string{"/healthz/startup", "/healthz/ready", "/healthz/live"} {
		if code, _ := get(path); code != http.StatusOK {
			t.Errorf("GET %s: %d", path, code)
		}
	}
	if code, _ := get("/nowhere"); code != http.StatusNotFound {
		t.Errorf("GET /nowhere: %d", code)
	}
}
