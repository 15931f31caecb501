package helmfile

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
)

// Load reads a helmfile and all values of the chosen releases, and returns them as
// a set. It sends nothing to the cluster. A local chart is read when it is its
// release's turn; one of a repository is fetched, to know its version and digest,
// and again by these when it is its turn. Its errors match [stages.ErrInvalid], or are an [UnboundError], or those of
// Decrypt and Fetch.
func Load(ctx context.Context, cfg Config) (*releaseset.Set, error) {
	set, _, err := load(ctx, cfg)
	return set, err
}

// load returns the deployers' configurations as well, by the IDs of all releases.
func load(ctx context.Context, cfg Config) (*releaseset.Set, map[string]*helmx.Config, error) {
	if err := cfg.prepare(); err != nil {
		return nil, nil, err
	}
	l := newLoader(cfg)
	if err := l.load(ctx); err != nil {
		return nil, nil, err
	}
	releases, err := l.effective()
	if err != nil {
		return nil, nil, err
	}
	if len(releases) == 0 {
		return nil, nil, fmt.Errorf("%w: %s has no releases for the environment %s", stages.ErrInvalid, cfg.Path, cfg.Environment)
	}
	images, err := l.bind(releases)
	if err != nil {
		return nil, nil, err
	}
	prepared := make(map[string]*helmx.Config, len(releases))
	set, err := l.set(releases, images, prepared)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", cfg.Path, err)
	}
	chosen, err := set.Select(releaseset.Selection{Selectors: cfg.Selectors, IncludeNeeds: cfg.IncludeNeeds})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", cfg.Path, err)
	}
	members := chosen.Members()
	var problems []error
	for _, rel := range releases {
		if slices.Contains(members, rel.id()) {
			problems = append(problems, l.prepare(ctx, rel, images[rel.id()], prepared[rel.id()]))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, nil, err
	}
	return chosen, prepared, nil
}

func (r release) id() string { return r.namespace + "/" + r.name }

// removed reports whether the release is to go.
func (r release) removed() bool { return r.installed != nil && !*r.installed }

// bind returns the images by the IDs of their releases.
func (l *loader) bind(releases []release) (map[string]Image, error) {
	bound := make(map[string]Image, len(l.cfg.Images))
	for name, img := range l.cfg.Images {
		var ids []string
		for _, rel := range releases {
			if rel.id() == name || rel.name == name {
				ids = append(ids, rel.id())
			}
		}
		switch {
		case len(ids) == 0:
			return nil, fmt.Errorf("%w: Images has %q, but %s has no such release for the environment %s", stages.ErrInvalid, name, l.cfg.Path, l.cfg.Environment)
		case len(ids) > 1:
			return nil, fmt.Errorf("%w: Images has %q, which is one of %s", stages.ErrInvalid, name, strings.Join(ids, ", "))
		}
		if _, twice := bound[ids[0]]; twice {
			return nil, fmt.Errorf("%w: Images has %s twice", stages.ErrInvalid, ids[0])
		}
		bound[ids[0]] = img
	}
	return bound, nil
}

// set makes the members. What their deployers need is in prepared before the set
// is used.
func (l *loader) set(releases []release, images map[string]Image, prepared map[string]*helmx.Config) (*releaseset.Set, error) {
	cfg := releaseset.Config{Concurrency: l.cfg.Concurrency, RollbackTimeout: l.cfg.RollbackTimeout}
	for _, rel := range releases {
		needs, err := l.needs(rel, releases)
		if err != nil {
			return nil, err
		}
		config := new(helmx.Config)
		prepared[rel.id()] = config
		img, bound := images[rel.id()]
		m := releaseset.Member{
			Namespace: rel.namespace, Name: rel.name, Needs: needs, Labels: rel.labels,
			Image: img.Image, Clearance: img.Clearance, Unscanned: !bound && !rel.removed(), Remove: rel.removed(),
			Open: func(ctx context.Context) (releaseset.Deployer, error) { return helmx.Open(ctx, *config) },
		}
		m.Labels["chart"] = path.Base(rel.chart)
		switch {
		case rel.removed() && bound:
			return nil, rel.error(rel.line, rel.field+".installed", "is false, but an image is bound to %s with Config.Images; drop one of them", rel.id())
		case rel.removed():
		case l.cfg.Verify != nil && (rel.wait == nil || *rel.wait):
			m.Verify = l.cfg.Verify(rel.namespace, rel.name)
			if m.Verify == nil && rel.wait != nil {
				return nil, rel.error(rel.line, rel.field+".wait", "needs a verifier; Config.Verify has none for %s", rel.id())
			}
		}
		cfg.Members = append(cfg.Members, m)
	}
	return releaseset.New(cfg)
}

