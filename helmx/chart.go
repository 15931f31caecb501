package helmx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
)

// ChartInfo says which chart a [Deployer] releases.
type ChartInfo struct {
	Name, Version string
	// Digest identifies the content, as "sha256:…": it is the digest of the manifest
	// for a chart from an OCI registry, of the archive for any other packaged one,
	// and of the names and contents of all files for a folder. Dependencies that were
	// fetched are not part of it.
	Digest string
	// Reference is where the chart was found; pinned by digest for an OCI chart.
	Reference string
	// Signer is who signed the chart, where a keyring was given.
	Signer string
	// Dependencies are those that were fetched, in the order of Chart.yaml.
	Dependencies []ChartDependency
}

// source is a chart and the values laid over it, as read by Open. Helm changes
// charts and values while it works, so every operation takes copies.
type source struct {
	files  []*loader.BufferedFile
	info   ChartInfo
	layers *layers
	hooks  bool
	// definitions are those of the crds folder, where they are to be written.
	definitions []object
	// private are the strings among the values that the chart doesn't contain.
	private []string
	// hidden are the strings of manifests that were encrypted in their file.
	hidden []string
	// plain is whether the chart was made of manifests.
	plain bool
	// volatile is whether chart and values may render differently every time.
	volatile bool
}

// loadSource reads the chart and the values. It fetches only if online.
func loadSource(ctx context.Context, cfg *Config, online bool) (*source, error) {
	s := &source{}
	loaded, err := s.loadChart(ctx, cfg, online)
	if err != nil {
		return nil, err
	}
	if t := loaded.Metadata.Type; t != "" && t != "application" {
		return nil, fmt.Errorf("chart %s is of type %q; only an application can be released", cfg.Chart, t)
	}
	if err := s.readDefinitions(loaded, cfg.CRDs); err != nil {
		return nil, fmt.Errorf("chart %s: %w", cfg.Chart, err)
	}
	if loaded.Metadata.Deprecated {
		cfg.Logger.Warn("the chart is deprecated", "chart", loaded.Name())
	}
	if s.layers, err = cfg.Values.load(ctx); err != nil {
		return nil, err
	}
	s.hooks = usesHooks(loaded)
	s.private = privateStrings(s.layers.merged, loaded)
	s.volatile = isRestless(loaded) || restless.MatchString(fmt.Sprint(s.layers.merged))
	return s, nil
}

// loadChart reads the chart with all its dependencies.
func (s *source) loadChart(ctx context.Context, cfg *Config, online bool) (*chart.Chart, error) {
	var f *fetcher
	if online {
		f = newFetcher(&cfg.ChartSource)
		defer f.close()
	}
	if s.plain = len(cfg.Manifests) > 0; s.plain {
		if err := s.readManifests(ctx, cfg); err != nil {
			return nil, err
		}
		return loader.LoadFiles(s.copyFiles())
	}
	folder, err := s.readChart(ctx, cfg, f)
	if err != nil {
		return nil, chartError(cfg.Chart, err)
	}
	loaded, err := loader.LoadFiles(s.copyFiles())
	if err != nil {
		return nil, chartError(cfg.Chart, chartProblem(cfg.Chart, err))
	}
	if v := cfg.ChartSource.Version; v != "" && newestOf([]string{loaded.Metadata.Version}, v) == "" {
		return nil, chartError(cfg.Chart, because(ChartMoved, "it is of version %s, wanted is %s", loaded.Metadata.Version, v))
	}
	s.info.Name, s.info.Version = loaded.Name(), loaded.Metadata.Version
	added, dependencies, err := cfg.ChartSource.complete(ctx, f, loaded, folder)
	if err != nil {
		return nil, chartError(cfg.Chart, err)
	}
	if len(added) == 0 {
		return loaded, nil
	}
	s.files, s.info.Dependencies = append(s.files, added...), dependencies
	if loaded, err = loader.LoadFiles(s.copyFiles()); err != nil {
		return nil, chartError(cfg.Chart, chartProblem(cfg.Chart, err))
	}
	return loaded, nil
}

// readChart gets the chart's own files from wherever they are, as what they are
// said to be. It returns the folder that they are in, if it is one.
func (s *source) readChart(ctx context.Context, cfg *Config, f *fetcher) (folder string, err error) {
	var got *fetched
	switch from := &cfg.ChartSource; {
	case cfg.remoteChart() && f == nil:
		return "", because(ChartOffline, "it has to be fetched, which New doesn't do; use Open")
	case isOCI(cfg.Chart):
		var ref ociRef
		if ref, err = parseOCI(cfg.Chart, from.Version, from.Digest); err != nil {
			return "", err
		}
		got, err = f.fromOCI(ctx, ref, from.Verify)
	case from.Repository != "":
		got, err = f.fromRepository(ctx, from.Repository, cfg.Chart, from.Version, from.Digest, from.Verify)
	default:
		info, statErr := os.Stat(cfg.Chart)
		if statErr == nil && info.IsDir() {
			return cfg.Chart, s.readFolder(cfg)
		}
		got, err = readArchive(cfg, statErr)
	}
	if err != nil {
		return "", err
	}
	if s.files, s.info.Signer, err = cfg.ChartSource.open(got); err != nil {
		return "", err
	}
	s.info.Digest, s.info.Reference = got.digest, got.reference
	if got.name == "" && got.version == "" {
		return "", nil
	}
	c, err := loader.LoadFiles(s.copyFiles())
	if err != nil {
		return "", errors.New(yamlProblem(err))
	}
	return "", got.check(c)
}

