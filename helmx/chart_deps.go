package helmx

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/provenance"
)

// ChartDependency is a dependency that was fetched because the chart didn't bring
// it along.
type ChartDependency struct {
	Name, Version string
	// Repository is as in Chart.yaml.
	Repository string
	// Digest identifies the content, as [ChartInfo.Digest] does.
	Digest string
	// Signer is who signed it, where a keyring was given.
	Signer string
}

// missing returns the dependencies that are named in Chart.yaml and not in the
// charts folder.
func missing(c *chart.Chart) []*chart.Dependency {
	var out []*chart.Dependency
	for _, want := range c.Metadata.Dependencies {
		if want != nil && !slices.ContainsFunc(c.Dependencies(), func(have *chart.Chart) bool { return have.Name() == want.Name }) {
			out = append(out, want)
		}
	}
	return out
}

// complete returns the files of the dependencies that c lacks, at the versions
// that Chart.lock says. folder is where c is, empty if it is packaged; f is nil
// while nothing may be fetched.
func (s *ChartSource) complete(ctx context.Context, f *fetcher, c *chart.Chart, folder string) ([]*loader.BufferedFile, []ChartDependency, error) {
	absent := missing(c)
	if len(absent) == 0 {
		return nil, nil, nil
	}
	versions, err := lockedVersions(c)
	if err != nil && !s.Unlocked {
		return nil, nil, because(ChartUnlocked, "%s not in the charts folder, and %w", names(absent), err)
	}
	var files []*loader.BufferedFile
	var out []ChartDependency
	seen := map[string]bool{}
	for _, want := range absent {
		version, ok := versions[want]
		if !ok {
			version = want.Version
		}
		key := want.Repository + " " + want.Name + " " + version
		if seen[key] {
			continue // The same chart under another alias.
		}
		seen[key] = true
		added, made, err := s.dependency(ctx, f, want, version, folder)
		if err != nil {
			return nil, nil, chartError(fmt.Sprintf("%s, dependency of %s", want.Name, c.Name()), err)
		}
		files, out = append(files, added...), append(out, made)
	}
	return files, out, nil
}

func names(deps []*chart.Dependency) string {
	var out []string
	for _, d := range deps {
		out = append(out, d.Name)
	}
	if len(out) == 1 {
		return "dependency " + out[0] + " is"
	}
	return "dependencies " + strings.Join(out, ", ") + " are"
}

// lockedVersions returns the version that Chart.lock has for each dependency.
func lockedVersions(c *chart.Chart) (map[*chart.Dependency]string, error) {
	const remedy = "run helm dependency update and commit Chart.lock"
	if c.Lock == nil {
		return nil, errors.New("there is no Chart.lock; " + remedy)
	}
	wanted := c.Metadata.Dependencies
	if len(wanted) != len(c.Lock.Dependencies) || c.Lock.Digest != lockDigest(wanted, c.Lock.Dependencies) {
		return nil, errors.New("the Chart.lock is not of this Chart.yaml; " + remedy)
	}
	out := map[*chart.Dependency]string{}
	for i, locked := range c.Lock.Dependencies {
		if locked == nil || locked.Name != wanted[i].Name || locked.Repository != wanted[i].Repository {
			return nil, errors.New("the Chart.lock is not of this Chart.yaml; " + remedy)
		}
		out[wanted[i]] = locked.Version
	}
	return out, nil
}

// lockDigest is what Helm writes into Chart.lock to notice a changed Chart.yaml.
func lockDigest(wanted, locked []*chart.Dependency) string {
	data, err := json.Marshal([2][]*chart.Dependency{wanted, locked})
	if err != nil {
		return ""
	}
	sum, err := provenance.Digest(bytes.NewReader(data))
	if err != nil {
		return ""
	}
	return "sha256:" + sum
}

// dependency gets one dependency, as files below the charts folder.
func (s *ChartSource) dependency(ctx context.Context, f *fetcher, want *chart.Dependency, version, folder string) ([]*loader.BufferedFile, ChartDependency, error) {
	made := ChartDependency{Name: want.Name, Version: version, Repository: want.Repository}
	switch {
	case want.Repository == "":
		return nil, made, because(ChartNotFound, "Chart.yaml names no repository, so it has to be in the charts folder")
	case strings.HasPrefix(want.Repository, "@"), strings.HasPrefix(want.Repository, "alias:"):
		return nil, made, because(ChartNotFound, "Chart.yaml names its repository as %s, which is an alias in somebody's Helm configuration; name its URL", want.Repository)
	case strings.HasPrefix(want.Repository, "file://"):
		return localDependency(made, folder)
	case f == nil:
		return nil, made, because(ChartOffline, "it has to be fetched from %s: use Open, or run helm dependency build beforehand", redactURL(want.Repository))
	}
	var got *fetched
	var err error
	if isOCI(want.Repository) {
		var ref ociRef
		if ref, err = parseOCI(strings.TrimSuffix(want.Repository, "/")+"/"+want.Name, version, ""); err != nil {
			return nil, made, because(ChartNotFound, "%w", err)
		}
		if got, err = f.fromOCI(ctx, ref, nil); err == nil {
			got.name = want.Name
		}
	} else {
		got, err = f.fromRepository(ctx, want.Repository, want.Name, version, "", nil)
	}
	if err != nil {
		return nil, made, err
	}
	files, signer, err := s.open(got)
	if err != nil {
		return nil, made, err
	}
	c, err := loader.LoadFiles(files)
	if err != nil {
		return nil, made, because(ChartMalformed, "%s", yamlProblem(err))
	}
	if err := got.check(c); err != nil {
		return nil, made, err
	}
	made.Version, made.Digest, made.Signer = c.Metadata.Version, got.digest, signer
	return below(made, files), made, nil
}

// localDependency takes a dependency from a folder beside the chart.
func localDependency(made ChartDependency, folder string) ([]*loader.BufferedFile, ChartDependency, error) {
	if folder == "" {
		return nil, made, because(ChartNotFound, "a packaged chart can't refer to %s; package it with its dependencies", made.Repository)
	}
	dir := strings.TrimPrefix(made.Repository, "file://")
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(folder, dir)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, made, because(ChartNotFound, "%s is not a folder", dir)
	}
	c, err := loader.LoadDir(dir)
	if err != nil {
		return nil, made, because(ChartMalformed, "%s", yamlProblem(err))
	}
	if c.Name() != made.Name || newestOf([]string{c.Metadata.Version}, made.Version) == "" {
		return nil, made, because(ChartMoved, "%s holds %s %s, wanted is %s; run helm dependency update", dir, c.Name(), c.Metadata.Version, made.Version)
	}
	files := rawFiles(c)
	made.Version, made.Digest = c.Metadata.Version, filesDigest(files)
	return below(made, files), made, nil
}

// below moves files into the charts folder. Two versions of one chart may be there
// under different aliases.
func below(made ChartDependency, files []*loader.BufferedFile) []*loader.BufferedFile {
	for _, f := range files {
		f.Name = "charts/" + made.Name + "-" + made.Version + "/" + f.Name
	}
	return files
}

func rawFiles(c *chart.Chart) []*loader.BufferedFile {
	out := make([]*loader.BufferedFile, len(c.Raw))
	for i, f := range c.Raw {
		out[i] = &loader.BufferedFile{Name: f.Name, Data: f.Data}
	}
	return out
}
