// Command quickstart delivers four versions of a sample service to a real
// cluster: one that is installed, one that it is upgraded to, one that turns out
// not to start and is rolled back, and one that a known vulnerability keeps from
// ever being deployed.
//
//	go run ./examples/quickstart                              # makes a kind cluster
//	go run ./examples/quickstart -kubeconfig F -registry R    # uses yours
//
// It exits with 0 only if each of them went as it should.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/fairlead-dev/fairlead/e2e/sandbox"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

func main() {
	var cfg sandbox.Config
	flag.StringVar(&cfg.Kubeconfig, "kubeconfig", "", "use the cluster that this `file` leads to, not a new one; needs -registry")
	flag.StringVar(&cfg.Registry, "registry", "", "use the registry at this `localhost:port`, which the cluster must be able to pull from by that name")
	namespace := flag.String("namespace", "shop", "deploy to this `namespace`, which is made if it is missing")
	app := flag.String("app", "examples/app", "the sample service's source `folder`")
	flag.Parse()
	cfg.Progress = os.Stderr

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg, *app, *namespace); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// releases are what is delivered, in this order, and what should become of it.
var releases = []struct {
	version, story string
	buildArgs      map[string]string
	want           pipeline.Outcome
	wantErr        error
}{
	{version: "1.0.0", story: "is installed", want: pipeline.OutcomeReleased},
	{version: "1.1.0", story: "upgrades it", want: pipeline.OutcomeReleased},
	{version: "1.2.0", story: "needs a variable that nobody sets, and crashes",
		buildArgs: map[string]string{"REQUIRED_ENV": "DATABASE_URL"},
		want:      pipeline.OutcomeRolledBack, wantErr: stages.ErrRolledBack},
	{version: "1.3.0", story: "ships a library with a known vulnerability",
		buildArgs: map[string]string{"ASSETS": "assets-legacy"},
		want:      pipeline.OutcomeUntouched, wantErr: stages.ErrGateRefused},
}

func run(ctx context.Context, cfg sandbox.Config, app, namespace string) (err error) {
	box, err := sandbox.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()

	delivery, err := newPipeline(box, app, namespace)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, delivery.Close()) }()

	var table summary
	for _, r := range releases {
		fmt.Printf("\n── shop %s %s\n", r.version, r.story)
		source := stages.Source{
			Dir: app, Revision: "v" + r.version, Tags: []string{r.version},
			BuildArgs: map[string]string{"VERSION": r.version},
		}
		for name, value := range r.buildArgs {
			source.BuildArgs[name] = value
		}
		result, err := delivery.Run(ctx, source)
		if ctx.Err() != nil {
			return err
		}
		ok := result != nil && result.Outcome == r.want && (r.wantErr == nil && err == nil || errors.Is(err, r.wantErr))
		table.add(r.version, result, err, ok)
	}
	return table.print(os.Stdout)
}
