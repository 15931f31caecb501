package helmx_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/release"
	helmtime "helm.sh/helm/v3/pkg/time"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

func uninstall(t *testing.T, d *helmx.Deployer, run string) stages.Removal {
	t.Helper()
	removal, err := d.Uninstall(t.Context(), run)
	require.NoError(t, err)
	return removal
}

func configMapID(name string) stages.Object {
	return stages.Object{APIVersion: "v1", Kind: "ConfigMap", Namespace: "shop", Name: name}
}

// templated is a deployer of a chart with more templates than that of digestConfig.
func templated(t *testing.T, a *apiServer, templates map[string]string, change ...func(*helmx.Config)) *helmx.Deployer {
	t.Helper()
	cfg := digestConfig(a)
	cfg.Chart = writeTemplates(t, templates)
	for _, f := range change {
		f(&cfg)
	}
	return open(t, cfg)
}

func TestUninstallKeepsWhatIsNotItsOwn(t *testing.T) {
	a := newAPIServer(t, "shop")
	marks := func(release string) content {
		return content{"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": "shop"}
	}
	older := metav1.NewTime(time.Now().Add(-time.Hour)).UTC().Format(time.RFC3339)
	a.edit("/api/v1/namespaces/shop/configmaps/older", func(content) content {
		return content{"apiVersion": "v1", "kind": "ConfigMap", "metadata": content{
			"name": "older", "namespace": "shop", "creationTimestamp": older, "annotations": marks("web"),
			"labels": content{"app.kubernetes.io/managed-by": "Helm"},
		}}
	})
	configMap := func(name string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n"
	}
	templates := map[string]string{
		"older.yaml": configMap("older"), "moved.yaml": configMap("moved"), "marked.yaml": configMap("marked"), "plain.yaml": configMap("plain"),
		"policy.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: policy, annotations: {helm.sh/resource-policy: keep}}\n",
	}
	deploy(t, templated(t, a, templates), "run-1", "a")
	a.edit("/api/v1/namespaces/shop/configmaps/moved", func(obj content) content {
		section(obj, "metadata")["annotations"] = marks("other")
		return obj
	})
	a.edit("/api/v1/namespaces/shop/configmaps/marked", func(obj content) content {
		section(section(obj, "metadata"), "annotations")["helm.sh/resource-policy"] = "keep"
		return obj
	})

	removal := uninstall(t, templated(t, a, templates), "run-2")
	assert.Equal(t, "shop/web", removal.Release)
	assert.ElementsMatch(t, []stages.Object{configMapID("older"), configMapID("moved"), configMapID("marked"), configMapID("policy")}, removal.Kept)
	assert.Contains(t, removal.Removed, configMapID("plain"))
	assert.Contains(t, removal.Removed, stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "shop", Name: "web"})
	assert.ElementsMatch(t, []string{
		"/api/v1/namespaces/shop/configmaps/older", "/api/v1/namespaces/shop/configmaps/moved",
		"/api/v1/namespaces/shop/configmaps/marked", "/api/v1/namespaces/shop/configmaps/policy",
	}, a.paths("/namespaces/shop/"), "records, lock and all else are gone")
}

// Of a long history the oldest records are gone. What the release made then is older
// than any record that is left, and is its own all the same.
func TestUninstallAfterALongHistory(t *testing.T) {
	a := newAPIServer(t, "shop")
	long := func(c *helmx.Config) { c.HistoryMax = 2 }
	configMap := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: plain}\n"
	templates := map[string]string{"plain.yaml": configMap}
	deploy(t, templated(t, a, templates, long), "run-1", "a")
	older := metav1.NewTime(time.Now().Add(-time.Hour)).UTC().Format(time.RFC3339)
	a.edit("/api/v1/namespaces/shop/configmaps/plain", func(obj content) content {
		section(obj, "metadata")["creationTimestamp"] = older
		return obj
	})
	for _, run := range []string{"run-2", "run-3", "run-4"} {
		deploy(t, templated(t, a, templates, long), run, "b")
	}
	require.Empty(t, recordLabels(a, "1"), "the first record is gone")
	removal := uninstall(t, templated(t, a, templates, long), "run-5")
	assert.Contains(t, removal.Removed, configMapID("plain"))
	assert.Empty(t, removal.Kept)
	assert.Empty(t, a.paths("/namespaces/shop/"))
}

