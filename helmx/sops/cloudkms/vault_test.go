package cloudkms_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/sops"
	"github.com/fairlead-dev/fairlead/helmx/sops/cloudkms"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	// vaultToken may decrypt with the key shop of the transit engine, and nothing else.
	vaultToken = "canary-token"
	// writerToken may use all keys, and is that of the sops command.
	writerToken = "canary-writer"
)

// vault is a real Vault server, unsealed, with a transit engine and a key named shop.
type vault struct {
	server
	client    *http.Client // trusts the server's certificate
	root      *api.Client
	unsealKey string
}

func startVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{server: start(t, "./vault")}
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(v.Authority)))
	v.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	t.Cleanup(v.client.CloseIdleConnections)
	var err error
	v.root, err = api.NewClient(&api.Config{Address: v.Address, HttpClient: v.client})
	require.NoError(t, err)

	keys, err := v.root.Sys().InitWithContext(t.Context(), &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	require.NoError(t, err)
	v.unsealKey = keys.Keys[0]
	v.unseal(t)
	v.root.SetToken(keys.RootToken)
	require.NoError(t, v.root.Sys().MountWithContext(t.Context(), "transit", &api.MountInput{Type: "transit"}))
	v.write(t, "transit/keys/shop", nil)
	v.token(t, vaultToken, `path "transit/decrypt/shop" { capabilities = ["update"] }`)
	v.token(t, writerToken, `path "transit/*" { capabilities = ["update"] }`)
	return v
}

func (v *vault) unseal(t *testing.T) {
	t.Helper()
	status, err := v.root.Sys().UnsealWithContext(t.Context(), v.unsealKey)
	require.NoError(t, err)
	require.False(t, status.Sealed)
}

func (v *vault) write(t *testing.T, path string, data map[string]any) {
	t.Helper()
	_, err := v.root.Logical().WriteWithContext(t.Context(), path, data)
	require.NoError(t, err)
}

// token creates one with nothing but a policy.
func (v *vault) token(t *testing.T, id, policy string) {
	t.Helper()
	require.NoError(t, v.root.Sys().PutPolicyWithContext(t.Context(), id, policy))
	_, err := v.root.Auth().Token().CreateWithContext(t.Context(), &api.TokenCreateRequest{ID: id, Policies: []string{id}, NoDefaultPolicy: true})
	require.NoError(t, err)
}

// seal encrypts a file with keys of transit engines.
func (v *vault) seal(t *testing.T, keys ...string) sealed {
	t.Helper()
	authority := filepath.Join(t.TempDir(), "authority.pem")
	require.NoError(t, os.WriteFile(authority, []byte(v.Authority), 0o600))
	return seal(t, []string{"VAULT_TOKEN=" + writerToken, "VAULT_CACERT=" + authority}, "--hc-vault-transit", strings.Join(keys, ","))
}

func (v *vault) key(name string) string { return v.Address + "/v1/transit/keys/" + name }

func (v *vault) config(token string) cloudkms.Config {
	return cloudkms.Config{Vault: &cloudkms.Vault{Addresses: []string{v.Address}, Token: token, Client: v.client}}
}

