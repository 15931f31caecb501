package scan_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/stages"
)

var image = mustImage("registry.example/shop@sha256:" + strings.Repeat("a", 64))

func mustImage(ref string) stages.Image {
	i, err := stages.ParseImage(ref)
	if err != nil {
		panic(err)
	}
	return i
}

func report(findings ...stages.Finding) stages.Report {
	return stages.Report{Image: image, Scanner: "trivy 0.72.0", Database: time.Now(), OS: "debian 12.5", Packages: 90, Findings: findings}
}

var (
	lodash = stages.Finding{
		ID: "CVE-2019-10744", Severity: stages.SeverityCritical, Package: "lodash", Installed: "4.17.4", Fixed: "4.17.12",
		Target: "app/node_modules/lodash/package.json", Title: "prototype pollution in defaultsDeep",
	}
	glibc = stages.Finding{
		ID: "CVE-2023-4911", Severity: stages.SeverityHigh, Package: "libc6", Installed: "2.36-9", Fixed: "2.36-9+deb12u3", Target: "debian 12.5",
	}
	zlib = stages.Finding{ID: "CVE-2023-45853", Severity: stages.SeverityCritical, Package: "zlib1g", Installed: "1:1.2.13", Target: "debian 12.5"}
	tar  = stages.Finding{ID: "CVE-2005-2541", Severity: stages.SeverityLow, Package: "tar", Installed: "1.34", Target: "debian 12.5"}
	odd  = stages.Finding{ID: "TEMP-1", Severity: stages.SeverityUnknown, Package: "odd", Installed: "1", Fixed: "2"}
)

func TestPolicy(t *testing.T) {
	week := time.Now().Add(7 * 24 * time.Hour)
	tests := map[string]struct {
		config   scan.PolicyConfig
		report   stages.Report
		verdict  stages.Verdict
		reasons  []string
		warnings []string
	}{
		"nothing found":                    {report: report(), verdict: stages.Pass},
		"below the default threshold":      {report: report(tar), verdict: stages.Pass},
		"default threshold is high":        {report: report(glibc, tar), verdict: stages.Fail, reasons: []string{"CVE-2023-4911"}},
		"every blocking finding is named":  {report: report(lodash, zlib, glibc), verdict: stages.Fail, reasons: []string{"CVE-2019-10744", "CVE-2023-45853", "CVE-2023-4911"}},
		"just below a higher threshold":    {config: scan.PolicyConfig{Threshold: stages.SeverityCritical}, report: report(glibc), verdict: stages.Pass},
		"at a lower threshold":             {config: scan.PolicyConfig{Threshold: stages.SeverityLow}, report: report(tar), verdict: stages.Fail, reasons: []string{"CVE-2005-2541"}},
		"unknown severity warns":           {config: scan.PolicyConfig{Threshold: stages.SeverityLow}, report: report(odd), verdict: stages.Pass, warnings: []string{"TEMP-1"}},
		"unfixed blocks":                   {report: report(zlib), verdict: stages.Fail, reasons: []string{"CVE-2023-45853"}},
		"unfixed ignored warns":            {config: scan.PolicyConfig{IgnoreUnfixed: true}, report: report(zlib), verdict: stages.Pass, warnings: []string{"CVE-2023-45853"}},
		"fixed blocks when unfixed is not": {config: scan.PolicyConfig{IgnoreUnfixed: true}, report: report(lodash, zlib), verdict: stages.Fail, reasons: []string{"CVE-2019-10744"}, warnings: []string{"CVE-2023-45853"}},
		"exception for all packages": {
			config: scan.PolicyConfig{Ignore: []scan.Exception{{ID: "cve-2019-10744", Reason: "not reachable"}}},
			report: report(lodash), verdict: stages.Pass, warnings: []string{"CVE-2019-10744"},
		},
		"exception for another package": {
			config: scan.PolicyConfig{Ignore: []scan.Exception{{ID: "CVE-2019-10744", Package: "lodash-es", Reason: "not reachable"}}},
			report: report(lodash), verdict: stages.Fail, reasons: []string{"CVE-2019-10744"},
		},
		"exception that lasts": {
			config: scan.PolicyConfig{Ignore: []scan.Exception{{ID: "CVE-2019-10744", Package: "lodash", Reason: "not reachable", Until: week}}},
			report: report(lodash), verdict: stages.Pass, warnings: []string{"CVE-2019-10744"},
		},
		"exception that has ended": {
			config: scan.PolicyConfig{Ignore: []scan.Exception{{ID: "CVE-2019-10744", Reason: "not reachable", Until: time.Now().Add(-time.Second)}}},
			report: report(lodash), verdict: stages.Fail, reasons: []string{"CVE-2019-10744"}, warnings: []string{"CVE-2019-10744"},
		},
		"one ended, one lasts": {
			config: scan.PolicyConfig{Ignore: []scan.Exception{
				{ID: "CVE-2019-10744", Reason: "old", Until: time.Now().Add(-time.Second)}, {ID: "CVE-2019-10744", Reason: "new", Until: week},
			}},
			report: report(lodash), verdict: stages.Pass, warnings: []string{"CVE-2019-10744"},
		},
		"no packages":           {report: with(report(), func(r *stages.Report) { r.Packages = 0 }), verdict: stages.Inconclusive, reasons: []string{"packages"}},
		"no packages, allowed":  {config: scan.PolicyConfig{AllowEmpty: true}, report: with(report(), func(r *stages.Report) { r.Packages = 0 }), verdict: stages.Pass},
		"database of no date":   {report: with(report(), func(r *stages.Report) { r.Database = time.Time{} }), verdict: stages.Inconclusive, reasons: []string{"database-age"}},
		"database too old":      {report: with(report(), func(r *stages.Report) { r.Database = time.Now().Add(-8 * 24 * time.Hour) }), verdict: stages.Inconclusive, reasons: []string{"database-age"}},
		"database from ahead":   {report: with(report(), func(r *stages.Report) { r.Database = time.Now().Add(2 * time.Hour) }), verdict: stages.Inconclusive, reasons: []string{"database-age"}},
		"clocks that differ":    {report: with(report(), func(r *stages.Report) { r.Database = time.Now().Add(time.Minute) }), verdict: stages.Pass},
		"nothing known at all":  {report: stages.Report{Image: image}, verdict: stages.Inconclusive, reasons: []string{"packages", "database-age"}},
		"old, but found enough": {report: with(report(lodash), func(r *stages.Report) { r.Database = time.Time{} }), verdict: stages.Fail, reasons: []string{"CVE-2019-10744"}, warnings: []string{"database-age"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			policy, err := scan.NewPolicy(test.config)
			require.NoError(t, err)
			decision, err := policy.Decide(t.Context(), test.report)
			require.NoError(t, err)
			assert.Equal(t, test.verdict, decision.Verdict)
			assert.Equal(t, test.reasons, rules(decision.Reasons))
			assert.Equal(t, test.warnings, rules(decision.Warnings))
			assert.NotEmpty(t, decision.Gate)
		})
	}
}

