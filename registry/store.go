package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fairlead-dev/fairlead/stages"
)

// store keeps a registry's content in a folder:
//
//	blobs/sha256/<hex>                      blobs and manifests, by content
//	repositories/<name>/_manifests/<hex>    holds the manifest's media type
//	repositories/<name>/_tags/<tag>         holds the digest
//	repositories/<name>/_referrers/<hex of the subject>/<hex of the referrer>
//	uploads/                                whatever is not finished
//
// A repository's name never has an element that begins with '_'. Every file is
// written under uploads and renamed, so a killed process leaves whole files
// only, and what is written first never refers to what is written later.
type store struct {
	root string
	// mu makes a change of several files under repositories one change.
	mu sync.Mutex
}

// maxManifest is what the distribution specification asks registries to accept.
const maxManifest = 4 << 20

var errAbsent = errors.New("not in the registry")

func (s *store) uploads() string             { return filepath.Join(s.root, "uploads") }
func (s *store) blob(d stages.Digest) string { return filepath.Join(s.root, "blobs", "sha256", hex(d)) }
func (s *store) repositories() string        { return filepath.Join(s.root, "repositories") }
func (s *store) repository(repo string) string {
	return filepath.Join(s.repositories(), filepath.FromSlash(repo))
}
func (s *store) manifests(repo string) string { return filepath.Join(s.repository(repo), "_manifests") }
func (s *store) tags(repo string) string      { return filepath.Join(s.repository(repo), "_tags") }
func (s *store) link(repo string, d stages.Digest) string {
	return filepath.Join(s.manifests(repo), hex(d))
}
func (s *store) referrers(repo string, subject stages.Digest) string {
	return filepath.Join(s.repository(repo), "_referrers", hex(subject))
}

func hex(d stages.Digest) string { return strings.TrimPrefix(d.String(), "sha256:") }

// temp makes a file that rename can move to any place in the store.
func (s *store) temp() (*os.File, error) {
	if err := os.MkdirAll(s.uploads(), 0o750); err != nil {
		return nil, err
	}
	return os.CreateTemp(s.uploads(), "upload-*")
}

func (s *store) rename(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	return os.Rename(from, to) //nolint:gosec // names are checked against the grammar of references, which has no ".."
}

func (s *store) writeFile(path string, data []byte) (err error) {
	f, err := s.temp()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return s.rename(f.Name(), path)
}

func (s *store) hasBlob(d stages.Digest) bool {
	_, err := os.Stat(s.blob(d))
	return err == nil
}

func (s *store) openBlob(d stages.Digest) (*os.File, error) {
	f, err := os.Open(s.blob(d))
	return f, absent(err)
}

// manifest is what a repository holds under a digest.
type manifest struct {
	digest    stages.Digest
	mediaType string
	content   []byte
}

