package helmx_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/diff"
	"github.com/fairlead-dev/fairlead/stages"
)

const configPath = "/api/v1/namespaces/shop/configmaps/web-config"

func changeOf(t *testing.T, p stages.Plan, kind, name string) stages.Change {
	t.Helper()
	for _, c := range p.Changes {
		if c.Object.Kind == kind && c.Object.Name == name {
			return c
		}
	}
	require.Fail(t, "no such change", "%s %s in %+v", kind, name, p.Changes)
	return stages.Change{}
}

func notesOf(p stages.Plan, kind stages.NoteKind) []string {
	var out []string
	for _, n := range p.Notes {
		if n.Kind == kind {
			out = append(out, strings.TrimSpace(n.Object.Kind+" "+n.Object.Name))
		}
	}
	return out
}

// scale does what an autoscaler does, or a person with kubectl.
func scale(a *apiServer, manager string, replicas int) {
	a.edit(deploymentPath, func(o content) content {
		section(o, "spec")["replicas"] = replicas
		section(o, "metadata")["managedFields"] = []any{content{
			"manager": manager, "operation": "Update", "subresource": "scale", "fieldsType": "FieldsV1",
			"fieldsV1": content{"f:spec": content{"f:replicas": content{}}},
		}}
		return o
	})
}

func TestPlanNamesOwnersAndDrift(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	scale(a, "kube-controller-manager", 4)
	a.edit(configPath, func(content) content { return nil })
	p := plan(t, d, "a")
	require.Len(t, p.Changes, 2)
	assert.Equal(t, []stages.FieldChange{{Path: "spec.replicas", From: "4", To: "1", Owner: "kube-controller-manager/scale", Overwritten: true}},
		changeOf(t, p, "Deployment", "web").Fields)
	assert.Equal(t, stages.Create, changeOf(t, p, "ConfigMap", "web-config").Action)
	require.Len(t, p.Drift, 2)
	assert.True(t, p.Drift[0].Missing || p.Drift[1].Missing)
}

func TestPlanKnowsWhatCantBeChanged(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	a.edit(deploymentPath, func(o content) content {
		o["spec"].(content)["selector"] = content{"matchLabels": content{"app": "old"}}
		return o
	})
	p := plan(t, d, "b")
	c := changeOf(t, p, "Deployment", "web")
	assert.Equal(t, stages.Recreate, c.Action)
	require.Len(t, c.Dangers, 1)
	assert.Equal(t, stages.DangerImmutable, c.Dangers[0].Class)
	assert.Contains(t, c.Dangers[0].Why, "spec.selector")
	require.NotNil(t, c.Refusal)
	assert.Equal(t, []string{"spec.selector"}, c.Refusal.Fields)

	for name, want := range map[string]struct {
		classes []stages.DangerClass
		verdict stages.Verdict
	}{
		"all":        {nil, stages.Fail},
		"this one":   {[]stages.DangerClass{stages.DangerImmutable}, stages.Fail},
		"others":     {[]stages.DangerClass{stages.DangerStorage, stages.DangerCRD}, stages.Pass},
		"no classes": {[]stages.DangerClass{}, stages.Fail},
	} {
		gate, err := helmx.RefuseDangers(want.classes...)
		require.NoError(t, err)
		decision, err := gate.Decide(t.Context(), p)
		require.NoError(t, err)
		assert.Equal(t, want.verdict, decision.Verdict, name)
		assert.Len(t, append(decision.Reasons, decision.Warnings...), 1, name)
	}
	_, err := helmx.RefuseDangers("storms")
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestPlanAdoption(t *testing.T) {
	a := newAPIServer(t, "shop")
	a.edit(configPath, func(content) content {
		return content{"apiVersion": "v1", "kind": "ConfigMap", "metadata": content{"name": "web-config", "namespace": "shop"}, "data": content{"message": "theirs"}}
	})
	d := open(t, digestConfig(a))
	c := changeOf(t, plan(t, d, "a"), "ConfigMap", "web-config")
	assert.Equal(t, stages.Adopt, c.Action)
	require.NotNil(t, c.Refusal)
	assert.Equal(t, string(helmx.NotOwned), c.Refusal.Reason)
	assert.Contains(t, c.Refusal.Message, "meta.helm.sh/release-name")
	_, err := d.Deploy(t.Context(), request(t, "run-1", "a"))
	require.Error(t, err, "Helm refuses, as the plan says")

	a.edit(configPath, func(o content) content {
		section(o, "metadata")["labels"] = content{"app.kubernetes.io/managed-by": "Helm"}
		section(o, "metadata")["annotations"] = content{"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "shop"}
		return o
	})
	p := plan(t, d, "a")
	c = changeOf(t, p, "ConfigMap", "web-config")
	assert.Equal(t, stages.Adopt, c.Action)
	assert.Nil(t, c.Refusal)
	assert.Equal(t, []string{"ConfigMap web-config"}, notesOf(p, stages.NoteAdopted))
	assert.Equal(t, []stages.FieldChange{{Path: "data.message", From: `"theirs"`, To: `"hello"`}}, c.Fields)
}

// refuseAll answers requests that match in the server's stead.
func refuseAll(a *apiServer, method, path string, code int, reason metav1.StatusReason, message string) {
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.HasPrefix(r.URL.Path, path) {
			return false
		}
		fail(w, code, reason, message)
		return true
	})
}

func TestPlanMeetsRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		method, path string
		code         int
		message      string
		basis        stages.Basis
		refusal      string
		notes        []string
	}{
		"reading forbidden": {method: "GET", path: configPath, code: 403,
			message: `configmaps "web-config" is forbidden: User "bot" cannot get resource "configmaps"`, basis: stages.BasisRelease, notes: []string{"ConfigMap web-config"}},
		"patching forbidden": {method: "PATCH", path: configPath, code: 403,
			message: `configmaps "web-config" is forbidden: User "bot" cannot patch resource "configmaps"`, basis: stages.BasisRelease, notes: []string{"ConfigMap web-config"}},
		"webhook without dry run": {method: "PATCH", path: configPath, code: 400,
			message: `admission webhook "a.b.c" does not support dry run`, basis: stages.BasisRelease, notes: []string{"ConfigMap web-config"}},
		"webhook": {method: "PATCH", path: configPath, code: 403,
			message: `admission webhook "a.b.c" denied the request: no hunter3-canary here`, basis: stages.BasisLive, refusal: string(helmx.AdmissionDenied)},
		"quota": {method: "PATCH", path: configPath, code: 403,
			message: `configmaps "web-config" is forbidden: exceeded quota: q`, basis: stages.BasisLive, refusal: string(helmx.QuotaExceeded)},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			deploy(t, open(t, digestConfig(a)), "run-1", "a")
			refuseAll(a, c.method, c.path, c.code, metav1.StatusReasonForbidden, c.message)
			p := plan(t, open(t, digestConfig(a, helmx.Set("message=new,password=hunter3-canary"))), "a")
			got := changeOf(t, p, "ConfigMap", "web-config")
			assert.Equal(t, c.basis, got.Basis)
			assert.Equal(t, stages.Update, got.Action)
			assert.Equal(t, c.notes, notesOf(p, stages.NoteNotCompared))
			assert.Equal(t, `"new"`, got.Fields[0].To)
			if c.refusal == "" {
				assert.Nil(t, got.Refusal)
				return
			}
			require.NotNil(t, got.Refusal)
			assert.Equal(t, c.refusal, got.Refusal.Reason)
			assert.NotContains(t, got.Refusal.Message, "canary")
			assert.Equal(t, stages.DangerRefused, got.Dangers[0].Class)
		})
	}
}

