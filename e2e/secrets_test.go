package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/notify"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// confided is a chart that puts an encrypted value wherever charts put such: into a
// Secret, into a variable as part of an address, and into a hook.
var confided = map[string]string{
	"secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: shop}\ndata: {password: {{ .Values.database.password | b64enc }}}\n",
	"hook.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: migration, annotations: {\"helm.sh/hook\": \"pre-install,pre-upgrade\"}}\n" +
		"data: {dsn: \"postgres://shop:{{ .Values.database.password }}@db/{{ .Values.image.digest }}\"}\n",
	"service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec: {selector: {app: shop}, ports: [{port: 80, targetPort: 8080}]}\n",
	"deployment.yaml": `apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
      - name: shop
        image: "{{ .Values.image.repository }}@{{ .Values.image.digest }}"
        env:
        - {name: ADDRESS, value: "postgres://shop:{{ .Values.database.password }}@db"}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: shop, key: password}}}
        readinessProbe: {httpGet: {path: /healthz/ready, port: 8080}, periodSeconds: 1}
`,
}

// TestSecretsGoNowhere delivers a version, one that crashes and one that the cluster
// refuses, with a value that is encrypted at rest, and looks for it in everything that
// a run leaves: what observers wrote, logs, results, errors, the journal, files, events
// of the cluster, and what is written on its objects beside what they are for.
func TestSecretsGoNowhere(t *testing.T) {
	temporary, sources := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temporary)
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	chart := filepath.Join(sources, "shop")
	require.NoError(t, os.CopyFS(chart, os.DirFS(writeChart(t, confided))))
	journal := filepath.Join(temporary, "journal.json")

	var said bytes.Buffer
	console := notify.NewConsole(&said, notify.WithColor(notify.ColorNever), notify.WithDiffLines(1<<16))
	deliver := func(src stages.Source, more ...helmx.Override) error {
		cfg := w.delivery(t, ns)
		deployer, err := helmx.New(helmx.Config{
			Chart: chart, Release: "shop", Namespace: ns,
			Values:     helmx.Values{Files: []string{"testdata/sops/values.yaml"}, Overrides: more, Decrypt: decrypter(t).Decrypt},
			Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
			Apply:      helmx.Apply{Mode: helmx.ServerSide},
			Kubernetes: helmx.Kubernetes{REST: w.rest},
			Logger:     slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		require.NoError(t, err)
		cfg.Deployer, cfg.Verifiers, cfg.PlanGates = deployer, w.verifiers(t, w.rest)[:1], nil
		cfg.Journal = pipeline.FileJournal(journal)
		cfg.Observers = []pipeline.Observer{console, notify.NewNDJSON(&said)}
		result, err := run(t, cfg, src)
		data, problem := json.Marshal(result)
		require.NoError(t, problem)
		fmt.Fprintf(&said, "%s\n%+v\n%+v\n", data, result, err)
		return err
	}
	require.NoError(t, deliver(source("1.0.0")))
	require.ErrorIs(t, deliver(source("1.1.0", crashing)), stages.ErrRolledBack)
	secret, err := w.kube.CoreV1().Secrets(ns).Get(ctx, "shop", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, canaries[1], string(secret.Data["password"]), "the cluster gets what is meant")
	secret.Data["password"] = []byte("changed-by-hand-3141")
	_, err = w.kube.CoreV1().Secrets(ns).Update(ctx, secret, metav1.UpdateOptions{FieldManager: "somebody"})
	require.NoError(t, err)
	require.ErrorContains(t, deliver(source("1.2.0")), "owned by somebody")

	events, err := w.kube.CoreV1().Events(ns).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	leases, err := w.kube.CoordinationV1().Leases(ns).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	fmt.Fprintf(&said, "%+v\n%+v\n", events.Items, leases.Items)
	for _, revision := range w.helm(t, ns).history(t, "shop") {
		fmt.Fprintf(&said, "%+v\n", revision)
	}
	for name, text := range map[string]string{"what was said": said.String(), "files": filesIn(t, temporary)} {
		require.NotEmpty(t, text)
		for _, hidden := range []string{canaries[1], "changed-by-hand-3141"} {
			for _, form := range []string{hidden, base64.StdEncoding.EncodeToString([]byte(hidden))[:16]} {
				at := strings.Index(text, form)
				if !assert.Negative(t, at, "%s has %s", name, form) {
					t.Logf("… %s …", text[max(0, at-300):min(len(text), at+100)])
				}
			}
		}
	}
	assert.Contains(t, said.String(), "postgres://shop:", "what is around it is told")
}

// filesIn returns everything in the files of a folder.
func filesIn(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&out, "%s\n%s\n", path, data)
		return err
	}))
	return out.String()
}
