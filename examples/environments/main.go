// Command environments shows where a branch is delivered to and what that would
// change: develop to staging with an image that is given, main to production with the
// image that staging runs.
//
//	go run . -kubeconfig ~/.kube/config -branch develop -image registry.example.com/shop@sha256:…
//	go run . -kubeconfig ~/.kube/config -branch main
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/environment"
	"github.com/fairlead-dev/fairlead/stages"
)

type options struct{ file, kubeconfig, branch, chart, image, approvals string }

func main() {
	var o options
	flag.StringVar(&o.file, "file", "../app/environments.yaml", "the declaration of environments")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "the way to the cluster")
	flag.StringVar(&o.branch, "branch", "", "what is delivered")
	flag.StringVar(&o.chart, "chart", "../app/chart", "the chart")
	flag.StringVar(&o.image, "image", "", "the image, by digest, for an environment that promotes from none")
	flag.StringVar(&o.approvals, "approvals", "", "a file with the approvals that were given")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.run(ctx); err != nil {
		log.Fatal(err)
	}
}

func (o options) run(ctx context.Context) error {
	set, err := environment.Load(o.file, environment.LoadOptions{})
	if err != nil {
		return err
	}
	env, err := set.Resolve(environment.Branch(o.branch))
	if errors.Is(err, environment.ErrNoEnvironment) {
		fmt.Println(err)
		return nil
	}
	if err != nil {
		return err
	}
	img, err := o.choose(ctx, set, env)
	if err != nil {
		return err
	}
	deployer, err := o.deployer(env)
	if err != nil {
		return err
	}
	defer deployer.Close() //nolint:errcheck // It gives up idle connections only.
	plan, err := deployer.Plan(ctx, stages.PlanRequest{Image: img, Run: "plan"})
	if err != nil {
		return err
	}
	fmt.Printf("%s goes to %s: %s, %d changes\n", o.branch, env, img, len(plan.Changes))
	for _, change := range plan.Changes {
		fmt.Println(" ", change.Action, change.Object)
	}
	return o.approve(ctx, env, plan)
}

// choose returns what staging runs, for an environment that promotes from it.
func (o options) choose(ctx context.Context, set *environment.Set, env environment.Environment) (stages.Image, error) {
	if env.PromotesFrom == "" {
		return stages.ParseImage(o.image)
	}
	from, _ := set.Get(env.PromotesFrom) // Load has seen to it that there is one.
	running, err := o.deployer(from)
	if err != nil {
		return stages.Image{}, err
	}
	defer running.Close() //nolint:errcheck // It gives up idle connections only.
	promotion, err := environment.NewPromotion(environment.PromotionConfig{From: from, To: env, Source: running})
	if err != nil {
		return stages.Image{}, err
	}
	return promotion.Build(ctx, stages.Source{}) // As the Builder of a pipeline would.
}

func (o options) deployer(env environment.Environment) (*environment.Deployer, error) {
	return environment.NewDeployer(env, helmx.Config{
		Chart: o.chart, Release: "shop", CreateNamespace: true,
		Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
		Kubernetes: helmx.Kubernetes{KubeconfigPath: o.kubeconfig},
	})
}

// approve tells who has yet to agree. In a pipeline, the gate is one of its PlanGates.
func (o options) approve(ctx context.Context, env environment.Environment, plan stages.Plan) error {
	var given environment.Approved
	if o.approvals != "" {
		var err error
		if given, err = environment.LoadApprovals(o.approvals); err != nil {
			return err
		}
	}
	gate, err := environment.NewApprovalGate(environment.ApprovalGateConfig{Environment: env, Approver: given})
	if err != nil {
		return err
	}
	decision, err := gate.Decide(ctx, plan)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s\n", decision.Gate, decision.Verdict)
	for _, reason := range decision.Reasons {
		fmt.Printf("  %s: %s\n", reason.Subject, reason.Message)
	}
	return nil
}
