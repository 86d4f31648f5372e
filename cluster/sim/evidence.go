package sim

import (
	"slices"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// evidence is what a leader remembers between two looks, as package cluster
// keeps it: made with a leadership and thrown away with it.
type evidence struct {
	term  uint64
	first uint64

	opened   map[uint64]clock.Reading
	answered map[string]clock.Reading
	asked    map[uint64]clock.Reading
	ages     map[uint64]map[string]heard
	closings map[uint64]*lease.Closing
	goodbyes map[uint64]bool
	moves    map[string]*move
	pauses   map[uint64]clock.Reading
	views    map[uint64]decide.SessionView // the latest, for their maps to be used again
}

type heard struct {
	age time.Duration
	at  clock.Reading
}

type move struct {
	to     string
	since  clock.Reading
	done   bool
	failed string
}

func newEvidence(term, first uint64) *evidence {
	return &evidence{
		term: term, first: first,
		answered: map[string]clock.Reading{},
		opened:   map[uint64]clock.Reading{}, asked: map[uint64]clock.Reading{},
		ages: map[uint64]map[string]heard{}, closings: map[uint64]*lease.Closing{},
		goodbyes: map[uint64]bool{}, moves: map[string]*move{}, pauses: map[uint64]clock.Reading{},
		views: map[uint64]decide.SessionView{},
	}
}

// heardAge notes what a voter told of a session.
func (e *evidence) heardAge(s *state.Session, voter string, age time.Duration, closed bool, at clock.Reading) {
	if e.ages[s.ID] == nil {
		e.ages[s.ID] = map[string]heard{}
	}
	e.ages[s.ID][voter] = heard{age: age, at: at}
	e.answered[voter] = at
	if !closed || s.Status != state.SessionClosing {
		return
	}
	c := e.closings[s.ID]
	if c == nil {
		c = lease.NewClosing(s.ID, s.TTL, s.Kappa, e.term)
		e.closings[s.ID] = c
	}
	c.Answer(voter, age, at)
}

func (e *evidence) sessionView(s *state.Session, c lease.Configuration, now clock.Reading) decide.SessionView {
	v := decide.SessionView{Ages: e.views[s.ID].Ages, Told: e.views[s.ID].Told, Goodbye: e.goodbyes[s.ID]}
	if v.Ages == nil {
		v.Ages, v.Told = map[string]time.Duration{}, map[string]time.Duration{}
		e.views[s.ID] = v
	}
	v.Since, v.Opened = e.young(s.ID, now)
	if at, ok := e.asked[s.ID]; ok {
		v.Asked = max(clock.Shorter(at, now), 1)
	}
	for voter, h := range e.ages[s.ID] {
		v.Told[voter] = clock.Shorter(h.at, now)
		v.Ages[voter] = h.age + v.Told[voter]
	}
	if closing := e.closings[s.ID]; closing != nil {
		v.Due, v.DueKnown = closing.Due(c, now)
	}
	return v
}

// young tells how long a session has been known that was opened under this leadership.
func (e *evidence) young(session uint64, now clock.Reading) (since time.Duration, opened bool) {
	if session <= e.first {
		return 0, false
	}
	at, ok := e.opened[session]
	if !ok {
		at = now
		e.opened[session] = now
	}
	return clock.Shorter(at, now), true
}

const askAgain = 15 * ms

func (e *evidence) mayAsk(session uint64, now clock.Reading) bool {
	if last, ok := e.asked[session]; ok && clock.Shorter(last, now) < askAgain {
		return false
	}
	e.asked[session] = now
	return true
}

func (e *evidence) movesView(now clock.Reading) map[string]decide.Preparation {
	if len(e.moves) == 0 {
		return nil
	}
	out := map[string]decide.Preparation{}
	for name, m := range e.moves {
		out[name] = decide.Preparation{To: m.to, Done: m.done, Failed: m.failed, Waited: clock.Shorter(m.since, now)}
	}
	return out
}

func (e *evidence) beginMove(service, to string, now clock.Reading) bool {
	if m := e.moves[service]; m != nil && m.to == to {
		return false
	}
	e.moves[service] = &move{to: to, since: now}
	return true
}

func (e *evidence) endMove(service, to, failed string) {
	if m := e.moves[service]; m != nil && m.to == to {
		m.done, m.failed = failed == "", failed
	}
}

// prune forgets what no longer concerns the state.
func (e *evidence) prune(st *state.State, keep []string) {
	gone := func(id uint64) bool {
		s := st.Sessions[id]
		return s == nil || s.Status == state.SessionEnded
	}
	for id := range e.opened {
		if gone(id) {
			delete(e.opened, id)
		}
	}
	for id := range e.asked {
		if gone(id) {
			delete(e.asked, id)
		}
	}
	for id := range e.ages {
		if gone(id) {
			delete(e.ages, id)
			delete(e.views, id)
			delete(e.closings, id)
			delete(e.goodbyes, id)
		}
	}
	for name := range e.moves {
		if !slices.Contains(keep, name) {
			delete(e.moves, name)
		}
	}
}

// pausesView counts each pause from when this leader first saw it.
func (e *evidence) pausesView(st *state.State, now clock.Reading) map[uint64]decide.PauseView {
	var out map[uint64]decide.PauseView
	count := func(m *state.Mark) {
		if m == nil {
			return
		}
		if _, ok := e.pauses[m.Index]; !ok {
			e.pauses[m.Index] = now
		}
		if out == nil {
			out = map[uint64]decide.PauseView{}
		}
		out[m.Index] = decide.PauseView{Counted: clock.Shorter(e.pauses[m.Index], now)}
	}
	count(st.Paused)
	for _, svc := range st.Services {
		count(svc.Paused)
	}
	for index := range e.pauses {
		if _, ok := out[index]; !ok {
			delete(e.pauses, index)
		}
	}
	return out
}
