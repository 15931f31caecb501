package sealedsecrets_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bitnami-labs/sealed-secrets/pkg/crypto"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/helmx/sealedsecrets"
	"github.com/fairlead-dev/fairlead/stages"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return data
}

// shop is testdata/secret.yaml, of which kubeseal made testdata/kubeseal-*.yaml.
func shop() sealedsecrets.Secret {
	return sealedsecrets.Secret{
		Name: "shop", Namespace: "prod", Type: "Opaque",
		Data:        map[string][]byte{"password": []byte("canary"), "empty": nil},
		Labels:      map[string]string{"app": "shop"},
		Annotations: map[string]string{"note": "hello"},
	}
}

var scopes = []sealedsecrets.Scope{sealedsecrets.Strict, sealedsecrets.NamespaceWide, sealedsecrets.ClusterWide}

func tree(t testing.TB, data []byte) map[string]any {
	t.Helper()
	var out map[string]any
	require.NoError(t, yaml.Unmarshal(data, &out))
	return out
}

func encrypted(m map[string]any) map[string]any {
	return m["spec"].(map[string]any)["encryptedData"].(map[string]any)
}

// dropTimes removes what kubeseal writes because of the Go type that it uses.
func dropTimes(v any) {
	if m, ok := v.(map[string]any); ok {
		delete(m, "creationTimestamp")
		for _, inner := range m {
			dropTimes(inner)
		}
	}
}

func TestParityWithKubeseal(t *testing.T) {
	for _, scope := range scopes {
		t.Run(scope.String(), func(t *testing.T) {
			ours, err := sealedsecrets.Seal(read(t, "controller.crt"), shop(), scope)
			require.NoError(t, err)
			theirs := read(t, "kubeseal-"+scope.String()+".yaml")
			for _, sealed := range [][]byte{ours, theirs} {
				assert.NoError(t, sealedsecrets.Validate(sealed, "shop", "prod"))
				claimed, err := sealedsecrets.ScopeOf(sealed)
				assert.NoError(t, err)
				assert.Equal(t, scope, claimed)
			}
			got, want := tree(t, ours), tree(t, theirs)
			dropTimes(want)
			for key, text := range encrypted(want) {
				assert.Len(t, encrypted(got)[key], len(text.(string)))
				encrypted(want)[key] = encrypted(got)[key]
			}
			assert.Equal(t, want, got)
		})
	}
}

func TestUnsealed(t *testing.T) {
	block, _ := pem.Decode(read(t, "controller.key"))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	keys := map[string]*rsa.PrivateKey{"": parsed.(*rsa.PrivateKey)}
	labels := map[sealedsecrets.Scope]string{
		sealedsecrets.Strict: "prod/shop", sealedsecrets.NamespaceWide: "prod", sealedsecrets.ClusterWide: "",
	}
	for _, scope := range scopes {
		sealed, err := sealedsecrets.Seal(read(t, "controller.crt"), shop(), scope)
		require.NoError(t, err)
		assert.NotContains(t, string(sealed), "canary")
		for key, text := range encrypted(tree(t, sealed)) {
			raw, err := base64.StdEncoding.DecodeString(text.(string))
			require.NoError(t, err)
			for other, label := range labels {
				plain, err := crypto.HybridDecrypt(rand.Reader, keys, raw, []byte(label))
				if other == scope {
					require.NoError(t, err)
					assert.Equal(t, string(shop().Data[key]), string(plain))
				} else {
					assert.Error(t, err)
				}
			}
		}
	}
}

func TestCopiesOfTheSecretAreDropped(t *testing.T) {
	s := shop()
	s.Annotations["kubectl.kubernetes.io/last-applied-configuration"] = `{"data":{"password":"Y2FuYXJ5"}}`
	s.Annotations["sealedsecrets.bitnami.com/cluster-wide"] = "true"
	s.Immutable = true
	sealed, err := sealedsecrets.Seal(read(t, "controller.crt"), s, sealedsecrets.Strict)
	require.NoError(t, err)
	assert.NotContains(t, string(sealed), "Y2FuYXJ5")
	assert.NotContains(t, string(sealed), "cluster-wide")
	assert.Contains(t, string(sealed), "immutable: true")
	assert.Len(t, s.Annotations, 3, "the caller's map stays as it was")
}