func TestUninstallRemovesWhatFailedRevisionsLeft(t *testing.T) {
	a := newAPIServer(t, "shop")
	deploy(t, open(t, digestConfig(a)), "run-1", "a")
	dead := open(t, digestConfig(a, helmx.Set("extra=true")))
	kill(t, a, dead, "PATCH /apis/apps", func(ctx context.Context) error {
		_, err := dead.Deploy(ctx, request(t, "run-2", "b"))
		return err
	})
	require.NotNil(t, a.get(extraPath))
	removal := uninstall(t, open(t, digestConfig(a)), "run-3")
	assert.Contains(t, removal.Removed, configMapID("web-extra"))
	assert.Empty(t, a.paths("/namespaces/shop/"))
}

const deleteHooks = `
{{- range list "pre" "post" }}
---
apiVersion: batch/v1
kind: Job
metadata: {name: {{ . }}-delete, annotations: {helm.sh/hook: {{ . }}-delete}}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: x, image: x}]}}}
{{- end }}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: outlives, annotations: {helm.sh/hook: "pre-install,pre-delete,post-delete"}}
`

func TestUninstallRunsDeleteHooks(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := templated(t, a, map[string]string{"hooks.yaml": deleteHooks})
	deploy(t, d, "run-1", "a")
	before := len(a.requests(nil))
	removal := uninstall(t, d, "run-2")
	assert.Equal(t, []stages.Object{configMapID("outlives")}, removal.Kept)
	assert.Equal(t, []string{"/api/v1/namespaces/shop/configmaps/outlives"}, a.paths("/namespaces/shop/"), "Jobs of hooks are gone, too")
	var order []string
	for _, r := range a.requests(nil)[before:] {
		switch {
		case strings.HasPrefix(r, "POST ") && strings.HasSuffix(r, "/jobs"), strings.HasPrefix(r, "DELETE ") && strings.Contains(r, "/deployments/"):
			order = append(order, r[:strings.Index(r, " ")])
		}
	}
	assert.Equal(t, []string{"POST", "DELETE", "POST"}, order)
}

func TestFailedDeleteHookIsNamedAndRepeated(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := templated(t, a, map[string]string{"hooks.yaml": deleteHooks})
	deploy(t, d, "run-1", "a")
	a.jobs = "Failed"
	_, err := d.Uninstall(t.Context(), "run-2")
	hook, ok := errors.AsType[*helmx.HookError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "pre-delete", hook.Hook.Name)
	assert.NotNil(t, a.get(deploymentPath), "nothing was deleted")
	assert.Equal(t, "failed", recordLabels(a, "1")["status"])
	said, err := descriptions(t, a)
	require.NoError(t, err)
	assert.Contains(t, said, `fairlead run "run-2": uninstalled in part: hook Job shop/pre-delete`)

	a.jobs = "Complete"
	assert.NotEmpty(t, uninstall(t, d, "run-3").Removed)
	assert.Empty(t, a.paths(recordPath))
}

