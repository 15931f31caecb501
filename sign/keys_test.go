package sign_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages"
)

const password = "canary-password-31337"

// testPair is shared, because deriving a key from a password takes a while.
var testPair = sync.OnceValues(func() (sign.KeyPair, error) { return sign.GenerateKeyPair([]byte(password)) })

func pair(t testing.TB) sign.KeyPair {
	t.Helper()
	p, err := testPair()
	require.NoError(t, err)
	return p
}

func sealed(t testing.TB, pemType string, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	box, err := encrypted.EncryptWithCustomKDFParameters(der, []byte(password), encrypted.Legacy)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: box})
}

func TestGenerateAndLoad(t *testing.T) {
	p := pair(t)
	assert.Contains(t, string(p.Private), "BEGIN ENCRYPTED SIGSTORE PRIVATE KEY")
	key, err := sign.LoadPrivateKey(p.Private, []byte(password))
	require.NoError(t, err)
	assert.Equal(t, string(p.Public), string(key.Public().PEM()))
	public, err := sign.ParsePublicKey(p.Public)
	require.NoError(t, err)
	assert.Equal(t, key.Public().ID(), public.ID())
	block, _ := pem.Decode(p.Public)
	sum := sha256.Sum256(block.Bytes)
	assert.Equal(t, hex.EncodeToString(sum[:]), public.ID())
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %d", p, p, p, p, p), fmt.Sprintf("%v %+v %#v %s", key, key, key, key)} {
		assert.NotContains(t, text, "PRIVATE KEY-")
		assert.Less(t, len(text), 600)
	}
	_, err = sign.GenerateKeyPair(nil)
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestLoadOlderAndOtherKeys(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for _, text := range [][]byte{
		sealed(t, "ENCRYPTED COSIGN PRIVATE KEY", p256),
		append(sealed(t, "ENCRYPTED SIGSTORE PRIVATE KEY", rsaKey), '\n', ' '),
	} {
		_, err := sign.LoadPrivateKey(text, []byte(password))
		require.NoError(t, err)
	}
}

func TestLoadPrivateKeyRefuses(t *testing.T) {
	p := pair(t)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	plain, err := x509.MarshalECPrivateKey(p384)
	require.NoError(t, err)
	noKey, err := encrypted.EncryptWithCustomKDFParameters([]byte("canary-content"), []byte(password), encrypted.Legacy)
	require.NoError(t, err)
	block := func(pemType string, content []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: content})
	}
	for name, tc := range map[string]struct {
		text, password []byte
		want           string
	}{
		"wrong password": {p.Private, []byte("another"), "the password does not open it"},
		"empty":          {nil, []byte(password), "it is empty"},
		"blank":          {[]byte(" \n"), []byte(password), "it is empty"},
		"no PEM":         {[]byte("canary-content"), []byte(password), "not PEM"},
		"huge":           {[]byte(strings.Repeat("canary-content", 10000)), []byte(password), "larger"},
		"public key":     {p.Public, []byte(password), "it is a public key"},
		"certificate":    {certificate(t), []byte(password), "it is a certificate"},
		"not encrypted":  {block("EC PRIVATE KEY", plain), []byte(password), "another format"},
		"something else": {block("DH PARAMETERS", nil), []byte(password), "another kind"},
		"two keys":       {append(append([]byte{}, p.Private...), p.Private...), []byte(password), "one key alone"},
		"damaged":        {block("ENCRYPTED SIGSTORE PRIVATE KEY", []byte(`{"kdf":"canary-content"}`)), []byte(password), "damaged"},
		"costly":         {block("ENCRYPTED SIGSTORE PRIVATE KEY", []byte(`{"kdf":{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1}},"cipher":{"name":"nacl/secretbox"}}`)), []byte(password), "damaged"},
		"no key inside":  {block("ENCRYPTED SIGSTORE PRIVATE KEY", noKey), []byte(password), "PKCS #8"},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := sign.LoadPrivateKey(tc.text, tc.password)
			require.ErrorIs(t, err, stages.ErrInvalid)
			require.ErrorContains(t, err, tc.want)
			assert.Nil(t, key)
			assert.True(t, stages.IsPermanent(err))
			for _, secret := range []string{password, "canary", "another\"", "BEGIN EC", "kdf"} {
				assert.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), secret)
			}
		})
	}
}

func TestKeysThatNotEveryVerifierReads(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for want, key := range map[string]any{"P-384": p384, "neither": edKey} {
		_, err := sign.NewPrivateKey(key)
		require.ErrorIs(t, err, stages.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
}

func TestFromEnv(t *testing.T) {
	env := map[string]string{"KEY": string(pair(t).Private), "PASSWORD": password, "WRONG": "canary-wrong", "EMPTY": ""}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	key, err := sign.FromEnv(lookup, "KEY", "PASSWORD")
	require.NoError(t, err)
	assert.NotEmpty(t, key.Public().ID())
	for _, tc := range []struct{ key, password, want string }{
		{"NONE", "PASSWORD", "NONE is not set"},
		{"EMPTY", "PASSWORD", "EMPTY is not set"},
		{"KEY", "NONE", "NONE is not set"},
		{"KEY", "WRONG", "does not open"},
		{"PASSWORD", "KEY", "not PEM"},
	} {
		_, err := sign.FromEnv(lookup, tc.key, tc.password)
		require.ErrorIs(t, err, stages.ErrInvalid)
		require.ErrorContains(t, err, tc.want)
		assert.NotContains(t, err.Error(), "canary")
	}
}

func TestParsePublicKey(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for _, key := range []any{p256.Public(), rsaKey.Public(), edKey} {
		der, err := x509.MarshalPKIXPublicKey(key)
		require.NoError(t, err)
		_, err = sign.ParsePublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		require.NoError(t, err)
	}
	_, err = sign.ParsePublicKey(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)}))
	require.NoError(t, err)

	weak := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 511), E: 65537}
	weakDER, err := x509.MarshalPKIXPublicKey(weak)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		text []byte
		want string
	}{
		"empty":       {nil, "it is empty"},
		"private key": {pair(t).Private, "it is a private key"},
		"certificate": {certificate(t), "it is a certificate"},
		"damaged":     {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("no")}), "damaged"},
		"weak":        {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: weakDER}), "public key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sign.ParsePublicKey(tc.text)
			require.ErrorIs(t, err, stages.ErrInvalid)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func certificate(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(pair(f).Public)
	f.Add(pair(f).Private)
	f.Add(certificate(f))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := sign.ParsePublicKey(text)
		if err != nil {
			require.ErrorIs(t, err, stages.ErrInvalid)
			return
		}
		again, err := sign.ParsePublicKey(key.PEM())
		require.NoError(t, err)
		assert.Equal(t, key.ID(), again.ID())
	})
}

func FuzzLoadPrivateKey(f *testing.F) {
	f.Add(pair(f).Private, []byte("wrong"))
	f.Add(pair(f).Public, []byte(""))
	f.Add([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----"), []byte("x"))
	f.Fuzz(func(t *testing.T, text, secret []byte) {
		if _, err := sign.LoadPrivateKey(text, secret); err != nil {
			require.ErrorIs(t, err, stages.ErrInvalid)
		}
	})
}
