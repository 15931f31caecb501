package releaseset

import (
	"context"

	"github.com/fairlead-dev/fairlead/stages"
)

// UnscannedRequest asks for a release without an image of ours.
type UnscannedRequest struct {
	Run    string
	Reason string
	Source stages.Source
}

// UnscannedDeployer is the optional ability of a [Deployer] to release a chart
// that runs no image of ours, such as a vendor's. A Deployer of package helmx has it.
type UnscannedDeployer interface {
	PlanUnscanned(ctx context.Context, run string) (stages.Plan, error)
	DeployUnscanned(ctx context.Context, req UnscannedRequest) (stages.Release, error)
}
