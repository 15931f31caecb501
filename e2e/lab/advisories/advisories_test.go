package advisories_test

import (
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/fairlead-dev/fairlead/e2e/lab/advisories"
)

var made = time.Date(2026, 11, 20, 6, 0, 0, 0, time.UTC)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	extra := "- bucket: Red Hat CPE\n  pairs:\n  - bucket: cpe\n    pairs:\n    - {key: \"1\", value: \"cpe:/o:redhat\"}\n"
	require.NoError(t, advisories.Write(dir, made, []byte(extra)))

	text, err := os.ReadFile(filepath.Join(dir, "metadata.json"))
	require.NoError(t, err)
	assert.JSONEq(t, `{"Version":2,"UpdatedAt":"2026-11-20T06:00:00Z","NextUpdate":"2026-11-21T06:00:00Z","DownloadedAt":"2026-11-20T06:00:00Z"}`, string(text))

	db, err := bolt.Open(filepath.Join(dir, "trivy.db"), 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		advisory := tx.Bucket([]byte("npm::GitHub Security Advisory Npm")).Bucket([]byte("lodash")).Get([]byte("CVE-2019-10744"))
		assert.JSONEq(t, `{"PatchedVersions":["4.17.12"],"VulnerableVersions":["< 4.17.12"],"VendorIDs":["GHSA-jf85-cpcp-j695"]}`, string(advisory))
		assert.Equal(t, "cpe:/o:redhat", string(tx.Bucket([]byte("Red Hat CPE")).Bucket([]byte("cpe")).Get([]byte("1"))))
		details := tx.Bucket([]byte("vulnerability"))
		for _, bucket := range []string{"debian 12", "npm::GitHub Security Advisory Npm", "pip::GitHub Security Advisory Pip"} {
			require.NoError(t, tx.Bucket([]byte(bucket)).ForEachBucket(func(pkg []byte) error {
				return tx.Bucket([]byte(bucket)).Bucket(pkg).ForEach(func(id, _ []byte) error {
					assert.NotNil(t, details.Get(id), "%s is described", id)
					return nil
				})
			}))
		}
		return nil
	}))
}

func TestWriteRefuses(t *testing.T) {
	for name, document := range map[string]string{
		"no list":         "a: b",
		"unknown field":   "- {bucket: a, paris: []}",
		"key in the root": "- {key: a, value: b}",
		"empty key":       "- {bucket: a, pairs: [{value: b}]}",
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, advisories.Write(t.TempDir(), made, []byte(document)))
		})
	}
}

func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	repository := strings.TrimPrefix(server.URL, "http://") + "/trivy-db"
	pinned, err := advisories.Push(t.Context(), repository+":2", made)
	require.NoError(t, err)
	ref, err := name.ParseReference(pinned)
	require.NoError(t, err)
	image, err := remote.Image(ref, remote.WithContext(t.Context()))
	require.NoError(t, err)
	manifest, err := image.Manifest()
	require.NoError(t, err)
	require.Len(t, manifest.Layers, 1)
	assert.Equal(t, "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip", string(manifest.Layers[0].MediaType))
	assert.Equal(t, "db.tar.gz", manifest.Layers[0].Annotations["org.opencontainers.image.title"])

	_, err = advisories.Push(t.Context(), "UPPER", made)
	require.Error(t, err)
	server.Close()
	_, err = advisories.Push(t.Context(), repository+":2", made, remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
	require.ErrorContains(t, err, repository)
}

func TestVulnerableIsAPackage(t *testing.T) {
	var pkg struct{ Name, Version string }
	require.NoError(t, json.Unmarshal([]byte(advisories.Vulnerable), &pkg))
	assert.Equal(t, "lodash", pkg.Name)
	assert.Contains(t, advisories.VulnerablePath, pkg.Name)
}
