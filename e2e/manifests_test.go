package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/diff"
	"github.com/fairlead-dev/fairlead/helmx/sops"
	"github.com/fairlead-dev/fairlead/stages"
)

// canaries are what testdata/sops holds encrypted.
var canaries = []string{"canary-pelican-4711", "canary-heron-0815"}

func decrypter(t *testing.T) *sops.Decrypter {
	t.Helper()
	key, err := os.ReadFile("../helmx/sops/testdata/keys/age1.txt")
	require.NoError(t, err)
	d, err := sops.New(sops.Config{Age: [][]byte{key}})
	require.NoError(t, err)
	return d
}

// TestEncryptedManifests releases plain manifests, one of which is encrypted, and
// looks for what it hides in everything that comes out.
func TestEncryptedManifests(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	secret, err := os.ReadFile("testdata/sops/till.yaml")
	require.NoError(t, err)
	write("till.yaml", string(secret))
	write("colours.yaml", colours)
	write("sizes.yaml", sizes)

	var said bytes.Buffer
	open := func() *helmx.Deployer {
		d, err := helmx.New(helmx.Config{
			Manifests: []string{dir}, Release: "parts", Namespace: ns, Unscanned: "made by a test",
			Values:     helmx.Values{Decrypt: decrypter(t).Decrypt},
			Kubernetes: helmx.Kubernetes{REST: w.rest},
			Logger:     slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		require.NoError(t, err)
		return d
	}
	d := open()
	plan, err := d.Plan(ctx, stages.PlanRequest{Run: "run-1"})
	require.NoError(t, err)
	report(t, &said, plan)
	require.Len(t, plan.Changes, 3)
	rel := requireDeployed(t, d, "run-1")
	fmt.Fprintf(&said, "%+v", rel)
	till, err := w.kube.CoreV1().Secrets(ns).Get(ctx, "till", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, canaries[0], string(till.Data["password"]), "the cluster gets what is meant")
	for _, f := range till.ManagedFields {
		assert.Equal(t, metav1.ManagedFieldsOperationApply, f.Operation)
	}

	// What is dropped is deleted, and what somebody changed shows without its value.
	require.NoError(t, os.Remove(filepath.Join(dir, "sizes.yaml")))
	till.Data["password"] = []byte("changed-by-hand")
	_, err = w.kube.CoreV1().Secrets(ns).Update(ctx, till, metav1.UpdateOptions{FieldManager: "somebody"})
	require.NoError(t, err)
	w.own(t, ns, "somebody", "sky", "red")
	d = open()
	cp, err := d.Checkpoint(ctx, stages.CheckpointRequest{Run: "run-2"})
	require.NoError(t, err)
	plan, err = d.Plan(ctx, stages.PlanRequest{Run: "run-2"})
	require.NoError(t, err)
	report(t, &said, plan)
	assert.NotContains(t, said.String(), "changed-by-hand")
	_, err = d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "run-2"})
	require.ErrorContains(t, err, "owned by somebody")
	fmt.Fprintln(&said, err)
	restored, err := d.Restore(ctx, "run-2", cp)
	require.NoError(t, err)
	fmt.Fprintf(&said, "%+v", restored)

	for _, canary := range canaries {
		assert.NotContains(t, said.String(), canary)
	}
	assert.NotContains(t, said.String(), "Y2FuYXJ5LXBlbGljYW4tNDcxM", "nor in base64")
	require.NotEmpty(t, said.String())
}

// report writes a plan in all the ways there are.
func report(t *testing.T, to *bytes.Buffer, plan stages.Plan) {
	t.Helper()
	data, err := json.Marshal(plan)
	require.NoError(t, err)
	to.Write(data)
	to.Write(plan.Manifests)
	require.NoError(t, diff.Text(to, plan, diff.TextOptions{Color: true}))
	require.NoError(t, diff.HTML(to, plan))
}

func TestEncryptedValues(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	var said bytes.Buffer
	d := w.parts(t, ns, map[string]string{"a.yaml": `apiVersion: v1
kind: ConfigMap
metadata: {name: colours}
data: {url: "postgres://till:{{ .Values.database.password }}@db"}
`}, func(cfg *helmx.Config) {
		cfg.Values = helmx.Values{Files: []string{"testdata/sops/values.yaml"}, Decrypt: decrypter(t).Decrypt}
		cfg.Logger = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	plan, err := d.Plan(labtest.Context(t), stages.PlanRequest{Run: "run-1"})
	require.NoError(t, err)
	report(t, &said, plan)
	requireDeployed(t, d, "run-1")
	assert.Contains(t, w.configMap(t, ns, "colours").Data["url"], canaries[1])
	assert.Contains(t, said.String(), "postgres://")
	assert.NotContains(t, said.String(), canaries[1], "a value that was encrypted is masked wherever it turns up")
}
