package evidence

import (
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// patience is how many of the longest lease a leader may ask without a majority
// of the voters answering.
const patience = 2

// Deaf reports that no majority of the voters has answered this leader's
// questions for so long that it must give the leadership away: the log's
// connections work and the answers do not arrive, so it can judge nobody, itself
// included. Least is the shortest lease to reckon with. After true it begins anew.
func (l *Ledger) Deaf(st *state.State, c lease.Configuration, self string, least time.Duration, now clock.Reading) bool {
	asks, limit := false, least
	for _, s := range st.Sessions {
		if s.Status != state.SessionEnded { // each of these is asked about now and then
			asks, limit = true, max(limit, s.TTL)
		}
	}
	limit *= patience
	l.mu.Lock()
	defer l.mu.Unlock()
	answering := 0
	for _, v := range c.Voters {
		if at, ok := l.answered[v]; v == self || ok && clock.Longer(at, now) < limit {
			answering++
		}
	}
	switch {
	case !asks || answering >= c.Majority():
		l.deaf = nil
	case l.deaf == nil:
		l.deaf = &now
	case clock.Longer(*l.deaf, now) > limit:
		l.deaf = nil
		return true
	}
	return false
}

// seen is when a leader first saw an epoch be the last of so many that are not
// over, of a service that is wanted or removed.
type seen struct {
	epoch   uint64
	open    int
	removed bool
	at      clock.Reading
}

// Account is what a node itself says of a service.
type Account struct {
	// Epoch is the one that it has begun with; 0: none.
	Epoch uint64
	// Serves is set when it starts or runs the service, and does not end it.
	Serves bool
	// At is when the account was received, on this node's clock. Own is set for
	// this node's account of itself, which is of now.
	At  clock.Reading
	Own bool
}

// Idle tells, by service, for how long its holder has left its epoch without
// beginning (decide.LeaderView.Unstarted), counted from when no other epoch was
// in the way, and for how long the giver of a hand-over, or the holder of a
// service that was removed, has not begun to end (decide.LeaderView.Unended). It
// goes by accounts that came after that. account returns what a node says of a
// service, and false when there is no word of it that is not too old.
func (l *Ledger) Idle(st *state.State, now clock.Reading, account func(node, service string) (Account, bool)) (unstarted, unended map[string]time.Duration) {
	unstarted, unended = map[string]time.Duration{}, map[string]time.Duration{}
	for name, svc := range st.Services {
		open := svc.Unfinished()
		if len(open) == 0 || len(open) > 2 {
			continue
		}
		since := l.firstSeen(name, seen{epoch: open[len(open)-1].Epoch, open: len(open), removed: svc.Removed, at: now})
		a, ok := account(open[0].Node, name)
		if !ok || !a.Own && clock.Shorter(since, a.At) <= 0 {
			continue
		}
		begun := a.Epoch == open[0].Epoch
		switch {
		case len(open) == 2 || svc.Removed:
			// One that never began would have released its epoch unused at once.
			if !begun || a.Serves {
				unended[name] = clock.Shorter(since, now)
			}
		case !begun:
			unstarted[name] = clock.Shorter(since, now)
		}
	}
	return unstarted, unended
}

// firstSeen is when a service was first seen as it is seen now.
func (l *Ledger) firstSeen(service string, now seen) clock.Reading {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.starts[service]
	if s.epoch != now.epoch || s.open != now.open || s.removed != now.removed {
		s = now
		l.starts[service] = s
	}
	return s.at
}