// readFolder reads a chart folder, minding .helmignore.
func (s *source) readFolder(cfg *Config) error {
	if cfg.ChartSource.Keyring != nil {
		return because(ChartUntrusted, "a folder can't be signed; package it with helm package --sign, or drop ChartSource.Keyring")
	}
	loaded, err := loader.LoadDir(cfg.Chart)
	if err != nil {
		return chartProblem(cfg.Chart, err)
	}
	s.files = rawFiles(loaded)
	s.info.Digest, s.info.Reference = filesDigest(s.files), cfg.Chart
	if want := cfg.ChartSource.Digest; want != "" && want != s.info.Digest {
		return because(ChartMoved, "its files are %s, to be used is %s", s.info.Digest, want)
	}
	return nil
}

// readArchive reads a packaged chart from disk.
func readArchive(cfg *Config, statErr error) (*fetched, error) {
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		return nil, because(ChartNotFound, "it does not exist")
	case statErr != nil:
		return nil, because(ChartNotFound, "%w", statErr)
	}
	data, err := readAtMost(cfg.Chart, maxArchive)
	if err != nil {
		return nil, err
	}
	out := &fetched{archive: data, digest: digest.FromBytes(data).String(), reference: cfg.Chart}
	if want := cfg.ChartSource.Digest; want != "" && want != out.digest {
		return nil, because(ChartMoved, "the archive is %s, to be used is %s", out.digest, want)
	}
	if cfg.ChartSource.Keyring != nil {
		if out.provenance, err = readAtMost(cfg.Chart+".prov", maxProvenance); err != nil {
			return nil, because(ChartUntrusted, "it is not signed: %w", err)
		}
	}
	return out, nil
}

func readAtMost(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, because(ChartNotFound, "%w", err)
	case info.Size() > limit:
		return nil, because(ChartMalformed, "%s is larger than %d MiB", name, limit>>20)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, because(ChartNotFound, "%w", err)
	}
	return data, nil
}

// open verifies and unpacks what was fetched.
func (s *ChartSource) open(got *fetched) (files []*loader.BufferedFile, signer string, err error) {
	if s.Keyring != nil {
		if signer, err = checkProvenance(s.Keyring, got.provenance, got.archive); err != nil {
			return nil, "", err
		}
	}
	files, err = unpack(got.archive)
	return files, signer, err
}

// check compares the chart in an archive with what it was fetched as.
func (got *fetched) check(c *chart.Chart) error {
	if got.name != "" && c.Name() != got.name || got.version != "" && !sameVersion(c.Metadata.Version, got.version) {
		return because(ChartMoved, "%s holds chart %s %s", got.reference, c.Name(), c.Metadata.Version)
	}
	return nil
}

var chartFileProblem = regexp.MustCompile(`cannot load ([\w.-]+): `)

// chartProblem says what is wrong with the files of a chart without quoting them.
func chartProblem(path string, err error) error {
	if m := chartFileProblem.FindStringSubmatch(err.Error()); m != nil {
		return because(ChartMalformed, "%s", atLine(strings.TrimSuffix(path, "/")+"/"+m[1], errors.New(strings.Replace(err.Error(), m[0], "", 1))))
	}
	return because(ChartMalformed, "%w", err)
}

// copyFiles protects the files from Helm, which renames them while it loads.
func (s *source) copyFiles() []*loader.BufferedFile {
	out := make([]*loader.BufferedFile, len(s.files))
	for i, f := range s.files {
		out[i] = &loader.BufferedFile{Name: f.Name, Data: f.Data}
	}
	return out
}

// instance returns a chart and values that the caller may change.
func (s *source) instance(log *slog.Logger) (*chart.Chart, map[string]any, error) {
	c, err := loader.LoadFiles(s.copyFiles())
	if err != nil {
		return nil, nil, fmt.Errorf("load the chart again: %w", err)
	}
	values := tree.Clone(s.layers.merged)
	shadowChart(c, values, "", func(path string) {
		log.Warn("a value replaces one of another shape", "path", path)
	})
	return c, values, nil
}

// shadowChart does [shadow] for a chart and its dependencies. It leaves alone what
// has effect in a second place, where it isn't replaced: a chart with values that
// are imported, or with an alias.
func shadowChart(c *chart.Chart, given map[string]any, path string, warn func(string)) {
	if importsValues(c) {
		return
	}
	shadow(c.Values, given, path, warn)
	for _, dep := range c.Dependencies() {
		if aliased(c, dep) {
			continue
		}
		// What is laid over the dependency's defaults is both: where the one has a null,
		// the other has no effect.
		over, isMap := given[dep.Name()].(map[string]any)
		under, wasMap := c.Values[dep.Name()].(map[string]any)
		if isMap || wasMap {
			shadowChart(dep, tree.Overlay(under, over), path+"."+dep.Name(), warn)
		}
	}
}

func importsValues(c *chart.Chart) bool {
	return slices.ContainsFunc(c.Metadata.Dependencies, func(d *chart.Dependency) bool { return d != nil && len(d.ImportValues) > 0 }) ||
		slices.ContainsFunc(c.Dependencies(), importsValues)
}

func aliased(c, dep *chart.Chart) bool {
	return slices.ContainsFunc(c.Metadata.Dependencies, func(d *chart.Dependency) bool {
		return d != nil && d.Name == dep.Name() && d.Alias != ""
	})
}

func usesHooks(c *chart.Chart) bool {
	for _, t := range c.Templates {
		if strings.Contains(string(t.Data), "helm.sh/hook") {
			return true
		}
	}
	for _, dep := range c.Dependencies() {
		if usesHooks(dep) {
			return true
		}
	}
	return false
}
