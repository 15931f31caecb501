// Command minimal delivers an image that exists, with a chart: scanned, judged,
// signed, deployed, and seen to run, or rolled back.
package main

import (
	"context"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

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

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: KUBECONFIG=… COSIGN_PRIVATE_KEY=… COSIGN_PASSWORD=… minimal IMAGE CHART NAMESPACE")
	}
	reference, chart, namespace := os.Args[1], os.Args[2], os.Args[3]
	login := registry.DockerConfig() // what docker login wrote
	images := must(registry.New(registry.Config{Auth: login}))
	key := must(sign.FromEnv(os.LookupEnv, "COSIGN_PRIVATE_KEY", "COSIGN_PASSWORD"))
	cluster := must(helmx.Kubernetes{KubeconfigPath: os.Getenv("KUBECONFIG")}.RESTConfig())
	home := filepath.Join(must(os.UserCacheDir()), "minimal")

	delivery := must(pipeline.New(pipeline.Config{
		Name: namespace,
		Builder: stages.BuilderFunc(func(ctx context.Context, _ stages.Source) (stages.Image, error) {
			return images.Resolve(ctx, reference) // once; from here on there is only the digest
		}),
		Scanner:   must(trivy.New(trivy.Config{CacheDir: home, Keychain: login, Database: os.Getenv("TRIVY_DB_REPOSITORY")})),
		ScanGates: []stages.Gate[stages.Report]{must(scan.NewPolicy(scan.PolicyConfig{IgnoreUnfixed: true}))},
		PlanGates: []stages.Gate[stages.Plan]{must(policy.New(policy.Config{Modules: []fs.FS{policy.Baseline()}}))},
		Signer:    must(sign.NewSigner(sign.SignerConfig{Key: key, Registry: images})),
		Deployer: must(helmx.New(helmx.Config{
			Chart: chart, Release: "shop", Namespace: namespace, CreateNamespace: true,
			Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
			Kubernetes: helmx.Kubernetes{REST: cluster},
		})),
		Verifiers: []stages.Verifier{must(rollout.New(rollout.Config{REST: cluster}))},
		Journal:   pipeline.FileJournal(filepath.Join(home, namespace+".journal")),
		Observers: []pipeline.Observer{notify.NewConsole(os.Stdout)},
	}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()                // until then, a signal ends the delivery by rolling it back
	must(delivery.Recover(ctx)) // what a killed delivery left
	must(delivery.Run(ctx, stages.Source{Dir: "."}))
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
