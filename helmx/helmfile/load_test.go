package helmfile

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// write makes a folder of files, the helmfile among them, and returns a
// configuration for it.
func write(t testing.TB, helmfile string, files map[string]string) Config {
	t.Helper()
	dir := t.TempDir()
	files = maps.Clone(files)
	if files == nil {
		files = map[string]string{}
	}
	files["helmfile.yaml"] = helmfile
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o750))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return Config{Path: filepath.Join(dir, "helmfile.yaml"), Cluster: connect(t), AllowUnscanned: "test"}
}

func TestSeedRunsAsWritten(t *testing.T) {
	clearance, err := stages.BypassGates(stagestest.Image("v1"), "test")
	require.NoError(t, err)
	cfg := Config{
		Path: "testdata/seed/helmfile.yaml", Cluster: connect(t), Env: variables(map[string]string{"IMAGE_TAG": "42"}),
		Images: map[string]Image{"myapp": {Clearance: clearance, Values: helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"}}},
	}
	set, configs, err := load(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, []string{"prod/myapp"}, set.Members())
	got := configs["prod/myapp"]
	assert.Equal(t, filepath.Join("testdata", "seed", "helm-chart"), got.Chart)
	assert.Equal(t, "prod", got.Namespace)
	assert.True(t, got.CreateNamespace)
	assert.Equal(t, cfg.Images["myapp"].Values, got.Image)
	assert.Equal(t, map[string]any{"replicaCount": 3.0}, layered(got.Values))
	assert.Equal(t, []helmx.Override{helmx.Set("image.repository=yourname/yourapp"), helmx.Set("image.tag=42")}, got.Values.Overrides)

	cfg.Env = nil
	_, err = Load(t.Context(), cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, err, "helmfile.yaml:11: template: the environment variable IMAGE_TAG is not set")

	cfg.Env, cfg.Images = variables(map[string]string{"IMAGE_TAG": "42"}), nil
	_, err = Load(t.Context(), cfg)
	require.ErrorIs(t, err, stages.ErrNotCleared)
	unbound, ok := errors.AsType[*UnboundError](err)
	require.True(t, ok)
	assert.Equal(t, "prod/myapp", unbound.Release)
}

func TestSettings(t *testing.T) {
	cfg := write(t, `
helmDefaults:
  timeout: 60
  historyMax: 5
  wait: true
  skipCRDs: true
  takeOwnership: true
  atomic: true
  force: false
  kubeContext: prod
releases:
- name: a
  namespace: ns
  chart: ./a
  needs: [b, prod/ns/b]
- name: b
  namespace: ns
  chart: ./b
  timeout: 30
  historyMax: 2
  wait: false
  waitForJobs: true
  createNamespace: false
  skipCRDs: false
  takeOwnership: false
`, nil)
	cfg.KubeContext = "prod"
	var verified []string
	cfg.Verify = func(namespace, name string) stages.Verifier {
		verified = append(verified, namespace+"/"+name)
		return stages.VerifierFunc(nil)
	}
	set, configs, err := load(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, []string{"ns/b", "ns/a"}, set.Members())
	assert.Equal(t, []string{"ns/a"}, verified)
	a, b := configs["ns/a"], configs["ns/b"]
	assert.Equal(t, []time.Duration{time.Minute, 30 * time.Second}, []time.Duration{a.Timeout, b.Timeout})
	assert.Equal(t, []int{5, 2}, []int{a.HistoryMax, b.HistoryMax})
	assert.Equal(t, []helmx.CRDs{helmx.CRDsSkip, helmx.CRDsCreate}, []helmx.CRDs{a.CRDs, b.CRDs})
	assert.True(t, a.CreateNamespace && !b.CreateNamespace && a.TakeOwnership && !b.TakeOwnership)
	assert.Equal(t, "test", a.Unscanned)

	cfg.Verify = func(string, string) stages.Verifier { return nil }
	_, err = Load(t.Context(), cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, err, "helmfile.yaml:12: releases[0].wait: needs a verifier")
}

func TestWhatMayBeUnverified(t *testing.T) {
	cfg := write(t, releaseA, nil)
	cfg.Verify = func(string, string) stages.Verifier { return nil }
	_, err := Load(t.Context(), cfg)
	require.NoError(t, err, "it doesn't say wait: true")
}

func TestSelectorsConditionsAndNeeds(t *testing.T) {
	const text = `
environments:
  default: {values: [{web: {enabled: true}, cache: {enabled: false}}]}
  none: {values: [{web: {enabled: false}, cache: {}}]}
commonLabels: {app: shop}
releases:
- {name: web, namespace: ns, chart: ./web, condition: web.enabled, labels: {tier: front}, needs: [db, cache]}
- {name: db, namespace: ns, chart: vendor/charts/db, labels: {tier: "{{` + "`{{ .Release.Name }}`" + `}}"}}
- {name: cache, namespace: ns, chart: ./cache, condition: cache.enabled}
`
	for name, test := range map[string]struct {
		environment string
		selectors   []string
		needs       bool
		want        []string
	}{
		"all":                    {"", nil, false, []string{"ns/db", "ns/web"}},
		"by label":               {"", []string{"tier=front"}, false, []string{"ns/web"}},
		"by label with needs":    {"", []string{"tier=front,app=shop"}, true, []string{"ns/db", "ns/web"}},
		"by templated label":     {"", []string{"tier=db"}, false, []string{"ns/db"}},
		"by chart":               {"", []string{"chart=db"}, false, []string{"ns/db"}},
		"in another environment": {"none", nil, false, []string{"ns/db"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := write(t, text, nil)
			cfg.Environment, cfg.Selectors, cfg.IncludeNeeds = test.environment, test.selectors, test.needs
			set, err := Load(t.Context(), cfg)
			require.NoError(t, err)
			assert.Equal(t, test.want, set.Members())
		})
	}
}

// TestEncryptedValuesAreNotTakenAsTheyAre: a chart would be given the ciphertext.
func TestEncryptedValuesAreNotTakenAsTheyAre(t *testing.T) {
	file := map[string]string{"prod.enc.yaml": "key: ENC[AES256_GCM,data:x]\nsops:\n  mac: ENC[AES256_GCM,data:y]\n"}
	for name, text := range map[string]string{
		"a release's":        releaseA + "  values:\n  - prod.enc.yaml\n",
		"an environment's":   "environments:\n  default:\n    values: [prod.enc.yaml]\n---\n" + releaseA,
		"those of templates": "values: [prod.enc.yaml]\n---\n" + releaseA,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(t.Context(), write(t, text, file))
			require.ErrorIs(t, err, stages.ErrInvalid)
			require.ErrorContains(t, err, "prod.enc.yaml is encrypted with SOPS; list it under secrets")
		})
	}
}

