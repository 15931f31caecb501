// Command quickstart delivers six versions of a sample service to a real cluster:
// one that is installed, one that it is upgraded to, one that turns out not to
// start and is rolled back, and one that a known vulnerability keeps from ever
// being deployed; then, with visitors and as canaries, one that does as well as
// the version before and is promoted, and one that fails every fifth visitor and
// is taken back.
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
	"maps"
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
	cfg.Prometheus, cfg.Progress = true, os.Stderr

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg, *app, *namespace); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// delivery is one version, and what should become of it.
type delivery struct {
	version, story string
	buildArgs      map[string]string
	want           pipeline.Outcome
	wantErr        error
}

// releases are delivered in this order.
var releases = []delivery{
	{version: "1.0.0", story: "is installed", want: pipeline.OutcomeReleased},
	{version: "1.1.0", story: "upgrades it", want: pipeline.OutcomeReleased},
	{version: "1.2.0", story: "needs a variable that nobody sets, and crashes",
		buildArgs: map[string]string{"REQUIRED_ENV": "DATABASE_URL"},
		want:      pipeline.OutcomeRolledBack, wantErr: stages.ErrRolledBack},
	{version: "1.3.0", story: "ships a library with a known vulnerability",
		buildArgs: map[string]string{"ASSETS": "assets-legacy"},
		want:      pipeline.OutcomeUntouched, wantErr: stages.ErrGateRefused},
}

// canaries are delivered then, to half of the visitors first.
var canaries = []delivery{
	{version: "1.4.0", story: "is tried on half of the visitors, and does well", want: pipeline.OutcomeReleased},
	{version: "1.5.0", story: "is tried on half of the visitors, and fails every fifth of those",
		buildArgs: map[string]string{"FAIL_RATE": "0.2"},
		want:      pipeline.OutcomeRolledBack, wantErr: stages.ErrGateRefused},
}

func run(ctx context.Context, cfg sandbox.Config, app, namespace string) (err error) {
	box, err := sandbox.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()

	var table summary
	if err := deliver(ctx, box, app, namespace, false, releases, &table); err != nil {
		return err
	}
	guests, err := invite(ctx, box, namespace)
	if err != nil {
		return err
	}
	err = deliver(ctx, box, app, namespace, true, canaries, &table)
	if err := errors.Join(err, guests.leave(os.Stdout)); err != nil {
		return err
	}
	return table.print(os.Stdout)
}

// deliver takes each version through a pipeline, and adds to the table what became
// of it. Only what keeps the demonstration from going on is an error.
func deliver(ctx context.Context, box *sandbox.Sandbox, app, namespace string, canary bool, versions []delivery, table *summary) (err error) {
	p, err := newPipeline(box, app, namespace, canary)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	for _, v := range versions {
		fmt.Printf("\n── shop %s %s\n", v.version, v.story)
		source := stages.Source{
			Dir: app, Revision: "v" + v.version, Tags: []string{v.version},
			BuildArgs: map[string]string{"VERSION": v.version},
		}
		maps.Copy(source.BuildArgs, v.buildArgs)
		result, err := p.Run(ctx, source)
		if ctx.Err() != nil {
			return err
		}
		ok := result != nil && result.Outcome == v.want && (v.wantErr == nil && err == nil || errors.Is(err, v.wantErr))
		table.add(v.version, result, err, ok)
	}
	return nil
}