func TestVault(t *testing.T) {
	v := startVault(t)
	old := v.seal(t, v.key("shop"))
	requireOpens(t, v.config(vaultToken), old)

	t.Run("a token may do no more", func(t *testing.T) {
		root := v.root.Token()
		v.root.SetToken(vaultToken)
		defer v.root.SetToken(root)
		for _, path := range []string{"transit/encrypt/shop", "transit/decrypt/other", "transit/keys/shop/rotate"} {
			_, err := v.root.Logical().WriteWithContext(t.Context(), path, map[string]any{"plaintext": "", "ciphertext": "vault:v1:x"})
			var answer *api.ResponseError
			require.ErrorAs(t, err, &answer)
			assert.Equal(t, http.StatusForbidden, answer.StatusCode, path)
		}
	})
	t.Run("no such token", func(t *testing.T) {
		requireRefused(t, v.config("hvs.canary"), old.file, true, "403", "permission denied", "may update transit/decrypt/shop")
	})
	t.Run("token without the right", func(t *testing.T) {
		v.token(t, "canary-reader", `path "transit/keys/shop" { capabilities = ["read"] }`)
		requireRefused(t, v.config("canary-reader"), old.file, true, "403", "permission denied", "may update transit/decrypt/shop")
	})
	t.Run("token that was revoked", func(t *testing.T) {
		v.token(t, "canary-revoked", `path "transit/decrypt/shop" { capabilities = ["update"] }`)
		requireOpens(t, v.config("canary-revoked"), old)
		require.NoError(t, v.root.Auth().Token().RevokeTreeWithContext(t.Context(), "canary-revoked"))
		requireRefused(t, v.config("canary-revoked"), old.file, true, "403", "permission denied")
	})
	t.Run("key that is gone", func(t *testing.T) {
		v.token(t, "canary-gone", `path "transit/decrypt/gone" { capabilities = ["update"] }`)
		v.write(t, "transit/keys/gone", nil)
		gone := v.seal(t, v.key("gone"))
		requireOpens(t, v.config("canary-gone"), gone)
		v.write(t, "transit/keys/gone/config", map[string]any{"deletion_allowed": true})
		_, err := v.root.Logical().DeleteWithContext(t.Context(), "transit/keys/gone")
		require.NoError(t, err)
		requireRefused(t, v.config("canary-gone"), gone.file, true, "400", "encryption key not found", "encrypt the file anew")
	})
	t.Run("engine that is gone", func(t *testing.T) {
		v.token(t, "canary-mover", `path "moved/*" { capabilities = ["update"] }`)
		moved := strings.ReplaceAll(string(old.file), "engine_path: transit", "engine_path: moved")
		requireRefused(t, v.config("canary-mover"), []byte(moved), true, "404", "no handler for route", "encrypt the file anew")
	})
	t.Run("data key of another", func(t *testing.T) {
		v.write(t, "transit/keys/other", nil)
		other := strings.ReplaceAll(string(v.seal(t, v.key("other")).file), "key_name: other", "key_name: shop")
		requireRefused(t, v.config(vaultToken), []byte(other), true, "400", "message authentication failed")
	})
	t.Run("rotated key", func(t *testing.T) {
		v.write(t, "transit/keys/shop/rotate", nil)
		fresh := v.seal(t, v.key("shop"))
		assert.Contains(t, string(old.file), "vault:v1:")
		assert.Contains(t, string(fresh.file), "vault:v2:")
		requireOpens(t, v.config(vaultToken), old)
		requireOpens(t, v.config(vaultToken), fresh)

		v.write(t, "transit/keys/shop/config", map[string]any{"min_decryption_version": 2})
		requireRefused(t, v.config(vaultToken), old.file, true, "400", "too old", "the version of it")
		requireOpens(t, v.config(vaultToken), fresh)
	})
}

func TestVaultThatIsSealedOrDown(t *testing.T) {
	v := startVault(t)
	file := v.seal(t, v.key("shop"))
	require.NoError(t, v.root.Sys().SealWithContext(t.Context()))
	requireRefused(t, v.config(vaultToken), file.file, false, "503", "Vault is sealed", "try again")
	v.unseal(t)
	requireOpens(t, v.config(vaultToken), file)
	v.stop()
	requireRefused(t, v.config(vaultToken), file.file, false, "", "connection refused", "the network")
}

func TestVaultWithItsOwnAuthority(t *testing.T) {
	v := startVault(t)
	file := v.seal(t, v.key("shop"))
	cfg := v.config(vaultToken)
	cfg.Vault.Client = nil
	requireRefused(t, cfg, file.file, false, "", "certificate signed by unknown authority", "certificate authorities")

	authority := filepath.Join(t.TempDir(), "authority.pem")
	require.NoError(t, os.WriteFile(authority, []byte(v.Authority), 0o600))
	t.Setenv("VAULT_CACERT", authority)
	requireOpens(t, cfg, file)
}