func TestUninstallStopsAtWhatDoesNotGo(t *testing.T) {
	a := newAPIServer(t, "shop")
	cfg := digestConfig(a)
	cfg.Timeout = time.Second
	d := open(t, cfg)
	deploy(t, d, "run-1", "a")
	held := "/api/v1/namespaces/shop/configmaps/web-config"
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodDelete || r.URL.Path != held {
			return false
		}
		a.edit(held, func(obj content) content {
			section(obj, "metadata")["finalizers"] = []any{"example.com/backup"}
			section(obj, "metadata")["deletionTimestamp"] = time.Now().UTC().Format(time.RFC3339)
			return obj
		})
		reply(w, 200, a.get(held))
		return true
	})
	_, err := d.Uninstall(t.Context(), "run-2")
	require.ErrorContains(t, err, "ConfigMap shop/web-config is still being deleted after 1s, held by the finalizers example.com/backup")
	assert.Equal(t, "failed", recordLabels(a, "1")["status"], "the record stays")
	a.onRequest(nil)
	a.edit(held, func(content) content { return nil })
	uninstall(t, d, "run-3")
	assert.Empty(t, a.paths("/namespaces/shop/"))
}

func TestKeptHistory(t *testing.T) {
	a := newAPIServer(t, "shop")
	cfg := digestConfig(a)
	cfg.KeepHistory = true
	d := open(t, cfg)
	deploy(t, d, "run-1", "a")
	uninstall(t, d, "run-2")
	assert.Equal(t, "uninstalled", recordLabels(a, "1")["status"])
	assert.Empty(t, uninstall(t, d, "run-3").Removed, "it was gone")
	assert.NotEmpty(t, a.paths(recordPath))
	require.NoError(t, d.Forget(t.Context(), "run-4"))
	assert.Empty(t, a.paths(recordPath))
	require.NoError(t, d.Forget(t.Context(), "run-4"))
	rel := deploy(t, d, "run-5", "a")
	assert.Equal(t, 1, rel.Revision)
	require.NoError(t, d.Forget(t.Context(), "run-6"))
	assert.NotEmpty(t, a.paths(recordPath), "what is deployed is not forgotten")
}

// TestRestoreAfterAnUninstall brings back what the run has removed, or was killed
// while it removed it.
func TestRestoreAfterAnUninstall(t *testing.T) {
	for name, at := range map[string]string{
		"carried through": "", "begun": "DELETE /apis/apps", "done but for the record": "DELETE /api/v1/namespaces/shop/secrets/web-nested",
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			cfg := digestConfig(a)
			cfg.KeepHistory = true
			d := open(t, cfg)
			deploy(t, d, "run-1", "a")
			before, err := stateOf(a)
			require.NoError(t, err)
			cp := checkpoint(t, d, "run-2")
			if at == "" {
				uninstall(t, d, "run-2")
			} else {
				kill(t, a, d, at, func(ctx context.Context) error {
					_, err := d.Uninstall(ctx, "run-2")
					return err
				})
				assert.Equal(t, "uninstalling", recordLabels(a, "1")["status"])
				assert.Equal(t, "run-2", recordLabels(a, "1")[helmx.LabelUninstall])
			}
			r := restore(t, d, "run-2", cp)
			assert.Equal(t, stages.Restored, r.Outcome, r.Message)
			after, err := stateOf(a)
			require.NoError(t, err)
			assert.JSONEq(t, before, after)
			assert.Equal(t, stages.Unchanged, restore(t, d, "run-2", cp).Outcome)
		})
	}
}

func TestKilledUninstallIsTakenOver(t *testing.T) {
	for name, goOn := range map[string]func(t *testing.T, a *apiServer, d *helmx.Deployer){
		"by an uninstall": func(t *testing.T, a *apiServer, d *helmx.Deployer) {
			uninstall(t, d, "run-3")
			assert.Empty(t, a.paths("/namespaces/shop/"))
		},
		"by a deployment": func(t *testing.T, a *apiServer, d *helmx.Deployer) {
			deploy(t, d, "run-3", "b")
			assert.Equal(t, image("b").String(), runningImage(t, a))
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			dead := open(t, digestConfig(a))
			deploy(t, dead, "run-1", "a")
			kill(t, a, dead, "DELETE /api/v1/namespaces/shop/configmaps", func(ctx context.Context) error {
				_, err := dead.Uninstall(ctx, "run-2")
				return err
			})
			goOn(t, a, open(t, digestConfig(a)))
		})
	}
}

