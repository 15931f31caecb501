package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/environment"
	"github.com/fairlead-dev/fairlead/stages"
)

var pinned = "registry.example.com/shop@sha256:" + strings.Repeat("a", 64)

func sample() options {
	return options{file: "../app/environments.yaml", chart: "../app/chart"}
}

func TestWhatIsRefused(t *testing.T) {
	malformed := filepath.Join(t.TempDir(), "environments.yaml")
	require.NoError(t, os.WriteFile(malformed, []byte("environments:\n- {name: staging, branch: develop}\n"), 0o600))
	for name, c := range map[string]struct {
		change func(*options)
		says   string
		class  error
	}{
		"no file":                        {func(o *options) { o.file = "gone.yaml" }, "gone.yaml", nil},
		"malformed file":                 {func(o *options) { o.file = malformed }, "branch", stages.ErrInvalid},
		"no branch":                      {func(o *options) { o.branch = "" }, "", stages.ErrInvalid},
		"no image":                       {func(o *options) { o.image = "" }, "", stages.ErrInvalid},
		"image by tag":                   {func(o *options) { o.image = "registry.example.com/shop:1" }, "sha256", stages.ErrNotPinned},
		"no kubeconfig":                  {func(*options) {}, "KubeconfigPath", stages.ErrInvalid},
		"missing kubeconfig":             {func(o *options) { o.kubeconfig = "gone" }, "gone", stages.ErrInvalid},
		"promotion without a kubeconfig": {func(o *options) { o.branch = "main" }, "KubeconfigPath", stages.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			o := sample()
			o.branch, o.image = "develop", pinned
			c.change(&o)
			err := o.run(t.Context())
			require.ErrorContains(t, err, c.says)
			if c.class != nil {
				require.ErrorIs(t, err, c.class)
			}
		})
	}
}

func TestBranchThatGoesNowhereIsNoFailure(t *testing.T) {
	o := sample()
	o.branch = "feature/x"
	require.NoError(t, o.run(t.Context()))
}

func TestApprovalsOfTheSample(t *testing.T) {
	set, err := environment.Load(sample().file, environment.LoadOptions{})
	require.NoError(t, err)
	env, err := set.Resolve(environment.Branch("main"))
	require.NoError(t, err)
	assert.Equal(t, "staging", env.PromotesFrom)
	img, err := stages.ParseImage(pinned)
	require.NoError(t, err)
	o, plan := sample(), stages.Plan{Image: img}
	require.NoError(t, o.approve(t.Context(), env, plan), "a lack of approvals is told, and no failure")
	o.approvals = "gone.yaml"
	require.ErrorContains(t, o.approve(t.Context(), env, plan), "gone.yaml")
}
