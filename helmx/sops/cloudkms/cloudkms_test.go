package cloudkms_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/sops"
	"github.com/fairlead-dev/fairlead/helmx/sops/cloudkms"
	"github.com/fairlead-dev/fairlead/stages"
)

func recipient(address string) sops.Recipient {
	return sops.Recipient{Type: sops.Vault, EncryptedKey: "vault:v1:x", Fields: map[string]string{
		"vault_address": address, "engine_path": "transit", "key_name": "shop",
	}}
}

func TestNothingIsSentElsewhere(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a server that only the file names was asked")
	}))
	t.Cleanup(server.Close)
	source, err := cloudkms.New(cloudkms.Config{Vault: &cloudkms.Vault{Addresses: []string{"https://vault.example.com"}, Token: vaultToken}})
	require.NoError(t, err)
	_, err = source.DecryptDataKey(t.Context(), recipient(server.URL))
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = source.DecryptDataKey(t.Context(), sops.Recipient{Type: sops.AWSKMS})
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestPathsInVaultArePlain(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was asked", r.URL)
	}))
	t.Cleanup(server.Close)
	source, err := cloudkms.New(cloudkms.Config{Vault: &cloudkms.Vault{Addresses: []string{server.URL}, Token: vaultToken, Client: server.Client()}})
	require.NoError(t, err)
	for _, hostile := range []string{"", ".", "..", "/x", "x/", "x//y", "x/../y", "x/..", "x..y", "x?list=true", "x#", "x%2fy", `x\y`, "x\ny"} {
		for _, field := range []string{"engine_path", "key_name"} {
			r := recipient(server.URL)
			r.Fields[field] = hostile
			_, err := source.DecryptDataKey(t.Context(), r)
			require.ErrorIs(t, err, stages.ErrInvalid, "%s: %q", field, hostile)
			assert.ErrorContains(t, err, field)
		}
	}
	r := recipient(server.URL)
	r.Fields["key_name"] = "other/shop"
	_, err = source.DecryptDataKey(t.Context(), r)
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]cloudkms.Config{
		"nothing":              {},
		"AWS":                  {AWS: &cloudkms.AWS{}},
		"GCP":                  {GCP: &cloudkms.GCP{}},
		"Azure":                {Azure: &cloudkms.Azure{}},
		"Vault without token":  {Vault: &cloudkms.Vault{Addresses: []string{"https://vault.example.com"}}},
		"Vault without server": {Vault: &cloudkms.Vault{Token: "canary"}},
		"Vault's token's line": {Vault: &cloudkms.Vault{Addresses: []string{"https://vault.example.com"}, Token: "canary\n"}},
		"Vault's scheme":       {Vault: &cloudkms.Vault{Addresses: []string{"vault.example.com:8200"}, Token: "canary"}},
		"Vault's path":         {Vault: &cloudkms.Vault{Addresses: []string{"https://vault.example.com/v1"}, Token: "canary"}},
		"Vault's password":     {Vault: &cloudkms.Vault{Addresses: []string{"https://canary:canary@vault.example.com"}, Token: "canary"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cloudkms.New(cfg)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.NotContains(t, err.Error(), "canary")
		})
	}
}
