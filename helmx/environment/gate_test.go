package environment_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/environment"
	"github.com/fairlead-dev/fairlead/stages"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func image(digit string) stages.Image {
	img, err := stages.ParseImage("registry.example.com/shop@sha256:" + strings.Repeat(digit, 64))
	if err != nil {
		panic(err)
	}
	return img
}

func production() environment.Environment {
	return environment.Environment{
		Name: "production", Namespace: "prod", Branches: []string{"main"}, PromotesFrom: "staging",
		Approvals: environment.Approvals{Required: 2, From: []string{"ada", "grace", "linus"}, Within: time.Hour},
	}
}

func says(by string, change ...func(*environment.Approval)) environment.Approval {
	a := environment.Approval{By: by, At: noon.Add(-time.Minute), Digest: image("a").Digest(), Environment: "production"}
	for _, f := range change {
		f(&a)
	}
	return a
}

func denied(a *environment.Approval)  { a.Denied = true }
func other(a *environment.Approval)   { a.Digest = image("b").Digest() }
func staging(a *environment.Approval) { a.Environment = "staging" }
func age(d time.Duration) func(*environment.Approval) {
	return func(a *environment.Approval) { a.At = noon.Add(-d) }
}

func TestApprovalGate(t *testing.T) {
	for name, c := range map[string]struct {
		answers environment.Approved
		want    stages.Verdict
		message string
		counted int
	}{
		"nobody answered":        {nil, stages.Inconclusive, "0 of 2", 0},
		"one is missing":         {environment.Approved{says("ada")}, stages.Inconclusive, "1 of 2", 1},
		"enough":                 {environment.Approved{says("ada"), says("grace")}, stages.Pass, "", 2},
		"one person twice":       {environment.Approved{says("ada"), says("ada", age(time.Second))}, stages.Inconclusive, "1 of 2", 1},
		"not asked":              {environment.Approved{says("ada"), says("mallory")}, stages.Inconclusive, "not among", 1},
		"another case":           {environment.Approved{says("ada"), says("Grace")}, stages.Inconclusive, "not among", 1},
		"another digest":         {environment.Approved{says("ada"), says("grace", other)}, stages.Inconclusive, "sha256:bbb", 1},
		"another environment":    {environment.Approved{says("ada"), says("grace", staging)}, stages.Inconclusive, `"staging"`, 1},
		"expired":                {environment.Approved{says("ada"), says("grace", age(time.Hour))}, stages.Inconclusive, "expired at 2026-03-04T12:00:00Z", 1},
		"to come":                {environment.Approved{says("ada"), says("grace", age(-time.Hour))}, stages.Inconclusive, "to come", 1},
		"the clock is ahead":     {environment.Approved{says("ada"), says("grace", age(-time.Second))}, stages.Pass, "", 2},
		"denied":                 {environment.Approved{says("ada"), says("grace"), says("linus", denied)}, stages.Fail, "denied at", 3},
		"a denial of another":    {environment.Approved{says("ada"), says("grace"), says("linus", denied, other)}, stages.Pass, "", 2},
		"a denial by a stranger": {environment.Approved{says("ada"), says("grace"), says("mallory", denied)}, stages.Pass, "", 2},
		"an old denial":          {environment.Approved{says("ada"), says("grace"), says("linus", denied, age(99*time.Hour))}, stages.Fail, "denied", 3},
		"a denial taken back":    {environment.Approved{says("ada"), says("grace", denied, age(time.Minute*2)), says("grace")}, stages.Pass, "", 2},
		"an approval taken back": {environment.Approved{says("grace", denied), says("ada"), says("grace", age(time.Minute*2))}, stages.Fail, "denied", 2},
		"a denial to come":       {environment.Approved{says("ada"), says("linus"), says("grace", denied, age(-time.Hour))}, stages.Fail, "denied at", 3},
		"a denial to come, late": {environment.Approved{says("ada"), says("grace"), says("grace", denied, age(-time.Hour))}, stages.Fail, "denied at", 2},
		"expired over a denial":  {environment.Approved{says("ada"), says("grace", denied, age(3*time.Hour)), says("grace", age(2*time.Hour))}, stages.Inconclusive, "grace the approval expired", 1},
		"expired, but enough":    {environment.Approved{says("ada"), says("linus"), says("grace", denied, age(3*time.Hour)), says("grace", age(2*time.Hour))}, stages.Pass, "", 2},
		"both at once":           {environment.Approved{says("grace", denied), says("ada"), says("grace")}, stages.Fail, "denied", 2},
	} {
		t.Run(name, func(t *testing.T) {
			var record environment.ApprovalRecord
			gate, err := environment.NewApprovalGate(environment.ApprovalGateConfig{
				Environment: production(), Approver: c.answers, Now: func() time.Time { return noon },
				Record: func(_ context.Context, r environment.ApprovalRecord) error { record = r; return nil },
			})
			require.NoError(t, err)
			decision, err := gate.Decide(t.Context(), stages.Plan{Image: image("a")})
			require.NoError(t, err)
			assert.Equal(t, c.want, decision.Verdict, "%+v", decision)
			assert.Equal(t, "approval of production", decision.Gate)
			if c.want == stages.Pass {
				assert.Empty(t, decision.Reasons)
			} else {
				text := ""
				for _, r := range decision.Reasons {
					text += r.Subject + " " + r.Message + "\n"
				}
				assert.Contains(t, text, c.message)
			}
			assert.Equal(t, decision, record.Decision)
			assert.Equal(t, image("a"), record.Image)
			assert.Equal(t, noon, record.At)
			assert.Len(t, record.Approvals, c.counted)
		})
	}
}

