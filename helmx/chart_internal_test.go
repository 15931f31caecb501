package helmx

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseOCI(t *testing.T) {
	pin := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string]struct{ repository, tag, digest string }{
		"oci://ghcr.io/acme/shop:1.2.3":           {"ghcr.io/acme/shop", "1.2.3", ""},
		"oci://localhost:5001/shop:1.2.3_build":   {"localhost:5001/shop", "1.2.3_build", ""},
		"oci://localhost:5001/shop@" + pin:        {"localhost:5001/shop", "", pin},
		"oci://localhost:5001/a/b/shop:1@" + pin:  {"localhost:5001/a/b/shop", "1", pin},
		"oci://[::1]:5001/shop:1":                 {"[::1]:5001/shop", "1", ""},
		"oci://ghcr.io/acme/shop":                 {},
		"oci://ghcr.io/acme/shop:":                {},
		"oci://ghcr.io/acme/shop@":                {},
		"oci://ghcr.io/acme/shop:1@sha256:00":     {},
		"oci://ghcr.io/acme/Shop:1":               {},
		"oci://ghcr.io":                           {},
		"oci://ghcr.io:443":                       {},
		"oci://user:password@ghcr.io/acme/shop:1": {},
		"oci://ghcr.io/acme/shop:1?x=y":           {},
		"https://ghcr.io/acme/shop:1":             {},
		"oci://ghcr.io/../acme/shop:1":            {},
	} {
		ref, err := parseOCI(text, "", "")
		if want.repository == "" {
			require.Error(t, err, text)
			continue
		}
		require.NoError(t, err, text)
		assert.Equal(t, want.repository, ref.repository.String(), text)
		assert.Equal(t, [2]string{want.tag, want.digest}, [2]string{ref.tag, ref.digest}, text)
	}
}

func FuzzParseOCI(f *testing.F) {
	f.Add("oci://localhost:5001/a/shop:1.2.3@sha256:"+strings.Repeat("a", 64), "", "")
	f.Add("oci://ghcr.io/shop", "~1.2", "sha256:"+strings.Repeat("a", 64))
	f.Add("oci://0/0", "", "0")
	f.Fuzz(func(t *testing.T, text, version, digest string) {
		ref, err := parseOCI(text, version, digest)
		if err != nil {
			return
		}
		assert.NotEmpty(t, ref.tag+ref.version+ref.digest)
		assert.NotContains(t, ref.repository.String(), "@")
		again := "oci://" + ref.repository.String()
		if ref.tag != "" {
			again += ":" + ref.tag
		}
		if ref.digest != "" {
			again += "@" + ref.digest
		}
		same, err := parseOCI(again, ref.version, "")
		require.NoError(t, err)
		assert.Equal(t, ref, same)
	})
}

func TestNewestOf(t *testing.T) {
	versions := []string{"1.2.3", "1.10.0", "2.0.0-rc.1", "v1.9.0", "latest", "1.2.3+build"}
	for constraint, want := range map[string]string{
		"1.2.3": "1.2.3", "^1": "1.10.0", "~1.9": "v1.9.0", "1.2.3+build": "1.2.3+build", ">2": "", "latest!": "", ">=2.0.0-0": "2.0.0-rc.1",
	} {
		assert.Equal(t, want, newestOf(versions, constraint), constraint)
	}
}

// Whatever an archive holds, it is refused or unpacked to something harmless.
func FuzzUnpack(f *testing.F) {
	var good bytes.Buffer
	zipped := gzip.NewWriter(&good)
	w := tar.NewWriter(zipped)
	text := "apiVersion: v2\nname: shop\nversion: 1.2.3\n"
	require.NoError(f, w.WriteHeader(&tar.Header{Name: "shop/Chart.yaml", Mode: 0o644, Size: int64(len(text))}))
	_, err := w.Write([]byte(text))
	require.NoError(f, errors.Join(err, w.Close(), zipped.Close()))
	f.Add(good.Bytes(), false)
	f.Add([]byte("shop/../../x"), true)
	f.Fuzz(func(t *testing.T, data []byte, name bool) {
		if name { // Fuzzing finds little behind a checksum.
			var out bytes.Buffer
			zipped := gzip.NewWriter(&out)
			w := tar.NewWriter(zipped)
			if w.WriteHeader(&tar.Header{Name: string(data), Mode: 0o644}) != nil {
				return
			}
			require.NoError(t, errors.Join(w.Close(), zipped.Close()))
			data = out.Bytes()
		}
		files, err := unpack(data)
		if err != nil {
			_, ok := errors.AsType[*reasonError](err)
			assert.True(t, ok, "%v", err)
			return
		}
		for _, file := range files {
			assert.False(t, strings.HasPrefix(file.Name, "/") || strings.HasPrefix(file.Name, "..") || strings.Contains(file.Name, "/../"), file.Name)
		}
	})
}