func TestSecretsAreDecryptedInMemory(t *testing.T) {
	cfg := write(t, `
environments:
  default: {secrets: [env.enc.yaml]}
---
releases:
- name: a
  namespace: ns
  chart: ./a
  values: [{user: {{ .Values.user }}, password: weak}]
  secrets: [secret.enc.yaml]
`, map[string]string{"env.enc.yaml": "resu", "secret.enc.yaml": "terces"})
	cfg.Decrypt = func(_ context.Context, path string, data []byte) ([]byte, error) {
		key := map[string]string{"resu": "user: dana", "terces": "password: s3cr3t"}[string(data)]
		return []byte(key), nil
	}
	_, configs, err := load(t.Context(), cfg)
	require.NoError(t, err)
	values := configs["ns/a"].Values
	assert.Equal(t, map[string]any{"user": "dana", "password": "s3cr3t"}, layered(values))
	assert.Equal(t, []string{"dana"}, values.Hide, "templates put it anywhere")
	require.Len(t, values.Layers, 2)
	assert.True(t, strings.HasSuffix(values.Layers[0].Name, "helmfile.yaml:9"), values.Layers[0].Name)
	assert.False(t, values.Layers[0].Encrypted)
	assert.True(t, values.Layers[1].Encrypted, "what it holds is masked")
	assert.Equal(t, "terces", string(values.Layers[1].Source))

	locked := errors.New("no key")
	cfg.Decrypt = func(context.Context, string, []byte) ([]byte, error) { return nil, locked }
	_, err = Load(t.Context(), cfg)
	require.ErrorIs(t, err, locked)
	cfg.Decrypt = nil
	_, err = Load(t.Context(), cfg)
	require.ErrorContains(t, err, "give Config.Decrypt")
}

func TestChartsFromAfar(t *testing.T) {
	cfg := write(t, `
repositories:
- {name: bitnami, url: https://charts.example.com/bitnami}
- {name: ours, url: registry.example.com/charts, oci: true}
releases:
- {name: a, namespace: ns, chart: bitnami/redis, version: ~1.2}
- {name: b, namespace: ns, chart: ours/web, version: 2.0.0}
- {name: c, namespace: ns, chart: "oci://ghcr.io/acme/api", version: 3.0.0}
- {name: d, namespace: ns, chart: charts/local}
`, nil)
	var fetched []Chart
	cfg.Fetch = func(_ context.Context, c Chart) (string, error) {
		fetched = append(fetched, c)
		return "/cache/" + filepath.Base(c.Reference), nil
	}
	_, configs, err := load(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, []Chart{
		{Reference: "redis", Version: "~1.2", Repository: Repository{Name: "bitnami", URL: "https://charts.example.com/bitnami"}},
		{Reference: "oci://registry.example.com/charts/web", Version: "2.0.0", Repository: Repository{Name: "ours", URL: "registry.example.com/charts", OCI: true}},
		{Reference: "oci://ghcr.io/acme/api", Version: "3.0.0"},
	}, fetched)
	assert.Equal(t, "/cache/redis", configs["ns/a"].Chart)
	assert.Equal(t, filepath.Join(filepath.Dir(cfg.Path), "charts", "local"), configs["ns/d"].Chart)
}