func TestApprovalGateThatDoesNotWork(t *testing.T) {
	problem := errors.New("the chat is down")
	gate, err := environment.NewApprovalGate(environment.ApprovalGateConfig{
		Environment: production(),
		Approver: environment.ApproverFunc(func(_ context.Context, req environment.ApprovalRequest) ([]environment.Approval, error) {
			assert.Equal(t, image("a"), req.Image)
			return nil, problem
		}),
	})
	require.NoError(t, err)
	decision, err := gate.Decide(t.Context(), stages.Plan{Image: image("a")})
	require.ErrorIs(t, err, problem)
	assert.Equal(t, stages.Inconclusive, decision.Verdict)
	_, err = gate.Decide(t.Context(), stages.Plan{})
	require.ErrorIs(t, err, stages.ErrInvalid)

	gate, err = environment.NewApprovalGate(environment.ApprovalGateConfig{
		Environment: environment.Environment{Name: "staging"},
		Record:      func(context.Context, environment.ApprovalRecord) error { return problem },
	})
	require.NoError(t, err, "who asks nobody needs no Approver")
	decision, err = gate.Decide(t.Context(), stages.Plan{Image: image("a")})
	require.ErrorIs(t, err, problem, "what can't be recorded is not decided")
	assert.Equal(t, stages.Inconclusive, decision.Verdict)

	for _, cfg := range []environment.ApprovalGateConfig{{}, {Environment: production()}} {
		_, err := environment.NewApprovalGate(cfg)
		require.ErrorIs(t, err, stages.ErrInvalid)
	}
}

func TestCheckGates(t *testing.T) {
	e := environment.Environment{Name: "production", Gates: []string{"scan", "policy"}}
	said := func(gate string, v stages.Verdict) stages.Decision { return stages.Decision{Gate: gate, Verdict: v} }
	for name, c := range map[string]struct {
		decisions []stages.Decision
		want      stages.Verdict
	}{
		"all":             {[]stages.Decision{said("policy", stages.Pass), said("x", stages.Fail), said("scan", stages.Pass)}, stages.Pass},
		"one is missing":  {[]stages.Decision{said("policy", stages.Pass)}, stages.Inconclusive},
		"one failed":      {[]stages.Decision{said("scan", stages.Fail)}, stages.Fail},
		"failed once":     {[]stages.Decision{said("scan", stages.Pass), said("scan", stages.Fail), said("policy", stages.Pass)}, stages.Fail},
		"undecided":       {[]stages.Decision{said("scan", stages.Pass), said("policy", stages.Inconclusive)}, stages.Inconclusive},
		"undecided, fail": {[]stages.Decision{said("scan", stages.Inconclusive), said("policy", stages.Fail)}, stages.Fail},
	} {
		got := e.CheckGates(c.decisions)
		assert.Equal(t, c.want, got.Verdict, name)
		assert.Equal(t, c.want == stages.Pass, len(got.Reasons) == 0, name)
	}
}

func TestCheckGatesAsksForApprovals(t *testing.T) {
	e := production()
	e.Gates = []string{"scan"}
	decisions := []stages.Decision{{Gate: "scan", Verdict: stages.Pass}}
	got := e.CheckGates(decisions)
	assert.Equal(t, stages.Inconclusive, got.Verdict)
	require.Len(t, got.Reasons, 1)
	assert.Equal(t, "approval of production", got.Reasons[0].Rule)

	now := time.Now()
	gate, err := environment.NewApprovalGate(environment.ApprovalGateConfig{Environment: e, Approver: environment.Approved{
		says("ada", func(a *environment.Approval) { a.At = now }), says("grace", func(a *environment.Approval) { a.At = now }),
	}})
	require.NoError(t, err)
	approval, err := gate.Decide(t.Context(), stages.Plan{Image: image("a")})
	require.NoError(t, err)
	assert.Equal(t, stages.Pass, e.CheckGates(append(decisions, approval)).Verdict)

	e.Gates = append(e.Gates, "approval of production")
	assert.Len(t, e.CheckGates(decisions).Reasons, 1, "it is asked for once")
}