// manifestFields are the fields of any kind of manifest that a registry reads.
type manifestFields struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *v1.Descriptor    `json:"config"`
	Layers       []v1.Descriptor   `json:"layers"`
	Manifests    []v1.Descriptor   `json:"manifests"`
	Subject      *v1.Descriptor    `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

// putManifest stores m, under tag too unless that is "".
func (s *store) putManifest(repo, tag string, m manifest, fields manifestFields) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writeFile(s.blob(m.digest), m.content); err != nil {
		return err
	}
	if err := s.writeFile(s.link(repo, m.digest), []byte(m.mediaType)); err != nil {
		return err
	}
	if fields.Subject != nil {
		subject := stages.Digest(fields.Subject.Digest.String())
		if err := s.writeFile(filepath.Join(s.referrers(repo, subject), hex(m.digest)), nil); err != nil {
			return err
		}
	}
	if tag == "" {
		return nil
	}
	return s.writeFile(filepath.Join(s.tags(repo), tag), []byte(m.digest))
}

// resolve returns the digest behind a tag, or the digest that target is.
func (s *store) resolve(repo, target string) (stages.Digest, error) {
	if d, err := stages.ParseDigest(target); err == nil {
		return d, nil
	}
	if stages.ValidateTag(target) != nil {
		return "", errAbsent
	}
	data, err := os.ReadFile(filepath.Join(s.tags(repo), target)) //nolint:gosec // the tag was checked, it has no separator
	if err != nil {
		return "", absent(err)
	}
	return stages.ParseDigest(string(data))
}

func (s *store) getManifest(repo, target string) (manifest, error) {
	d, err := s.resolve(repo, target)
	if err != nil {
		return manifest{}, err
	}
	mediaType, err := os.ReadFile(s.link(repo, d))
	if err != nil {
		return manifest{}, absent(err)
	}
	content, err := os.ReadFile(s.blob(d))
	if err != nil {
		return manifest{}, absent(err)
	}
	return manifest{digest: d, mediaType: string(mediaType), content: content}, nil
}

// deleteManifest removes a tag, or a manifest with the tags that point to it.
// Content stays, because other repositories may share it.
func (s *store) deleteManifest(repo, target string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.getManifest(repo, target)
	if err != nil {
		return err
	}
	if m.digest.String() != target {
		return absent(os.Remove(filepath.Join(s.tags(repo), target))) //nolint:gosec // getManifest has found it, so it is a tag
	}
	tags, err := s.listTags(repo)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if d, err := s.resolve(repo, tag); err == nil && d == m.digest {
			if err := os.Remove(filepath.Join(s.tags(repo), tag)); err != nil {
				return err
			}
		}
	}
	var fields manifestFields
	if err := json.Unmarshal(m.content, &fields); err == nil && fields.Subject != nil {
		subject := stages.Digest(fields.Subject.Digest.String())
		if err := os.Remove(filepath.Join(s.referrers(repo, subject), hex(m.digest))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return absent(os.Remove(s.link(repo, m.digest)))
}

// listTags returns a repository's tags in order.
func (s *store) listTags(repo string) ([]string, error) {
	if _, err := os.Stat(s.manifests(repo)); err != nil {
		return nil, absent(err)
	}
	return names(s.tags(repo))
}

// listRepositories returns the names of all repositories in order.
func (s *store) listRepositories() ([]string, error) {
	var repos []string
	err := filepath.WalkDir(s.repositories(), func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir() || !strings.HasPrefix(d.Name(), "_"):
			return nil
		case d.Name() == "_manifests":
			repo, err := filepath.Rel(s.repositories(), filepath.Dir(path))
			if err != nil {
				return err
			}
			repos = append(repos, filepath.ToSlash(repo))
		}
		return fs.SkipDir
	})
	slices.Sort(repos)
	return repos, err
}

// listReferrers describes the manifests whose subject is the given one.
func (s *store) listReferrers(repo string, subject stages.Digest) ([]v1.Descriptor, error) {
	links, err := names(s.referrers(repo, subject))
	if err != nil {
		return nil, err
	}
	found := make([]v1.Descriptor, 0, len(links))
	for _, link := range links {
		m, err := s.getManifest(repo, "sha256:"+link)
		if errors.Is(err, errAbsent) {
			continue // deleted since
		}
		if err != nil {
			return nil, err
		}
		desc, err := describe(m)
		if err != nil {
			return nil, err
		}
		found = append(found, desc)
	}
	return found, nil
}

// describe returns a descriptor of m as the referrers API wants it.
func describe(m manifest) (v1.Descriptor, error) {
	var fields manifestFields
	if err := json.Unmarshal(m.content, &fields); err != nil {
		return v1.Descriptor{}, fmt.Errorf("manifest %s: %w", m.digest, err)
	}
	digest, err := v1.NewHash(m.digest.String())
	if err != nil {
		return v1.Descriptor{}, err
	}
	artifactType := fields.ArtifactType
	if artifactType == "" && fields.Config != nil {
		artifactType = string(fields.Config.MediaType)
	}
	return v1.Descriptor{
		MediaType:    types.MediaType(m.mediaType),
		Size:         int64(len(m.content)),
		Digest:       digest,
		ArtifactType: artifactType,
		Annotations:  fields.Annotations,
	}, nil
}

// names returns the names in a folder in order; none if there is no folder.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list, err
}

func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errAbsent
	}
	return err
}
