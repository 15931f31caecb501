package helmx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
	"github.com/fairlead-dev/fairlead/stages"
)

// manifestFolder is where the chart that is made of manifests keeps them.
const manifestFolder = "manifests/"

// readManifests makes a chart of plain manifests. Their text stands beside the
// templates, not in them, so that no brace in it is taken for a template's.
func (s *source) readManifests(ctx context.Context, cfg *Config) error {
	files, err := manifestFiles(cfg.Manifests)
	if err != nil {
		return err
	}
	s.files = []*loader.BufferedFile{{Name: "Chart.yaml", Data: []byte("apiVersion: v2\nname: manifests\nversion: 0.0.0\n")}}
	for i, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read manifests: %w", err)
		}
		plain, encrypted, err := cfg.Values.decrypt(ctx, file, data)
		if err != nil {
			return err
		}
		docs, err := parseDocuments(string(plain))
		if err != nil {
			return fmt.Errorf("manifests %s: %s", file, strings.TrimPrefix(err.Error(), "rendered the manifest: "))
		}
		if encrypted {
			for _, doc := range docs {
				tree.EachString(doc.content, func(text string) {
					if len(text) >= shortest && !bytes.Contains(data, []byte(text)) {
						s.hidden = append(s.hidden, text)
					}
				})
			}
		}
		// The number keeps files of the same name in different folders apart.
		name := fmt.Sprintf("%s%03d-%s", manifestFolder, i+1, strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))+".yaml")
		s.files = append(s.files,
			&loader.BufferedFile{Name: name, Data: plain},
			&loader.BufferedFile{Name: "templates/" + path.Base(name), Data: fmt.Appendf(nil, "{{ .Files.Get %q }}\n", name)})
	}
	s.info.Digest, s.info.Reference = filesDigest(s.files), strings.Join(cfg.Manifests, ", ")
	return nil
}

// manifestFiles returns the files that are named, and those in folders that are,
// in a stable order.
func manifestFiles(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("manifests %s do not exist", p)
		case err != nil:
			return nil, fmt.Errorf("read manifests: %w", err)
		case !info.IsDir():
			out = append(out, p)
			continue
		}
		before := len(out)
		err = filepath.WalkDir(p, func(file string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() && isManifest(file) {
				out = append(out, file)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		if len(out) == before {
			return nil, fmt.Errorf("folder %s has no manifests: no .yaml, .yml or .json", p)
		}
	}
	return out, nil
}

func isManifest(file string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(file))
}

// pin writes the image wherever plain manifests run, or mount, its repository, by whatever tag or digest. Charts are told by values.
func (s *source) pin(c *chart.Chart, img stages.Image, fields []ImageField) error {
	if !s.plain || img.IsZero() {
		return nil
	}
	for _, f := range c.Files {
		if !strings.HasPrefix(f.Name, manifestFolder) {
			continue
		}
		docs, err := parseDocuments(string(f.Data))
		if err != nil {
			return err
		}
		var text bytes.Buffer
		pinned := false
		for _, doc := range docs {
			pinned = pinDocument(doc.content, img, fields) || pinned
			data, err := yaml.Marshal(doc.content)
			if err != nil {
				return fmt.Errorf("pin the image in %s: %w", f.Name, err)
			}
			fmt.Fprintf(&text, "---\n%s", data)
		}
		if pinned {
			f.Data = text.Bytes()
		}
	}
	return nil
}

// pinDocument is pinObject for what may be a list of objects.
func pinDocument(content map[string]any, img stages.Image, fields []ImageField) bool {
	items, isList := content["items"].([]any)
	if kind, _ := content["kind"].(string); !isList || !strings.HasSuffix(kind, "List") {
		return pinObject(content, img, fields)
	}
	pinned := false
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			pinned = pinDocument(m, img, fields) || pinned
		}
	}
	return pinned
}

// pinObject reports whether there was something to pin.
func pinObject(content map[string]any, img stages.Image, fields []ImageField) bool {
	pinned := false
	eachImage(content, fields, func(r imageReference) {
		if repository, _ := splitReference(r.image); r.role != imageUnknown && repository == familiar(img.Repository()) {
			r.set(img.String())
			pinned = true
		}
	})
	return pinned
}