func with(r stages.Report, change func(*stages.Report)) stages.Report {
	change(&r)
	return r
}

func rules(reasons []stages.Reason) []string {
	var ids []string
	for _, r := range reasons {
		ids = append(ids, r.Rule)
	}
	return ids
}

func TestPolicyAgeLimitIsInclusive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy, err := scan.NewPolicy(scan.PolicyConfig{MaxDatabaseAge: time.Hour})
		require.NoError(t, err)
		r := report()
		<-time.After(time.Hour)
		decision, err := policy.Decide(t.Context(), r)
		require.NoError(t, err)
		assert.Equal(t, stages.Pass, decision.Verdict, "exactly as old as allowed")
		<-time.After(1)
		decision, err = policy.Decide(t.Context(), r)
		require.NoError(t, err)
		assert.Equal(t, stages.Inconclusive, decision.Verdict)
	})
}

func TestPolicyExceptionEndsOnTheInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy, err := scan.NewPolicy(scan.PolicyConfig{Ignore: []scan.Exception{
			{ID: lodash.ID, Reason: "not reachable", Until: time.Now().Add(time.Hour)},
		}})
		require.NoError(t, err)
		<-time.After(time.Hour - 1)
		decision, err := policy.Decide(t.Context(), report(lodash))
		require.NoError(t, err)
		assert.Equal(t, stages.Pass, decision.Verdict)
		<-time.After(1)
		decision, err = policy.Decide(t.Context(), report(lodash))
		require.NoError(t, err)
		assert.Equal(t, stages.Fail, decision.Verdict)
		assert.Contains(t, decision.Warnings[0].Message, "no longer applies")
	})
}

func TestPolicyReasonNamesVersions(t *testing.T) {
	policy, err := scan.NewPolicy(scan.PolicyConfig{})
	require.NoError(t, err)
	decision, err := policy.Decide(t.Context(), report(lodash, zlib))
	require.NoError(t, err)
	assert.Equal(t, []stages.Reason{
		{
			Rule: "CVE-2019-10744", Subject: "lodash in app/node_modules/lodash/package.json",
			Message: "CRITICAL lodash 4.17.4 → 4.17.12: prototype pollution in defaultsDeep",
		},
		{Rule: "CVE-2023-45853", Subject: "zlib1g in debian 12.5", Message: "CRITICAL zlib1g 1:1.2.13, no fix yet"},
	}, decision.Reasons)
}

func TestPolicyRefuses(t *testing.T) {
	for name, config := range map[string]scan.PolicyConfig{
		"a threshold beyond critical":   {Threshold: stages.SeverityCritical + 1},
		"a negative threshold":          {Threshold: -1},
		"a negative age":                {MaxDatabaseAge: -1},
		"an exception without ID":       {Ignore: []scan.Exception{{Reason: "why"}}},
		"an exception without a reason": {Ignore: []scan.Exception{{ID: "CVE-1", Reason: " "}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := scan.NewPolicy(config)
			require.ErrorIs(t, err, stages.ErrInvalid)
		})
	}
}

func TestPolicyErrs(t *testing.T) {
	policy, err := scan.NewPolicy(scan.PolicyConfig{})
	require.NoError(t, err)
	decision, err := policy.Decide(t.Context(), stages.Report{})
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.Equal(t, stages.Inconclusive, decision.Verdict)

	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	decision, err = policy.Decide(ctx, report())
	require.ErrorIs(t, err, why)
	assert.Equal(t, stages.Inconclusive, decision.Verdict)
}

func TestPolicyIsIndependentOfItsConfig(t *testing.T) {
	ignore := []scan.Exception{{ID: lodash.ID, Reason: "not reachable"}}
	policy, err := scan.NewPolicy(scan.PolicyConfig{Ignore: ignore})
	require.NoError(t, err)
	ignore[0].ID = "CVE-0"
	decision, err := policy.Decide(t.Context(), report(lodash))
	require.NoError(t, err)
	assert.Equal(t, stages.Pass, decision.Verdict)
}
