package helmx

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
	"github.com/fairlead-dev/fairlead/stages"
)

// OriginKind says what kind of source a value comes from.
type OriginKind string

// The kinds, from the one that yields to all others upwards.
const (
	// FromChart is the values.yaml of the chart or of a dependency.
	FromChart OriginKind = "chart"
	// FromFile is one of [Values.Files] or [Values.Layers].
	FromFile OriginKind = "file"
	// FromMap is [Values.Map].
	FromMap OriginKind = "map"
	// FromOverride is one of [Values.Overrides].
	FromOverride OriginKind = "override"
	// FromImage is the image that is released, see [Config.Image].
	FromImage OriginKind = "image"
)

// Origin is where a value was set.
type Origin struct {
	Kind OriginKind `json:"kind"`
	// Name is the chart's path, such as "shop/charts/redis", the file, or the mode of
	// the override.
	Name string `json:"name,omitempty"`
	// Index counts the files and layers, or the overrides, from 1.
	Index int `json:"index,omitempty"`
	// Line is where it is set in the file, from 1; 0 where there is no line.
	Line int `json:"line,omitempty"`
}

// String names the origin as "values-prod.yaml:12".
func (o Origin) String() string {
	var text string
	switch o.Kind {
	case FromChart:
		text = o.Name + "/values.yaml"
	case FromFile:
		text = o.Name
	case FromMap:
		return "Values.Map"
	case FromOverride:
		return fmt.Sprintf("override %d (%s)", o.Index, o.Name)
	case FromImage:
		return "the image"
	default:
		return "an unknown source"
	}
	if o.Line > 0 {
		text += ":" + strconv.Itoa(o.Line)
	}
	return text
}

// Provenance tells where an effective value comes from. Printing it doesn't show
// the value, which may be a secret.
type Provenance struct {
	// Path is the value's path, as --set takes it: "image.tag", "hosts[0].name".
	Path string `json:"path"`
	// Origin is what set the value.
	Origin Origin `json:"origin"`
	// Overrode are the sources that would have set it otherwise, nearest first.
	Overrode []Origin `json:"overrode,omitempty"`
	// Removed means that there is no value: Origin removed it with a null.
	Removed bool `json:"removed,omitempty"`

	// value is a function so that no way of printing reaches the value.
	value func() any
}

// Value returns the effective value: a scalar, nil, or an empty map or list. It is
// nil for what comes from the image, which is known only when one is released.
func (p Provenance) Value() any {
	if p.value == nil {
		return nil
	}
	return tree.CloneValue(p.value())
}

// String returns a line such as "replicas: values-prod.yaml:12, over
// shop/values.yaml:3".
func (p Provenance) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: ", p.Path)
	if p.Removed {
		text.WriteString("removed by ")
	}
	text.WriteString(p.Origin.String())
	for _, o := range p.Overrode {
		fmt.Fprintf(&text, ", over %s", o)
	}
	return text.String()
}

// Provenance tells which source set the effective value at path, and what that
// overrode. A map or list is told by what is in it, "" by all there is, ordered by
// path. The effective values are those that templates get: the chart's defaults,
// those for and from its dependencies, globals, and the values laid over them.
// Dependencies that are disabled don't count. It returns an error matching
// [stages.ErrInvalid] if no source has set anything at path.
func (d *Deployer) Provenance(path string) ([]Provenance, error) {
	steps, err := parsePath(path)
	if err != nil {
		return nil, err
	}
	t, err := d.source.trace(d.cfg.Image, stages.Image{})
	if err != nil {
		return nil, fmt.Errorf("%w: provenance of %q: %w", stages.ErrInvalid, path, err)
	}
	found, err := t.explain(steps)
	if err != nil {
		return nil, fmt.Errorf("%w: provenance of %q: %w", stages.ErrInvalid, path, err)
	}
	if len(found) == 0 && path != "" {
		return nil, fmt.Errorf("%w: no source of values sets %q", stages.ErrInvalid, path)
	}
	return found, nil
}