// needs returns what a release needs, but for releases that the condition leaves
// out.
func (l *loader) needs(rel release, releases []release) ([]string, error) {
	var out []string
	for _, need := range rel.needs {
		parts := strings.Split(need.text, "/")
		if len(parts) > 2 {
			if context := strings.Join(parts[:len(parts)-2], "/"); context != l.cfg.KubeContext {
				return nil, rel.error(need.line, rel.field+".needs", "a release in another context, %q, can't be needed; it is not in the set", context)
			}
			parts = parts[len(parts)-2:]
		}
		id := strings.Join(parts, "/")
		if len(parts) == 1 {
			id = rel.namespace + "/" + id
		}
		left := func(r release) bool { return r.id() == id }
		if !slices.ContainsFunc(releases, left) && slices.ContainsFunc(l.releases, func(r release) bool { return l.named(r, id) }) {
			continue
		}
		out = append(out, id)
	}
	return out, nil
}

// named reports whether a release as written, whose condition may not hold, has
// that ID.
func (l *loader) named(rel release, id string) bool {
	rel, err := l.inherited(rel, nil)
	if err == nil {
		rel, err = l.expand(rel)
	}
	return err == nil && rel.id() == id
}

// prepare fills in what the release's deployer is made of.
func (l *loader) prepare(ctx context.Context, rel release, img Image, config *helmx.Config) error {
	if rel.removed() {
		// Its history is what it is brought back from if another release fails.
		*config = helmx.Config{RemoveOnly: true, KeepHistory: true, Release: rel.name, Namespace: rel.namespace, Cluster: l.cfg.Cluster, Logger: l.cfg.Logger}
		if rel.deleteTimeout != nil {
			config.Timeout = time.Duration(*rel.deleteTimeout) * time.Second
		}
		return nil
	}
	*config = helmx.Config{
		Release: rel.name, Namespace: rel.namespace, CreateNamespace: rel.createNamespace == nil || *rel.createNamespace,
		Image: img.Values, CRDs: rel.crds(), TakeOwnership: rel.takeOwnership != nil && *rel.takeOwnership,
		Cluster: l.cfg.Cluster, Logger: l.cfg.Logger,
	}
	if rel.timeout != nil {
		config.Timeout = time.Duration(*rel.timeout) * time.Second
	}
	if rel.historyMax != nil {
		config.HistoryMax = *rel.historyMax
	}
	if img == (Image{}) {
		if config.Unscanned = l.cfg.AllowUnscanned; config.Unscanned == "" {
			return &UnboundError{Release: rel.id()}
		}
	}
	local, far, err := l.chart(rel)
	if err != nil {
		return err
	}
	if far != nil && l.cfg.Fetch != nil {
		if local, err = l.cfg.Fetch(ctx, *far); err != nil {
			return fmt.Errorf("fetch the chart %s of release %s: %w", shown(rel.chart), rel.id(), err)
		}
		far = nil
	}
	config.Chart = local
	if config.Values, err = l.releaseValues(ctx, rel); err != nil || far == nil {
		return err
	}
	return l.remote(ctx, rel, *far, config)
}
