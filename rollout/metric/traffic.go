package metric

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// traffic says how much there has to be before anything is decided; its zero value
// asks for none.
type traffic struct {
	expression *expression
	least      float64
}

var errTraffic = fmt.Errorf("%w: Traffic and a finite MinTraffic above zero go together", stages.ErrInvalid)

func newTraffic(text string, least float64, vars Vars) (traffic, error) {
	if text == "" {
		return traffic{}, nil
	}
	e, err := newExpression("Traffic", text, vars)
	return traffic{e, least}, err
}

// look says whether there is enough to judge by, and if not why.
func (t traffic) look(ctx context.Context, from asker, rel stages.Release, past time.Duration) (look, bool) {
	if t.expression == nil {
		return look{}, true
	}
	total, a, err := t.count(ctx, from, rel, past, time.Time{})
	if err != nil {
		l := failedLook(nameOf(a.Result), err)
		l.warnings = a.warnings()
		return l, false
	}
	if total >= t.least {
		return look{}, true
	}
	message := fmt.Sprintf("%s is %v, %v are needed to judge by", short(a.expression), total, t.least)
	return look{
		reasons: []stages.Reason{{Rule: "too-little-traffic", Subject: nameOf(a.Result), Message: message}},
		status:  message, warnings: a.warnings(), sound: true,
	}, false
}

// against is a look at too little traffic that speaks against the release all the same.
func (l look) against(what string) look {
	l.sound = false
	l.status += "; what there is speaks against the release: " + what
	l.reasons = slices.Clone(l.reasons)
	for i := range l.reasons {
		l.reasons[i].Message = l.status
	}
	return l
}

// count asks how much there was until a time, zero for the present.
func (t traffic) count(ctx context.Context, from asker, rel stages.Release, past time.Duration, at time.Time) (float64, answer, error) {
	text, err := t.expression.render(rel, past)
	if err != nil {
		return 0, answer{}, err
	}
	a := from.ask(ctx, question{expression: text, at: at, since: rel.Deployed})
	total := 0.0
	for _, s := range a.sound {
		total += s.Value
	}
	return total, a, a.problem
}