func certificate(t testing.TB, public, private any, from, to time.Time) []byte {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestUnfitCertificates(t *testing.T) {
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	t.Setenv("GODEBUG", "rsa1024min=0")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	now := time.Now()
	before, after := now.Add(-time.Hour), now.Add(time.Hour)
	for name, tc := range map[string]struct {
		pem     []byte
		problem sealedsecrets.CertificateProblem
	}{
		"nothing":       {nil, sealedsecrets.Unreadable},
		"a key":         {read(t, "controller.key"), sealedsecrets.Unreadable},
		"broken":        {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("canary")}), sealedsecrets.Unreadable},
		"expired":       {certificate(t, &strong.PublicKey, strong, before.Add(-time.Hour), before), sealedsecrets.Expired},
		"not yet valid": {certificate(t, &strong.PublicKey, strong, after, after.Add(time.Hour)), sealedsecrets.NotYetValid},
		"weak":          {certificate(t, &weak.PublicKey, weak, before, after), sealedsecrets.Weak},
		"ECDSA":         {certificate(t, &curve.PublicKey, curve, before, after), sealedsecrets.NotRSA},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sealedsecrets.Seal(tc.pem, shop(), sealedsecrets.Strict)
			require.ErrorIs(t, err, sealedsecrets.ErrCertificate)
			require.ErrorIs(t, err, stages.ErrInvalid)
			refused, ok := errors.AsType[*sealedsecrets.CertificateError](err)
			require.True(t, ok)
			assert.Equal(t, tc.problem, refused.Problem)
			assert.NotContains(t, err.Error(), "canary")
		})
	}
}

func TestUnfitSecrets(t *testing.T) {
	for name, change := range map[string]func(*sealedsecrets.Secret){
		"no name":        func(s *sealedsecrets.Secret) { s.Name = "" },
		"malformed name": func(s *sealedsecrets.Secret) { s.Name = "Shop/x" },
		"no namespace":   func(s *sealedsecrets.Secret) { s.Namespace = "" },
		"bad namespace":  func(s *sealedsecrets.Secret) { s.Namespace = "a.b" },
		"no data":        func(s *sealedsecrets.Secret) { s.Data = nil },
		"malformed key":  func(s *sealedsecrets.Secret) { s.Data["a/b"] = []byte("canary") },
		"too much data":  func(s *sealedsecrets.Secret) { s.Data["large"] = make([]byte, 1<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			s := shop()
			change(&s)
			_, err := sealedsecrets.Seal(read(t, "controller.crt"), s, sealedsecrets.NamespaceWide)
			require.ErrorIs(t, err, sealedsecrets.ErrSecret)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.NotContains(t, err.Error(), "canary")
		})
	}
	_, err := sealedsecrets.Seal(read(t, "controller.crt"), shop(), sealedsecrets.Scope(7))
	require.ErrorIs(t, err, sealedsecrets.ErrSecret)

	s := shop()
	s.Namespace = ""
	_, err = sealedsecrets.Seal(read(t, "controller.crt"), s, sealedsecrets.ClusterWide)
	require.NoError(t, err)
}

func TestValidateScope(t *testing.T) {
	for scope, wrong := range map[sealedsecrets.Scope][]string{
		sealedsecrets.Strict:        {"prod/other", "staging/shop", "staging/other"},
		sealedsecrets.NamespaceWide: {"staging/shop", "staging/other"},
		sealedsecrets.ClusterWide:   {},
	} {
		sealed := read(t, "kubeseal-"+scope.String()+".yaml")
		for _, place := range []string{"prod/shop", "prod/other", "staging/shop", "staging/other"} {
			namespace, name, _ := strings.Cut(place, "/")
			err := sealedsecrets.Validate(sealed, name, namespace)
			if len(wrong) > 0 && strings.Contains(strings.Join(wrong, " "), place) {
				require.ErrorIs(t, err, sealedsecrets.ErrScope, "%s in %s", scope, place)
				require.ErrorIs(t, err, stages.ErrInvalid)
				assert.ErrorContains(t, err, place)
			} else {
				assert.NoError(t, err, "%s in %s", scope, place)
			}
		}
	}
}

