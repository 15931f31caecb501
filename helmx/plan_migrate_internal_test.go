package helmx

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

func TestMigrationDropsWhatNobodyHolds(t *testing.T) {
	read := func(text string) map[string]any {
		var out map[string]any
		require.NoError(t, yaml.Unmarshal([]byte(text), &out))
		return out
	}
	outcome := read(`
data: {kept: a, dropped: b, shared: c}
metadata: {finalizers: [one, two], labels: {gone: x}}
spec:
  containers: [{name: web, image: i, env: [{name: A, value: a}, {name: B, value: b}]}, {name: old, image: j}]
`)
	owned := read(`
f:data: {".": {}, "f:kept": {}, "f:dropped": {}, "f:shared": {}, "f:absent": {}}
f:metadata: {f:finalizers: {".": {}, 'v:"one"': {}, 'v:"two"': {}}, f:labels: {".": {}, "f:gone": {}}}
f:spec:
  f:containers:
    'k:{"name":"web"}': {".": {}, "f:image": {}, f:env: {'k:{"name":"A"}': {".": {}, "f:value": {}}, 'k:{"name":"B"}': {".": {}, "f:value": {}}}}
    'k:{"name":"old"}': {".": {}, "f:image": {}}
    'k:not JSON': {}
`)
	applied := read(`
f:data: {"f:kept": {}}
f:metadata: {f:finalizers: {'v:"two"': {}}}
f:spec: {f:containers: {'k:{"name":"web"}': {".": {}, "f:image": {}, f:env: {'k:{"name":"A"}': {".": {}, "f:value": {}}}}}}
`)
	other := read(`f:data: {"f:shared": {}}`)
	m := migration{}
	m.drop(outcome, owned, []map[string]any{applied, other}, nil)
	assert.Equal(t, read(`
data: {kept: a, shared: c}
metadata: {finalizers: [two]}
spec: {containers: [{name: web, image: i, env: [{name: A, value: a}]}]}
`), outcome)
	assert.ElementsMatch(t, []string{
		"data.dropped", "metadata.finalizers[0]", "metadata.labels", "spec.containers[name=old]", "spec.containers[name=web].env[name=B]",
	}, m.dropped)
}
