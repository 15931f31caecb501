package metric

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// burnRun is one decision on its way.
type burnRun struct {
	*BurnRate
	rel      stages.Release
	deployed time.Time
	before   *burnState // at the deployment; nil as long as that isn't known
	onset    onset
	warnings []stages.Reason
	source   string
}

// burnState is how the budget stood at one time.
type burnState struct {
	burns    []burn
	latest   float64 // over the last moments
	spent    float64
	measured bool // whether spent is known
}

// String has each window once: many are the same as long as they are cut.
func (s burnState) String() string {
	var rates []string
	add := func(rate float64, window time.Duration) {
		one := fmt.Sprintf("%.4g over %s", rate, window.Round(time.Second))
		if !slices.Contains(rates, one) {
			rates = append(rates, one)
		}
	}
	for _, b := range s.burns {
		add(b.long, b.cut.Long)
		add(b.short, b.cut.Short)
	}
	return "burn rates " + strings.Join(rates, ", ")
}

// burn is a pair of windows with the rates that the budget burns at. A release that
// had requests for less than least is held to what may burn in all of that time.
type burn struct {
	window      BurnWindow
	cut         BurnWindow    // what of it is since the deployment
	filled      time.Duration // for how much of it there were requests
	least       time.Duration
	long, short float64
}

func (b burn) String() string {
	return fmt.Sprintf("%s and %s burn at %.4g and %.4g times the rate that lasts, allowed is %v",
		cutTo(b.window.Long, b.cut.Long, "the %s since the deployment"), cutTo(b.window.Short, b.cut.Short, "%s"), b.long, b.short, b.window.Rate)
}

func cutTo(window, cut time.Duration, what string) string {
	if cut == window {
		return window.String()
	}
	return fmt.Sprintf("%s, cut to "+what+",", window, cut.Round(time.Second))
}

// faster reports whether the release burns the budget faster than at a rate. As long
// as it hadn't requests for long enough, it has to have burnt what would burn until then.
func (b burn) faster(rate float64) bool {
	burnt := b.long
	if b.filled < b.least {
		burnt *= float64(b.filled) / float64(b.least)
	}
	return burnt > rate && b.short > rate
}

// unclear reports whether it isn't known that the errors go on.
func (b burn) unclear() bool { return b.cut.Short >= b.filled }

func (r *burnRun) look(ctx context.Context) look {
	r.warnings = nil
	l := r.weigh(ctx)
	l.warnings = addWarnings(r.warnings, l.warnings)
	return l
}

func (r *burnRun) weigh(ctx context.Context) look {
	if err := r.lookBack(ctx); err != nil {
		return failedLook(r.source, fmt.Errorf("at the deployment: %w", err))
	}
	age := time.Since(r.deployed)
	little, enough := r.traffic.look(ctx, r.asker, r.rel, age)
	if !enough && !little.sound {
		return little
	}
	asked := r.readings(time.Time{})
	err := r.findOnset(ctx, asked, age)
	var now burnState
	if err == nil {
		now, err = asked.state(ctx, r.windows(age, time.Since(r.onset.serving)))
	}
	switch {
	case !enough && (err == nil || saysNothing(err)):
		return now.little(little)
	case err != nil:
		return failedLook(r.source, err)
	}
	status := now.String()
	spent, spentSettles := r.spent(now)
	burning, burningSettles := r.burning(now)
	switch {
	case burningSettles && (burning.verdict == stages.Fail || !spentSettles):
		return burning
	case spentSettles:
		return spent
	}
	watched := time.Since(r.onset.watched)
	if watched >= r.config.For {
		return look{verdict: stages.Pass, status: status}
	}
	message := fmt.Sprintf("watched for %s of %s with requests: %s", watched.Round(time.Second), r.config.For, status)
	return look{reasons: []stages.Reason{{Rule: "not-held", Subject: r.source, Message: message}}, status: message, sound: true}
}

// little looks at what too little traffic says. It decides nothing, but what burns too
// fast isn't to pass either.
func (s burnState) little(l look) look {
	for _, b := range s.burns {
		if b.faster(b.window.Rate) {
			return l.against(b.String())
		}
	}
	return l
}

// windows are those to judge a release of this age by, cut to it. The shortest judges
// it from the time on that it is watched for. The others are for what burns slowly:
// until it is as old as they are long, they say what they would if nothing had burnt
// before it. So none comes in between two looks that is stricter than the last was.
func (r *burnRun) windows(age, served time.Duration) []burn {
	age = max(age, time.Second)
	var out []burn
	for _, w := range r.config.Windows {
		b := burn{window: w, filled: min(w.Long, served), least: w.Long}
		b.cut = w.cut(age, b.filled, r.config.Watch.Interval)
		if w.Long == r.config.Windows[0].Long {
			b.least = min(r.config.For, w.Long)
		}
		out = append(out, b)
	}
	return out
}