func TestBoundDeployment(t *testing.T) {
	bound := func(t *testing.T, d *helmx.Deployer, run, digit, digest string) error {
		req := request(t, run, digit)
		req.Plan = digest
		_, err := d.Deploy(t.Context(), req)
		return err
	}
	for name, c := range map[string]struct {
		move func(t *testing.T, a *apiServer)
		want string
	}{
		"nothing": {move: func(*testing.T, *apiServer) {}},
		"a status": {move: func(_ *testing.T, a *apiServer) {
			a.edit(deploymentPath, func(o content) content { o["status"] = content{"replicas": 1}; return o })
		}},
		"a field of nobody's concern": {move: func(_ *testing.T, a *apiServer) {
			a.edit(deploymentPath, func(o content) content { section(o, "spec")["paused"] = true; return o })
		}},
		"replicas": {want: "Deployment shop/web was changed (spec.replicas by kubectl/scale)", move: func(_ *testing.T, a *apiServer) {
			scale(a, "kubectl", 3)
		}},
		"a deletion": {want: "ConfigMap shop/web-config is gone", move: func(_ *testing.T, a *apiServer) {
			a.edit(configPath, func(content) content { return nil })
		}},
		"a revision": {want: "revision 2 (deployed) was made since by run other", move: func(t *testing.T, a *apiServer) {
			deploy(t, open(t, digestConfig(a)), "other", "c")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			deploy(t, open(t, digestConfig(a)), "run-1", "a")
			d := open(t, digestConfig(a, helmx.Set("message=new")))
			p := plan(t, d, "b")
			require.NotEmpty(t, p.Digest)
			assert.Equal(t, p.Digest, plan(t, open(t, digestConfig(a, helmx.Set("message=new"))), "b").Digest, "a digest is deterministic")
			c.move(t, a)
			before := len(a.requests(mutating))
			err := bound(t, d, "run-2", "b", p.Digest)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, stages.ErrPlanStale)
			require.ErrorContains(t, err, c.want)
			assert.True(t, stages.IsPermanent(err))
			assert.Len(t, a.requests(mutating), before, "something was changed")
		})
	}
	t.Run("other manifests", func(t *testing.T) {
		a := newAPIServer(t, "shop")
		p := plan(t, open(t, digestConfig(a)), "a")
		require.ErrorIs(t, bound(t, open(t, digestConfig(a, helmx.Set("message=new"))), "run", "a", p.Digest), stages.ErrPlanStale)
		require.ErrorIs(t, bound(t, open(t, digestConfig(a)), "run", "b", p.Digest), stages.ErrPlanStale, "another image")
		require.ErrorIs(t, bound(t, open(t, digestConfig(a)), "run", "a", "sha256:0"), stages.ErrInvalid)
		assert.Empty(t, a.requests(mutating))
	})
	t.Run("a repeated attempt", func(t *testing.T) {
		a := newAPIServer(t, "shop")
		d := open(t, digestConfig(a))
		p := plan(t, d, "a")
		refuseAll(a, "POST", "/apis/apps/v1/namespaces/shop/deployments", 500, metav1.StatusReasonInternalError, "down")
		require.Error(t, bound(t, d, "run", "a", p.Digest))
		a.onRequest(nil)
		require.NoError(t, bound(t, d, "run", "a", p.Digest), "the run has moved it itself")
		require.ErrorIs(t, bound(t, d, "other", "a", p.Digest), stages.ErrPlanStale)
	})
}

// Nothing that a plan consists of, or is shown as, has a secret in it.
func TestPlanHidesSecrets(t *testing.T) {
	a := newAPIServer(t, "shop")
	deploy(t, open(t, digestConfig(a, helmx.Set("password=huntertwocanary,message=says huntertwocanary here"))), "run-1", "a")
	a.edit("/api/v1/namespaces/shop/secrets/web", func(o content) content {
		o["data"] = content{"password": "bGl2ZS1jYW5hcnk=", "extra": "bGl2ZS1jYW5hcnk="}
		section(o, "metadata")["annotations"] = content{"kubectl.kubernetes.io/last-applied-configuration": `{"data":{"password":"live-canary"}}`}
		return o
	})
	p := plan(t, open(t, digestConfig(a, helmx.Set("password=hunterthreecanary,message=says hunterthreecanary here"))), "b")
	var out strings.Builder
	require.NoError(t, diff.Text(&out, p, diff.TextOptions{}))
	require.NoError(t, diff.JSON(&out, p))
	require.NoError(t, diff.HTML(&out, p))
	data, err := json.Marshal(p)
	require.NoError(t, err)
	all := out.String() + string(data) + string(p.Manifests) + fmt.Sprintf("%+v", p)
	for _, secret := range []string{"canary", "aHVudGVydHdvY2FuYXJ5", "aHVudGVydGhyZWVjYW5hcnk", "bGl2ZS1jYW5hcnk"} {
		assert.NotContains(t, all, secret)
	}
	c := changeOf(t, p, "Secret", "web")
	assert.Equal(t, "data.password", c.Fields[0].Path)
	assert.True(t, c.Fields[0].Secret)
	message := changeOf(t, p, "ConfigMap", "web-config")
	require.Len(t, message.Fields, 1)
	assert.Equal(t, `"says `+helmx.Redacted+` here"`, message.Fields[0].To)
	assert.True(t, message.Fields[0].Secret)
	assert.NotEmpty(t, message.Diff, "that it changes is seen")
}

