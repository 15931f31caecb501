package rollout

import "time"

// patience decides when a finding has been tolerated for long enough.
type patience struct {
	rules ruleBook
	seen  map[string]*sighting
}

// sighting is since when a finding holds.
type sighting struct {
	first time.Time
	gone  time.Time // when it was first missed; zero while it holds
	look  int       // the last look that had it
	held  bool      // that look had it postponed, so the clock starts after it
}

// flap is how long a finding may be gone without its clock starting anew: a
// container that can't start alternates between reasons.
const flap = 15 * time.Second

// judge sorts the findings of one look. It returns those that have become
// terminal, the worst tolerated wait, and when to look again.
func (p *patience) judge(look int, findings []finding, now time.Time) (terminal []finding, recheck time.Time) {
	for _, f := range findings {
		rule := p.rules.of(f)
		first := p.since(look, f, now)
		switch {
		case f.past:
		case rule.Class == Terminal:
			terminal = append(terminal, f)
		case rule.Class == TerminalAfter:
			due := first.Add(rule.After)
			timed := rule.After > 0 && !f.postponed
			overdue := timed && !now.Before(due)
			if timed && !overdue {
				recheck = sooner(recheck, due)
			}
			if overdue || rule.Count > 0 && f.count >= rule.Count {
				f.excusable = !overdue && f.count < rule.Count+rule.Grace
				terminal = append(terminal, f)
			}
		}
	}
	p.forget(look, now)
	return terminal, recheck
}

func (p *patience) since(look int, f finding, now time.Time) time.Time {
	key := f.key()
	s := p.seen[key]
	switch {
	case s == nil:
		s = &sighting{first: now}
		p.seen[key] = s
	case s.held, !s.gone.IsZero() && now.Sub(s.gone) > flap:
		s.first = now
	}
	s.look, s.gone, s.held = look, time.Time{}, f.postponed
	return s.first
}

func (p *patience) forget(look int, now time.Time) {
	for key, s := range p.seen {
		switch {
		case s.look == look:
		case s.gone.IsZero():
			s.gone = now
		case now.Sub(s.gone) > flap:
			delete(p.seen, key)
		}
	}
}
