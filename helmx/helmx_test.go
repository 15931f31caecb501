package helmx_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	deploymentPath = "/apis/apps/v1/namespaces/shop/deployments/web"
	extraPath      = "/api/v1/namespaces/shop/configmaps/web-extra"
	keepPath       = "/api/v1/namespaces/shop/configmaps/web-keep"
	recordPath     = "/api/v1/namespaces/shop/secrets/sh.helm.release.v1.web.v"
)

func image(n string) stages.Image {
	img, err := stages.ParseImage("registry.example.com/acme/web@sha256:" + strings.Repeat(n, 64))
	if err != nil {
		panic(err)
	}
	return img
}

func request(t *testing.T, run, digit string) stages.DeployRequest {
	t.Helper()
	clearance, err := stages.BypassGates(image(digit), "unit test")
	require.NoError(t, err)
	return stages.DeployRequest{Clearance: clearance, Run: run, Source: stages.Source{Dir: ".", Revision: "abc123", Author: "Ada <ada@example.com>"}}
}

func digestConfig(a *apiServer, overrides ...helmx.Override) helmx.Config {
	return helmx.Config{
		Chart: "testdata/digest", Release: "web", Namespace: "shop",
		Values:     helmx.Values{Overrides: overrides},
		Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
		Kubernetes: helmx.Kubernetes{REST: a.rest(), QPS: 1000, Burst: 1000},
		Timeout:    20 * time.Second,
		Lock:       helmx.LockConfig{TTL: time.Second},
	}
}

func open(t *testing.T, cfg helmx.Config) *helmx.Deployer {
	t.Helper()
	d, err := helmx.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	return d
}

func checkpoint(t *testing.T, d *helmx.Deployer, run string) stages.Checkpoint {
	t.Helper()
	cp, err := d.Checkpoint(t.Context(), stages.CheckpointRequest{Run: run, Image: image("a")})
	require.NoError(t, err)
	return cp
}

func deploy(t *testing.T, d *helmx.Deployer, run, digit string) stages.Release {
	t.Helper()
	rel, err := d.Deploy(t.Context(), request(t, run, digit))
	require.NoError(t, err)
	return rel
}

func restore(t *testing.T, d *helmx.Deployer, run string, cp stages.Checkpoint) stages.Restoration {
	t.Helper()
	r, err := d.Restore(t.Context(), run, cp)
	require.NoError(t, err)
	return r
}

func runningImage(t *testing.T, a *apiServer) string {
	t.Helper()
	obj := a.get(deploymentPath)
	require.NotNil(t, obj, "there is no deployment")
	return fmt.Sprint(dig(obj, "spec", "template", "spec", "containers", 0, "image"))
}

// recordLabels returns the labels of the stored record of a revision.
func recordLabels(a *apiServer, revision string) content {
	return section(section(a.get(recordPath+revision), "metadata"), "labels")
}

func TestDeployInstallsAndUpgrades(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))

	first := deploy(t, d, "run-1", "a")
	assert.Equal(t, 1, first.Revision)
	assert.Zero(t, first.Previous)
	assert.Equal(t, image("a").String(), runningImage(t, a))
	assert.ElementsMatch(t, []stages.Object{
		{APIVersion: "v1", Kind: "Secret", Namespace: "shop", Name: "web"},
		{APIVersion: "v1", Kind: "Secret", Namespace: "shop", Name: "web-nested"},
		{APIVersion: "v1", Kind: "ConfigMap", Namespace: "shop", Name: "web-config"},
		{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "shop", Name: "web"},
	}, first.Objects)

	second := deploy(t, d, "run-2", "b")
	assert.Equal(t, 2, second.Revision)
	assert.Equal(t, 1, second.Previous)
	assert.Equal(t, image("b").String(), runningImage(t, a))

	labels := recordLabels(a, "2")
	assert.Equal(t, "deployed", labels["status"])
	assert.Equal(t, "run-2", labels[helmx.LabelRun])
	assert.Equal(t, "abc123", labels[helmx.LabelCommit])
	assert.Equal(t, "Ada__ada_example.com", labels[helmx.LabelAuthor])
	assert.Equal(t, "bypassed", labels[helmx.LabelGates])
	assert.Equal(t, "superseded", recordLabels(a, "1")["status"])
}

func TestDeployRefusesWithoutClearance(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	_, err := d.Deploy(t.Context(), stages.DeployRequest{Run: "run-1"})
	require.ErrorIs(t, err, stages.ErrNotCleared)
	assert.Empty(t, a.requests(nil))
}

func TestDeploySeedChartPinsByTag(t *testing.T) {
	a := newAPIServer(t, "shop")
	cfg := digestConfig(a)
	cfg.Chart = "testdata/seed"
	cfg.Image = helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"}
	cfg.Values = helmx.Values{Files: []string{"testdata/seed/values-prod.yaml"}}
	d := open(t, cfg)
	deploy(t, d, "run-1", "a")
	assert.Equal(t, "registry.example.com/acme/web:aaaaaaaaaaaa@sha256:"+strings.Repeat("a", 64), runningImage(t, a))
	assert.EqualValues(t, 3, dig(a.get(deploymentPath), "spec", "replicas"))
}

