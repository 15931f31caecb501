package helmx

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/release"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestMaskManifest(t *testing.T) {
	const manifest = `---
# Source: c/templates/a.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: a} # a comment stays
data: {plain: visible}
---
# Source: c/templates/b.yaml
# canary in a comment
apiVersion: v1
kind: Secret
metadata:
  name: b
  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{"data":"canary"}'}
data: {x: Y2FuYXJ5}
stringData: {y: canary}
---
apiVersion: v1
kind: SecretList
items:
- apiVersion: v1
  kind: List
  items:
  - {apiVersion: v1, kind: Secret, metadata: {name: c}, stringData: {z: canary}}
---
apiVersion: v1
kind: Secret
metadata: {name: d}
data: canary
`
	got, err := maskManifest(manifest, veil{})
	require.NoError(t, err)
	assert.NotContains(t, got, "canary")
	assert.NotContains(t, got, "Y2FuYXJ5")
	assert.Contains(t, got, "plain: visible")
	assert.Contains(t, got, "# a comment stays")
	assert.Contains(t, got, "# Source: c/templates/b.yaml")
	objects, err := parseObjects(got, "ns", nil)
	require.NoError(t, err)
	assert.Len(t, objects, 4)
}

func FuzzMaskManifest(f *testing.F) {
	f.Add("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {p: CANARYCANARY}\n")
	f.Add("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: a}, data: {p: CANARYCANARY}}\n")
	f.Fuzz(func(t *testing.T, manifest string) {
		masked, err := maskManifest(manifest, veil{})
		if err != nil {
			return
		}
		objects, err := parseObjects(masked, "ns", nil)
		require.NoError(t, err, "the masked manifest can't be read")
		for _, s := range secretStrings(objects) {
			assert.Contains(t, s, Redacted)
		}
	})
}

func TestContainersAreFoundEverywhere(t *testing.T) {
	objects, err := parseObjects(`
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: r}
spec: {template: {spec: {containers: [{name: a, image: registry.example.com/acme/web:1}], initContainers: [{name: b, image: other/x}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: c}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: d, image: "registry.example.com/acme/web@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]}}}}}
`, "ns", nil)
	require.NoError(t, err)
	require.ErrorContains(t, checkPinned(testImage, objects, nil, nil), "Rollout ns/r, container a: registry.example.com/acme/web:1")
	require.NoError(t, checkPinned(testImage, objects[1:], objects[1:], nil))
	require.ErrorContains(t, checkPinned(testImage, nil, objects[1:], nil), "no pod template")
}

func TestDifferences(t *testing.T) {
	for name, c := range map[string]struct {
		want, live string
		found      []string
	}{
		"defaults and normal forms": {
			want: "{spec: {num: 1, cpu: 0.5, memory: 1024Mi, flag: false, empty: {}, none: null, list: [a]}}",
			live: "{metadata: {uid: x}, spec: {num: 1, cpu: 500m, memory: 1Gi, list: [a], added: 1}, status: {}}",
		},
		"text that looks like numbers": {
			want:  `{data: {size: "1000"}, spec: {env: [{name: a, value: "1.0"}, {name: b, resourceFieldRef: {divisor: 1024Mi}}]}}`,
			live:  `{data: {size: 1k}, spec: {env: [{name: a, value: "1"}, {name: b, resourceFieldRef: {divisor: 1Gi}}]}}`,
			found: []string{`data.size is "1k", should be "1000"`, `spec.env[name=a].value is "1", should be "1.0"`},
		},
		"values":              {"{spec: {a: {b: 1}}}", "{spec: {a: {b: 2}}}", []string{"spec.a.b is 2, should be 1"}},
		"missing":             {"{spec: {a: x}}", "{}", []string{`spec is unset, should be map[a:x]`}},
		"labels":              {"{metadata: {labels: {a: b}}}", "{metadata: {labels: {a: c, d: e}}}", []string{`metadata.labels.a is "c", should be "b"`}},
		"injected sidecar":    {"{spec: {containers: [{name: a, image: x}]}}", "{spec: {containers: [{name: mesh}, {name: a, image: x}]}}", nil},
		"order":               {"{spec: {initContainers: [{name: a}, {name: b}]}}", "{spec: {initContainers: [{name: b}, {name: mesh}, {name: a}]}}", []string{"spec.initContainers is [b a], should be [a b]"}},
		"order of no meaning": {"{spec: {volumes: [{name: a}, {name: b}]}}", "{spec: {volumes: [{name: b}, {name: a}]}}", nil},
		"container":           {"{spec: {containers: [{name: a, image: x}]}}", "{spec: {containers: [{name: a, image: z}]}}", []string{`spec.containers[name=a].image is "z", should be "x"`}},
		"order of args":       {"{args: [a, b]}", "{args: [b, a]}", []string{`args[0] is "b", should be "a"`, `args[1] is "a", should be "b"`}},
		"more args":           {"{args: [a]}", "{args: [a, b]}", []string{"args is [a b], should be [a]"}},
		"secret":              {"{apiVersion: v1, kind: Secret, stringData: {p: one, q: same}}", "{data: {p: dHdv, q: c2FtZQ==}}", []string{"data.p differs"}},
		"autoscaled":          {"{spec: {replicas: 1}}", `{metadata: {managedFields: [{subresource: scale, fieldsType: FieldsV1, fieldsV1: {"f:spec": {"f:replicas": {}}}}]}, spec: {replicas: 7}}`, nil},
		"not autoscaled":      {"{spec: {replicas: 1}}", "{spec: {replicas: 7}}", []string{"spec.replicas is 7, should be 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			var o object
			require.NoError(t, yaml.Unmarshal([]byte(c.want), &o.content))
			o.id.APIVersion, _ = o.content["apiVersion"].(string)
			o.id.Kind, _ = o.content["kind"].(string)
			live := &unstructured.Unstructured{}
			require.NoError(t, yaml.Unmarshal([]byte(c.live), &live.Object))
			assert.Equal(t, c.found, o.differences(live))
		})
	}
}

