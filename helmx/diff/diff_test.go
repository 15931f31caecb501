package diff_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/diff"
	"github.com/fairlead-dev/fairlead/stages"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), got, "see go test ./helmx/diff -update")
}

func object(apiVersion, kind, name string) stages.Object {
	return stages.Object{APIVersion: apiVersion, Kind: kind, Namespace: "shop", Name: name}
}

func example() stages.Plan {
	claim, web := object("v1", "PersistentVolumeClaim", "data"), object("apps/v1", "Deployment", "web")
	return stages.Plan{
		Release: "shop/web", Digest: "v1.3.x.y", Manifests: []byte("never shown"),
		Changes: []stages.Change{
			{Action: stages.Create, Object: object("v1", "ConfigMap", "new"), Basis: stages.BasisLive,
				Diff: "--- deployed ConfigMap shop/new\n+++ rendered ConfigMap shop/new\n@@ -0,0 +1,1 @@\n+kind: ConfigMap\n"},
			{Action: stages.Update, Object: web, Basis: stages.BasisLive,
				Diff: "--- live Deployment shop/web\n+++ planned Deployment shop/web\n@@ -1,2 +1,2 @@\n spec:\n-  replicas: 5\n+  replicas: 1\n",
				Fields: []stages.FieldChange{
					{Path: "spec.replicas", From: "5", To: "1", Owner: "kube-controller-manager/scale", Overwritten: true},
					{Path: "spec.paused", To: "true"},
				}},
			{Action: stages.Update, Object: object("v1", "Secret", "web"), Basis: stages.BasisRelease},
			{Action: stages.Recreate, Object: object("batch/v1", "Job", "once"),
				Dangers: []stages.Danger{{Class: stages.DangerImmutable, Object: object("batch/v1", "Job", "once"), Why: "spec.template can't be changed in place"}},
				Refusal: &stages.Refusal{Reason: "Invalid", Message: "field is immutable"}},
			{Action: stages.Adopt, Object: object("v1", "Service", "web")},
			{Action: stages.Delete, Object: claim,
				Dangers: []stages.Danger{{Class: stages.DangerStorage, Object: claim, Why: "the data that it holds may go with it"}}},
		},
		Hooks: []stages.Change{{Action: stages.Update, Object: object("batch/v1", "Job", "migrate"), Basis: stages.BasisRelease,
			Diff: "--- deployed Job shop/migrate\n+++ rendered Job shop/migrate\n@@ -1,1 +1,1 @@\n-image: a\n+image: b\n"}},
		Drift: []stages.Drift{
			{Object: web, Fields: []stages.FieldChange{{Path: "spec.replicas", From: "1", To: "5", Owner: "kubectl", Overwritten: true}, {Path: "spec.paused", To: "false"}}},
			{Object: object("v1", "ConfigMap", "new"), Missing: true},
		},
		Dangers: []stages.Danger{{Class: stages.DangerHook, Object: claim, Why: "a hook deletes it"}},
		Notes:   []stages.Note{{Kind: stages.NoteNotTried, Message: "pods were not tried"}, {Kind: stages.NoteWarning, Object: web, Message: "deprecated"}},
	}
}

func render(t *testing.T, plan stages.Plan) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"plan.txt":       func(b *bytes.Buffer) error { return diff.Text(b, plan, diff.TextOptions{}) },
		"plan-color.txt": func(b *bytes.Buffer) error { return diff.Text(b, plan, diff.TextOptions{Color: true}) },
		"plan.json":      func(b *bytes.Buffer) error { return diff.JSON(b, plan) },
		"plan.html":      func(b *bytes.Buffer) error { return diff.HTML(b, plan) },
	} {
		var b bytes.Buffer
		require.NoError(t, write(&b))
		out[name] = b.String()
	}
	return out
}

func TestRenderings(t *testing.T) {
	for name, got := range render(t, example()) {
		golden(t, name, got)
		assert.NotContains(t, got, "never shown")
	}
}

func TestCount(t *testing.T) {
	s := diff.Count(example())
	assert.Equal(t, diff.Summary{Added: 1, Changed: 2, Removed: 1, Recreated: 1, Adopted: 1, Refused: 1, Drifted: 2, Hooks: 1, Dangers: 3}, s)
	assert.Equal(t, "1 added, 2 changed, 1 removed, 1 recreated, 1 adopted, 1 refused, 1 in hooks, 2 drifted, 3 dangers", s.String())
	assert.Equal(t, "0 added, 0 changed, 0 removed", diff.Count(stages.Plan{}).String())
}

// What comes from charts and clusters can neither command a terminal nor become
// part of a page.
func TestHostileText(t *testing.T) {
	const attack = "<script>alert(1)</script>\x1b]0;owned\a\u202e\"'>&\r\n--- x"
	hostile := stages.Object{APIVersion: attack, Kind: attack, Namespace: attack, Name: attack}
	danger := stages.Danger{Class: attack, Object: hostile, Why: attack}
	fields := []stages.FieldChange{{Path: attack, From: attack, To: attack, Owner: attack}}
	rendered := render(t, stages.Plan{
		Release: attack, Digest: attack,
		Changes: []stages.Change{{Action: attack, Object: hostile, Diff: "+" + attack + "\n", Basis: attack, Fields: fields,
			Dangers: []stages.Danger{danger}, Refusal: &stages.Refusal{Reason: attack, Message: attack}}},
		Drift:   []stages.Drift{{Object: hostile, Fields: fields}},
		Dangers: []stages.Danger{danger}, Notes: []stages.Note{{Kind: attack, Object: hostile, Message: attack}},
	})
	for name, got := range rendered {
		if name == "plan-color.txt" {
			got = strings.NewReplacer("\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[1m", "", "\x1b[0m", "").Replace(got)
		}
		assert.NotContains(t, got, "\x1b", name)
		assert.NotContains(t, got, "\a", name)
		assert.NotContains(t, got, "\r", name)
		if name != "plan.json" { // JSON is for programs, which get the text as it is.
			assert.NotContains(t, got, "\u202e", name)
		}
		if strings.HasSuffix(name, "html") || strings.HasSuffix(name, "json") {
			assert.NotContains(t, got, "<script", name)
		}
	}
	assert.True(t, json.Valid([]byte(rendered["plan.json"])))
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteErrors(t *testing.T) {
	require.ErrorContains(t, diff.Text(broken{}, example(), diff.TextOptions{}), "disk full")
	require.ErrorContains(t, diff.JSON(broken{}, example()), "disk full")
	require.ErrorContains(t, diff.HTML(broken{}, example()), "disk full")
}
