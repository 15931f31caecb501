package smoke

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestSharedCluster has tests of every kind use a connection that they leave open.
func TestSharedCluster(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`, http.StatusForbidden)
	}))
	defer server.Close()
	config := &rest.Config{Host: strings.TrimPrefix(server.URL, "https://"), TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	shared, err := rollout.Connect(rollout.ClusterConfig{REST: config})
	require.NoError(t, err)
	defer func() { require.NoError(t, shared.Close()) }()
	assert.Equal(t, server.URL, shared.RESTConfig().Host, "the scheme is known without the certificates")

	img := image(t, "curl", "b")
	for name, construct := range map[string]func(*rest.Config, *rollout.Cluster) (*Test, error){
		"HTTP": func(r *rest.Config, c *rollout.Cluster) (*Test, error) {
			return NewHTTP(HTTPConfig{REST: r, Cluster: c})
		},
		"TCP": func(r *rest.Config, c *rollout.Cluster) (*Test, error) { return NewTCP(TCPConfig{REST: r, Cluster: c}) },
		"dial": func(r *rest.Config, c *rollout.Cluster) (*Test, error) {
			return NewDial(DialConfig{REST: r, Cluster: c, Name: "x", Try: func(context.Context, Endpoint) (Answer, error) { return Answer{}, nil }})
		},
		"pod": func(r *rest.Config, c *rollout.Cluster) (*Test, error) {
			return NewPod(PodConfig{REST: r, Cluster: c, Image: img, URL: "http://shop.shop.svc/"})
		},
		"job": func(r *rest.Config, c *rollout.Cluster) (*Test, error) {
			return NewJob(JobConfig{REST: r, Cluster: c, Command: []string{"true"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := construct(nil, nil)
			require.ErrorIs(t, err, stages.ErrInvalid)
			require.ErrorContains(t, err, "REST or Cluster is required")
			_, err = construct(config, shared)
			require.ErrorContains(t, err, "set REST or Cluster, not both")
			before := asked.Load()
			for range 2 { // the second after the first was closed
				test, err := construct(nil, shared)
				require.NoError(t, err)
				_, err = test.Verify(t.Context(), release(t))
				require.True(t, stages.IsPermanent(err), "%v", err)
				require.NoError(t, test.Close())
			}
			assert.Greater(t, asked.Load(), before)
		})
	}
}