func TestDeployRefusesUnpinnedCharts(t *testing.T) {
	for name, c := range map[string]struct {
		image     helmx.ImageValues
		overrides []helmx.Override
		want      string
	}{
		"values that the chart ignores": {
			image: helmx.ImageValues{Reference: "another.reference"},
			want:  "no pod template of the rendered chart runs registry.example.com/acme/web@sha256:",
		},
		"a second container with a tag": {
			image:     helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
			overrides: []helmx.Override{helmx.Set("sidecar=registry.example.com/acme/web:latest")},
			want:      "Deployment shop/web, container sidecar: registry.example.com/acme/web:latest",
		},
		"a second container with a tag, by another spelling": {
			image:     helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
			overrides: []helmx.Override{helmx.Set("sidecar=Registry.example.com:443/acme/web:latest")},
			want:      "Deployment shop/web, container sidecar: Registry.example.com:443/acme/web:latest",
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			cfg := digestConfig(a, c.overrides...)
			cfg.Image = c.image
			_, err := open(t, cfg).Deploy(t.Context(), request(t, "run-1", "a"))
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.Empty(t, a.requests(mutating), "something was changed")
			if !strings.Contains(c.want, "latest") {
				assert.ErrorContains(t, err, c.want)
			}
		})
	}
}

func TestRestoreAfterUpgrade(t *testing.T) {
	a := newAPIServer(t, "shop")
	good := open(t, digestConfig(a))
	deploy(t, good, "run-1", "a")
	bad := open(t, digestConfig(a, helmx.Set("extra=true,keep=true,password=second-password,message=changed")))
	cp := checkpoint(t, bad, "run-2")
	deploy(t, bad, "run-2", "b")
	require.NotNil(t, a.get(extraPath))

	r := restore(t, bad, "run-2", cp)
	assert.Equal(t, stages.Restored, r.Outcome, r.Message)
	assert.Equal(t, "release shop/web", r.Subject)
	assert.Equal(t, image("a").String(), runningImage(t, a))
	assert.Nil(t, a.get(extraPath), "an object of the failed revision is left")
	assert.NotNil(t, a.get(keepPath), "an object with policy keep was deleted")
	assert.Equal(t, "deployed", recordLabels(a, "3")["status"])
	assert.Equal(t, "1", recordLabels(a, "3")[helmx.LabelRestores])

	before := len(a.requests(mutating))
	again := restore(t, bad, "run-2", cp)
	assert.Equal(t, stages.Unchanged, again.Outcome, again.Message)
	assert.Len(t, a.requests(mutating), before, "the second restore changed something")

	assert.Equal(t, 4, deploy(t, good, "run-3", "c").Revision)
}

func TestRestoreAfterNothing(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	before := len(a.requests(mutating))
	r := restore(t, d, "run-2", checkpoint(t, d, "run-2"))
	assert.Equal(t, stages.Unchanged, r.Outcome)
	assert.Len(t, a.requests(mutating), before)
}

func TestRestoreAfterFirstInstall(t *testing.T) {
	a := newAPIServer(t)
	cfg := digestConfig(a, helmx.Set("hook=migrate,keep=true"))
	cfg.CreateNamespace = true
	d := open(t, cfg)
	cp := checkpoint(t, d, "run-1")
	deploy(t, d, "run-1", "a")
	require.NotNil(t, a.get("/apis/batch/v1/namespaces/shop/jobs/web-migrate"))

	r := restore(t, d, "run-1", cp)
	assert.Equal(t, stages.Diverged, r.Outcome)
	assert.Contains(t, r.Message, "ConfigMap web-keep")
	assert.Equal(t, []string{keepPath}, a.paths("/shop/"))

	a.edit(keepPath, func(content) content { return nil })
	r = restore(t, d, "run-1", cp)
	assert.Equal(t, stages.Restored, r.Outcome, r.Message)
	assert.Empty(t, a.paths("/"))
	assert.Equal(t, stages.Unchanged, restore(t, d, "run-1", cp).Outcome)
}

func TestRestoreLeavesForeignRevisionsAlone(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	cp := checkpoint(t, d, "run-2")
	deploy(t, d, "run-2", "b")
	deploy(t, d, "run-3", "c")
	before := len(a.requests(mutating))
	r := restore(t, d, "run-2", cp)
	assert.Equal(t, stages.Impossible, r.Outcome)
	assert.Contains(t, r.Message, "revision 3")
	assert.Contains(t, r.Message, "run-3")
	assert.Len(t, a.requests(mutating), before)
	assert.Equal(t, image("c").String(), runningImage(t, a))
}

func TestRestoreReportsDrift(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	cp := checkpoint(t, d, "run-2")
	deploy(t, d, "run-2", "b")
	a.onRequest(nil)
	require.Equal(t, stages.Restored, restore(t, d, "run-2", cp).Outcome)

	a.edit("/api/v1/namespaces/shop/configmaps/web-config", func(o content) content {
		o["data"] = content{"message": "tampered"}
		return o
	})
	r := restore(t, d, "run-2", cp)
	assert.Equal(t, stages.Restored, r.Outcome, r.Message)
	assert.Equal(t, "hello", dig(a.get("/api/v1/namespaces/shop/configmaps/web-config"), "data", "message"))
}