// TestHelmsOwnUninstallIsNotTakenForDead leaves alone what plain helm has begun to
// uninstall, of a release that was made under a lock.
func TestHelmsOwnUninstallIsNotTakenForDead(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	foreignUninstall(t, a)
	_, err := d.Uninstall(t.Context(), "run-2")
	locked, ok := errors.AsType[*helmx.LockedError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "uninstalling", locked.Status)
	assert.NotNil(t, a.get(deploymentPath))
}

func TestUninstallNeedsRights(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	may := func(r helmx.Right) bool { return !(r.Verb == "delete" && r.Resource == "deployments") && r.Verb != "*" }
	a.onRequest((&reviewer{may: may}).serve)
	_, err := d.Uninstall(t.Context(), "run-2")
	denied := requirePrivilegeError(t, err)
	assert.Equal(t, []helmx.Right{{Verb: "delete", Group: "apps", Resource: "deployments", Namespace: "shop", Name: "web"}}, denied.Missing)
	assert.NotNil(t, a.get(deploymentPath))
	assert.Equal(t, "deployed", recordLabels(a, "1")["status"])
}

func TestUninstallNeedsARun(t *testing.T) {
	_, err := open(t, digestConfig(newAPIServer(t, "shop"))).Uninstall(t.Context(), "")
	require.ErrorIs(t, err, stages.ErrInvalid)
}

// crash is what a verifier says of a pod that does not start.
type crash struct{ evidence stages.Evidence }

func (e crash) Error() string               { return "the rollout failed" }
func (e crash) Evidence() []stages.Evidence { return []stages.Evidence{e.evidence} }

func TestRecordedFailureIsOneLineWithoutSecrets(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a, helmx.Set("password=correct-horse-battery")))
	cp := checkpoint(t, d, "run-1")
	deploy(t, d, "run-1", "a")
	code := int32(1)
	cause := crash{stages.Evidence{
		Subject: "pod shop/web-1", Container: "app", Reason: "CrashLoopBackOff", ExitCode: &code,
		Message: "login\x1b[2J as\nroot\u202e with correct-horse-battery " + strings.Repeat("x", 500), Logs: []string{"log correct-horse-battery"},
		Remedy: "look at the log",
	}}
	require.NoError(t, d.RecordFailure(t.Context(), "run-1", cause))
	said, err := descriptions(t, a)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(said, `failed fairlead run "run-1": failed: pod shop/web-1, container app: CrashLoopBackOff (exit code 1): login[2J as root with `+helmx.Redacted+" xxx"), said)
	assert.True(t, strings.HasSuffix(said, "…; remedy: look at the log"), said)
	assert.NotContains(t, said, "battery")
	assert.False(t, strings.ContainsAny(said, "\x1b\u202e"), said)
	assert.Less(t, len(said), 500)
	require.ErrorIs(t, d.RecordFailure(t.Context(), "run-1", nil), stages.ErrInvalid)
	require.ErrorIs(t, d.RecordFailure(t.Context(), "", cause), stages.ErrInvalid)

	r := restore(t, d, "run-1", cp)
	assert.Equal(t, stages.Restored, r.Outcome, r.Message)
	require.NoError(t, d.RecordFailure(t.Context(), "run-1", cause), "there is nothing left to say it of")
}

// foreignUninstall makes the record look as helm uninstall leaves it at its start.
func foreignUninstall(t *testing.T, a *apiServer) {
	t.Helper()
	store := recordStore(t, a)
	rel, err := store.Get("web", 1)
	require.NoError(t, err)
	rel.Info.Status, rel.Info.Deleted = release.StatusUninstalling, helmtime.Now()
	require.NoError(t, store.Update(rel))
}

