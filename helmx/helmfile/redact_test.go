package helmfile

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/releaseset"
)

const pinned = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// TestPasswordsInAddressesAreNotShown plants a password where an address may have one.
func TestPasswordsInAddressesAreNotShown(t *testing.T) {
	chart := func(chart, rest string) string {
		return fmt.Sprintf("releases:\n- {name: a, namespace: ns, chart: '%s'%s}\n", chart, rest)
	}
	const secret = "user:canary-hunter2@registry.invalid"
	for name, tt := range map[string]struct{ text, says string }{
		"a chart":                 {chart("oci://"+secret+"/shop", ", version: 1.0.0"), "oci://**REDACTED**@registry.invalid/shop"},
		"one without a version":   {chart("oci://"+secret+"/shop", ""), "releases[0].version: is missing"},
		"one that is pinned":      {chart("oci://"+secret+"/shop"+pinned, ""), "oci://**REDACTED**@registry.invalid/shop"},
		"one without a path":      {chart("oci://"+secret, ", version: 1.0.0"), "oci://**REDACTED**@registry.invalid"},
		"one that is shouted":     {chart("OCI://"+secret+"/shop", ", version: 1.0.0"), "only local charts"},
		"one by git":              {chart("git::https://"+secret+"/shop?ref=canary-hunter2", ""), "only local charts"},
		"a template":              {chart(`{{ "oci://`+secret+`/shop" }}`, ", version: 1.0.0"), "oci://**REDACTED**@registry.invalid/shop"},
		"a repository":            {"repositories: [{name: r, url: 'https://" + secret + "'}]\n" + chart("r/shop", ", version: 1.0.0"), "take the credentials out"},
		"a registry":              {"repositories: [{name: r, oci: true, url: '" + secret + "'}]\n" + chart("r/shop", ", version: 1.0.0"), "chart r/shop"},
		"a registry, no version":  {"repositories: [{name: r, oci: true, url: '" + secret + "'}]\n" + chart("r/shop", ""), "releases[0].version: is missing"},
		"values from afar":        {releaseA + "  values: ['git::https://" + secret + "/x@v.yaml']\n", "git::https://**REDACTED**@"},
		"values with a query":     {releaseA + "  values: ['git::https://registry.invalid/x@v.yaml?sshkey=canary-hunter2']\n", "only local files"},
		"secrets from afar":       {releaseA + "  secrets: ['https://" + secret + "/s.yaml']\n", "only local files"},
		"a set file from afar":    {releaseA + "  set: [{name: a, file: 'https://" + secret + "/s.yaml'}]\n", "only local files"},
		"environment from afar":   {"environments: {default: {values: ['https://" + secret + "/*.yaml?x=canary-hunter2']}}\n" + releaseA, "only local files"},
		"a base from afar":        {"bases: ['https://" + secret + "/b.yaml']\n" + releaseA, "only local files"},
		"a file that is read":     {"# {{ readFile \"https://" + secret + "/b.yaml\" }}\n" + releaseA, "does not exist"},
		"an authority":            {"repositories: [{name: r, url: 'https://r.invalid', caFile: 'https://" + secret + "/ca'}]\n" + chart("r/shop", ", version: 1.0.0"), "authority"},
		"by the user of the host": {releaseA + "  values: ['git::canary-hunter2@registry.invalid:x']\n", "only local files"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := write(t, tt.text, nil)
			cfg.Decrypt = func(context.Context, string, []byte) ([]byte, error) { return nil, errors.New("not asked") }
			_, err := Load(t.Context(), cfg)
			require.Error(t, err)
			assert.ErrorContains(t, err, tt.says)
			for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err)} {
				assert.NotContains(t, text, "hunter2")
			}
		})
	}
}

// TestPasswordsOfChartsThatAreFetched has somebody else fetch a chart, and looks at what
// goes wrong then, while it is loaded and later.
func TestPasswordsOfChartsThatAreFetched(t *testing.T) {
	for _, chart := range []string{"oci://user:canary-hunter2@registry.invalid/shop", "oci://user:canary-hunter2@registry.invalid"} {
		cfg := write(t, "releases: [{name: a, namespace: ns, chart: '"+chart+"'}]\n", nil)
		cfg.Fetch = func(_ context.Context, c Chart) (string, error) {
			assert.Equal(t, chart, c.Reference, "who fetches needs it")
			return "", errors.New("no such chart")
		}
		_, err := Load(t.Context(), cfg)
		require.ErrorContains(t, err, "fetch the chart oci://**REDACTED**@registry.invalid")
		assert.NotContains(t, err.Error(), "hunter2")

		cfg.Fetch = func(context.Context, Chart) (string, error) { return "/nowhere", nil }
		set, err := Load(t.Context(), cfg)
		require.NoError(t, err)
		_, err = set.Plan(t.Context(), releaseset.PlanRequest{Run: "run-1"})
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "hunter2")
		_, err = set.Apply(t.Context(), releaseset.ApplyRequest{Run: "run-1"})
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "hunter2")
		_, err = set.Select(releaseset.Selection{Selectors: []string{"chart=x"}})
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "hunter2")
	}
}
