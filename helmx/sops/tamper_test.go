package sops_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/sops"
	"github.com/fairlead-dev/fairlead/stages"
)

// canary is in every secret of the fixtures, and nowhere else in them.
const canary = "canary"

var (
	value   = regexp.MustCompile(`ENC\[AES256_GCM,data:[^,]+,iv:[^,]+,tag:[^,]+,type:[a-z]+\]`)
	keyText = regexp.MustCompile(`AGE-SECRET-KEY-\S+`)
)

// refused decrypts what must not be decrypted, and looks for leaks.
func refused(t *testing.T, d *sops.Decrypter, name string, data []byte) error {
	t.Helper()
	got, err := d.Decrypt(t.Context(), name, data)
	require.Error(t, err)
	assert.Nil(t, got)
	assertNoLeak(t, err)
	return err
}

// assertNoLeak looks at an error and all that it is made of.
func assertNoLeak(t *testing.T, err error) {
	t.Helper()
	for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
		assert.NotContains(t, strings.ToLower(text), canary)
		assert.NotRegexp(t, keyText, text)
	}
	switch u := err.(type) { //nolint:errorlint // the tree itself is walked
	case interface{ Unwrap() error }:
		if inner := u.Unwrap(); inner != nil {
			assertNoLeak(t, inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range u.Unwrap() {
			assertNoLeak(t, inner)
		}
	}
}

// Every byte of every encrypted value counts.
func TestChangedByte(t *testing.T) {
	d := everyKey(t)
	for _, name := range []string{"encrypted-regex.yaml", "mac-only.yaml", "types.json", "shop.env", "blob.bin"} {
		t.Run(name, func(t *testing.T) {
			sealed := read(t, "sealed", name)
			for _, span := range value.FindAllIndex(sealed, -1) {
				if bytes.HasSuffix(sealed[span[0]:span[1]], []byte("type:comment]")) {
					continue // the format protects no comments
				}
				for i := span[0]; i < span[1]; i++ {
					changed := bytes.Clone(sealed)
					if changed[i] = 'A'; sealed[i] == 'A' {
						changed[i] = 'B'
					}
					_, err := d.Decrypt(t.Context(), name, changed)
					if !errors.Is(err, sops.ErrTampered) || !stages.IsPermanent(err) {
						t.Fatalf("byte %d: %v", i-span[0], err)
					}
				}
			}
		})
	}
}

func TestTampered(t *testing.T) {
	d := everyKey(t)
	sealed := string(read(t, "sealed", "encrypted-regex.yaml"))
	secrets := value.FindAllString(sealed, -1)
	swap := func(a, b string) string {
		return strings.NewReplacer(a, b, b, a).Replace(sealed)
	}
	without := func(text, line string) string {
		require.Contains(t, text, line)
		lines := strings.SplitAfter(text, "\n")
		var out strings.Builder
		for _, l := range lines {
			if !strings.Contains(l, line) {
				out.WriteString(l)
			}
		}
		return out.String()
	}
	other := string(read(t, "sealed", "two.yaml"))
	macLine := regexp.MustCompile(`(?m)^    mac: .*$`)
	for name, tc := range map[string]struct {
		data string
		path string
	}{
		"values of two keys swapped":     {swap(secrets[0], secrets[2]), "data:password"},
		"items of a list swapped":        {swap(secrets[3], secrets[4]), ""},
		"an encrypted key removed":       {without(sealed, "    token: "), ""},
		"a readable key removed":         {without(sealed, "        app: shop"), ""},
		"a readable value changed":       {strings.Replace(sealed, "app: shop", "app: shot", 1), ""},
		"a readable key added":           {strings.Replace(sealed, "kind: Secret", "kind: Secret\nextra: x", 1), ""},
		"a secret replaced by plaintext": {strings.Replace(sealed, secrets[0], "canary-injected", 1), "data:password"},
		"a secret replaced by a number":  {strings.Replace(sealed, secrets[0], "31337", 1), "data:password"},
		"a secret emptied":               {strings.Replace(sealed, secrets[0], `""`, 1), ""},
		"a secret nulled":                {strings.Replace(sealed, secrets[0], "null", 1), ""},
		"a key renamed":                  {strings.Replace(sealed, "    password: ", "    passphrase: ", 1), "data:passphrase"},
		"another file's MAC":             {macLine.ReplaceAllString(sealed, macLine.FindString(other)), "sops:mac"},
		"no MAC":                         {macLine.ReplaceAllString(sealed, ""), "sops:mac"},
		"an empty MAC":                   {macLine.ReplaceAllString(sealed, `    mac: ""`), "sops:mac"},
		"a value for a MAC":              {macLine.ReplaceAllString(sealed, "    mac: "+secrets[0]), "sops:mac"},
		"another time":                   {regexp.MustCompile(`lastmodified: .*`).ReplaceAllString(sealed, `lastmodified: "2020-01-01T00:00:00Z"`), "sops:mac"},
		"mac_only_encrypted turned on":   {strings.Replace(sealed, "    version:", "    mac_only_encrypted: true\n    version:", 1), ""},
		"the rule narrowed":              {strings.Replace(sealed, "^(data|stringData)$", "^data$", 1), ""},
		"the rule widened":               {strings.Replace(sealed, "^(data|stringData)$", "^(data|stringData|kind)$", 1), "kind"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NotEqual(t, sealed, tc.data, "nothing was changed")
			err := refused(t, d, "x.yaml", []byte(tc.data))
			require.ErrorIs(t, err, sops.ErrTampered)
			file, ok := errors.AsType[*sops.FileError](err)
			require.True(t, ok)
			assert.Equal(t, tc.path, file.Path)
			assert.Equal(t, "x.yaml", file.File)
		})
	}
}

