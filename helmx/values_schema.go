package helmx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"

	"github.com/fairlead-dev/fairlead/stages"
)

// SchemaError is values that a values.schema.json of the chart, or of one of its
// dependencies, doesn't allow. It matches [stages.ErrInvalid].
type SchemaError struct {
	// Violations are all there are, ordered by path.
	Violations []SchemaViolation
}

// SchemaViolation is one value that is not as the schema wants it. It doesn't hold
// the value.
type SchemaViolation struct {
	// Path is the value's path, as --set takes it; empty for the values as a whole.
	Path string
	// Origin is what set the value. For a value that is missing, it is what set the
	// map that lacks it; its Kind is empty if nothing did.
	Origin Origin
	// Chart is the path of the chart whose schema it is, such as "shop/charts/redis".
	Chart string
	// Want is what the schema wants, such as "expected integer, got string".
	Want string
}

// String returns "values-prod.yaml:12: replicas: expected integer, got string".
func (v SchemaViolation) String() string {
	text := v.Want
	if v.Path != "" {
		text = v.Path + ": " + text
	}
	if v.Origin.Kind == "" {
		return "schema of " + v.Chart + ": " + text
	}
	return v.Origin.String() + ": " + text
}

// Error lists the violations.
func (e *SchemaError) Error() string {
	lines := make([]string, len(e.Violations))
	for i, v := range e.Violations {
		lines[i] = "\n  " + v.String()
	}
	return "the values are not as the chart's schema wants them:" + strings.Join(lines, "")
}

// Unwrap returns the class.
func (e *SchemaError) Unwrap() error { return stages.ErrInvalid }

