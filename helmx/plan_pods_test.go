package helmx_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestPlanTriesPods(t *testing.T) {
	a := newAPIServer(t, "shop")
	refuseAll(a, "POST", "/api/v1/namespaces/shop/pods", 403, metav1.StatusReasonForbidden, `pods "web-x" is forbidden: violates PodSecurity "restricted:latest"`)
	refusal := changeOf(t, plan(t, open(t, digestConfig(a)), "a"), "Deployment", "web").Refusal
	require.NotNil(t, refusal)
	assert.Equal(t, string(helmx.AdmissionDenied), refusal.Reason)

	refuseAll(a, "POST", "/api/v1/namespaces/shop/pods", 403, metav1.StatusReasonForbidden, `pods is forbidden: User "bot" cannot create resource "pods"`)
	p := plan(t, open(t, digestConfig(a)), "a")
	assert.Nil(t, changeOf(t, p, "Deployment", "web").Refusal)
	assert.Len(t, notesOf(p, stages.NoteNotTried), 1)
	assert.Empty(t, a.requests(mutating))
}

// TestPlanTriesNoPodsOfAWorkloadWithoutAny: a full quota is no reason against it.
func TestPlanTriesNoPodsOfAWorkloadWithoutAny(t *testing.T) {
	const idle = `apiVersion: apps/v1
kind: Deployment
metadata: {name: none}
spec: {replicas: 0, template: {spec: {containers: [{name: a, image: registry.example.com/other:1}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: later}
spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: a, image: registry.example.com/other:1}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: held}
spec: {parallelism: 0, template: {spec: {restartPolicy: Never, containers: [{name: a, image: registry.example.com/other:1}]}}}
`
	a := newAPIServer(t, "shop")
	refuseAll(a, "POST", "/api/v1/namespaces/shop/pods", 403, metav1.StatusReasonForbidden, `pods "x" is forbidden: exceeded quota: few, requested: pods=1`)
	cfg := manifestConfig(a, manifests(t, map[string]string{"web.yaml": plainDeployment, "idle.yaml": idle}))
	p := plan(t, open(t, cfg), "a")
	assert.NotNil(t, changeOf(t, p, "Deployment", "web").Refusal)
	assert.Nil(t, changeOf(t, p, "Deployment", "none").Refusal)
	assert.Nil(t, changeOf(t, p, "Job", "later").Refusal)
	assert.Nil(t, changeOf(t, p, "Job", "held").Refusal)
}

func TestPlanWithoutNamespace(t *testing.T) {
	p := plan(t, open(t, digestConfig(newAPIServer(t))), "a")
	assert.Equal(t, []string{"Namespace shop"}, notesOf(p, stages.NoteNamespaceMissing))
	for _, c := range p.Changes {
		assert.Equal(t, stages.BasisRelease, c.Basis)
	}
}

// TestPlanOfNamespaces plans what is in a namespace of the release's own: it can't be
// tried before there is the namespace, which is no reason to refuse it.
func TestPlanOfNamespaces(t *testing.T) {
	const objects = `apiVersion: v1
kind: Namespace
metadata: {name: annex}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: inside, namespace: annex}
data: {colour: blue}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: astray, namespace: nowhere}
`
	a := newAPIServer(t, "shop")
	cfg := manifestConfig(a, manifests(t, map[string]string{"web.yaml": plainDeployment, "annex.yaml": objects}))
	p := plan(t, open(t, cfg), "a")
	assert.Equal(t, []string{"Namespace annex"}, notesOf(p, stages.NoteNamespaceMissing))
	inside, astray := changeOf(t, p, "ConfigMap", "inside"), changeOf(t, p, "ConfigMap", "astray")
	assert.Equal(t, stages.Create, inside.Action)
	assert.Nil(t, inside.Refusal)
	assert.Empty(t, inside.Dangers)
	assert.Equal(t, stages.BasisRelease, inside.Basis)
	assert.NotNil(t, astray.Refusal, "nobody makes its namespace")
	assert.Equal(t, stages.BasisLive, changeOf(t, p, "Namespace", "annex").Basis)
	assert.Equal(t, stages.BasisLive, changeOf(t, p, "Deployment", "web").Basis)

	text, _, _ := strings.Cut(objects, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: astray")
	d := open(t, manifestConfig(a, manifests(t, map[string]string{"web.yaml": plainDeployment, "annex.yaml": text})))
	req := request(t, "run-1", "a")
	req.Plan = plan(t, d, "a").Digest
	_, err := d.Deploy(t.Context(), req)
	require.NoError(t, err)
	p = plan(t, d, "a")
	assert.Empty(t, p.Changes)
	assert.Empty(t, notesOf(p, stages.NoteNamespaceMissing))

	a.edit("/api/v1/namespaces/annex/configmaps/inside", func(content) content { return nil })
	a.edit("/api/v1/namespaces/annex", func(content) content { return nil })
	p = plan(t, d, "a")
	assert.Equal(t, stages.Create, changeOf(t, p, "Namespace", "annex").Action)
	assert.Equal(t, stages.Create, changeOf(t, p, "ConfigMap", "inside").Action, "it went with its namespace")
}

// TestPlanOfAPriorityClass tries pods whose class comes with them.
func TestPlanOfAPriorityClass(t *testing.T) {
	const class = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: high}\nvalue: 1000\n"
	deployment := strings.Replace(plainDeployment, "      containers:\n", "      priorityClassName: high\n      containers:\n", 1)
	for name, c := range map[string]struct {
		files   map[string]string
		refused bool
	}{
		"it is of the release": {files: map[string]string{"a.yaml": deployment, "b.yaml": class}},
		"another is": {
			files:   map[string]string{"a.yaml": deployment, "b.yaml": strings.Replace(class, "high", "low", 1)},
			refused: true,
		},
		"it is nobody's": {files: map[string]string{"a.yaml": deployment}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPost || r.URL.Path != "/api/v1/namespaces/shop/pods" {
					return false
				}
				body, _ := io.ReadAll(r.Body)
				r.Body = io.NopCloser(bytes.NewReader(body))
				if !bytes.Contains(body, []byte("priorityClassName")) {
					return false
				}
				fail(w, 403, metav1.StatusReasonForbidden, `pods "web-" is forbidden: no PriorityClass with name high was found`)
				return true
			})
			change := changeOf(t, plan(t, open(t, manifestConfig(a, manifests(t, c.files))), "a"), "Deployment", "web")
			assert.Equal(t, stages.Create, change.Action)
			assert.Equal(t, c.refused, change.Refusal != nil, "%+v", change.Refusal)
		})
	}
}
