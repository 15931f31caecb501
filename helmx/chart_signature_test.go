package helmx_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/provenance"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

var testKey = sync.OnceValues(func() (*openpgp.Entity, error) {
	return openpgp.NewEntity("Charts", "", "charts@example.com", nil)
})

func testKeyring(t *testing.T) []byte {
	t.Helper()
	key, err := testKey()
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, key.Serialize(&out))
	return out.Bytes()
}

// signed returns the provenance file that Helm itself makes for an archive.
func signed(t *testing.T, archive []byte, name string) []byte {
	t.Helper()
	key, err := testKey()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, archive, 0o600))
	text, err := (&provenance.Signatory{Entity: key}).ClearSign(path)
	require.NoError(t, err)
	return []byte(text)
}

func TestSignedCharts(t *testing.T) {
	s := newOCIServer(t)
	archive, name := packaged(t, "testdata/digest")
	statement := signed(t, archive, name)
	other, err := openpgp.NewEntity("Mallory", "", "m@example.com", nil)
	require.NoError(t, err)
	var foreign bytes.Buffer
	require.NoError(t, other.Serialize(&foreign))
	for what, c := range map[string]struct {
		statement, keyring []byte
		want               string
	}{
		"good":           {statement, testKeyring(t), ""},
		"another key":    {statement, foreign.Bytes(), "not signed by a key of the keyring"},
		"changed":        {bytes.Replace(statement, []byte("version: 1.2.3"), []byte("version: 1.2.4"), 1), testKeyring(t), "not signed by a key"},
		"another's":      {signed(t, mustPackage(t), "shop-1.2.3.tgz"), testKeyring(t), "about another archive"},
		"not signed":     {[]byte("files: {}"), testKeyring(t), "no signature block"},
		"signed nothing": {clearSigned(t, "hello"), testKeyring(t), "malformed"},
	} {
		t.Run(what, func(t *testing.T) {
			s.push(t, "signed/shop", archive, c.statement)
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), archive, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name+".prov"), c.statement, 0o600))
			for _, chart := range []string{"oci://" + s.host + "/signed/shop:1.2.3", filepath.Join(dir, name)} {
				cfg := ociConfig(t, chart)
				cfg.ChartSource.Keyring = c.keyring
				d, err := openRemote(t, cfg)
				if c.want == "" {
					require.NoError(t, err)
					assert.Contains(t, d.Chart().Signer, "charts@example.com")
					continue
				}
				require.ErrorIs(t, err, stages.ErrSignature)
				assert.ErrorContains(t, err, c.want)
			}
		})
	}
}

// mustPackage returns another chart of the same name and version.
func mustPackage(t *testing.T) []byte {
	t.Helper()
	return tgz(t, entry{name: "shop/Chart.yaml", text: "apiVersion: v2\nname: shop\nversion: 1.2.3\n"})
}

func clearSigned(t *testing.T, text string) []byte {
	t.Helper()
	key, err := testKey()
	require.NoError(t, err)
	var out bytes.Buffer
	w, err := clearsign.Encode(&out, key.PrivateKey, nil)
	require.NoError(t, err)
	_, err = w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestKeyringNeedsAPackagedChart(t *testing.T) {
	cfg := digestConfig(newAPIServer(t))
	cfg.ChartSource.Keyring = testKeyring(t)
	_, err := helmx.New(cfg)
	require.ErrorIs(t, err, stages.ErrSignature)
	cfg.ChartSource.Keyring = []byte("no key")
	_, err = helmx.New(cfg)
	assert.ErrorContains(t, err, "has no OpenPGP keys")
}