// TestTwoVaults encrypts to a key of each of two servers, of which one is enough.
func TestTwoVaults(t *testing.T) {
	one, two := startVault(t), startVault(t)
	file := one.seal(t, one.key("shop"), two.key("shop"))
	both := one.config(vaultToken)
	both.Vault.Addresses = []string{one.Address, two.Address}
	requireOpens(t, both, file)
	requireOpens(t, two.config(vaultToken), file)
	one.stop()
	requireOpens(t, both, file)
	// That the other isn't configured will not pass with time.
	requireRefused(t, one.config(vaultToken), file.file, true, "", "connection refused", two.Address, "the configuration does not")
}

// header notes a header of the requests that go through it.
type header struct {
	name string
	next http.RoundTripper
	mu   *sync.Mutex
	seen *[]string
}

func (h header) RoundTrip(r *http.Request) (*http.Response, error) {
	h.mu.Lock()
	*h.seen = append(*h.seen, r.Header.Get(h.name))
	h.mu.Unlock()
	return h.next.RoundTrip(r)
}

// TestVaultIsAskedAsConfigured sets what the environment could change: the server, the
// namespace and the token.
func TestVaultIsAskedAsConfigured(t *testing.T) {
	v := startVault(t)
	file := v.seal(t, v.key("shop"))
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a server that only the environment names was asked")
	}))
	t.Cleanup(elsewhere.Close)
	t.Setenv("VAULT_AGENT_ADDR", elsewhere.URL)
	t.Setenv("VAULT_ADDR", elsewhere.URL)
	t.Setenv("VAULT_NAMESPACE", "elsewhere")
	t.Setenv("VAULT_TOKEN", "canary-elsewhere")

	var seen []string
	cfg := v.config(vaultToken)
	cfg.Vault.Client = &http.Client{Transport: header{"X-Vault-Namespace", v.client.Transport, &sync.Mutex{}, &seen}}
	requireOpens(t, cfg, file)
	assert.Equal(t, []string{""}, seen)
	cfg.Vault.Namespace = "team" // which only Vault Enterprise looks at
	requireOpens(t, cfg, file)
	assert.Equal(t, []string{"", "team"}, seen)
}

// TestRedirectsOfVault has a server redirect, as a standby does.
func TestRedirectsOfVault(t *testing.T) {
	v := startVault(t)
	file := v.seal(t, v.key("shop"))
	standby := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, v.Address+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(standby.Close)
	file.file = []byte(strings.ReplaceAll(string(file.file), v.Address, standby.URL))

	cfg := v.config(vaultToken)
	cfg.Vault.Addresses = []string{standby.URL, v.Address}
	requireOpens(t, cfg, file)
	cfg.Vault.Addresses = []string{standby.URL}
	requireRefused(t, cfg, file.file, true, "", v.Address, "the configuration does not name", "nothing was sent to it")
}

func TestVaultCancelled(t *testing.T) {
	asked := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client has gone
		close(asked)
		<-r.Context().Done()
	}))
	t.Cleanup(silent.Close)
	source, err := cloudkms.New(cloudkms.Config{Vault: &cloudkms.Vault{Addresses: []string{silent.URL}, Token: vaultToken, Client: silent.Client()}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-asked
		cancel(assert.AnError)
	}()
	_, err = source.DecryptDataKey(ctx, recipient(silent.URL))
	require.ErrorIs(t, err, assert.AnError)
	assert.False(t, stages.IsPermanent(err))
	assert.ErrorContains(t, err, "asking Vault")
}

// TestVaultFromSeveralGoroutines shares a client, which is left as it is.
func TestVaultFromSeveralGoroutines(t *testing.T) {
	v := startVault(t)
	file := v.seal(t, v.key("shop"))
	source, err := cloudkms.New(v.config(vaultToken))
	require.NoError(t, err)
	d, err := sops.New(sops.Config{KeySource: source})
	require.NoError(t, err)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			plain, err := d.Decrypt(t.Context(), "values.yaml", file.file)
			assert.NoError(t, err)
			assert.Equal(t, string(file.plain), string(plain))
		})
	}
	group.Wait()
	assert.Nil(t, v.client.CheckRedirect)
	assert.IsType(t, &http.Transport{}, v.client.Transport)
}