// cut returns what of the windows is to be asked about at an age: of the short one
// the part that there were requests for in the long one, but not less than what is
// between two looks.
func (w BurnWindow) cut(age, filled, interval time.Duration) BurnWindow {
	if filled >= w.Long {
		return w
	}
	part := time.Duration(float64(w.Short) * float64(filled) / float64(w.Long))
	return BurnWindow{Long: min(w.Long, age), Short: min(max(part, interval, time.Second), w.Short, age), Rate: w.Rate}
}

// spent looks at the budget of the whole period.
func (r *burnRun) spent(now burnState) (look, bool) {
	if !now.measured || now.spent < 1 {
		return look{}, false
	}
	if r.before.spent < 1 {
		message := fmt.Sprintf("the error budget of %s is spent to %.4g %%, and was to %.4g %% when the release was deployed", r.config.Period, 100*now.spent, 100*r.before.spent)
		return r.verdict(stages.Fail, "budget-spent-by-release", message), true
	}
	message := fmt.Sprintf("the error budget of %s is spent to %.4g %%, and was to %.4g %% before the release was deployed", r.config.Period, 100*now.spent, 100*r.before.spent)
	return r.notToBlame("budget-spent-before", message)
}

// burning looks at the windows. Those of before the deployment are whole.
func (r *burnRun) burning(now burnState) (look, bool) {
	var doubt *look
	for _, b := range now.burns {
		if !b.faster(b.window.Rate) {
			continue
		}
		l := r.blame(b)
		if l.verdict == stages.Fail {
			return l, true
		}
		doubt = &l
	}
	if doubt != nil {
		return *doubt, true
	}
	return look{}, false
}

// blame says whose doing it is that windows burn too fast.
func (r *burnRun) blame(b burn) look {
	if b.unclear() {
		message := fmt.Sprintf("whether it still goes on is not known, because there is no data over less than that: %s", b)
		return r.verdict(stages.Inconclusive, "burning-unclear", message)
	}
	if before := r.before.of(b.window); before.alreadyBurnt() && !b.faster(markedly*before.worst()) {
		message := fmt.Sprintf("%s; before the release was deployed it was %s", b, before)
		if l, settled := r.notToBlame("budget-burning-before", message); settled {
			return l
		}
	}
	return r.verdict(stages.Fail, "budget-burning", b.String())
}

// past is how a pair of windows stood at the deployment.
type past struct {
	burn
	latest float64
}

func (s burnState) of(w BurnWindow) past {
	for _, b := range s.burns {
		if b.window == w {
			return past{b, s.latest}
		}
	}
	return past{burn{window: w}, s.latest}
}

// alreadyBurnt reports whether the errors were there at the deployment. The long
// window doesn't matter for that, because they may have begun just before.
func (p past) alreadyBurnt() bool { return max(p.short, p.latest) > p.window.Rate }

// markedly is how many times faster than before a release has to burn to be to blame
// for it.
const markedly = 2

func (p past) worst() float64 { return max(p.long, p.short, p.latest) }

func (p past) String() string {
	return fmt.Sprintf("%.4g and %.4g, and %.4g in the last moments", p.long, p.short, p.latest)
}

// wholly is an age at which no window is cut.
const wholly = math.MaxInt64

// notToBlame is about what was so before the release.
func (r *burnRun) notToBlame(rule, message string) (look, bool) {
	if r.config.AllowSpent {
		r.warnings = addWarnings(r.warnings, []stages.Reason{{Rule: rule, Subject: r.source, Message: message}})
		return look{}, false
	}
	return r.verdict(stages.Inconclusive, rule, message), true
}

func (r *burnRun) verdict(v stages.Verdict, rule, message string) look {
	return look{verdict: v, reasons: []stages.Reason{{Rule: rule, Subject: r.source, Message: message}}, status: message}
}

// beforehand is the last moment that tells nothing of the release: its pods may serve
// long before its deployer is done.
func (r *burnRun) beforehand() time.Time {
	if began := r.rel.Began; !began.IsZero() && began.Before(r.deployed) {
		return began
	}
	return r.deployed
}

// lookBack finds out, once, how the budget stood at the deployment. Where there
// was no data then, there is nobody else to blame than the release. That is as it
// should be of one that replaced none, but such a one is a canary as well, and then
// the expressions may be about all that serves.
func (r *burnRun) lookBack(ctx context.Context) error {
	if r.before != nil {
		return nil
	}
	untouched := burnState{measured: r.config.Period > 0}
	if r.rel.Deployed.IsZero() {
		r.before = &untouched
		return nil
	}
	asked := r.readings(r.beforehand())
	before, err := asked.state(ctx, r.windows(wholly, wholly))
	if err == nil {
		if _, before.latest, err = asked.latest(ctx, r.config.Watch.Interval, r.config.Windows[0].Short); saysNothing(err) {
			err = nil // It was quiet then.
		}
	}
	if saysNothing(err) {
		if r.rel.Previous != 0 {
			r.warnings = addWarnings(r.warnings, []stages.Reason{{Rule: "no-data-before", Subject: r.source, Message: "how the budget stood before the release is not known, so what burns is taken for the release's doing: " + err.Error()}})
		}
		before, err = untouched, nil
	}
	if err == nil {
		r.before = &before
	}
	return err
}
