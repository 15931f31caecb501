package sops_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/fairlead-dev/fairlead/helmx/sops"
	"github.com/fairlead-dev/fairlead/stages"
)

// passphrase locks testdata/keys/pgp-rsa.asc.
const passphrase = "correct horse canary-passphrase"

func read(t testing.TB, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, elem...)...))
	require.NoError(t, err)
	return data
}

func ageKey(t testing.TB, name string) []byte { return read(t, "keys", name+".txt") }

func sshKey(t testing.TB, kind string) []byte { return read(t, "keys", "ssh-"+kind) }

func unlock(text string) func(context.Context, string) ([]byte, error) {
	return func(context.Context, string) ([]byte, error) { return []byte(text), nil }
}

// everyKey opens all fixtures.
func everyKey(t testing.TB) *sops.Decrypter {
	t.Helper()
	d, err := sops.New(sops.Config{
		Age: [][]byte{ageKey(t, "age1"), ageKey(t, "age2"), ageKey(t, "age3"), ageKey(t, "age-pq"), sshKey(t, "ed25519"), sshKey(t, "rsa")},
		PGP: []sops.PGPKeyring{
			{Keys: read(t, "keys", "pgp-curve.asc")},
			{Keys: read(t, "keys", "pgp-rsa.asc"), Passphrase: unlock(passphrase)},
			{Keys: read(t, "keys", "pgp-expired.gpg")},
		},
		AllowExpiredPGP: true,
	})
	require.NoError(t, err)
	return d
}

