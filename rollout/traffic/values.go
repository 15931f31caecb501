package traffic

import (
	"context"
	"fmt"

	"github.com/fairlead-dev/fairlead/stages"
)

// Values is a [Router] for a weight that is a value of a Helm chart: each shift
// releases the chart again, so that the release's history tells them all, and what
// the chart makes is never at odds with what is recorded of it. It suits a small
// release of nothing but the routes, which has no image and needs no clearance:
//
//	router := traffic.Values{
//		Route: virtualService, // NewVirtualService's, of what the chart makes
//		Deploy: func(ctx context.Context, weight int) error {
//			routes, err := helmx.New(helmx.Config{
//				Chart: "charts/shop-routes", Release: "shop-routes", Namespace: "prod", Kubernetes: cluster,
//				Values:    helmx.Values{Map: map[string]any{"canary": map[string]any{"weight": weight}}},
//				Unscanned: "it has no containers",
//			})
//			if err != nil {
//				return err
//			}
//			defer routes.Close()
//			_, err = routes.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "shop-routes"})
//			return err
//		},
//	}
//
// It can't be the stable release's chart: that one is the state to go back to while
// a canary is under way. Weights are exact if Route's are.
type Values struct {
	// Route is the router of what the chart makes, required. It tells how traffic is
	// divided, and whether it can be. It changes something only where an abort must
	// get traffic back that a deployment doesn't: somebody else has changed the
	// objects, or the chart can't be deployed.
	Route Router
	// Deploy releases the chart with a weight, required. It can be repeated.
	Deploy func(ctx context.Context, weight int) error
}

var _ Router = Values{}

// Nearest asks Route.
func (v Values) Nearest(ctx context.Context, weight int) (int, error) {
	return v.Route.Nearest(ctx, weight)
}

// Shift deploys the weight, unless it is there already. To take all traffic back it
// deploys in any case: what the objects say may be somebody else's doing, and a weight
// that is only recorded would keep the next deployment of the same from changing them.
func (v Values) Shift(ctx context.Context, from, to int) error {
	if err := checkWeight(to); err != nil {
		return err
	}
	back := from == Any && to == 0
	now, err := v.Route.Observe(ctx)
	switch {
	case err != nil && !back:
		return err
	case err != nil:
	case now.Canary == to && !now.Uneven && !back:
		return nil
	default:
		if err := expect(from, to, now); err != nil {
			return err
		}
	}
	err = v.Deploy(ctx, to)
	if !back {
		if err == nil {
			err = v.again(ctx, now.Canary, to)
		}
		return err
	}
	if err != nil {
		stages.ReportProgress(ctx, stages.Progress{ID: progressID, Message: fmt.Sprintf("the chart that has the weight could not be deployed, so that its objects are changed: %v", err)})
	}
	return v.Route.Shift(ctx, from, to)
}

// again deploys a weight once more if that has changed nothing, because the release
// said so already: an abort had to change the objects without it. What there is goes
// first, so that there is a change.
func (v Values) again(ctx context.Context, there, to int) error {
	now, err := v.Route.Observe(ctx)
	if err != nil || now.Canary != there || there == to {
		return nil //nolint:nilerr // Whether it has settled is asked for later.
	}
	if err := v.Deploy(ctx, there); err != nil {
		return err
	}
	return v.Deploy(ctx, to)
}

// Observe asks Route.
func (v Values) Observe(ctx context.Context) (Split, error) { return v.Route.Observe(ctx) }
