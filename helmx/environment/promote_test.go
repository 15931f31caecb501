package environment_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/environment"
	"github.com/fairlead-dev/fairlead/stages"
)

type source struct {
	current helmx.Current
	err     error
}

func (s source) Current(context.Context) (helmx.Current, error) { return s.current, s.err }

func stagingRuns(digit string) source {
	return source{current: helmx.Current{
		Release: stages.Release{Image: image(digit), Name: "shop", Namespace: "stg", Revision: 3}, Run: "run-1", Commit: "abc123",
	}}
}

func TestPromotion(t *testing.T) {
	broken := errors.New("unreachable")
	sees := func(digit string, err error) stages.Verifier {
		return stages.VerifierFunc(func(_ context.Context, rel stages.Release) (stages.Verification, error) {
			assert.Equal(t, 3, rel.Revision)
			return stages.Verification{Image: image(digit)}, err
		})
	}
	elsewhere := stagingRuns("a")
	elsewhere.current.Namespace = "other"
	for name, c := range map[string]struct {
		source    source
		image     stages.Image
		verifier  stages.Verifier
		revision  string
		want      string
		permanent bool
	}{
		"whatever runs":           {source: stagingRuns("a")},
		"what was asked for":      {source: stagingRuns("a"), image: image("a"), revision: "abc123", verifier: sees("a", nil)},
		"another image":           {source: stagingRuns("a"), image: image("b"), want: "asked for was registry.example.com/shop@sha256:bbb", permanent: true},
		"another commit":          {source: stagingRuns("a"), revision: "def", want: "asked for was commit", permanent: true},
		"another namespace":       {source: elsewhere, want: "namespace other", permanent: true},
		"not settled":             {source: source{err: &helmx.NotDeployedError{Revision: 4, Status: "pending-upgrade", Problem: "busy"}}, want: "pending-upgrade", permanent: true},
		"unreachable":             {source: source{err: broken}, want: "unreachable"},
		"pods of another image":   {source: stagingRuns("a"), verifier: sees("b", nil), want: "its pods run", permanent: true},
		"pods that can't be seen": {source: stagingRuns("a"), verifier: sees("a", broken), want: "prove that"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := environment.NewPromotion(environment.PromotionConfig{
				From: environment.Environment{Name: "staging", Namespace: "stg"}, To: production(),
				Source: c.source, Image: c.image, Verifier: c.verifier,
			})
			require.NoError(t, err)
			got, err := p.Build(t.Context(), stages.Source{Dir: ".", Revision: c.revision})
			if c.want == "" {
				require.NoError(t, err)
				assert.Equal(t, image("a"), got)
				return
			}
			require.ErrorContains(t, err, c.want)
			assert.True(t, got.IsZero())
			assert.Equal(t, c.permanent, stages.IsPermanent(err))
		})
	}
}

func TestNewPromotionRefuses(t *testing.T) {
	from := environment.Environment{Name: "staging", Namespace: "stg"}
	for _, cfg := range []environment.PromotionConfig{
		{}, {From: from, To: production()}, {From: from, To: from, Source: stagingRuns("a")}, {From: production(), To: production(), Source: stagingRuns("a")},
	} {
		_, err := environment.NewPromotion(cfg)
		require.ErrorIs(t, err, stages.ErrInvalid)
	}
}

func TestDeployerInsistsOnGates(t *testing.T) {
	e := production()
	e.Gates, e.ValuesFiles = []string{"scan"}, []string{"testdata/seed/values-prod.yaml"}
	cfg := helmx.Config{
		Chart: "../testdata/seed", Release: "shop", Image: helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"},
		Kubernetes: helmx.Kubernetes{REST: &rest.Config{Host: "https://127.0.0.1:1"}},
	}
	d, err := environment.NewDeployer(e, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	bypass, err := stages.BypassGates(image("a"), "a test")
	require.NoError(t, err)
	_, err = d.Deploy(t.Context(), stages.DeployRequest{Clearance: bypass, Run: "run-1"})
	require.ErrorIs(t, err, stages.ErrNotCleared)
	require.ErrorIs(t, err, stages.ErrInconclusive)
	assert.ErrorContains(t, err, "gate scan")
	assert.ErrorContains(t, err, "gate approval of production")
	_, err = d.Deploy(t.Context(), stages.DeployRequest{})
	require.ErrorIs(t, err, stages.ErrNotCleared)

	e.Gates, e.ValuesFiles = nil, []string{"testdata/seed/none.yaml"}
	_, err = environment.NewDeployer(e, cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
	cfg.Namespace = "prod"
	_, err = environment.NewDeployer(e, cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
	cfg.Namespace, cfg.Kubernetes.Context, e.Context = "", "a", "b"
	_, err = environment.NewDeployer(e, cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestDeployerOfGatesTakesNothingUnscanned(t *testing.T) {
	cfg := helmx.Config{
		Chart: "../testdata/seed", Release: "shop", Unscanned: "a vendor's chart",
		Kubernetes: helmx.Kubernetes{REST: &rest.Config{Host: "https://127.0.0.1:1"}},
	}
	gated, approved := branches("staging", "main"), production()
	gated.Gates = []string{"scan"}
	for _, e := range []environment.Environment{gated, approved} {
		_, err := environment.NewDeployer(e, cfg)
		require.ErrorIs(t, err, stages.ErrInvalid)
		assert.ErrorContains(t, err, "leave Unscanned empty")
	}
	d, err := environment.NewDeployer(branches("staging", "main"), cfg)
	require.NoError(t, err)
	assert.NoError(t, d.Close())
}
