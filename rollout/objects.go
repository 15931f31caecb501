package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"

	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
	"github.com/fairlead-dev/fairlead/stages"
)

// objectsFound is what came of looking for the objects that are no workloads.
type objectsFound struct { //nolint:recvcheck // filled in place, then read as a value
	seen int
	// unseen are the objects that the caller may not read.
	unseen []string
	// unwatched are objects that have more to tell than that they exist, which the
	// caller may not watch.
	unwatched []string
}

// find looks for each of the objects, which are in namespace unless they say
// otherwise, until it has an answer.
func (c *Cluster) find(ctx context.Context, namespace string, objects []stages.Object) (objectsFound, error) {
	var found objectsFound
	for _, o := range objects {
		err := c.lookUntilKnown(ctx, namespace, o)
		switch {
		case err == nil:
			found.seen++
		case apierrors.IsForbidden(err), apierrors.IsMethodNotSupported(err):
			found.unseen = append(found.unseen, o.String())
		case apierrors.IsNotFound(err):
			return found, stages.Permanent(&Failure{Workload: o, Cause: Missing, Decisive: stages.Evidence{
				Subject: o.String(), Reason: "NotFound", Message: "the object does not exist", Remedy: Missing.remedy(),
			}})
		default:
			return found, err
		}
	}
	return found, nil
}

// lookUntilKnown asks again while the API server gives no answer.
func (c *Cluster) lookUntilKnown(ctx context.Context, namespace string, o stages.Object) error {
	for backoff := wait.FirstBackoff; ; backoff = min(2*backoff, wait.MaxBackoff) {
		err := c.look(ctx, namespace, o)
		if err == nil || refused(err) || apierrors.IsBadRequest(err) {
			return err
		}
		if ctx.Err() != nil || !wait.For(ctx, backoff) {
			return fmt.Errorf("look for %s: %w", o, errors.Join(context.Cause(ctx), err))
		}
	}
}

func (c *Cluster) look(ctx context.Context, namespace string, o stages.Object) error {
	k, err := c.kinds.find(ctx, o)
	if err != nil {
		return err
	}
	var client metadata.ResourceInterface = c.metadata.Resource(k.resource)
	if k.namespaced {
		client = c.metadata.Resource(k.resource).Namespace(orElse(o.Namespace, namespace))
	}
	_, err = client.Get(ctx, o.Name, metav1.GetOptions{})
	return err
}

// add takes in what another search has found.
func (o *objectsFound) add(more objectsFound) {
	o.seen += more.seen
	o.unseen = append(o.unseen, more.unseen...)
	o.unwatched = append(o.unwatched, more.unwatched...)
}

// check turns what was found into a line of the verification.
func (o objectsFound) check(elapsed time.Duration) (stages.Check, bool) {
	if o.seen == 0 && len(o.unseen) == 0 {
		return stages.Check{}, false
	}
	c := stages.Check{Name: "objects", Elapsed: elapsed, Message: fmt.Sprintf("%d other objects exist", o.seen)}
	if len(o.unseen) > 0 {
		c.Message += fmt.Sprintf("; not allowed to look at %s", strings.Join(o.unseen, ", "))
	}
	if len(o.unwatched) > 0 {
		c.Message += fmt.Sprintf("; not known whether ready, for want of the verbs list and watch: %s", strings.Join(o.unwatched, ", "))
	}
	return c, true
}
