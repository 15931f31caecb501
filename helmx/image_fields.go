package helmx

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// ImageField is a field of a custom resource that holds an image reference, such as
// spec.image of a Prometheus. Where objects that run pods have theirs is known.
type ImageField struct {
	// Kind is the kind of the objects, such as "Prometheus".
	Kind string
	// Path is the field, such as "spec.image", or "spec.sidecars[].image" for one of
	// every item of a list.
	Path string
}

var imagePath = regexp.MustCompile(`^[A-Za-z0-9_-]+(\[\])?(\.[A-Za-z0-9_-]+(\[\])?)*$`)

func validateImageFields(fields []ImageField) error {
	for _, f := range fields {
		if f.Kind == "" || !imagePath.MatchString(f.Path) {
			return fmt.Errorf("ImageFields: %q of kind %q is not a field such as spec.image, or spec.sidecars[].image, of a kind", f.Path, f.Kind)
		}
	}
	return nil
}

// imageRole is what an image reference is for.
type imageRole int

const (
	// imageRuns is of a container, or a field that was declared.
	imageRuns imageRole = iota
	// imageMounted is of a volume.
	imageMounted
	// imageUnknown is a field that looks like one.
	imageUnknown
)

// imageReference is one in an object.
type imageReference struct {
	role imageRole
	// where names it to people, such as "container web" or "spec.image".
	where, image string
	// set writes another one in its place.
	set func(image string)
}

// eachImage visits all image references of an object: those of its containers and
// volumes, wherever they are, because custom resources have pod templates too, those
// of declared fields, and whatever else is called an image.
func eachImage(content map[string]any, fields []ImageField, visit func(imageReference)) {
	kind, _ := content["kind"].(string)
	switch kind {
	case "ConfigMap", "Secret", "CustomResourceDefinition":
		return // Nothing in them is run.
	}
	w := imageWalk{visit: visit}
	for _, f := range fields {
		if f.Kind == kind {
			w.declared = append(w.declared, f.Path)
		}
	}
	w.fields("", content)
}

type imageWalk struct {
	declared []string
	visit    func(imageReference)
}

func (w *imageWalk) fields(path string, m map[string]any) {
	for _, key := range sortedKeys(m) {
		at := strings.TrimPrefix(path+"."+key, ".")
		if at == "metadata" || at == "status" {
			continue
		}
		list, isList := m[key].([]any)
		switch {
		case isList && slices.Contains([]string{"containers", "initContainers", "ephemeralContainers"}, key):
			for _, item := range list {
				if c, ok := item.(map[string]any); ok {
					w.reference(imageRuns, fmt.Sprintf("container %v", c["name"]), c, "image")
				}
			}
		case isList && key == "volumes":
			for _, item := range list {
				volume, _ := item.(map[string]any)
				if source, ok := volume["image"].(map[string]any); ok {
					w.reference(imageMounted, fmt.Sprintf("volume %v", volume["name"]), source, "reference")
				}
			}
		default:
			w.value(at, m, key)
		}
	}
}

// reference visits the string at key, if there is one.
func (w *imageWalk) reference(role imageRole, where string, in map[string]any, key string) {
	if text, ok := in[key].(string); ok && text != "" {
		w.visit(imageReference{role, where, text, func(image string) { in[key] = image }})
	}
}

// value looks at what a field outside of containers has.
func (w *imageWalk) value(path string, in map[string]any, key string) {
	switch v := in[key].(type) {
	case map[string]any:
		w.fields(path, v)
	case []any:
		for i, item := range v {
			switch item := item.(type) {
			case map[string]any:
				w.fields(path+"[]", item)
			case string:
				if slices.Contains(w.declared, path+"[]") {
					w.visit(imageReference{imageRuns, path + "[]", item, func(image string) { v[i] = image }})
				}
			}
		}
	case string:
		switch {
		case slices.Contains(w.declared, path):
			w.reference(imageRuns, path, in, key)
		case key == "image" || strings.HasSuffix(key, "Image"):
			w.reference(imageUnknown, path, in, key)
		}
	}
}

// uncheckedImages notes the fields of objects that look like image references and
// were not declared.
func uncheckedImages(objects []object, fields []ImageField) []stages.Note {
	var out []stages.Note
	for _, o := range objects {
		var found []string
		eachImage(o.content, fields, func(r imageReference) {
			if r.role == imageUnknown && !slices.Contains(found, r.where) {
				found = append(found, r.where)
			}
		})
		if len(found) > 0 {
			out = append(out, stages.Note{Kind: stages.NoteImageUnchecked, Object: o.id,
				Message: strings.Join(found, ", ") + " may be an image, which is neither pinned nor checked; declare it with ImageFields"})
		}
	}
	return out
}