func TestSwappedDocuments(t *testing.T) {
	first, second, found := strings.Cut(string(read(t, "sealed", "multi.yaml")), "\n---\n")
	require.True(t, found)
	require.ErrorIs(t, refused(t, everyKey(t), "x.yaml", []byte(second+"\n---\n"+first)), sops.ErrTampered)
	require.ErrorIs(t, refused(t, everyKey(t), "x.yaml", []byte(first)), sops.ErrTampered)
}

func TestRefused(t *testing.T) {
	d := everyKey(t)
	const meta = "sops: {lastmodified: '2026-01-01T00:00:00Z', mac: '', "
	for name, tc := range map[string]struct {
		file, data string
		class      error
		line       int
	}{
		"plain YAML":         {"x.yaml", "token: canary-1\n", sops.ErrNotEncrypted, 0},
		"plain JSON":         {"x.json", `{"token": "canary-2"}`, sops.ErrNotEncrypted, 0},
		"plain dotenv":       {"x.env", "TOKEN=canary-3\n", sops.ErrNotEncrypted, 0},
		"no document":        {"x.yaml", "", sops.ErrNotEncrypted, 0},
		"empty document":     {"x.yaml", "---\n# canary\n", sops.ErrNotEncrypted, 0},
		"INI":                {"x.ini", "a=canary", sops.ErrUnsupported, 0},
		"not YAML":           {"x.yaml", "ok: 1\ntoken: *canary4\n", sops.ErrMalformed, 0},
		"broken YAML":        {"x.yaml", "ok: 1\ntoken: 'canary\n", sops.ErrMalformed, 2},
		"not JSON":           {"x.json", "{\n\"token\": canary5}", sops.ErrMalformed, 2},
		"truncated JSON":     {"x.json", `{"token": "canary`, sops.ErrMalformed, 1},
		"more than JSON":     {"x.json", `{} canary`, sops.ErrMalformed, 1},
		"JSON array":         {"x.json", `["canary"]`, sops.ErrMalformed, 1},
		"binary, not JSON":   {"x.bin", "\x00canary", sops.ErrMalformed, 1},
		"not dotenv":         {"x.env", "A=1\ncanary\n", sops.ErrMalformed, 2},
		"YAML list":          {"x.yaml", "- canary\n", sops.ErrMalformed, 1},
		"YAML value":         {"x.yaml", "canary\n", sops.ErrMalformed, 1},
		"YAML key twice":     {"x.yaml", "canary: 1\ncanary: 2\n", sops.ErrMalformed, 2},
		"YAML key, not text": {"x.yaml", "[canary]: 1\n", sops.ErrMalformed, 1},
		"YAML alias":         {"x.yaml", "a: &x canary\nb: *x\n", sops.ErrMalformed, 2},
		"YAML alias to self": {"x.yaml", "a: &x [canary, *x]\n", sops.ErrMalformed, 1},
		"YAML number":        {"x.yaml", "a: !!int canary\n", sops.ErrMalformed, 1},
		"YAML huge number":   {"x.yaml", "a: 18446744073709551615\n", sops.ErrMalformed, 1},
		"JSON key twice":     {"x.json", "{\"canary\": 1,\n\"canary\": 2}", sops.ErrMalformed, 2},
		"dotenv twice":       {"x.env", "canary=1\ncanary=2\n", sops.ErrMalformed, 2},
		"deep YAML":          {"x.yaml", "a: " + strings.Repeat("[", 2000) + strings.Repeat("]", 2000), sops.ErrMalformed, 1},
		"deep JSON":          {"x.json", `{"a": ` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + "}", sops.ErrMalformed, 1},
		"metadata is text":   {"x.yaml", "sops: canary\n", sops.ErrMalformed, 0},
		"no time":            {"x.yaml", "sops: {lastmodified: canary}\n", sops.ErrMalformed, 0},
		"no recipient":       {"x.yaml", meta + "}", sops.ErrMalformed, 0},
		"recipients as text": {"x.yaml", meta + "age: canary}", sops.ErrMalformed, 0},
		"recipient as text":  {"x.yaml", meta + "age: [canary]}", sops.ErrMalformed, 0},
		"group as text":      {"x.yaml", meta + "key_groups: [canary]}", sops.ErrMalformed, 0},
		"group malformed":    {"x.yaml", meta + "key_groups: [{age: canary}]}", sops.ErrMalformed, 0},
		"threshold of one":   {"x.yaml", meta + "shamir_threshold: 1, key_groups: [{age: []}, {age: []}]}", sops.ErrMalformed, 0},
		"threshold too high": {"x.yaml", meta + "shamir_threshold: 3, key_groups: [{age: []}, {age: []}]}", sops.ErrMalformed, 0},
		"two rules":          {"x.yaml", meta + "age: [{}], encrypted_regex: canary, encrypted_suffix: x}", sops.ErrMalformed, 0},
		"broken rule":        {"x.yaml", meta + "age: [{}], encrypted_regex: '[canary'}", sops.ErrMalformed, 0},
		"dotenv metadata":    {"x.env", "sops_age__list_1__map_enc=canary\n", sops.ErrMalformed, 0},
		"dotenv conflict":    {"x.env", "sops_a=canary\nsops_a__map_b=canary\n", sops.ErrMalformed, 0},
		"broken age message": {"x.yaml", meta + "age: [{recipient: r, enc: canary}]}", sops.ErrNoKey, 0},
		"broken PGP message": {"x.yaml", meta + "pgp: [{fp: r, enc: canary}]}", sops.ErrNoKey, 0},
		"only a cloud key":   {"x.yaml", meta + "kms: [{arn: 'arn:aws:kms:1', enc: canary}]}", sops.ErrNoKey, 0},
	} {
		t.Run(name, func(t *testing.T) {
			err := refusedNamed(t, d, tc.file, tc.data)
			require.ErrorIs(t, err, tc.class)
			require.ErrorIs(t, err, stages.ErrInvalid)
			if file, ok := errors.AsType[*sops.FileError](err); ok && tc.line > 0 {
				assert.Equal(t, tc.line, file.Line)
			}
		})
	}
}

