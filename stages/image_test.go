package stages_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

const hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseImage(t *testing.T) {
	for ref, want := range map[string]string{
		"ghcr.io/acme/shop@sha256:" + hex:            "ghcr.io/acme/shop",
		"localhost:5000/shop@sha256:" + hex:          "localhost:5000/shop",
		"localhost/shop@sha256:" + hex:               "localhost/shop",
		"localhost:5000/a/b__c/d-e.f@sha256:" + hex:  "localhost:5000/a/b__c/d-e.f",
		"[::1]:5000/shop@sha256:" + hex:              "[::1]:5000/shop",
		"docker.io/library/nginx:1.27@sha256:" + hex: "docker.io/library/nginx",
	} {
		img, err := stages.ParseImage(ref)
		require.NoError(t, err, ref)
		assert.Equal(t, want, img.Repository())
		assert.Equal(t, stages.Digest("sha256:"+hex), img.Digest())
		assert.Equal(t, want+"@sha256:"+hex, img.String())
	}
}

func TestParseImageRefuses(t *testing.T) {
	for ref, class := range map[string]error{
		"":                                         stages.ErrInvalid,
		"nginx":                                    stages.ErrInvalid,
		"nginx:1.27":                               stages.ErrInvalid,
		"ghcr.io/acme/shop":                        stages.ErrNotPinned,
		"ghcr.io/acme/shop:latest":                 stages.ErrNotPinned,
		"localhost:5000/shop:v1":                   stages.ErrNotPinned,
		"ghcr.io/acme/shop@sha256:" + hex[:63]:     stages.ErrInvalid,
		"ghcr.io/acme/shop@sha256:" + hex + "0":    stages.ErrInvalid,
		"ghcr.io/acme/shop@md5:" + hex:             stages.ErrInvalid,
		"ghcr.io/acme/shop@SHA256:" + hex:          stages.ErrInvalid,
		"ghcr.io/Acme/shop@sha256:" + hex:          stages.ErrInvalid,
		"ghcr.io/acme/../shop@sha256:" + hex:       stages.ErrInvalid,
		"ghcr.io/acme/shop@sha256:" + hex + "@":    stages.ErrInvalid,
		"ghcr.io/acme/shop:a b@sha256:" + hex:      stages.ErrInvalid,
		"https://ghcr.io/acme/shop@sha256:" + hex:  stages.ErrInvalid,
		"user:pw@ghcr.io/acme/shop@sha256:" + hex:  stages.ErrInvalid,
		"ghcr.io/acme/shop\n@sha256:" + hex:        stages.ErrInvalid,
		"acme/shop@sha256:" + hex:                  stages.ErrInvalid,
		"ghcr.io/" + strings.Repeat("a", 300) + "": stages.ErrInvalid,
	} {
		img, err := stages.ParseImage(ref)
		assert.ErrorIs(t, err, class, ref)
		assert.True(t, img.IsZero(), ref)
	}
}

func TestParseImageKeepsCredentialsToItself(t *testing.T) {
	for _, ref := range []string{
		"user:c4n4ry@ghcr.io/acme/shop@sha256:" + hex,
		"https://user:c4n4ry@ghcr.io/acme/shop:latest",
		"user:c4n4ry@ghcr.io/acme/shop",
	} {
		_, err := stages.ParseImage(ref)
		require.ErrorIs(t, err, stages.ErrInvalid)
		assert.NotContains(t, err.Error(), "c4n4ry")
	}
}

func TestImageJSON(t *testing.T) {
	img, err := stages.ParseImage("ghcr.io/acme/shop@sha256:" + hex)
	require.NoError(t, err)
	for _, want := range []stages.Image{img, {}} {
		data, err := json.Marshal(want)
		require.NoError(t, err)
		var got stages.Image
		require.NoError(t, json.Unmarshal(data, &got))
		assert.Equal(t, want, got)
	}
	var got stages.Image
	require.ErrorIs(t, json.Unmarshal([]byte(`"ghcr.io/acme/shop:latest"`), &got), stages.ErrNotPinned)
}

func FuzzParseImage(f *testing.F) {
	f.Add("ghcr.io/acme/shop@sha256:" + hex)
	f.Add("localhost:5000/shop:v1@sha256:" + hex)
	f.Add("nginx:latest")
	f.Fuzz(func(t *testing.T, ref string) {
		img, err := stages.ParseImage(ref)
		if err != nil {
			require.True(t, img.IsZero())
			require.Less(t, len(err.Error()), 2000, "an error must not repeat unbounded input")
			return
		}
		again, err := stages.ParseImage(img.String())
		require.NoError(t, err)
		require.Equal(t, img, again)
	})
}
