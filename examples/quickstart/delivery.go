package main

import (
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/sandbox"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/notify"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/smoke"
	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/scan/trivy"
	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/buildkit"
	"github.com/fairlead-dev/fairlead/stages/policy"
)

// newPipeline composes the delivery that every version goes through, with or
// without a canary. This is what a program of your own looks like.
func newPipeline(box *sandbox.Sandbox, app, namespace string, canary bool) (*pipeline.Pipeline, error) {
	builder, err := buildkit.New(buildkit.Config{
		Address:    box.BuildKit,
		Repository: box.Registry + "/shop",
		BuildArgs:  map[string]string{"BUILD_IMAGE": box.Base.Go, "RUNTIME_IMAGE": box.Base.Base},
	})
	if err != nil {
		return nil, err
	}

	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	scanner, err := trivy.New(trivy.Config{CacheDir: filepath.Join(cache, "fairlead", "trivy"), Database: box.Database})
	if err != nil {
		return nil, err
	}
	vulnerabilities, err := scan.NewPolicy(scan.PolicyConfig{Threshold: stages.SeverityHigh, IgnoreUnfixed: true})
	if err != nil {
		return nil, err
	}
	rules, err := policy.New(policy.Config{Modules: []fs.FS{policy.Baseline()}})
	if err != nil {
		return nil, err
	}

	images, err := registry.New(registry.Config{})
	if err != nil {
		return nil, err
	}
	// A key of your own comes from sign.FromEnv or from your secret store.
	pair, err := sign.GenerateKeyPair([]byte("demo"))
	if err != nil {
		return nil, err
	}
	key, err := sign.LoadPrivateKey(pair.Private, []byte("demo"))
	if err != nil {
		return nil, err
	}
	signer, err := sign.NewSigner(sign.SignerConfig{Key: key, Registry: images})
	if err != nil {
		return nil, err
	}

	cluster, err := helmx.Kubernetes{KubeconfigPath: box.Kubeconfig}.RESTConfig()
	if err != nil {
		return nil, err
	}
	var deployer stages.Deployer
	if canary {
		deployer, err = newCanary(cluster, box.Prometheus, app, namespace)
	} else {
		deployer, err = newDeployer(cluster, app, namespace, "shop", stableValues)
	}
	if err != nil {
		return nil, err
	}
	ready, err := rollout.New(rollout.Config{REST: cluster})
	if err != nil {
		return nil, err
	}
	curl, err := stages.ParseImage(box.Base.Base)
	if err != nil {
		return nil, err
	}
	reachable, err := smoke.NewPod(smoke.PodConfig{
		REST: cluster, Image: curl, URL: "http://{{.Release}}.{{.Namespace}}.svc/healthz/ready",
	})
	if err != nil {
		return nil, err
	}

	return pipeline.New(pipeline.Config{
		Name:      "shop",
		Builder:   builder,
		Scanner:   scanner,
		ScanGates: []stages.Gate[stages.Report]{vulnerabilities},
		PlanGates: []stages.Gate[stages.Plan]{rules},
		Signer:    signer,
		Deployer:  deployer,
		Verifiers: []stages.Verifier{ready, reachable},
		Observers: []pipeline.Observer{notify.NewConsole(os.Stdout)},
	})
}

// stableValues make the service reachable for the visitors of the canaries, which
// share it.
var stableValues = helmx.Values{Overrides: []helmx.Override{
	helmx.Set("service.type=NodePort"), helmx.Set("service.shared=true"),
}}

func newDeployer(cluster *rest.Config, app, namespace, release string, values helmx.Values) (*helmx.Deployer, error) {
	return helmx.New(helmx.Config{
		Chart: filepath.Join(app, "chart"), Release: release, Namespace: namespace, CreateNamespace: true,
		Values:     values,
		Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
		Kubernetes: helmx.Kubernetes{REST: cluster},
	})
}