func TestBasesAndOverridingValues(t *testing.T) {
	cfg := write(t, `
bases: [common/base.yaml]
---
releases:
- {name: a, namespace: "{{ .Values.ns }}", chart: ./a, inherit: [{template: t, except: [labels]}], values: [{b: "{{ .Values.x }}"}]}
`, map[string]string{"common/base.yaml": `
values: [{ns: base, x: 1}]
templates: {t: {labels: {a: b}, values: [{a: 1, b: 1}]}}
helmDefaults: {timeout: 7}
`})
	cfg.Values = map[string]any{"ns": "mine"}
	set, configs, err := load(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, []string{"mine/a"}, set.Members())
	assert.Equal(t, map[string]any{"a": 1.0, "b": "1"}, layered(configs["mine/a"].Values))
	assert.Equal(t, 7*time.Second, configs["mine/a"].Timeout)
	_, err = set.Select(releaseset.Selection{Selectors: []string{"a=b"}})
	require.Error(t, err)
}

func TestImagesMustMatchReleases(t *testing.T) {
	const text = `
releases:
- {name: a, namespace: one, chart: ./a}
- {name: a, namespace: two, chart: ./a}
`
	for _, names := range [][]string{{"nobody"}, {"a"}, {"one/b"}} {
		cfg := write(t, text, nil)
		cfg.Images = map[string]Image{}
		for _, name := range names {
			cfg.Images[name] = Image{Image: stagestest.Image("v1")}
		}
		_, err := Load(t.Context(), cfg)
		require.ErrorIs(t, err, stages.ErrInvalid, "%v", names)
	}
}

// FuzzLoad looks for panics, and for errors of the wrong class or with a value in
// them.
func FuzzLoad(f *testing.F) {
	for _, dir := range []string{"testdata/seed/helmfile.yaml", "testdata/parity/helmfile.yaml.gotmpl"} {
		data, err := os.ReadFile(dir)
		require.NoError(f, err)
		f.Add(string(data))
	}
	for _, test := range refusals {
		f.Add(test.text)
	}
	f.Add("a: &a [*a]\nreleases: *a")
	f.Add("releases: [{<<: [*x]}]")
	f.Add("x: &x {<<: *x}")
	cluster := connect(f)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "readFile") || strings.Contains(text, "repeat") || strings.Contains(text, "until") || strings.Contains(text, "seq") || strings.Contains(text, "gen") {
			return // Files of the machine, and templates that are slow by design.
		}
		l := newLoader(Config{Path: "testdata/seed/helmfile.yaml", Environment: DefaultEnvironment, Cluster: cluster, Env: variables(nil)})
		for _, p := range split("helmfile.yaml", text) {
			if _, err := l.document(p); err != nil {
				require.ErrorIs(t, err, stages.ErrInvalid)
				return
			}
		}
	})
}

func names(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// A template that renders nothing leaves a null behind.
func TestNullIsNoChoice(t *testing.T) {
	cfg := write(t, `
releases:
- name: a
  namespace: n
  chart: ./c
  installed: {{ "" }}
  createNamespace: ~
  wait: null
`, nil)
	_, configs, err := load(t.Context(), cfg)
	require.NoError(t, err)
	assert.False(t, configs["n/a"].RemoveOnly)
	assert.True(t, configs["n/a"].CreateNamespace)
}

func TestErrorsOfValuesHoldNone(t *testing.T) {
	for _, text := range []string{"~: 'ab\"canary'\n", "a: !!int 'x`canary'\n", "? [12345678901]\n: canary\n"} {
		cfg := write(t, "releases:\n- {name: a, namespace: n, chart: ./c, values: [v.yaml]}\n", map[string]string{"v.yaml": text})
		_, err := Load(t.Context(), cfg)
		require.ErrorIs(t, err, stages.ErrInvalid, text)
		assert.NotContains(t, err.Error(), "canary", text)
		assert.NotContains(t, err.Error(), "12345678901", text)
	}
}
