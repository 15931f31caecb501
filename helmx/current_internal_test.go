package helmx

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"helm.sh/helm/v3/pkg/release"
	helmtime "helm.sh/helm/v3/pkg/time"
)

// Hooks that run before the objects are applied are not part of what made them; hooks of
// an earlier revision, and those after, say nothing.
func TestWhenObjectsBeganToBeApplied(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	hook := func(ended time.Duration, events ...release.HookEvent) *release.Hook {
		return &release.Hook{Events: events, LastRun: release.HookExecution{CompletedAt: helmtime.Time{Time: at.Add(ended)}}}
	}
	for name, test := range map[string]struct {
		hooks []*release.Hook
		want  time.Duration
	}{
		"no hooks": {nil, 0},
		"before":   {[]*release.Hook{hook(time.Minute, release.HookPreInstall, release.HookPreUpgrade), hook(time.Second, release.HookPreUpgrade)}, time.Minute},
		"after":    {[]*release.Hook{hook(time.Minute, release.HookPostUpgrade)}, 0},
		"both":     {[]*release.Hook{hook(time.Minute, release.HookPreUpgrade, release.HookPostUpgrade)}, 0},
		"earlier":  {[]*release.Hook{hook(-time.Hour, release.HookPreUpgrade)}, 0},
		"a test":   {[]*release.Hook{hook(time.Hour, release.HookTest)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			rel := &release.Release{Info: &release.Info{LastDeployed: helmtime.Time{Time: at}}, Hooks: test.hooks}
			assert.Equal(t, at.Add(test.want), beganAt(rel))
		})
	}
}
