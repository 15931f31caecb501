package scan

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// commandDatabase is one of the two databases in the cache directory of a trivy
// binary.
type commandDatabase struct {
	folder string
	// download is the flag that has Trivy update this database and do no more.
	download string
	// source is where it comes from; empty for Trivy's own choice.
	source string
	// keep is how long Trivy uses an outdated one before it asks for another.
	keep time.Duration
}

// commandMetadata is what Trivy keeps beside a database. Its reports don't say
// when the database was made.
type commandMetadata struct{ UpdatedAt, NextUpdate, DownloadedAt time.Time }

func (d commandDatabase) installed(c *Command) bool {
	_, err := os.Stat(filepath.Join(c.cfg.CacheDir, d.folder))
	return err == nil
}

func (d commandDatabase) metadata(c *Command) (commandMetadata, error) {
	var meta commandMetadata
	path := filepath.Join(c.cfg.CacheDir, d.folder, "metadata.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return meta, err
	}
	if err := json.Unmarshal(text, &meta); err != nil {
		return meta, fmt.Errorf("read %s: %w", path, err)
	}
	return meta, nil
}

// due reports whether Trivy would download d, so that it is only asked to, and
// scans only held up, when it has something to do.
func (d commandDatabase) due(ctx context.Context, c *Command) bool {
	if c.cfg.Offline || c.databases.Acquire(ctx, 1) != nil {
		return false
	}
	defer c.databases.Release(1)
	return d.outdated(c)
}

func (d commandDatabase) outdated(c *Command) bool {
	meta, err := d.metadata(c)
	now := time.Now()
	return err != nil || now.After(meta.NextUpdate) && now.After(meta.DownloadedAt.Add(d.keep))
}

// update has Trivy download d, once no scan uses it. Trivy would send its
// credentials to any registry, so it gets them only where the database is next
// to the image.
func (c *Command) update(ctx context.Context, d commandDatabase, image stages.Image, login []string) error {
	if err := c.databases.Acquire(ctx, maxScans); err != nil {
		return err
	}
	defer c.databases.Release(maxScans)
	if !d.outdated(c) {
		return nil // another scan was faster
	}
	if registryOf(d.source) != registryOf(image.Repository()) {
		login = nil
	}
	if _, err := c.run(ctx, login, append(c.flags(), d.download)...); err != nil {
		return fmt.Errorf("update Trivy's database: %w", err)
	}
	return nil
}
