package helmx_test

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestAccess takes the ways in which an account is told, and checks as whom the API
// server is asked.
func TestAccess(t *testing.T) {
	a := newAPIServer(t, "shop")
	// Credentials of a kubeconfig are for TLS only.
	server := httptest.NewTLSServer(http.HandlerFunc(a.serve))
	t.Cleanup(server.Close)
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	kubeconfig := func(user string) string {
		return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: other
clusters: [{name: here, cluster: {server: %q, certificate-authority-data: %s}}, {name: nowhere, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: here, context: {cluster: here, user: me}}, {name: other, context: {cluster: nowhere, user: me}}]
users: [{name: me, user: %s}]
`, server.URL, ca, user)
	}
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
		return path
	}
	plugin := write("plugin", `#!/bin/sh
echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "from-the-plugin"}}'
`, 0o700)
	write("token", "from-a-file", 0o600)

	for name, c := range map[string]struct {
		access helmx.Kubernetes
		header map[string]string
	}{
		"bytes and a context": {
			access: helmx.Kubernetes{Kubeconfig: []byte(kubeconfig("{token: from-bytes}")), Context: "here"},
			header: map[string]string{"Authorization": "Bearer from-bytes"},
		},
		"a file with another beside it": {
			access: helmx.Kubernetes{KubeconfigPath: write("config", kubeconfig("{tokenFile: token}"), 0o600), Context: "here"},
			header: map[string]string{"Authorization": "Bearer from-a-file"},
		},
		"exec plug-in": {
			access: helmx.Kubernetes{Context: "here", Kubeconfig: []byte(kubeconfig(fmt.Sprintf(
				"{exec: {apiVersion: client.authentication.k8s.io/v1, command: %q, interactiveMode: Never}}", plugin)))},
			header: map[string]string{"Authorization": "Bearer from-the-plugin"},
		},
		"impersonation": {
			access: helmx.Kubernetes{REST: a.rest(), Impersonate: rest.ImpersonationConfig{UserName: "cd-bot", Groups: []string{"ci"}}},
			header: map[string]string{"Impersonate-User": "cd-bot", "Impersonate-Group": "ci"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := make(chan string, 100)
			a.onRequest(func(_ http.ResponseWriter, r *http.Request) bool {
				for key, want := range c.header {
					if got := r.Header.Get(key); got != want {
						select {
						case wrong <- fmt.Sprintf("%s: %s is %q", r.URL, key, got):
						default:
						}
					}
				}
				return false
			})
			defer a.onRequest(nil)
			cfg := digestConfig(a)
			cfg.Kubernetes = c.access
			_, err := open(t, cfg).Plan(t.Context(), stages.PlanRequest{Image: image("a")})
			require.NoError(t, err)
			if len(wrong) > 0 {
				assert.Fail(t, "asked as somebody else", <-wrong)
			}
		})
	}
}
