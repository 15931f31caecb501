package helmx

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestRemoveField(t *testing.T) {
	const text = `
metadata:
  labels: {app: a, app.kubernetes.io/name: b}
spec:
  replicas: 3
  finalizers: [x, y]
  containers:
  - {name: web, image: one, ports: [{containerPort: 80, protocol: TCP, name: http}]}
  - {name: side, image: two}
`
	for path, want := range map[string]string{
		".spec.replicas": "spec.replicas",
		".metadata.labels.app.kubernetes.io/name":                                  "label",
		`.spec.containers[name="side"].image`:                                      "image",
		`.spec.containers[name="side"]`:                                            "container",
		`.spec.finalizers[="x"]`:                                                   "value",
		`.spec.finalizers[1]`:                                                      "index",
		`.spec.containers[name="web"].ports[containerPort=80,protocol="TCP"].name`: "port",
	} {
		t.Run(want, func(t *testing.T) {
			var before, content map[string]any
			require.NoError(t, yaml.Unmarshal([]byte(text), &before))
			require.NoError(t, yaml.Unmarshal([]byte(text), &content))
			require.True(t, removeField(content, path))
			assert.NotEqual(t, before, content)
			left, err := yaml.Marshal(content)
			require.NoError(t, err)
			again := map[string]any{}
			require.NoError(t, yaml.Unmarshal(left, &again))
			if want != "index" {
				assert.False(t, removeField(again, path), "it is gone")
			}
		})
	}
	for _, path := range []string{"", ".", "spec", ".spec.other", `.spec.containers[name="none"].image`, ".spec.containers[9]", ".spec.containers[", ".metadata.labels.app.kubernetes.io"} {
		var content map[string]any
		require.NoError(t, yaml.Unmarshal([]byte(text), &content))
		assert.False(t, removeField(content, path), path)
	}
}

func FuzzRemoveField(f *testing.F) {
	f.Add(`.spec.containers[name="web"].image`)
	f.Add(`.a[0][="x"]`)
	f.Fuzz(func(_ *testing.T, path string) {
		removeField(map[string]any{"a": []any{[]any{"x"}}, "spec": map[string]any{"containers": []any{map[string]any{"name": "web", "image": "i"}}}}, path)
	})
}

func TestConflictsOf(t *testing.T) {
	err := apierrors.NewApplyConflict([]metav1.StatusCause{
		{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "kube-controller-manager" with subresource "scale" using apps/v1`, Field: ".spec.replicas"},
		{Type: metav1.CauseTypeFieldManagerConflict, Message: "something else", Field: ".data"},
	}, "conflict")
	assert.Equal(t, []OwnedField{
		{Path: ".spec.replicas", Manager: "kube-controller-manager"},
		{Path: ".data", Manager: "another field manager"},
	}, conflictsOf(err))
	assert.Empty(t, conflictsOf(nil))
	assert.Empty(t, conflictsOf(http.ErrBodyNotAllowed))
}

func TestApplyIsValidated(t *testing.T) {
	require.NoError(t, Apply{}.validate(false))
	require.NoError(t, Apply{Mode: ServerSide, Conflicts: map[string]ConflictPolicy{AnyManager: Yield}}.validate(false))
	for _, a := range []Apply{
		{Mode: "elsewhere"},
		{Conflicts: map[string]ConflictPolicy{"x": Yield}},
		{Mode: ServerSide, Conflicts: map[string]ConflictPolicy{"x": "ask"}},
	} {
		require.Error(t, a.validate(false))
	}
}
