package address_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fairlead-dev/fairlead/helmx/internal/address"
)

func TestRedacted(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "",
		"./chart":                           "./chart",
		"a@b":                               "a@b",
		"https://h/p":                       "https://h/p",
		"https://u:p@h/p":                   "https://*@h/p",
		"https://u:p@ss@h/p":                "https://*@h/p",
		"https://u:p@h/p@sha256:x":          "https://*@sha256:x",
		"oci://h/p":                         "oci://h/p",
		"oci://u:p@h/p":                     "oci://*@h/p",
		"oci://h/p@sha256:abc":              "oci://h/p@sha256:abc",
		"oci://u:p@h/p:1@sha256:abc":        "oci://*@h/p:1@sha256:abc",
		"oci://u:p@sha256:h/p":              "oci://*@sha256:h/p",
		"git::https://u:p@h/repo@file?ref=": "git::https://*@file?ref=",
	} {
		assert.Equal(t, want, address.Redacted(text, "*"), text)
	}
}

func TestDigest(t *testing.T) {
	for text, want := range map[string]string{
		"oci://h/p":                "",
		"oci://u:p@h/p":            "",
		"oci://h/p@sha256:abc":     "@sha256:abc",
		"oci://u:p@h/p@sha512:abc": "@sha512:abc",
		"https://h/p@sha256:abc":   "",
	} {
		assert.Equal(t, want, address.Digest(text), text)
	}
}
