package smoke

import (
	"errors"
	"fmt"
	"strings"
	"text/template"

	"github.com/fairlead-dev/fairlead/stages"
)

// pattern is text in which a release's name, namespace and revision are filled in.
type pattern struct {
	field    string // of the configuration
	template *template.Template
}

func parsePattern(field, text string) (pattern, error) {
	t, err := template.New(field).Option("missingkey=error").Parse(text)
	if err != nil {
		return pattern{}, errors.Join(stages.ErrInvalid, fmt.Errorf("parse %s: %w", field, err))
	}
	p := pattern{field, t}
	_, err = p.fill(stages.Release{Name: "release", Namespace: "namespace", Revision: 1})
	return p, err
}

func (p pattern) fill(rel stages.Release) (string, error) {
	var b strings.Builder
	data := map[string]any{"Release": rel.Name, "Namespace": rel.Namespace, "Revision": rel.Revision}
	if err := p.template.Execute(&b, data); err != nil {
		return "", errors.Join(stages.ErrInvalid, fmt.Errorf("fill in %s: %w", p.field, err))
	}
	return b.String(), nil
}
