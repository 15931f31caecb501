package rollout

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"Authorization: Bearer abc.def-123":             "Authorization: ***",
		`{"authorization":"Basic dXNlcjpwYXNz","a":1}`:  `{"authorization":"***","a":1}`,
		"sent bearer 0123456789abcdef":                  "sent bearer ***",
		"password=hunter2 user=bob":                     "password=*** user=bob",
		`DB_PASSWORD="two words" next`:                  "DB_PASSWORD=*** next",
		`{"apiKey": "k-1", "name": "shop"}`:             `{"apiKey": ***, "name": "shop"}`,
		"secret: s3cr3t":                                "secret: ***",
		"--token abc --port 80":                         "--token *** --port 80",
		"postgres://bob:p@ss@db:5432/shop":              "postgres://***@db:5432/shop",
		"https://registry/v2/":                          "https://registry/v2/",
		"AKIAIOSFODNN7EXAMPLE":                          "***",
		"ghp_0123456789abcdefghij":                      "***",
		"jwt eyJhbGciOi.eyJzdWIiOi.c2lnbmF0":            "jwt ***",
		"-----BEGIN RSA PRIVATE KEY-----\nMIIE\nlost":   "-----PRIVATE KEY ***-----",
		"exit code 3, nothing secret here: port 80":     "exit code 3, nothing secret here: port 80",
		"GET /healthz 503 in 3ms":                       "GET /healthz 503 in 3ms",
		`configmap "settings" not found`:                `configmap "settings" not found`,
		`secret "db-credentials" not found`:             `secret "db-credentials" not found`,
		`couldn't find key password in Secret shop/db`:  `couldn't find key password in Secret shop/db`,
		"localhost:5001/lab/shop@sha256:aaaa not found": "localhost:5001/lab/shop@sha256:aaaa not found",
	} {
		assert.Equal(t, want, Redact(in), in)
	}
}

func TestTailBounds(t *testing.T) {
	c := cleaner{extra: func(s string) string { return strings.ReplaceAll(s, "shop", "***") }}
	assert.Equal(t, []string{"three", "*** four"}, c.tail("one\ntwo\nthree\nshop four\n", 2, 1000))
	assert.Equal(t, []string{"four"}, c.tail("one\ntwo\nthree\nfour\n", 10, 8))
	assert.Nil(t, c.tail("", 10, 1000))
	assert.Equal(t, []string{"red"}, c.tail("\x1b[31mred\x1b[0m\a\r\n", 10, 1000))
	assert.Len(t, c.tail(strings.Repeat("x", 10_000), 1, 10_000)[0], maxLogLine)
}

func FuzzRedact(f *testing.F) {
	for _, s := range []string{"", "password=", "a://b@c", "-----BEGIN PRIVATE KEY-----", "\x1b]0;x", "Authorization: Basic x", "token: 'a\\'b'"} {
		f.Add(s)
	}
	const planted = "Zq7Xk2Wv9Rt4"
	f.Fuzz(func(t *testing.T, noise string) {
		c := cleaner{}
		for _, secret := range []string{
			"\npassword=" + planted, "\nAuthorization: Bearer " + planted, "\nhttps://bob:" + planted + "@host/",
		} {
			line := c.line(noise + secret)
			if strings.Contains(noise, planted) {
				continue
			}
			assert.NotContains(t, line, planted)
			assert.NotContains(t, line, "\n")
			assert.True(t, utf8.ValidString(line))
			assert.LessOrEqual(t, len(line), maxMessage)
			for _, l := range c.tail(noise+secret, 5, 4096) {
				assert.NotContains(t, l, planted)
			}
		}
	})
}

// What is logged most often: headers as Go and JSON print them, JSON in a string,
// passwords that make a URL invalid, links that storage has signed.
func TestRedactWherePeopleLogIt(t *testing.T) {
	const s = "Zq7Xk2Wv9Rt4"
	for _, in := range []string{
		"map[Accept:[*/*] Authorization:[Bearer " + s + "]]",
		`{"Authorization":["Token ` + s + `"]}`,
		`Authorization: ApiKey ` + s,
		`{"msg":"body {\"password\":\"` + s + `\"}"}`,
		`{"msg":"body {\\\"password\\\":\\\"` + s + `\\\"}"}`,
		`{"X-Api-Key":["` + s + `","` + s + `"]}`,
		`parse "postgres://bob:pa/` + s + `@db:5432/shop": invalid port ":pa" after host`,
		`postgres://bob:12#` + s + `@db:5432/shop`,
		`dial root:` + s + `@tcp(db:3306)/shop`,
		`Get "https://x.blob.core.windows.net/l?sv=1&sig=` + s + `&se=2": dial tcp: i/o timeout`,
		`Get "https://s3.example/l?X-Amz-Expires=1&X-Amz-Signature=` + s + `": dial tcp: i/o timeout`,
		`Cookie: theme=dark; sid=` + s,
		`{"auths":{"r.example":{"auth":"` + s + `"}}}`,
		`DB_PASS=` + s,
	} {
		assert.NotContains(t, Redact(in), s, in)
	}
	for _, in := range []string{
		`Head "https://localhost:5001/v2/lab/shop/manifests/sha256:aaaa": dial tcp 127.0.0.1:5001: connect: connection refused`,
		"https://registry:5000/v2/shop@sha256:aaaa", "http://[::1]:8080/x@y", "http://host/x?design=1&verify=2", "tests_passed: 3",
		"authorization failed: no basic auth credentials",
	} {
		assert.Equal(t, in, Redact(in))
	}
}

func TestTailBeginsWithinAKey(t *testing.T) {
	log := "MIIEowIBAAKCAQEA\nabcd/+==\n-----END RSA PRIVATE KEY-----\nfatal: can't parse the key\n"
	assert.Equal(t, []string{"-----PRIVATE KEY ***-----", "fatal: can't parse the key"}, cleaner{}.tail(log, 20, 8192))
}