// refusedNamed is refused for files whose recipients are themselves canaries.
func refusedNamed(t *testing.T, d *sops.Decrypter, name, data string) error {
	t.Helper()
	got, err := d.Decrypt(t.Context(), name, []byte(data))
	require.Error(t, err)
	assert.Nil(t, got)
	assert.NotContains(t, err.Error(), canary)
	return err
}

func TestKeySource(t *testing.T) {
	// The data key that a cloud service would return is taken from the file itself.
	const file = "sops:\n    lastmodified: '2026-01-01T00:00:00Z'\n    mac: ''\n    " +
		"kms: [{arn: 'arn:aws:kms:eu-central-1:1:key/2', role: r, aws_profile: p, context: {app: shop}, created_at: '2026-01-01T00:00:00Z', enc: aws}]\n    " +
		"hc_vault: [{vault_address: 'https://u:canary@vault.test', engine_path: transit, key_name: k, enc: v}]\n"
	down := errors.New("connection refused")
	var asked []sops.Recipient
	d, err := sops.New(sops.Config{KeySource: sops.KeySourceFunc(func(_ context.Context, r sops.Recipient) ([]byte, error) {
		asked = append(asked, r)
		return nil, down
	})})
	require.NoError(t, err)

	_, err = d.Decrypt(t.Context(), "x.yaml", []byte(file))
	require.ErrorIs(t, err, sops.ErrNoKey)
	require.ErrorIs(t, err, down)
	assert.False(t, stages.IsPermanent(err), "a service that is down may come back")
	assert.EqualError(t, err, `decrypting "x.yaml": no key opens the SOPS file: give an identity for one of its recipients kms arn:aws:kms:eu-central-1:1:key/2, hc_vault https://u:xxxxx@vault.test transit/k; kms arn:aws:kms:eu-central-1:1:key/2: connection refused; hc_vault https://u:xxxxx@vault.test transit/k: connection refused`)
	require.Len(t, asked, 2)
	assert.Equal(t, "aws", asked[0].EncryptedKey)
	assert.Equal(t, map[string]string{"app": "shop"}, asked[0].Context)
	assert.Equal(t, map[string]string{"arn": "arn:aws:kms:eu-central-1:1:key/2", "role": "r", "aws_profile": "p"}, asked[0].Fields)
	assert.Equal(t, 2026, asked[0].Created.Year())

	for name, tc := range map[string]struct {
		key   []byte
		class error
	}{
		"too short": {make([]byte, 16), sops.ErrMalformed},
		"none":      {nil, sops.ErrNoKey},
		"another":   {make([]byte, 32), sops.ErrTampered},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := sops.New(sops.Config{KeySource: sops.KeySourceFunc(func(context.Context, sops.Recipient) ([]byte, error) { return tc.key, nil })})
			require.NoError(t, err)
			require.ErrorIs(t, refusedNamed(t, d, "x.yaml", file), tc.class)
		})
	}
}
