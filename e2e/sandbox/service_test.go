package sandbox

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

// TestServiceIsReachedThroughTheAPIServer stands in for an API server that speaks
// HTTP/2, as they do, with one that tells what it was asked for.
func TestServiceIsReachedThroughTheAPIServer(t *testing.T) {
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Proto, " ", r.Header.Get("Authorization"), " ", r.URL)
	}))
	api.EnableHTTP2 = true
	api.StartTLS()
	t.Cleanup(api.Close)
	access := &rest.Config{Host: api.URL, BearerToken: "token", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	service, err := serveService(t.Context(), access, "shop-ns", "shop", "80")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, service.Close()) })

	request, err := http.NewRequest(http.MethodGet, service.URL+"/api/v1/query?query=up", http.NoBody)
	require.NoError(t, err)
	request.Close = true // as the load generator does
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, "HTTP/2.0 Bearer token /api/v1/namespaces/shop-ns/services/http:shop:80/proxy/api/v1/query?query=up", string(body))
}
