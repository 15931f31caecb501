package helmx_test

import (
	"bytes"
	"errors"
	"fmt"
	"log" //nolint:depguard // Helm prints through it, which is to be shown not to happen.
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

const canary = "canary-Tr0ub4dor"

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	broken := write(t, dir, "broken.yaml", "a: 1\npassword: "+canary+"\n  b: [\n")
	scalar := write(t, dir, "scalar.yaml", canary+"\n")
	badChart := filepath.Dir(write(t, dir, "bad/Chart.yaml", "apiVersion: v2\nname: bad\nversion: 1.0.0\n"))
	write(t, dir, "bad/values.yaml", "x: 1\n y: "+canary+"\n")
	library := filepath.Dir(write(t, dir, "lib/Chart.yaml", "apiVersion: v2\nname: lib\nversion: 1.0.0\ntype: library\n"))
	for name, c := range map[string]struct {
		change func(*helmx.Config)
		want   string
	}{
		"no chart":           {func(c *helmx.Config) { c.Chart = "" }, "Chart is empty"},
		"missing chart":      {func(c *helmx.Config) { c.Chart = dir + "/nowhere" }, "nowhere: it does not exist"},
		"library chart":      {func(c *helmx.Config) { c.Chart = library }, "only an application"},
		"broken chart":       {func(c *helmx.Config) { c.Chart = badChart }, "bad/values.yaml:2: "},
		"not a chart":        {func(c *helmx.Config) { c.Chart = dir }, "Chart.yaml file is missing"},
		"release name":       {func(c *helmx.Config) { c.Release = "Shop!" }, `Release "Shop!"`},
		"namespace":          {func(c *helmx.Config) { c.Namespace = "" }, "Namespace"},
		"history":            {func(c *helmx.Config) { c.HistoryMax = 1 }, "HistoryMax 1"},
		"timeout":            {func(c *helmx.Config) { c.Timeout = -1 }, "negative"},
		"no image":           {func(c *helmx.Config) { c.Image = helmx.ImageValues{} }, "Image: give Reference"},
		"both ways":          {func(c *helmx.Config) { c.Image.Reference = "x" }, "Reference stands alone"},
		"path with value":    {func(c *helmx.Config) { c.Image.Digest = "a=b" }, "is not a path"},
		"contradicting":      {func(c *helmx.Config) { c.Image = helmx.ImageValues{Repository: "image", Tag: "image.tag"} }, "contradicts"},
		"no cluster":         {func(c *helmx.Config) { c.Kubernetes = helmx.Kubernetes{} }, "exactly one of"},
		"bad kubeconfig":     {func(c *helmx.Config) { c.Kubernetes = helmx.Kubernetes{Kubeconfig: []byte("users: " + canary)} }, "not a kubeconfig"},
		"missing kubeconfig": {func(c *helmx.Config) { c.Kubernetes = helmx.Kubernetes{KubeconfigPath: dir + "/kc"} }, "no such file"},
		"missing values":     {func(c *helmx.Config) { c.Values.Files = []string{dir + "/v.yaml"} }, "v.yaml does not exist"},
		"broken values":      {func(c *helmx.Config) { c.Values.Files = []string{broken} }, "broken.yaml:3: "},
		"scalar values":      {func(c *helmx.Config) { c.Values.Files = []string{scalar} }, "scalar.yaml: "},
		"bad override": {func(c *helmx.Config) {
			c.Values.Overrides = []helmx.Override{helmx.Set("a=1"), helmx.SetJSON("b={" + canary)}
		}, `override 2 (set-json of "b")`},
		"unknown mode": {func(c *helmx.Config) { c.Values.Overrides = []helmx.Override{{"x", "a=1"}} }, `unknown mode "x"`},
		"missing file": {func(c *helmx.Config) { c.Values.Overrides = []helmx.Override{helmx.SetFile("a=" + dir + "/no")} }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := digestConfig(newAPIServer(t))
			c.change(&cfg)
			_, err := helmx.New(cfg)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, c.want)
			assert.NotContains(t, fmt.Sprintf("%+v", err), canary)
		})
	}
}

func TestRenderErrorsMaskValues(t *testing.T) {
	dir := t.TempDir()
	chart := func(template string) string {
		c := filepath.Dir(write(t, dir, "c/Chart.yaml", "apiVersion: v2\nname: c\nversion: 1.0.0\n"))
		write(t, dir, "c/templates/x.yaml", template)
		write(t, dir, "c/values.yaml", "password: {}\n")
		return c
	}
	for name, c := range map[string]struct {
		chart, template string
		values          map[string]any
		want            string
	}{
		"fail":      {"", `{{ fail (printf "bad %s" .Values.secret) }}`, map[string]any{"secret": canary}, "x.yaml:1"},
		"syntax":    {"", `{{ if }}`, nil, "x.yaml:1"},
		"yaml":      {"", "a: b\n c: {{ .Values.secret }}\n", map[string]any{"secret": canary}, "c/templates/x.yaml"},
		"twice":     {"", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {}\ndata: {}\n", nil, "c/templates/x.yaml"},
		"no kind":   {"", "apiVersion: v1\nmetadata: {name: a}\n", nil, "lacks apiVersion, kind or metadata.name"},
		"schema":    {"testdata/digest", "", map[string]any{"message": canary}, "Values.Map: message: does not match the pattern"},
		"old shape": {"", `{{ fail .Values.password }}`, map[string]any{"password": canary}, "x.yaml:1"},
	} {
		t.Run(name, func(t *testing.T) {
			var std bytes.Buffer
			log.SetOutput(&std)
			defer log.SetOutput(os.Stderr)
			a := newAPIServer(t, "shop")
			cfg := digestConfig(a)
			if cfg.Chart = c.chart; c.chart == "" {
				cfg.Chart = chart(c.template)
			}
			cfg.Values = helmx.Values{Map: c.values}
			_, err := open(t, cfg).Plan(t.Context(), stages.PlanRequest{Image: image("a")})
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error()+std.String(), canary)
			assert.Empty(t, std.String(), "Helm printed something")
		})
	}
}

