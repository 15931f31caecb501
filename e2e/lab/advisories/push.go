package advisories

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The media types that Trivy wants of its database.
const (
	configType = types.MediaType("application/vnd.aquasec.trivy.config.v1+json")
	layerType  = types.MediaType("application/vnd.aquasec.trivy.db.layer.v1.tar+gzip")
	titleKey   = "org.opencontainers.image.title"
)

// Push makes the database, as made at the given time, and pushes it to ref, such
// as "localhost:5000/trivy-db:2". It returns the reference by digest; Trivy takes
// either. Credentials and transport come in the options.
func Push(ctx context.Context, ref string, made time.Time, options ...remote.Option) (string, error) {
	tag, err := name.ParseReference(ref)
	if err != nil {
		return "", fmt.Errorf("push the vulnerability database: %w", err)
	}
	artifact, err := Artifact(made)
	if err != nil {
		return "", err
	}
	if err := remote.Write(tag, artifact, append(options, remote.WithContext(ctx))...); err != nil {
		return "", fmt.Errorf("push the vulnerability database to %s: %w", ref, err)
	}
	digest, err := artifact.Digest()
	if err != nil {
		return "", err
	}
	return tag.Context().Digest(digest.String()).Name(), nil
}

// Artifact makes the database as an OCI artifact, for those who push it
// themselves. See [Write] for extra.
func Artifact(made time.Time, extra ...[]byte) (_ v1.Image, err error) {
	dir, err := os.MkdirTemp("", "advisories-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := Write(dir, made, extra...); err != nil {
		return nil, err
	}
	archive, err := pack(dir, made, databaseFile, metadataFile)
	if err != nil {
		return nil, fmt.Errorf("pack the vulnerability database: %w", err)
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), configType)
	return mutate.Append(image, mutate.Addendum{
		Layer:       static.NewLayer(archive, layerType),
		Annotations: map[string]string{titleKey: "db.tar.gz"},
	})
}

func pack(dir string, made time.Time, files ...string) ([]byte, error) {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return nil, err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: file, Mode: 0o600, Size: int64(len(text)), ModTime: made}
		if err := tw.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := tw.Write(text); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
