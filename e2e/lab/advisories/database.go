package advisories

import (
	_ "embed" // for advisories.yaml
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	"sigs.k8s.io/yaml"
)

//go:embed advisories.yaml
var embedded []byte

const (
	databaseFile = "trivy.db"
	metadataFile = "metadata.json"
	// schemaVersion is what Trivy reads since v0.20.
	schemaVersion = 2
	// lifetime is how long Trivy uses a database before it asks for a newer one.
	lifetime = 24 * time.Hour
)

// Vulnerable is an installed npm package that is affected by CVE-2019-10744
// (CRITICAL, mended in 4.17.12) and CVE-2021-23337 (HIGH, mended in 4.17.21), in
// this database as in the public one. An image is vulnerable with this content at
// any path that ends in VulnerablePath.
const (
	Vulnerable     = `{"name":"lodash","version":"4.17.4","license":"MIT"}` + "\n"
	VulnerablePath = "node_modules/lodash/package.json"
)

// Write makes the database, as made at the given time, in the folder dir: the
// files trivy.db and metadata.json. Each of extra is a YAML document of more
// advisories, in the form of advisories.yaml.
func Write(dir string, made time.Time, extra ...[]byte) (err error) {
	db, err := bolt.Open(filepath.Join(dir, databaseFile), 0o600, nil)
	if err != nil {
		return fmt.Errorf("create the vulnerability database: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.Update(func(tx *bolt.Tx) error {
		for i, document := range append([][]byte{embedded}, extra...) {
			if err := load(tx, document); err != nil {
				return fmt.Errorf("advisories, document %d: %w", i+1, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	text, err := json.Marshal(map[string]any{
		"Version": schemaVersion, "UpdatedAt": made.UTC(), "NextUpdate": made.UTC().Add(lifetime), "DownloadedAt": made.UTC(),
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, metadataFile), text, 0o600)
}

// fixture is a bucket with pairs, or a key with a value.
type fixture struct {
	Bucket string          `json:"bucket"`
	Pairs  []fixture       `json:"pairs"`
	Key    string          `json:"key"`
	Value  json.RawMessage `json:"value"`
}

// container is what buckets are made in: the file itself or another bucket.
type container interface {
	CreateBucketIfNotExists(name []byte) (*bolt.Bucket, error)
}

func load(tx *bolt.Tx, document []byte) error {
	var fixtures []fixture
	if err := yaml.UnmarshalStrict(document, &fixtures); err != nil {
		return err
	}
	for _, f := range fixtures {
		if f.Bucket == "" {
			return fmt.Errorf("key %q is in no bucket", f.Key)
		}
		if err := put(tx, nil, f); err != nil {
			return fmt.Errorf("bucket %q: %w", f.Bucket, err)
		}
	}
	return nil
}

func put(in container, bucket *bolt.Bucket, f fixture) error {
	if f.Bucket == "" {
		value := []byte(f.Value)
		var text string
		if json.Unmarshal(value, &text) == nil {
			// Trivy stores what is only a text without quotes.
			value = []byte(text)
		}
		return bucket.Put([]byte(f.Key), value)
	}
	inner, err := in.CreateBucketIfNotExists([]byte(f.Bucket))
	if err != nil {
		return err
	}
	for _, pair := range f.Pairs {
		if err := put(inner, inner, pair); err != nil {
			return fmt.Errorf("%q: %w", pair.Bucket+pair.Key, err)
		}
	}
	return nil
}