func fixtures(t testing.TB) []string {
	t.Helper()
	files, err := os.ReadDir("testdata/sealed")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func TestParityWithSops(t *testing.T) {
	d := everyKey(t)
	for _, name := range fixtures(t) {
		t.Run(name, func(t *testing.T) {
			sealed := read(t, "sealed", name)
			assert.True(t, sops.IsEncrypted(sealed))
			got, err := d.Decrypt(t.Context(), name, sealed)
			require.NoError(t, err)
			assert.Equal(t, string(read(t, "opened", name)), string(got))
			assert.False(t, sops.IsEncrypted(got))
		})
	}
}

func TestWhichKeyOpensWhat(t *testing.T) {
	curve := sops.PGPKeyring{Keys: read(t, "keys", "pgp-curve.asc")}
	rsa := sops.PGPKeyring{Keys: read(t, "keys", "pgp-rsa.asc"), Passphrase: unlock(passphrase)}
	for name, tc := range map[string]struct {
		file string
		cfg  sops.Config
		err  error
		says string
	}{
		"age":                       {file: "types.yaml", cfg: sops.Config{Age: [][]byte{ageKey(t, "age1")}}},
		"post-quantum age":          {file: "pq.yaml", cfg: sops.Config{Age: [][]byte{ageKey(t, "age-pq")}}},
		"either of two":             {file: "two.yaml", cfg: sops.Config{Age: [][]byte{ageKey(t, "age2")}}},
		"several in one value":      {file: "types.yaml", cfg: sops.Config{Age: [][]byte{bytes.Join([][]byte{ageKey(t, "age2"), ageKey(t, "age1")}, nil)}}},
		"SSH, Ed25519":              {file: "ssh-ed25519.yaml", cfg: sops.Config{Age: [][]byte{sshKey(t, "ed25519")}}},
		"SSH, RSA":                  {file: "ssh-rsa.env", cfg: sops.Config{Age: [][]byte{ageKey(t, "age1"), sshKey(t, "rsa")}}},
		"another's SSH":             {file: "ssh-rsa.env", cfg: sops.Config{Age: [][]byte{sshKey(t, "ed25519")}}, err: sops.ErrNoKey, says: "age ssh-rsa AAAAB3NzaC1yc2E"},
		"an age key instead":        {file: "ssh-ed25519.yaml", cfg: sops.Config{Age: [][]byte{ageKey(t, "age1")}}, err: sops.ErrNoKey, says: "ed25519@example.test"},
		"another's age":             {file: "types.yaml", cfg: sops.Config{Age: [][]byte{ageKey(t, "age2")}}, err: sops.ErrNoKey, says: "age age16ujrnxzwqcwcmfkh4yywcs3j7x3l3mkq3lrmyqpzf7erewg2we5ssh0zcu"},
		"PGP":                       {file: "pgp-curve.yaml", cfg: sops.Config{PGP: []sops.PGPKeyring{curve}}},
		"PGP with passphrase":       {file: "pgp-rsa.json", cfg: sops.Config{PGP: []sops.PGPKeyring{rsa}}},
		"second of two PGP keys":    {file: "pgp.env", cfg: sops.Config{PGP: []sops.PGPKeyring{rsa}}},
		"another's PGP":             {file: "pgp-rsa.json", cfg: sops.Config{PGP: []sops.PGPKeyring{curve}}, err: sops.ErrNoKey, says: "pgp D74E5A23B77B86C2F132AEBEC33615423BFBC974"},
		"wrong passphrase":          {file: "pgp-rsa.json", cfg: sops.Config{PGP: []sops.PGPKeyring{{Keys: rsa.Keys, Passphrase: unlock("canary-wrong")}}}, err: sops.ErrNoKey, says: "passphrase of PGP key D74E5A23B77B86C2F132AEBEC33615423BFBC974 is wrong"},
		"expired PGP key":           {file: "pgp-expired.yaml", cfg: sops.Config{PGP: []sops.PGPKeyring{{Keys: read(t, "keys", "pgp-expired.gpg")}}}, err: sops.ErrKeyExpired, says: "expired at 2020-01-31T12:00:00Z"},
		"expired PGP key, allowed":  {file: "pgp-expired.yaml", cfg: sops.Config{PGP: []sops.PGPKeyring{{Keys: read(t, "keys", "pgp-expired.gpg")}}, AllowExpiredPGP: true}},
		"one of two groups":         {file: "groups.yaml", cfg: sops.Config{Age: [][]byte{ageKey(t, "age2")}}, err: sops.ErrNoKey, says: "1 of 2 key groups opened"},
		"first and second group":    {file: "groups.yaml", cfg: sops.Config{Age: [][]byte{ageKey(t, "age1"), ageKey(t, "age2")}}},
		"first and third group":     {file: "groups.yaml", cfg: sops.Config{Age: [][]byte{ageKey(t, "age3"), ageKey(t, "age1")}}},
		"second and third with PGP": {file: "groups.env", cfg: sops.Config{Age: [][]byte{ageKey(t, "age2")}, PGP: []sops.PGPKeyring{curve}}},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := sops.New(tc.cfg)
			require.NoError(t, err)
			got, err := d.Decrypt(t.Context(), tc.file, read(t, "sealed", tc.file))
			if tc.err == nil {
				require.NoError(t, err)
				assert.Equal(t, string(read(t, "opened", tc.file)), string(got))
				return
			}
			require.ErrorIs(t, err, tc.err)
			require.ErrorIs(t, err, sops.ErrNoKey)
			assert.True(t, stages.IsPermanent(err))
			assert.ErrorContains(t, err, tc.says)
			assert.NotContains(t, err.Error(), "canary")
			assert.Nil(t, got)
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  sops.Config
		says string
	}{
		"no key":                {sops.Config{}, "needs an age identity"},
		"empty age":             {sops.Config{Age: [][]byte{nil}}, "Config.Age[0]"},
		"malformed age":         {sops.Config{Age: [][]byte{[]byte("AGE-SECRET-KEY-1CANARY")}}, "Config.Age[0]"},
		"public age key":        {sops.Config{Age: [][]byte{[]byte("age16ujrnxzwqcwcmfkh4yywcs3j7x3l3mkq3lrmyqpzf7erewg2we5ssh0zcu")}}, "AGE-SECRET-KEY-"},
		"age plug-in":           {sops.Config{Age: [][]byte{[]byte("AGE-PLUGIN-YUBIKEY-1QQQQQQQQQ")}}, "Config.Age[0]"},
		"malformed SSH key":     {sops.Config{Age: [][]byte{[]byte("-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY\n-----END OPENSSH PRIVATE KEY-----\n")}}, "that is malformed"},
		"half an SSH key":       {sops.Config{Age: [][]byte{sshKey(t, "ed25519")[:200]}}, "that is malformed"},
		"locked SSH key":        {sops.Config{Age: [][]byte{lockedSSHKey(t)}}, "locked by a passphrase, which is not supported; unlock a copy"},
		"locked PKCS #8 key":    {sops.Config{Age: [][]byte{[]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nQ0FOQVJZ\n-----END ENCRYPTED PRIVATE KEY-----\n")}}, "locked by a passphrase"},
		"locked PEM key":        {sops.Config{Age: [][]byte{[]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nQ0FOQVJZ\n-----END RSA PRIVATE KEY-----\n")}}, "locked by a passphrase"},
		"SSH key of ECDSA":      {sops.Config{Age: [][]byte{ecdsaKey(t)}}, "of another type than ssh-ed25519 and ssh-rsa"},
		"SSH and age in one":    {sops.Config{Age: [][]byte{bytes.Join([][]byte{ageKey(t, "age1"), sshKey(t, "rsa")}, nil)}}, "give each key as an element of its own"},
		"two SSH keys in one":   {sops.Config{Age: [][]byte{bytes.Join([][]byte{sshKey(t, "rsa"), sshKey(t, "ed25519")}, nil)}}, "give each key as an element of its own"},
		"public SSH key":        {sops.Config{Age: [][]byte{read(t, "keys", "ssh-rsa.pub")}}, "nor an SSH private key"},
		"no keyring":            {sops.Config{PGP: []sops.PGPKeyring{{Keys: []byte("CANARY")}}}, "is not a keyring"},
		"empty keyring":         {sops.Config{PGP: []sops.PGPKeyring{{}}}, "is not a keyring"},
		"public keyring":        {sops.Config{PGP: []sops.PGPKeyring{{Keys: read(t, "keys", "pgp-curve-public.asc")}}}, "has no private key"},
		"locked, no passphrase": {sops.Config{PGP: []sops.PGPKeyring{{Keys: read(t, "keys", "pgp-rsa.asc")}}}, "needs a Passphrase"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sops.New(tc.cfg)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, tc.says)
			assert.NotContains(t, err.Error(), "CANARY")
		})
	}
}

// lockedSSHKey is the Ed25519 key as ssh-keygen locks one.
func lockedSSHKey(t *testing.T) []byte {
	t.Helper()
	key, err := ssh.ParseRawPrivateKey(sshKey(t, "ed25519"))
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	require.NoError(t, err)
	return pem.EncodeToMemory(block)
}

func ecdsaKey(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	require.NoError(t, err)
	return pem.EncodeToMemory(block)
}

func TestIsEncrypted(t *testing.T) {
	for name, tc := range map[string]struct {
		data string
		want bool
	}{
		"nothing":              {"", false},
		"values":               {"a: 1\nsops: is a word\n", false},
		"values about sops":    {"sops:\n  enabled: true\n", false},
		"template":             {"a: {{ .Values.sops }}\n", false},
		"JSON":                 {`{"a": "sops"}`, false},
		"dotenv":               {"A=1\nsops_enabled=1\n", false},
		"YAML metadata":        {"a: 1\nsops:\n  mac: x\n", true},
		"damaged":              {"a: [ENC[AES256_GCM,data:x]\n\tsops:\n", true},
		"only in a document":   {"a: 1\n---\nsops:\n  mac: x\n", false},
		"binary that mentions": {"sops \x00\x01", false},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tc.want, sops.IsEncrypted([]byte(tc.data))) })
	}
}

func TestCancelled(t *testing.T) {
	d := everyKey(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := assert.AnError
	cancel(why)
	_, err := d.Decrypt(ctx, "types.yaml", read(t, "sealed", "types.yaml"))
	require.ErrorIs(t, err, why)
	assert.False(t, stages.IsPermanent(err))
}

func TestConcurrentUse(t *testing.T) {
	calls := make(chan string, 100)
	d, err := sops.New(sops.Config{PGP: []sops.PGPKeyring{{Keys: read(t, "keys", "pgp-rsa.asc"), Passphrase: func(_ context.Context, id string) ([]byte, error) {
		calls <- id
		return []byte(passphrase), nil
	}}}})
	require.NoError(t, err)
	sealed := read(t, "sealed", "pgp-rsa.json")
	errs := make(chan error)
	for range 8 {
		go func() {
			_, err := d.Decrypt(t.Context(), "pgp-rsa.json", sealed)
			errs <- err
		}()
	}
	for range 8 {
		assert.NoError(t, <-errs)
	}
	assert.Len(t, calls, 1, "a key is unlocked once")
}

func FuzzDecrypt(f *testing.F) {
	for _, name := range fixtures(f) {
		f.Add(name, read(f, "sealed", name))
	}
	f.Add("a.yaml", []byte("a: &x [*x]\nsops: {mac: ''}\n"))
	f.Add("a.env", []byte("sops_age__list_0__map_enc=x\nsops_age__list_9=y\n"))
	d, err := sops.New(sops.Config{Age: [][]byte{ageKey(f, "age1")}})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		sops.IsEncrypted(data)
		out, err := d.Decrypt(t.Context(), name, data)
		if err != nil {
			assert.Nil(t, out)
			assert.True(t, stages.IsPermanent(err), "%v", err)
			assert.LessOrEqual(t, strings.Count(err.Error(), "\n"), 0)
		}
	})
}

func BenchmarkDecrypt(b *testing.B) {
	d, err := sops.New(sops.Config{Age: [][]byte{ageKey(b, "age1")}})
	require.NoError(b, err)
	for _, name := range []string{"types.yaml", "types.json", "shop.env", "blob.bin"} {
		sealed := read(b, "sealed", name)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(sealed)))
			for b.Loop() {
				if _, err := d.Decrypt(b.Context(), name, sealed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
