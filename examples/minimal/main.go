// Command minimal delivers an image that exists, with a chart: scanned, judged,
// signed, deployed, and seen to run, or rolled back.
package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/notify"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/scan/trivy"
	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/policy"
)

// Usage: minimal IMAGE CHART NAMESPACE
func main() {
	reference, chart, namespace := os.Args[1], os.Args[2], os.Args[3]
	images := must(registry.New(registry.Config{}))
	key := must(sign.FromEnv(os.LookupEnv, "COSIGN_PRIVATE_KEY", "COSIGN_PASSWORD"))
	cluster := must(helmx.Kubernetes{KubeconfigPath: os.Getenv("KUBECONFIG")}.RESTConfig())
	cache := filepath.Join(must(os.UserCacheDir()), "minimal")

	delivery := must(pipeline.New(pipeline.Config{
		Name: namespace,
		Builder: stages.BuilderFunc(func(ctx context.Context, _ stages.Source) (stages.Image, error) {
			return images.Resolve(ctx, reference) // once; from here on there is only the digest
		}),
		Scanner:   must(trivy.New(trivy.Config{CacheDir: cache, Database: os.Getenv("TRIVY_DB_REPOSITORY")})),
		ScanGates: []stages.Gate[stages.Report]{must(scan.NewPolicy(scan.PolicyConfig{IgnoreUnfixed: true}))},
		PlanGates: []stages.Gate[stages.Plan]{must(policy.New(policy.Config{Modules: []fs.FS{policy.Baseline()}}))},
		Signer:    must(sign.NewSigner(sign.SignerConfig{Key: key, Registry: images})),
		Deployer: must(helmx.New(helmx.Config{
			Chart: chart, Release: "shop", Namespace: namespace, CreateNamespace: true,
			Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
			Kubernetes: helmx.Kubernetes{REST: cluster},
		})),
		Verifiers: []stages.Verifier{must(rollout.New(rollout.Config{REST: cluster}))},
		Observers: []pipeline.Observer{notify.NewConsole(os.Stdout)},
	}))
	_, err := delivery.Run(context.Background(), stages.Source{Dir: "."})
	if err != nil {
		os.Exit(1) // the console has said why, and what is deployed now
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
