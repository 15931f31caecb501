package environment

import (
	"context"
	"errors"
	"fmt"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// Source tells what an environment runs. A [helmx.Deployer] for the release in that
// environment is one.
type Source interface {
	// Current returns what is deployed, or an error if that is not settled.
	Current(ctx context.Context) (helmx.Current, error)
}

var _ Source = (*helmx.Deployer)(nil)

// PromotionConfig says what is promoted. From, To and Source are required.
type PromotionConfig struct {
	// From is where the image is taken from, To where it is to be released. To must
	// say that it promotes from From.
	From, To Environment
	// Source tells what From runs.
	Source Source
	// Image, unless zero, is what From must be running.
	Image stages.Image
	// Verifier, unless nil, proves that what is recorded of From is what runs there.
	Verifier stages.Verifier
}

// PromotionError is an environment that does not run what was asked for.
type PromotionError struct {
	// From and To name the environments.
	From, To string
	// Problem says what From runs and what was asked for.
	Problem string
}

// Error says what was to be promoted and what is in the way.
func (e *PromotionError) Error() string {
	return fmt.Sprintf("promote from %s to %s: %s", e.From, e.To, e.Problem)
}

// Promotion takes the image that runs in one environment to the next. It is a
// [stages.Builder] that builds nothing, so that a pipeline to the second environment
// scans, judges, signs and releases the very digest that the first one runs. It is safe for
// concurrent use.
type Promotion struct{ cfg PromotionConfig }

var _ stages.Builder = (*Promotion)(nil)

// NewPromotion returns a promotion, or an error matching [stages.ErrInvalid].
func NewPromotion(cfg PromotionConfig) (*Promotion, error) {
	switch {
	case cfg.From.Name == "" || cfg.To.Name == "":
		return nil, fmt.Errorf("%w: promotion: From and To are required", stages.ErrInvalid)
	case cfg.To.PromotesFrom != cfg.From.Name:
		return nil, fmt.Errorf("%w: promotion: environment %s does not promote from %s; say so with promotesFrom", stages.ErrInvalid, cfg.To.Name, cfg.From.Name)
	case cfg.Source == nil:
		return nil, fmt.Errorf("%w: promotion from %s to %s: there is no Source", stages.ErrInvalid, cfg.From.Name, cfg.To.Name)
	}
	cfg.From, cfg.To = cfg.From.clone(), cfg.To.clone()
	return &Promotion{cfg}, nil
}

// Build returns the image that From runs. Nothing is built or tagged. If src names a
// revision, From must have been released from that one. What From runs being something
// else than asked is a [PromotionError], and permanent.
func (p *Promotion) Build(ctx context.Context, src stages.Source) (stages.Image, error) {
	current, err := p.cfg.Source.Current(ctx)
	if err != nil {
		return stages.Image{}, p.fail(err)
	}
	refuse := func(format string, args ...any) (stages.Image, error) {
		return stages.Image{}, stages.Permanent(&PromotionError{p.cfg.From.Name, p.cfg.To.Name, fmt.Sprintf(format, args...)})
	}
	switch {
	case current.Namespace != p.cfg.From.Namespace:
		return refuse("the source reads namespace %s, environment %s is namespace %s", current.Namespace, p.cfg.From.Name, p.cfg.From.Namespace)
	case !p.cfg.Image.IsZero() && current.Image != p.cfg.Image:
		return refuse("it runs %s, asked for was %s", current.Image, p.cfg.Image)
	case src.Revision != "" && current.Commit != src.Revision:
		return refuse("it runs commit %s as %s, asked for was commit %s", quote(current.Commit), current.Image, quote(src.Revision))
	}
	if p.cfg.Verifier != nil {
		seen, err := p.cfg.Verifier.Verify(ctx, current.Release)
		if err != nil {
			return stages.Image{}, p.fail(fmt.Errorf("prove that %s runs there: %w", current.Image, err))
		}
		if seen.Image != current.Image {
			return refuse("its record says %s, its pods run %s", current.Image, seen.Image)
		}
	}
	return current.Image, nil
}

func (p *Promotion) fail(err error) error {
	wrapped := fmt.Errorf("promote from %s to %s: %w", p.cfg.From.Name, p.cfg.To.Name, err)
	if _, ok := errors.AsType[*helmx.NotDeployedError](err); ok {
		return stages.Permanent(wrapped)
	}
	return wrapped
}