func TestPlanRemoval(t *testing.T) {
	a := newAPIServer(t, "shop")
	remover := open(t, helmx.Config{
		RemoveOnly: true, KeepHistory: true, Release: "web", Namespace: "shop",
		Kubernetes: helmx.Kubernetes{REST: a.rest()}, Lock: helmx.LockConfig{TTL: time.Second},
	})
	nothing, err := remover.PlanRemoval(t.Context(), "run-0")
	require.NoError(t, err)
	assert.Empty(t, nothing.Changes)
	deploy(t, open(t, digestConfig(a, helmx.Set("keep=true"), helmx.Set("password=correct-horse-battery"))), "run-1", "a")
	before := a.requests(mutating)
	plan, err := remover.PlanRemoval(t.Context(), "run-2")
	require.NoError(t, err)
	assert.Equal(t, before, a.requests(mutating), "a plan changes nothing")
	assert.NotEqual(t, nothing.Digest, plan.Digest)
	assert.Len(t, plan.Changes, 4)
	for _, c := range plan.Changes {
		assert.Equal(t, stages.Delete, c.Action, c.Object)
		assert.NotContains(t, c.Diff, "battery")
	}
	assert.Equal(t, []string{"ConfigMap web-keep"}, notesOf(plan, stages.NoteKept))

	again, err := remover.PlanRemoval(t.Context(), "run-2")
	require.NoError(t, err)
	assert.Equal(t, plan.Digest, again.Digest)
	a.edit("/api/v1/namespaces/shop/configmaps/web-config", func(content) content { return nil })
	moved, err := remover.PlanRemoval(t.Context(), "run-2")
	require.NoError(t, err)
	assert.NotEqual(t, plan.Digest, moved.Digest)

	_, err = remover.Deploy(t.Context(), request(t, "run-2", "a"))
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = remover.Plan(t.Context(), stages.PlanRequest{Image: image("a")})
	require.ErrorIs(t, err, stages.ErrInvalid)
	cp := checkpoint(t, remover, "run-2")
	assert.Len(t, uninstall(t, remover, "run-2").Removed, 3)
	r := restore(t, remover, "run-2", cp)
	assert.Equal(t, stages.Restored, r.Outcome, r.Message)
	assert.Equal(t, image("a").String(), runningImage(t, a))
}

// TestUninstallNeedsTheRightsOfItsMode: hooks are written as everything else is.
func TestUninstallNeedsTheRightsOfItsMode(t *testing.T) {
	serverSide := func(c *helmx.Config) { c.Apply.Mode = helmx.ServerSide }
	for name, c := range map[string]struct {
		may     func(helmx.Right) bool
		missing []string
	}{
		"as RequiredRBAC grants them": {
			may: func(r helmx.Right) bool { return r.Verb != "create" || r.Resource != "jobs" || r.Name != "" },
		},
		"without those to patch": {
			may:     func(r helmx.Right) bool { return r.Verb != "patch" || r.Resource != "jobs" },
			missing: []string{"patch jobs.batch post-delete in namespace shop", "patch jobs.batch pre-delete in namespace shop"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			templates := map[string]string{"hooks.yaml": deleteHooks[:strings.Index(deleteHooks, "{{- end }}")] + "{{- end }}"}
			deploy(t, templated(t, a, templates), "run-1", "a")
			review := (&reviewer{may: func(r helmx.Right) bool { return r.Verb != "*" && c.may(r) }}).serve
			a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/jobs/") {
					fail(w, 422, metav1.StatusReasonInvalid, "it has come this far")
					return true
				}
				return review(w, r)
			})
			_, err := templated(t, a, templates, serverSide).Uninstall(t.Context(), "run-2")
			if c.missing == nil {
				require.ErrorContains(t, err, "it has come this far")
				return
			}
			var missing []string
			for _, r := range requirePrivilegeError(t, err).Missing {
				missing = append(missing, r.String())
			}
			assert.Equal(t, c.missing, missing)
		})
	}
}
