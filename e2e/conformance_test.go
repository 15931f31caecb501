package e2e_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// The suites hold each adapter to the contract in its own package, against
// servers in the process. Here it is a real cluster and a real BuildKit.

func TestDeployerConforms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, err := stages.ParseImage(w.box.Base.Base)
	require.NoError(t, err)
	second, err := stages.ParseImage(w.box.Base.Go)
	require.NoError(t, err)
	harness := func(t *testing.T) stagestest.DeployerHarness {
		ns := w.namespace(t)
		return stagestest.DeployerHarness{
			Deployer: w.deployer(t, ns, w.rest), First: first, Second: second,
			State: func(ctx context.Context) (string, error) { return w.state(ctx, ns) },
		}
	}
	t.Run("Deployer", func(t *testing.T) { stagestest.TestDeployer(t, harness) })
	t.Run("Uninstaller", func(t *testing.T) { stagestest.TestUninstaller(t, harness) })
}

// state is what the release's objects say is deployed, and "" if nothing of it,
// its history included, is there.
func (w *world) state(ctx context.Context, namespace string) (string, error) {
	history, err := w.kube.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{LabelSelector: "owner=helm"})
	if err != nil {
		return "", err
	}
	services, err := w.kube.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	deployment, err := w.kube.AppsV1().Deployments(namespace).Get(ctx, release, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && len(history.Items)+len(services.Items) == 0:
		return "", nil
	case err != nil:
		return "", err
	}
	return deployment.Spec.Template.Spec.Containers[0].Image, nil
}

func TestBuilderConforms(t *testing.T) {
	w := newWorld(t)
	stagestest.TestBuilder(t, func(t *testing.T) stagestest.BuilderHarness {
		return stagestest.BuilderHarness{
			Builder: w.builder(t, "conformance"),
			Source:  source("1.0.0"),
			Broken:  source("1.0.0", "ASSETS=no-such-folder"),
		}
	})
}

func TestVerifierConforms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good, bad := w.namespace(t), w.namespace(t)
	img, err := w.builder(t, good).Build(labtest.Context(t), source("1.0.0"))
	require.NoError(t, err)
	broken, err := w.builder(t, good).Build(labtest.Context(t), source("1.0.0", crashing))
	require.NoError(t, err)
	goodRelease, badRelease := w.deploy(t, good, img), w.deploy(t, bad, broken)
	for i, name := range []string{"rollout", "smoke"} {
		t.Run(name, func(t *testing.T) {
			stagestest.TestVerifier(t, func(t *testing.T) stagestest.VerifierHarness {
				return stagestest.VerifierHarness{Verifier: w.verifiers(t, w.rest)[i], Good: goodRelease, Bad: badRelease}
			})
		})
	}
}

func (w *world) deploy(t *testing.T, namespace string, img stages.Image) stages.Release {
	t.Helper()
	clearance, err := stages.BypassGates(img, "conformance test")
	require.NoError(t, err)
	rel, err := w.deployer(t, namespace, w.rest).Deploy(labtest.Context(t), stages.DeployRequest{Clearance: clearance, Run: "conformance"})
	require.NoError(t, err)
	return rel
}
