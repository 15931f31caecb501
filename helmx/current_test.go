package helmx_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

func requireNotDeployed(t *testing.T, d *helmx.Deployer, problem string) {
	t.Helper()
	_, err := d.Current(t.Context())
	var failure *helmx.NotDeployedError
	require.ErrorAs(t, err, &failure)
	assert.Contains(t, failure.Problem, problem)
}

func TestCurrentFollowsReleases(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	requireNotDeployed(t, d, "not installed")

	first := deploy(t, d, `run "1", commit "x"`, "a")
	before := len(a.requests(mutating))
	got, err := d.Current(t.Context())
	require.NoError(t, err)
	assert.Len(t, a.requests(mutating), before, "reading changed something")
	assert.Equal(t, helmx.Current{
		Release: got.Release, Run: `run "1", commit "x"`, Commit: "abc123", Author: "Ada <ada@example.com>", Bypass: "unit test",
	}, got)
	assert.Equal(t, image("a"), got.Image)
	assert.Equal(t, first.Objects, got.Objects)
	assert.Equal(t, 1, got.Revision)
	assert.Equal(t, "shop/web", got.Namespace+"/"+got.Name)

	cp := checkpoint(t, d, "run-2")
	deploy(t, d, "run-2", "b")
	got, err = d.Current(t.Context())
	require.NoError(t, err)
	assert.Equal(t, image("b"), got.Image)

	restore(t, d, "run-2", cp)
	got, err = d.Current(t.Context())
	require.NoError(t, err)
	assert.Equal(t, image("a"), got.Image, "the restored release runs")
	assert.Equal(t, 3, got.Revision)
	assert.Equal(t, `run "1", commit "x"`, got.Run)
}

// A restore tells what it has brought back, the same when it is repeated; without an
// image where the records don't say it for sure.
func TestRestoreTellsWhatIsBack(t *testing.T) {
	for name, helms := range map[string]bool{"ours": false, "made by helm": true} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			d := open(t, digestConfig(a))
			before := deploy(t, d, "run-1", "a")
			want := stages.Release{Image: before.Image, Name: "web", Namespace: "shop", Revision: before.Revision + 2, Objects: before.Objects}
			if helms {
				helmUpgrade(t, a)
				want.Image, want.Revision = stages.Image{}, want.Revision+1
			}
			cp := checkpoint(t, d, "run-2")
			after := deploy(t, d, "run-2", "b")
			assert.WithinRange(t, after.Began, before.Deployed, after.Deployed)
			began := time.Now()
			for _, outcome := range []stages.RestoreOutcome{stages.Restored, stages.Unchanged} {
				restored := restore(t, d, "run-2", cp)
				require.Equal(t, outcome, restored.Outcome)
				require.NotNil(t, restored.Release)
				got := *restored.Release
				assert.False(t, got.Deployed.IsZero())
				assert.WithinRange(t, got.Began, began, time.Now())
				got.Began, got.Deployed = want.Began, want.Deployed
				assert.Equal(t, want, got)
			}
		})
	}
}

func TestCurrentRefusesWhatIsNotKnown(t *testing.T) {
	set := func(labels, values content) func(content) content {
		return func(record content) content {
			for k, v := range values {
				section(section(record, "metadata"), labels["of"].(string))[k] = v
			}
			return record
		}
	}
	labels := content{"of": "labels"}
	for name, c := range map[string]struct {
		edit func(content) content
		want string
	}{
		"labels that helm copied":      {set(labels, content{helmx.LabelRevision: "7"}), "not made by fairlead"},
		"a label of another digest":    {set(labels, content{helmx.LabelDigest: "sha256.beef"}), "contradicts itself"},
		"restored from a lost one":     {set(labels, content{helmx.LabelRestores: "9"}), "not in the history"},
		"restored from a later itself": {set(labels, content{helmx.LabelRestores: "1"}), "not in the history"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			d := open(t, digestConfig(a))
			deploy(t, d, "run-1", "a")
			a.edit(recordPath+"1", c.edit)
			requireNotDeployed(t, d, c.want)
		})
	}
}

func TestCurrentRefusesWhatIsNotSettled(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	a.jobs = "Failed"
	_, err := open(t, digestConfig(a, helmx.Set("hook=true"))).Deploy(t.Context(), request(t, "run-2", "b"))
	if err == nil {
		t.Fatal("the hook should have failed")
	}
	_, err = d.Current(t.Context())
	var failure *helmx.NotDeployedError
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, 2, failure.Revision)
	assert.Equal(t, "failed", failure.Status)
	assert.Contains(t, err.Error(), "shop/web, revision 2 (failed)")
}
