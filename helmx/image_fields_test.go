package helmx_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestImagesOutsideOfContainers(t *testing.T) {
	pinned := image("a").String()
	const moved = "registry.example.com/acme/web:1"
	volume := func(reference string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: busybox}], volumes: [{name: v, image: {reference: " + `"` + reference + `"` + "}}]}\n"
	}
	debug := func(image string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: busybox}], ephemeralContainers: [{name: e, image: " + `"` + image + `"` + "}]}\n"
	}
	resource := func(image string) string {
		return "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: tab, annotations: {example.com/image: ignored}}\nspec: {image: " +
			`"` + image + `"` + ", sidecars: [{name: a, image: registry.example.com/acme/other}]}\n"
	}
	declared := []helmx.ImageField{{Kind: "Ingress", Path: "spec.image"}, {Kind: "Ingress", Path: "spec.sidecars[].image"}}
	for name, c := range map[string]struct {
		template string
		fields   []helmx.ImageField
		problem  string
		notes    int
	}{
		"volume":                     {template: volume(pinned)},
		"volume by tag":              {template: volume(moved), problem: "Pod shop/p, volume v: " + moved},
		"ephemeral container":        {template: debug(pinned)},
		"ephemeral container by tag": {template: debug(moved), problem: "Pod shop/p, container e: " + moved},
		"field":                      {template: resource(pinned), fields: declared},
		"field by tag":               {template: resource(moved), fields: declared, problem: "Ingress shop/tab, spec.image: " + moved},
		"field that nobody declared": {template: resource(moved), notes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			d := templated(t, a, map[string]string{"more.yaml": c.template}, func(cfg *helmx.Config) { cfg.ImageFields = c.fields })
			plan, err := d.Plan(t.Context(), stages.PlanRequest{Image: image("a")})
			if c.problem != "" {
				require.ErrorIs(t, err, stages.ErrInvalid)
				require.ErrorContains(t, err, c.problem)
				return
			}
			require.NoError(t, err)
			notes := 0
			for _, n := range plan.Notes {
				if n.Kind == stages.NoteImageUnchecked {
					notes++
					assert.Equal(t, "spec.image, spec.sidecars[].image may be an image, which is neither pinned nor checked; declare it with ImageFields", n.Message)
				}
			}
			assert.Equal(t, c.notes, notes)
		})
	}
}

func TestManifestsArePinnedOutsideOfContainers(t *testing.T) {
	a := newAPIServer(t, "shop")
	dir := manifests(t, map[string]string{"a.yaml": `apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: p}
  spec:
    containers: [{name: c, image: registry.example.com/acme/web}]
    volumes: [{name: v, image: {reference: "registry.example.com/acme/web:1"}}]
- apiVersion: networking.k8s.io/v1
  kind: Ingress
  metadata: {name: tab}
  spec: {image: "registry.example.com/acme/web:1"}
`})
	cfg := manifestConfig(a, dir)
	cfg.ImageFields = []helmx.ImageField{{Kind: "Ingress", Path: "spec.image"}}
	deploy(t, open(t, cfg), "run-1", "a")
	pod := a.get("/api/v1/namespaces/shop/pods/p")
	assert.Equal(t, image("a").String(), dig(pod, "spec", "containers", 0, "image"))
	assert.Equal(t, image("a").String(), dig(pod, "spec", "volumes", 0, "image", "reference"))
	assert.Equal(t, image("a").String(), dig(a.get("/apis/networking.k8s.io/v1/namespaces/shop/ingresses/tab"), "spec", "image"))

	cfg.ImageFields = []helmx.ImageField{{Kind: "Ingress", Path: "spec..image"}}
	_, err := helmx.New(cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
}