func TestValidateForm(t *testing.T) {
	sealed := string(read(t, "kubeseal-namespace-wide.yaml"))
	change := func(from, to string) string {
		require.Contains(t, sealed, from)
		return strings.Replace(sealed, from, to, 1)
	}
	for name, tc := range map[string]struct{ data, says string }{
		"nothing":           {"", "not a SealedSecret"},
		"not YAML":          {"canary: [", "not YAML"},
		"a Secret":          {string(read(t, "secret.yaml")), "not a SealedSecret"},
		"another version":   {change("v1alpha1", "v1beta1"), "not a SealedSecret"},
		"unknown field":     {change("  encryptedData:", "  encryptData: {canary: x}\n  encryptedData:"), "encryptData"},
		"no spec":           {sealed[:strings.Index(sealed, "spec:")], "spec: it is required"},
		"no name":           {change("  name: shop\n", ""), "metadata.name"},
		"old form":          {change("  encryptedData:", "  data: canary\n  encryptedData:"), "spec.data"},
		"plaintext":         {change("    password: ", "    password: canary!"), "spec.encryptedData.password: it is not base64"},
		"short":             {change("    password: ", "    token: Y2FuYXJ5\n    password: "), "spec.encryptedData.token: it is too short"},
		"malformed key":     {change("    password: ", "    pass/word: "), `"pass/word"`},
		"scope of another":  {change(`namespace-wide: "true"`, `namespace-wide: "yes"`), "metadata.annotations"},
		"contradictory":     {change(`namespace-wide: "true"`, `cluster-wide: "true"`), "contradicts"},
		"two of one key":    {sealed + "status: {}\nstatus: canary\n", "not YAML"},
		"second document":   {sealed + "---\n" + string(read(t, "secret.yaml")), "something follows"},
		"hidden document":   {sealed + "...\n# note\n--- {canary: x}\n", "something follows"},
		"broken document":   {sealed + "---\n[canary", "something follows"},
		"second object":     {`{"apiVersion":"bitnami.com/v1alpha1","kind":"SealedSecret"}{"kind":"Secret","data":"canary"}`, "something follows"},
		"number for string": {change("    password: ", "    token: 5\n    password: "), "spec.encryptedData.token: it is not base64"},
	} {
		t.Run(name, func(t *testing.T) {
			err := sealedsecrets.Validate([]byte(tc.data), "shop", "prod")
			require.ErrorIs(t, err, sealedsecrets.ErrManifest)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, tc.says)
			assert.NotContains(t, err.Error(), "canary")
		})
	}
	_, err := sealedsecrets.ScopeOf([]byte(sealed + "---\n" + sealed))
	require.ErrorIs(t, err, sealedsecrets.ErrManifest)
	require.ErrorIs(t, sealedsecrets.Validate([]byte(sealed), "shop", ""), sealedsecrets.ErrManifest)
	require.ErrorIs(t, sealedsecrets.Validate([]byte(sealed), "", "prod"), sealedsecrets.ErrManifest)
}

func FuzzValidate(f *testing.F) {
	for _, scope := range scopes {
		f.Add(read(f, "kubeseal-"+scope.String()+".yaml"))
	}
	f.Add([]byte(`{"apiVersion":"bitnami.com/v1alpha1","kind":"SealedSecret","metadata":{"name":"x"},"spec":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := sealedsecrets.Validate(data, "shop", "prod"); err != nil {
			assert.ErrorIs(t, err, stages.ErrInvalid)
		}
	})
}
