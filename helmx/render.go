package helmx

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/releaseutil"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/stages"
)

// rendering is what a chart comes to for one image on one cluster.
type rendering struct {
	manifest string
	hooks    []*release.Hook
	objects  []object
	hooked   []object
	// definitions are those of the crds folder, which are not of the release.
	definitions []object
}

// render does what Helm will do when it installs or upgrades, and checks that
// the outcome runs img and nothing else of its repository. It changes nothing.
func (d *Deployer) render(s *session, img stages.Image, revision int, upgrade bool) (*rendering, error) {
	if d.cfg.RemoveOnly {
		return nil, fmt.Errorf("%w: it is for removing the release only; give a chart in the place of RemoveOnly", stages.ErrInvalid)
	}
	out, err := d.renderChart(s, img, revision, upgrade)
	if err == nil {
		return out, nil
	}
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("render chart %s: %w", d.cfg.Chart, context.Cause(s.ctx))
	}
	if errors.Is(err, stages.ErrInvalid) { // Our own, which holds no values.
		return nil, fmt.Errorf("render chart %s: %w", d.cfg.Chart, err)
	}
	if failure, ok := errors.AsType[*APIError](s.explain(err)); ok {
		return nil, fmt.Errorf("render chart %s: %w", d.cfg.Chart, failure)
	}
	text, _ := redact(err.Error(), d.source.private)
	return nil, fmt.Errorf("%w: render chart %s: %s", stages.ErrInvalid, d.cfg.Chart, strings.TrimSpace(text))
}

func (d *Deployer) renderChart(s *session, img stages.Image, revision int, upgrade bool) (*rendering, error) {
	chart, values, err := d.source.instance(d.cfg.Logger)
	if err != nil {
		return nil, err
	}
	if err := d.cfg.Image.inject(values, img); err != nil {
		return nil, err
	}
	if err := d.source.pin(chart, img, d.cfg.ImageFields); err != nil {
		return nil, err
	}
	if err := chartutil.ProcessDependenciesWithMerge(chart, values); err != nil {
		return nil, fmt.Errorf("process the dependencies: %w", err)
	}
	caps := s.capabilities()
	if want := chart.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, caps.KubeVersion.String()) {
		return nil, fmt.Errorf("the chart needs Kubernetes %s, the cluster is %s", want, caps.KubeVersion.String())
	}
	options := chartutil.ReleaseOptions{
		Name: d.cfg.Release, Namespace: d.cfg.Namespace, Revision: revision, IsInstall: !upgrade, IsUpgrade: upgrade,
	}
	// The schemas are checked here, where it is known who set what.
	context, err := chartutil.ToRenderValuesWithSchemaValidation(chart, values, options, caps, true)
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	if effective, ok := context["Values"].(chartutil.Values); ok {
		trace := func() (*tracer, error) { return d.source.trace(d.cfg.Image, img) }
		if err := checkSchemas(s.ctx, chart, effective, trace); err != nil {
			return nil, err
		}
	}
	files, err := engine.New(s.rest).Render(chart, context)
	if err != nil {
		return nil, err
	}
	notes := files[path.Join(chart.Name(), "templates", "NOTES.txt")]
	for name := range files {
		if path.Base(name) == "NOTES.txt" {
			delete(files, name)
		}
	}
	hooks, manifests, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for _, m := range manifests {
		fmt.Fprintf(&text, "---\n# Source: %s\n%s\n", m.Name, m.Content)
	}
	if err := checkRecordSize(&release.Release{
		Name: d.cfg.Release, Namespace: d.cfg.Namespace, Version: revision, Chart: chart, Config: values,
		Manifest: text.String(), Hooks: hooks, Info: &release.Info{Notes: notes},
	}); err != nil {
		return nil, err
	}
	return d.newRendering(s, text.String(), hooks, img)
}

// newRendering parses and checks what is about to be applied.
func (d *Deployer) newRendering(s *session, manifest string, hooks []*release.Hook, img stages.Image) (*rendering, error) {
	objects, err := parseObjects(manifest, s.namespace, s.mapper)
	if err != nil {
		return nil, err
	}
	s.declare(objects)
	hooked, err := hookObjects(hooks, s.namespace, s.mapper)
	if err != nil {
		return nil, err
	}
	if err := checkPinned(img, objects, hooked, d.cfg.ImageFields); err != nil {
		return nil, err
	}
	return &rendering{manifest, hooks, objects, hooked, d.source.definitions}, nil
}

// stream returns the definitions of the crds folder, manifest and hooks as one masked
// YAML stream.
func (r *rendering) stream(v veil) ([]byte, error) {
	text := strings.Builder{}
	for _, o := range r.definitions {
		data, err := yaml.Marshal(o.content)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", o.id, err)
		}
		fmt.Fprintf(&text, "---\n# Source: %s\n%s", o.template, data)
	}
	text.WriteString(r.manifest)
	for _, h := range r.hooks {
		fmt.Fprintf(&text, "---\n# Source: %s\n%s\n", h.Path, h.Manifest)
	}
	masked, err := maskManifest(text.String(), v)
	return []byte(masked), err
}