// The words and the outcomes are those that helm-diff documents: in its three-way
// mode, what somebody has edited shows even if the manifests are the same.
func TestDiffReadsLikeHelmDiff(t *testing.T) {
	show := func(p stages.Plan) string {
		var out strings.Builder
		require.NoError(t, diff.Text(&out, p, diff.TextOptions{}))
		return out.String()
	}
	a := newAPIServer(t, "shop")
	text := show(plan(t, open(t, digestConfig(a)), "a"))
	for _, name := range []string{"web, Secret (v1)", "web-nested, Secret (v1)", "web-config, ConfigMap (v1)", "web, Deployment (apps)"} {
		assert.Contains(t, text, "shop, "+name+" has been added:\n")
	}
	deploy(t, open(t, digestConfig(a, helmx.Set("extra=true"))), "run-1", "a")
	text = show(plan(t, open(t, digestConfig(a, helmx.Set("message=new"))), "a"))
	assert.Contains(t, text, "shop, web-config, ConfigMap (v1) has changed:\n")
	assert.Contains(t, text, "\n-  message: hello\n+  message: new\n")
	assert.Contains(t, text, "shop, web, Deployment (apps) has changed:\n")
	assert.Contains(t, text, "shop, web-extra, ConfigMap (v1) has been removed:\n")
	assert.NotContains(t, text, "Secret", "an object that stays the same is not shown")
	assert.Contains(t, text, "0 added, 2 changed, 1 removed")

	same := open(t, digestConfig(a, helmx.Set("extra=true")))
	assert.Equal(t, "Plan of shop/web: 0 added, 0 changed, 0 removed\n", show(plan(t, same, "a")))
	a.edit(configPath, func(o content) content {
		o["data"] = content{"message": "edited", "more": "of theirs"}
		return o
	})
	text = show(plan(t, same, "a"))
	assert.Contains(t, text, "shop, web-config, ConfigMap (v1) has changed:\n")
	assert.Contains(t, text, "\n-  message: edited\n+  message: hello\n")
	assert.NotContains(t, text, "-  more", "what no manifest has ever named stays")
}

// A chart that renders anew every time is bound by what it renders alike.
func TestBoundDeploymentOfAVolatileChart(t *testing.T) {
	const (
		drawn    = "apiVersion: v1\nkind: Secret\nmetadata: {name: drawn}\nstringData: {password: {{ randAlphaNum 16 | quote }}}\n"
		rendered = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: drawn}\ndata: {id: {{ tpl .Values.id . | quote }}}\n"
	)
	// within returns a folder whose charts are packaged, as helm dependency build
	// leaves them.
	within := func(t *testing.T, inner string) string {
		t.Helper()
		archive, name := packaged(t, inner)
		outer := umbrella(t, nil)
		write(t, outer, "charts/"+name, string(archive))
		return outer
	}
	database := func(t *testing.T) string {
		t.Helper()
		return manifests(t, map[string]string{
			"Chart.yaml": "apiVersion: v2\nname: db\nversion: 1.0.0\n", "templates/secret.yaml": drawn,
		})
	}
	// rendering returns a chart that renders what a value says.
	rendering := func(t *testing.T) string {
		t.Helper()
		dir := umbrella(t, nil)
		write(t, dir, "templates/id.yaml", rendered)
		return dir
	}
	for name, c := range map[string]struct {
		chart  func(t *testing.T) string
		values helmx.Values
		want   []string
	}{
		"its templates": {chart: func(*testing.T) string { return "testdata/volatile" }, want: []string{"ConfigMap web", "Deployment web"}},
		"a packaged subchart": {
			chart: func(t *testing.T) string { return within(t, database(t)) }, want: []string{"Secret drawn"},
		},
		"a subchart of a packaged subchart": {
			chart: func(t *testing.T) string {
				middle := manifests(t, map[string]string{"Chart.yaml": "apiVersion: v2\nname: middle\nversion: 1.0.0\n"})
				archive, name := packaged(t, database(t))
				write(t, middle, "charts/"+name, string(archive))
				return within(t, middle)
			},
			want: []string{"Secret drawn"},
		},
		"an override": {
			chart: rendering, values: helmx.Values{Overrides: []helmx.Override{helmx.SetLiteral("id={{ uuidv4 }}")}}, want: []string{"ConfigMap drawn"},
		},
		"a value given in Go": {
			chart: rendering, values: helmx.Values{Map: map[string]any{"id": "at\n{{uuidv4}}"}}, want: []string{"ConfigMap drawn"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			cfg := digestConfig(a)
			cfg.Chart, cfg.Values = c.chart(t), c.values
			d := open(t, cfg)
			p := plan(t, d, "a")
			assert.Equal(t, c.want, notesOf(p, stages.NoteVolatile))
			req := request(t, "run-1", "a")
			req.Plan = p.Digest
			_, err := d.Deploy(t.Context(), req)
			require.NoError(t, err)
		})
	}
}