// checkSchemas validates values against the schemas of c and its dependencies, as
// Helm would. trace is asked where values come from, if something is wrong.
func checkSchemas(ctx context.Context, c *chart.Chart, values map[string]any, trace func() (*tracer, error)) error {
	found, err := violations(ctx, c, values, nil)
	if err != nil || len(found) == 0 {
		return err
	}
	out := &SchemaError{}
	locate := func([]string) Origin { return Origin{} }
	if t, err := trace(); err == nil {
		if marks, err := t.effective(t.start()); err == nil {
			locate = func(at []string) Origin { return t.locate(marks, at) }
		}
	}
	for _, v := range found {
		v.Path, v.Origin = formatPath(values, v.at), locate(v.at)
		if !slices.Contains(out.Violations, v.SchemaViolation) {
			out.Violations = append(out.Violations, v.SchemaViolation)
		}
	}
	slices.SortStableFunc(out.Violations, func(a, b SchemaViolation) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// violation is one that is not located yet.
type violation struct {
	SchemaViolation
	at []string
}

func violations(ctx context.Context, c *chart.Chart, values map[string]any, prefix []string) ([]violation, error) {
	var out []violation
	if c.Schema != nil {
		err := validate(ctx, c.Schema, values)
		if failed, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
			for _, v := range leaves(failed) {
				v.Chart, v.at = c.ChartFullPath(), append(slices.Clip(prefix), v.at...)
				out = append(out, v)
			}
		} else if err != nil {
			return nil, fmt.Errorf("schema of chart %s: %w", c.ChartFullPath(), err)
		}
	}
	for _, dep := range c.Dependencies() {
		at := append(slices.Clip(prefix), dep.Name())
		switch sub := values[dep.Name()].(type) {
		case nil:
		case map[string]any:
			found, err := violations(ctx, dep, sub, at)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		default:
			out = append(out, violation{SchemaViolation{Chart: dep.ChartFullPath(), Want: "expected object"}, at})
		}
	}
	return out, nil
}

const schemaURL = "file:///values.schema.json"

func validate(ctx context.Context, text []byte, values map[string]any) (err error) {
	defer func() {
		if r := recover(); r != nil { // As Helm does: the validator panics on some schemas.
			err = errors.New("the schema can't be used")
		}
	}()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(schemaLoader{ctx})
	if err := compiler.AddResource(schemaURL, doc); err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	schema, err := compiler.Compile(schemaURL)
	if err != nil {
		return fmt.Errorf("compile it: %w", err)
	}
	return schema.Validate(values)
}

// schemaLoader follows references to other schemas, as Helm does, but not into the
// file system.
type schemaLoader struct {
	// ctx is kept because the interface passes none.
	ctx context.Context //nolint:containedctx // See above.
}

// maxSchema bounds what is read of a schema that another one refers to.
const maxSchema = 8 << 20

// Load returns the schema at address.
func (l schemaLoader) Load(address string) (any, error) {
	scheme, _, _ := strings.Cut(address, ":")
	switch scheme {
	case "urn":
		if doc, err := chartutil.URNResolver(address); err == nil && doc != nil {
			return doc, nil
		}
		return true, nil // Helm takes what it can't resolve for a schema that allows everything.
	case "http", "https":
	default:
		return nil, fmt.Errorf("it refers to %s, which is not part of the chart", address)
	}
	req, err := http.NewRequestWithContext(l.ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("refer to %s: %w", address, err)
	}
	transport := &http.Transport{ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("refer to %s: %w", address, networkCause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("refer to %s: the server says %s", address, resp.Status)
	}
	return jsonschema.UnmarshalJSON(io.LimitReader(resp.Body, maxSchema))
}

// leaves returns what a failed validation comes down to.
func leaves(e *jsonschema.ValidationError) []violation {
	at := slices.Clone(e.InstanceLocation)
	one := func(want string) []violation { return []violation{{SchemaViolation{Want: want}, at}} }
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf:
		return one(alternatives(e))
	case *kind.Not:
		return one("has a form that is ruled out")
	case *kind.AdditionalProperties:
		var out []violation
		for _, name := range k.Properties {
			out = append(out, violation{SchemaViolation{Want: "is not known to the chart"}, append(slices.Clip(at), name)})
		}
		return out
	}
	if len(e.Causes) == 0 {
		return one(wanted(e.ErrorKind))
	}
	var out []violation
	for _, cause := range e.Causes {
		out = append(out, leaves(cause)...)
	}
	return out
}

// alternatives says what would satisfy one of several schemas.
func alternatives(e *jsonschema.ValidationError) string {
	var wants []string
	for _, cause := range e.Causes {
		for _, v := range leaves(cause) {
			want := v.Want
			if below := v.at[min(len(e.InstanceLocation), len(v.at)):]; len(below) > 0 {
				want = strings.Join(below, ".") + ": " + want
			}
			if !slices.Contains(wants, want) {
				wants = append(wants, want)
			}
		}
	}
	if len(wants) == 0 {
		return "satisfies more than one of the alternatives"
	}
	return "satisfies none of the alternatives (" + strings.Join(wants, "; ") + ")"
}

// wanted says what a keyword of the schema wants, without what it got: that may be
// a secret.
func wanted(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return fmt.Sprintf("expected %s, got %s", strings.Join(k.Want, " or "), k.Got)
	case *kind.Required:
		return "lacks " + strings.Join(k.Missing, ", ")
	case *kind.DependentRequired:
		return fmt.Sprintf("has %s and so needs %s", k.Prop, strings.Join(k.Missing, ", "))
	case *kind.Dependency:
		return fmt.Sprintf("has %s and so needs %s", k.Prop, strings.Join(k.Missing, ", "))
	case *kind.Enum:
		texts := make([]string, len(k.Want))
		for i, want := range k.Want {
			texts[i] = schemaText(want)
		}
		return "expected one of " + strings.Join(texts, ", ")
	case *kind.Const:
		return "expected " + schemaText(k.Want)
	case *kind.Pattern:
		return "does not match the pattern " + k.Want
	case *kind.Format:
		return "expected the format " + k.Want
	case *kind.Minimum:
		return "expected at least " + k.Want.RatString()
	case *kind.Maximum:
		return "expected at most " + k.Want.RatString()
	case *kind.ExclusiveMinimum:
		return "expected more than " + k.Want.RatString()
	case *kind.ExclusiveMaximum:
		return "expected less than " + k.Want.RatString()
	case *kind.MultipleOf:
		return "expected a multiple of " + k.Want.RatString()
	case *kind.MinLength:
		return fmt.Sprintf("expected at least %d characters", k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("expected at most %d characters", k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("expected at least %d items, got %d", k.Want, k.Got)
	case *kind.MaxItems:
		return fmt.Sprintf("expected at most %d items, got %d", k.Want, k.Got)
	case *kind.MinProperties:
		return fmt.Sprintf("expected at least %d keys, got %d", k.Want, k.Got)
	case *kind.MaxProperties:
		return fmt.Sprintf("expected at most %d keys, got %d", k.Want, k.Got)
	case *kind.UniqueItems:
		return fmt.Sprintf("items %d and %d are equal", k.Duplicates[0], k.Duplicates[1])
	case *kind.FalseSchema:
		return "is not allowed"
	default:
		return "is not as the keyword " + strings.Join(k.KeywordPath(), "/") + " wants it"
	}
}

// schemaText writes a value that the schema itself has.
func schemaText(v any) string {
	if text, ok := v.(string); ok {
		return quoteJSON(text)
	}
	return fmt.Sprint(v)
}
