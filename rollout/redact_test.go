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
