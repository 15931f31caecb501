package helmx_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/strvals"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// strictChart is the test chart with a schema, and a dependency with one too.
func strictChart(t *testing.T, schema string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop")
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/digest")))
	write(t, dir, "values.schema.json", schema)
	write(t, dir, "charts/db/Chart.yaml", "apiVersion: v2\nname: db\nversion: 1.0.0\n")
	write(t, dir, "charts/db/values.yaml", "size: 1\nmode: fast\n")
	write(t, dir, "charts/db/values.schema.json", `{"properties": {"size": {"maximum": 5}, "mode": {"enum": ["fast", "safe"]}}}`)
	return dir
}

const strictSchema = `{
  "required": ["owner"], "additionalProperties": true,
  "properties": {
    "replicas": {"type": "integer", "maximum": 9},
    "password": {"type": "string", "minLength": 40},
    "message": {"anyOf": [{"type": "integer"}, {"pattern": "^[a-z]*$"}]},
    "ports": {"type": "array", "items": {"type": "integer"}},
    "tls": {"type": "object", "required": ["cert"], "additionalProperties": false, "properties": {"cert": {"type": "string"}}}
  }
}`

func TestSchemaErrorsPointAtTheLine(t *testing.T) {
	dir := t.TempDir()
	prod := write(t, dir, "prod.yaml", "\nreplicas: many\nmessage: "+canary+"1\nports:\n- 1\n- "+canary+"\ntls:\n  key: x\n  other: y\ndb:\n  size: 77777\n")
	cfg := digestConfig(newAPIServer(t, "shop"), helmx.Set("password="+canary), helmx.Set("db.mode="+canary))
	cfg.Chart, cfg.Values.Files = strictChart(t, strictSchema), []string{prod}
	d := open(t, cfg)
	_, planErr := d.Plan(t.Context(), stages.PlanRequest{Image: image("a")})
	_, deployErr := d.Deploy(t.Context(), request(t, "run-1", "a"))
	for _, err := range []error{planErr, deployErr} {
		require.ErrorIs(t, err, stages.ErrInvalid)
		failure, ok := errors.AsType[*helmx.SchemaError](err)
		require.True(t, ok, "%v", err)
		var got []string
		for _, v := range failure.Violations {
			got = append(got, strings.ReplaceAll(v.String(), dir+"/", ""))
		}
		assert.Equal(t, []string{
			"the image: lacks owner",
			"override 2 (set): db.mode: expected one of \"fast\", \"safe\"",
			"prod.yaml:11: db.size: expected at most 5",
			"prod.yaml:3: message: satisfies none of the alternatives (expected integer, got string; does not match the pattern ^[a-z]*$)",
			"override 1 (set): password: expected at least 40 characters",
			"prod.yaml:6: ports[1]: expected integer, got string",
			"prod.yaml:2: replicas: expected integer, got string",
			"prod.yaml:7: tls: lacks cert",
			"prod.yaml:8: tls.key: is not known to the chart",
			"prod.yaml:9: tls.other: is not known to the chart",
		}, got)
		assert.NotContains(t, fmt.Sprintf("%+v", err), canary)
		assert.NotContains(t, fmt.Sprintf("%+v", err), "77777")
		assert.Equal(t, "shop/charts/db", failure.Violations[1].Chart)
	}
}

// What Helm refuses is refused, and nothing else.
func TestSchemaParityWithHelm(t *testing.T) {
	c, err := loader.LoadDir(strictChart(t, strictSchema))
	require.NoError(t, err)
	for _, override := range []string{
		"owner=x", "owner=x,replicas=10", "owner=x,replicas=9", "owner=x,db.size=6", "owner=x,tls.cert=1",
		"owner=x,message=12", "owner=x,message=a b", "owner=x,ports[0]=1", "owner=x,ports=null", "replicas=null",
	} {
		cfg := digestConfig(newAPIServer(t, "shop"), helmx.SetLiteral("password="+strings.Repeat("x", 40)), helmx.Set(override))
		cfg.Chart = strictChart(t, strictSchema)
		d := open(t, cfg)
		_, err := d.Plan(t.Context(), stages.PlanRequest{Image: image("a")})
		values := map[string]any{}
		for _, o := range cfg.Values.Overrides {
			applyOverride(t, o, values)
		}
		coalesced, helmErr := chartutil.CoalesceValues(c, values)
		require.NoError(t, helmErr)
		helmErr = chartutil.ValidateAgainstSchema(c, coalesced)
		_, refused := errors.AsType[*helmx.SchemaError](err)
		assert.Equal(t, helmErr != nil, refused, "%s: Helm says %v, we say %v", override, helmErr, err)
	}
}

func TestSchemaReferences(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/replicas.json" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(`{"maximum": 0}`))
	}))
	defer server.Close()
	for ref, want := range map[string]string{
		server.URL + "/replicas.json": "shop/values.yaml:4: replicas: expected at most 0",
		server.URL + "/gone.json":     "404",
		"file:///etc/passwd":          "not part of the chart",
		"urn:example:anything":        "",
	} {
		cfg := digestConfig(newAPIServer(t, "shop"))
		cfg.Chart = strictChart(t, `{"properties": {"replicas": {"$ref": "`+ref+`"}}}`)
		_, err := open(t, cfg).Plan(t.Context(), stages.PlanRequest{Image: image("a")})
		if want == "" {
			require.NoError(t, err, ref)
			continue
		}
		require.ErrorIs(t, err, stages.ErrInvalid, ref)
		assert.ErrorContains(t, err, want)
	}
}

func applyOverride(t *testing.T, o helmx.Override, into map[string]any) {
	t.Helper()
	if o.Mode == helmx.ModeSetLiteral {
		require.NoError(t, strvals.ParseLiteralInto(o.Expression, into))
		return
	}
	require.NoError(t, strvals.ParseInto(o.Expression, into))
}