func TestRefusalsAreClassed(t *testing.T) {
	for name, c := range map[string]struct {
		code      int
		reason    metav1.StatusReason
		message   string
		want      helmx.Reason
		permanent bool
	}{
		"forbidden": {403, metav1.StatusReasonForbidden, `deployments.apps is forbidden: User "bot" cannot create`, helmx.Forbidden, true},
		"quota":     {403, metav1.StatusReasonForbidden, `deployments.apps "web" is forbidden: exceeded quota: few, requested: count/deployments.apps=1`, helmx.QuotaExceeded, true},
		"webhook":   {403, metav1.StatusReasonForbidden, `admission webhook "policy.example.com" denied the request: no`, helmx.AdmissionDenied, true},
		"invalid":   {422, metav1.StatusReasonInvalid, `Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1`, helmx.Invalid, true},
		"conflict":  {409, metav1.StatusReasonConflict, "the object has been modified", helmx.Conflict, false},
		"overload":  {503, metav1.StatusReasonServiceUnavailable, "etcd is away", helmx.Unavailable, false},
		"secret":    {422, metav1.StatusReasonInvalid, "bad value default-password here", helmx.Invalid, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, upgrade := range []bool{false, true} {
				a := newAPIServer(t, "shop")
				d := open(t, digestConfig(a))
				method := "POST /apis/apps/v1/namespaces/shop/deployments"
				verb := "create"
				if upgrade {
					deploy(t, d, "run-0", "a")
					method, verb = "PATCH /apis/apps/v1/namespaces/shop/deployments/web", "patch"
				}
				a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method+" "+r.URL.Path != method {
						return false
					}
					fail(w, c.code, c.reason, c.message, metav1.StatusCause{Field: "spec.replicas"})
					return true
				})
				_, err := d.Deploy(t.Context(), request(t, "run-1", "b"))
				require.Error(t, err)
				e, ok := errors.AsType[*helmx.APIError](err)
				require.True(t, ok, "%v", err)
				assert.Equal(t, c.want, e.Reason)
				assert.Equal(t, c.permanent, stages.IsPermanent(err))
				assert.Equal(t, []string{verb, "apps", "deployments", "shop"}, []string{e.Verb, e.Group, e.Resource, e.Namespace})
				assert.Equal(t, []string{"spec.replicas"}, e.Fields)
				assert.NotContains(t, fmt.Sprintf("%v %+v", err, e), "default-password")
				assert.Equal(t, c.want == helmx.Invalid, strings.Contains(err.Error(), "Deployer.Provenance tells which source set it"))
			}
		})
	}
}

func TestUnreachableServerIsTransient(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	a.server.Close()
	_, err := d.Deploy(t.Context(), request(t, "run-1", "a"))
	e, ok := errors.AsType[*helmx.APIError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, helmx.Unavailable, e.Reason)
	assert.False(t, stages.IsPermanent(err))
	assert.Contains(t, err.Error(), a.server.URL)
}

func TestFailedHookIsNamed(t *testing.T) {
	a := newAPIServer(t, "shop")
	a.jobs = "Failed"
	_, err := open(t, digestConfig(a, helmx.Set("hook=migrate"))).Deploy(t.Context(), request(t, "run-1", "a"))
	h, ok := errors.AsType[*helmx.HookError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "Job shop/web-migrate", h.Hook.String())
	assert.Contains(t, err.Error(), "BackoffLimitExceeded")
	assert.True(t, stages.IsPermanent(err))
	assert.Len(t, stages.EvidenceOf(err), 1)
}

func TestWarningsAreRouted(t *testing.T) {
	a := newAPIServer(t, "shop")
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "deployments") {
			w.Header().Add("Warning", `299 - "unknown field \"spec.replica\""`)
		}
		return false
	})
	var out bytes.Buffer
	cfg := digestConfig(a)
	cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
	deploy(t, open(t, cfg), "run-1", "a")
	assert.Contains(t, out.String(), "spec.replica")
}

func TestEnvironmentIsNotRead(t *testing.T) {
	t.Setenv("HELM_NAMESPACE", "elsewhere")
	t.Setenv("HELM_DRIVER", "memory")
	t.Setenv("KUBECONFIG", "/nowhere")
	t.Setenv("HOME", "/nowhere")
	a := newAPIServer(t, "shop")
	deploy(t, open(t, digestConfig(a)), "run-1", "a")
	assert.NotNil(t, a.get(recordPath+"1"))
}
