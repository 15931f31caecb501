package cloudkms_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/sops/cloudkms"
)

const (
	azureTenant = "11111111-2222-3333-4444-555555555555"
	azureClient = "shop-deployer"
	azureSecret = "canary-azure-secret"
	azureToken  = "canary-azure-token"
	azureKey    = "https://" + azureHost + "/keys/shop/0123456789abcdef0123456789abcdef"
)

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// login stands in for Microsoft Entra ID: it gives a token for key vaults to whoever
// knows the client's secret.
func login() http.Handler {
	const base = "https://" + loginHost + "/" + azureTenant
	mux := http.NewServeMux()
	mux.HandleFunc("GET /"+azureTenant+"/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{
			"authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token", "issuer": base + "/v2.0",
		})
	})
	mux.HandleFunc("POST /"+azureTenant+"/oauth2/v2.0/token", func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("client_id") != azureClient || r.PostFormValue("client_secret") != azureSecret {
			answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."})
			return
		}
		token := "canary-token-for-something-else"
		if r.PostFormValue("scope") == "https://vault.azure.net/.default openid offline_access profile" {
			token = azureToken
		}
		answer(w, http.StatusOK, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 3600})
	})
	return mux
}

// keyVault stands in for Azure Key Vault, with its challenge, its check of the token,
// and real cryptography. Nobody has compared it with the service.
func keyVault(t *testing.T) http.Handler {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse := func(status int, code, message string) {
			answer(w, status, map[string]any{"error": map[string]string{"code": code, "message": message}})
		}
		if r.Header.Get("Authorization") != "Bearer "+azureToken { // as the client's first request, which is empty
			w.Header().Set("WWW-Authenticate", `Bearer authorization="https://`+loginHost+"/"+azureTenant+`", resource="https://vault.azure.net"`)
			refuse(http.StatusUnauthorized, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
			return
		}
		var request struct{ Alg, Value string }
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&request))
		value, err := base64.RawURLEncoding.DecodeString(request.Value)
		assert.NoError(t, err)
		path, operation, _ := strings.Cut(strings.TrimPrefix("https://"+r.Host+r.URL.Path, azureKey), "/")
		switch {
		case path != "":
			refuse(http.StatusNotFound, "KeyNotFound", "A key with (name/id) "+r.URL.Path+" was not found in this key vault.")
		case request.Alg != "RSA-OAEP-256":
			refuse(http.StatusBadRequest, "BadParameter", "Algorithm "+request.Alg+" is not supported.")
		case operation == "encrypt":
			value, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, value, nil)
			assert.NoError(t, err)
			answer(w, http.StatusOK, map[string]string{"kid": azureKey, "value": base64.RawURLEncoding.EncodeToString(value)})
		default:
			if value, err = rsa.DecryptOAEP(sha256.New(), nil, key, value, nil); err != nil {
				refuse(http.StatusBadRequest, "BadParameter", "The parameter is incorrect.")
				return
			}
			answer(w, http.StatusOK, map[string]string{"kid": azureKey, "value": base64.RawURLEncoding.EncodeToString(value)})
		}
	})
}

func TestAzure(t *testing.T) {
	internet.serve(t, loginHost, login())
	internet.serve(t, azureHost, keyVault(t))
	file := seal(t, []string{"AZURE_TENANT_ID=" + azureTenant, "AZURE_CLIENT_ID=" + azureClient, "AZURE_CLIENT_SECRET=" + azureSecret}, "--azure-kv", azureKey)
	with := func(secret, vault string) cloudkms.Config {
		credential, err := azidentity.NewClientSecretCredential(azureTenant, azureClient, secret, nil)
		require.NoError(t, err)
		return cloudkms.Config{Azure: &cloudkms.Azure{VaultURLs: []string{vault}, Credential: credential}}
	}
	cfg := with(azureSecret, "https://"+azureHost+"/")
	requireOpens(t, cfg, file)
	requireRefused(t, with("canary-wrong", "https://"+azureHost), file.file, false, "", "Invalid client secret", "check the file's recipient, the credentials")
	gone := strings.Replace(string(file.file), "name: shop", "name: gone", 1)
	requireRefused(t, cfg, []byte(gone), true, "404 KeyNotFound", "was not found in this key vault", "encrypt the file anew")

	internet.serve(t, azureHost, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a key vault that only the file names was asked") }))
	_, err := open(t, with(azureSecret, "https://other.vault.azure.net"), file.file)
	require.ErrorContains(t, err, "the configuration does not")
	assert.Empty(t, internet.connections())

	internet.serve(t, azureHost, keyVault(t)) // with another key
	requireRefused(t, cfg, file.file, true, "400 BadParameter", "parameter is incorrect")
}