func TestAssess(t *testing.T) {
	rel := func(version int, status release.Status, run string, labels ...string) *release.Release {
		r := &release.Release{Name: "web", Version: version, Info: &release.Info{Status: status}, Labels: map[string]string{}, Manifest: "m"}
		if run != "" {
			r.Labels = note{run: run}.labels()
			r.Labels[LabelRevision] = string(rune('0' + version))
		}
		for i := 0; i+1 < len(labels); i += 2 {
			r.Labels[labels[i]] = labels[i+1]
		}
		return r
	}
	m := manifestDigest(rel(1, "", ""))
	at1 := state{Revision: 1, Manifest: m, Newest: 1, Status: "deployed"}
	first := rel(1, release.StatusSuperseded, "r0")
	for name, c := range map[string]struct {
		st      state
		history []*release.Release
		want    course
	}{
		"never deployed, no release":        {state{}, nil, vacate},
		"never deployed, release":           {at1, []*release.Release{rel(1, release.StatusDeployed, "r0")}, leaveAlone},
		"somebody uninstalled":              {at1, nil, giveUp},
		"somebody reinstalled":              {state{Revision: 4, Manifest: m, Newest: 4}, []*release.Release{rel(1, release.StatusDeployed, "")}, giveUp},
		"changed without a revision":        {at1, []*release.Release{rel(1, release.StatusSuperseded, "r0")}, giveUp},
		"own upgrade":                       {at1, []*release.Release{first, rel(2, release.StatusDeployed, "mine")}, rollBack},
		"own upgrade, killed":               {at1, []*release.Release{first, rel(2, release.StatusPendingUpgrade, "mine")}, rollBack},
		"two attempts":                      {at1, []*release.Release{first, rel(2, release.StatusFailed, "mine"), rel(3, release.StatusDeployed, "mine")}, rollBack},
		"restore killed":                    {at1, []*release.Release{first, rel(2, release.StatusFailed, "mine"), rel(3, release.StatusPendingRollback, "mine", LabelRestores, "1")}, rollBack},
		"restored":                          {at1, []*release.Release{first, rel(2, release.StatusSuperseded, "mine"), rel(3, release.StatusDeployed, "mine", LabelRestores, "1")}, inspect},
		"recorded revision pruned":          {at1, []*release.Release{rel(2, release.StatusDeployed, "mine")}, giveUp},
		"somebody else after":               {at1, []*release.Release{first, rel(2, release.StatusSuperseded, "mine"), rel(3, release.StatusDeployed, "theirs")}, giveUp},
		"copied labels":                     {at1, []*release.Release{first, rel(2, release.StatusDeployed, "mine", LabelRevision, "1")}, giveUp},
		"own first install":                 {state{}, []*release.Release{rel(1, release.StatusFailed, "mine")}, uninstall},
		"own first install, killed":         {state{}, []*release.Release{rel(1, release.StatusPendingInstall, "mine")}, uninstall},
		"own uninstall, killed":             {state{}, []*release.Release{rel(1, release.StatusUninstalling, "mine")}, uninstall},
		"history of an uninstalled release": {state{Newest: 1, Status: "uninstalled"}, []*release.Release{first, rel(2, release.StatusFailed, "mine")}, uninstall},
		"uninstalled again":                 {state{Newest: 1, Status: "uninstalled"}, []*release.Release{first, rel(2, release.StatusUninstalled, "mine")}, leaveAlone},
		"nothing was deployed before":       {state{Newest: 1, Status: "failed"}, []*release.Release{rel(1, release.StatusFailed, ""), rel(2, release.StatusFailed, "mine")}, giveUp},
	} {
		t.Run(name, func(t *testing.T) {
			got, why, _ := assess(c.st, c.history, "mine")
			assert.Equal(t, c.want, got, why)
		})
	}
}

func TestLabels(t *testing.T) {
	assert.Equal(t, "run-1", runLabel("run-1"))
	assert.Empty(t, runLabel(""))
	long := runLabel("https://ci.example.com/job/1?x=y")
	assert.Regexp(t, "^hash-[0-9a-f]{32}$", long)
	assert.NotEqual(t, long, runLabel("https://ci.example.com/job/2?x=y"))
	assert.Equal(t, "Ada_L.__ada_example.com", labelValue("Ada L. <ada@example.com>"))
	assert.Empty(t, labelValue("<>"))
	assert.Empty(t, labelValue(strings.Repeat("<", 200)+"x"))
}
