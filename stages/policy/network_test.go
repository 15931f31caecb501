package policy

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestAllowedHostsOnly(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.WriteHeader(http.StatusTeapot)
	}))
	defer server.Close()
	at, err := url.Parse(server.URL)
	require.NoError(t, err)

	rule := `deny contains "x" if http.send({"method": "get", "url": "URL"}).status_code == 418`
	rule = strings.ReplaceAll(rule, "URL", server.URL)
	service := plan("apiVersion: v1\nkind: Service\n")

	d, err := newGate(t, Config{AllowHosts: []string{at.Hostname()}, Modules: []fs.FS{files(rule)}}).Decide(t.Context(), service)
	require.NoError(t, err)
	assert.Equal(t, stages.Fail, d.Verdict)
	assert.Equal(t, 1, asked)

	_, err = newGate(t, Config{AllowHosts: []string{"other.example"}, Modules: []fs.FS{files(rule)}}).Decide(t.Context(), service)
	require.ErrorIs(t, err, ErrRule)
	assert.Equal(t, 1, asked)
	http.DefaultClient.CloseIdleConnections()
}
