package lab

import (
	"os"
	"path/filepath"
)

// ProbeImage is an image that the engine holds once it has been probed.
const ProbeImage = probeImage

// DeleteAbandoned is what StartCluster does before it starts one.
func (l *Lab) DeleteAbandoned(engine Engine) error { return l.deleteAbandoned(engine) }

// Abandon leaves the files of a cluster whose owner was killed.
func (l *Lab) Abandon(name string) error {
	dir := filepath.Join(l.cache, "clusters", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(dir+lockSuffix, nil, 0o600)
}
