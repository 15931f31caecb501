package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// mounting is a workload whose image is a volume of it, too, and says so if the two
// hold the same.
func mounting(image, reference, more string) string {
	return `apiVersion: apps/v1
kind: Deployment
metadata: {name: mounting}
spec:
  selector: {matchLabels: {app: mounting}}
  template:
    metadata: {labels: {app: mounting}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: ` + image + `
        command: [sh, -c, "cmp /released/etc/os-release /etc/os-release && ! touch /released/x 2>/dev/null && echo the same && exec sleep 3600"]
        volumeMounts: [{name: released, mountPath: /released}]
` + more + `
      volumes: [{name: released, image: {reference: "` + reference + `"}}]
`
}

func customImage(image string) string {
	return "apiVersion: fairlead.test/v1\nkind: Gadget\nmetadata: {name: custom}\nspec: {image: \"" + image + "\", size: 3}\n"
}

// TestImagesOutsideOfContainers releases an image that a volume and a custom resource
// name as well.
func TestImagesOutsideOfContainers(t *testing.T) {
	t.Parallel()
	k := newKindLab(t)
	w, ns, img := k.w, k.ns, k.image
	_, err := k.verifier.Verify(k.ctx, k.release(k.define("Gadget")))
	require.NoError(t, err)
	declared := []helmx.ImageField{{Kind: "Gadget", Path: "spec.image"}}
	tagged := img.Repository() + ":moved"
	open := func(t *testing.T, cfg helmx.Config) *helmx.Deployer {
		cfg.Release, cfg.Namespace, cfg.ImageFields, cfg.Kubernetes = "images", ns, declared, helmx.Kubernetes{REST: w.rest}
		d, err := helmx.New(cfg)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, d.Close()) })
		return d
	}

	t.Run("a tag that a chart leaves is refused before anything is changed", func(t *testing.T) {
		const taken = `{{ .Values.image }}`
		debug := `      ephemeralContainers: [{name: debug, image: "` + tagged + `"}]`
		before := w.versions(t, ns)
		for where, templates := range map[string]map[string]string{
			"Deployment " + ns + "/mounting, volume released": {"a.yaml": mounting(taken, tagged, ""), "b.yaml": customImage(taken)},
			"Gadget " + ns + "/custom, spec.image":            {"a.yaml": mounting(taken, taken, ""), "b.yaml": customImage(tagged)},
			"Deployment " + ns + "/mounting, container debug": {"a.yaml": mounting(taken, taken, debug), "b.yaml": customImage(taken)},
		} {
			d := open(t, helmx.Config{Chart: writeChart(t, templates), Image: helmx.ImageValues{Reference: "image"}})
			_, err := d.Deploy(k.ctx, bypassed(t, img, "refused"))
			require.ErrorIs(t, err, stages.ErrInvalid)
			require.ErrorContains(t, err, where+": "+tagged)
		}
		assert.Equal(t, before, w.versions(t, ns))
		gadgets, err := k.gadgets("Gadget").List(k.ctx, metav1.ListOptions{})
		require.NoError(t, err)
		assert.Empty(t, gadgets.Items)
	})

	t.Run("plain manifests get the digest, and what is mounted is what runs", func(t *testing.T) {
		dir := t.TempDir()
		for name, text := range map[string]string{"a.yaml": mounting(img.Repository(), tagged, ""), "b.yaml": customImage(tagged)} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		rel, err := open(t, helmx.Config{Manifests: []string{dir}}).Deploy(k.ctx, bypassed(t, img, "run-1"))
		require.NoError(t, err)
		_, err = k.newVerifier(rollout.Config{Timeout: rolloutTimeout}).Verify(k.ctx, rel)
		require.NoError(t, err)

		custom, err := k.gadgets("Gadget").Get(k.ctx, "custom", metav1.GetOptions{})
		require.NoError(t, err)
		kept, _, err := unstructured.NestedString(custom.Object, "spec", "image")
		require.NoError(t, err)
		assert.Equal(t, img.String(), kept)
		pods, err := w.kube.CoreV1().Pods(ns).List(k.ctx, metav1.ListOptions{LabelSelector: "app=mounting"})
		require.NoError(t, err)
		require.Len(t, pods.Items, 1)
		require.NotNil(t, pods.Items[0].Spec.Volumes[0].Image)
		assert.Equal(t, img.String(), pods.Items[0].Spec.Volumes[0].Image.Reference)
		log, err := w.kube.CoreV1().Pods(ns).GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{}).DoRaw(k.ctx)
		require.NoError(t, err)
		assert.Equal(t, "the same", strings.TrimSpace(string(log)))
	})
}
