package trivy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/aquasecurity/trivy/pkg/cache"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
)

// layerCache keeps what Trivy found in layers, one file for each. Trivy's own
// cache is a database file that one process locks for as long as it scans.
//
// It belongs to one scan: only layers that the scan's image has verified enter.
type layerCache struct {
	dir   string
	image *pinnedImage
}

var _ cache.Cache = (*layerCache)(nil)

const (
	blobs     = "blob"
	artifacts = "artifact"
)

func (c *layerCache) path(kind, id string) string {
	return filepath.Join(c.dir, kind, strings.TrimPrefix(id, "sha256:")+".json")
}

func (c *layerCache) get(kind, id string, v any) error {
	text, err := os.ReadFile(c.path(kind, id))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

func (c *layerCache) put(kind, id string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(c.path(kind, id), text)
}

// MissingBlobs reports what has to be read from the image. An entry that can't be
// used, for whatever reason, is missing.
func (c *layerCache) MissingBlobs(ctx context.Context, artifactID string, blobIDs []string) (bool, []string, error) {
	var missing []string
	for _, id := range blobIDs {
		if blob, err := c.GetBlob(ctx, id); err != nil || blob.SchemaVersion != ftypes.BlobJSONSchemaVersion {
			missing = append(missing, id)
		}
	}
	info, err := c.GetArtifact(ctx, artifactID)
	usable := err == nil && info.SchemaVersion == ftypes.ArtifactJSONSchemaVersion
	return !usable, missing, nil
}

func (c *layerCache) PutArtifact(_ context.Context, id string, info ftypes.ArtifactInfo) error {
	return c.put(artifacts, id, info)
}

func (c *layerCache) PutBlob(_ context.Context, id string, blob ftypes.BlobInfo) error {
	if !c.image.isVerified(blob.DiffID) {
		return fmt.Errorf("layer %s: %w", blob.DiffID, errContent)
	}
	return c.put(blobs, id, blob)
}

func (c *layerCache) GetArtifact(_ context.Context, id string) (info ftypes.ArtifactInfo, err error) {
	err = c.get(artifacts, id, &info)
	return info, err
}

func (c *layerCache) GetBlob(_ context.Context, id string) (blob ftypes.BlobInfo, err error) {
	err = c.get(blobs, id, &blob)
	return blob, err
}

func (c *layerCache) DeleteBlobs(_ context.Context, ids []string) error {
	var errs []error
	for _, id := range ids {
		if err := os.Remove(c.path(blobs, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c *layerCache) Close() error { return nil }

func (c *layerCache) Clear(context.Context) error { return os.RemoveAll(c.dir) }

// writeFile replaces a file as a whole, so that no reader, in this process or
// another, ever sees half of it.
func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
