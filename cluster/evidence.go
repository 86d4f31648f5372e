package cluster

import (
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// evidence is all that a leader remembers between two looks. It is made with
// a leadership and thrown away with it: a new leader asks again.
type evidence struct {
	term  uint64
	first uint64 // index of the state when the leadership began

	mu       sync.Mutex
	opened   map[uint64]clock.Reading // sessions of this leadership: when first seen
	answered map[string]clock.Reading // voters: when each last answered
	asked    map[uint64]clock.Reading // sessions: when the voters were last asked
	ages     map[uint64]map[string]heard
	closings map[uint64]*lease.Closing
	goodbyes map[uint64]bool
	moves    map[string]*move
	pauses   map[uint64]clock.Reading // when the mark was first seen
	unable   map[string]map[string]string
}

// heard is an age as told by a voter and when the answer arrived.
type heard struct {
	age time.Duration
	at  clock.Reading
}

// move is the preparation of a candidate for one service.
type move struct {
	to     string
	since  clock.Reading
	done   bool
	failed string
}

func newEvidence(term, first uint64) *evidence {
	return &evidence{
		term: term, first: first,
		opened:   map[uint64]clock.Reading{},
		asked:    map[uint64]clock.Reading{},
		answered: map[string]clock.Reading{},
		ages:     map[uint64]map[string]heard{},
		closings: map[uint64]*lease.Closing{},
		goodbyes: map[uint64]bool{},
		moves:    map[string]*move{},
		pauses:   map[uint64]clock.Reading{},
		unable:   map[string]map[string]string{},
	}
}

// heardAge notes what a voter told of a session. Only an answer that the voter
// gave with the close applied counts as a bound for the session's end.
func (e *evidence) heardAge(s *state.Session, voter string, age time.Duration, closed bool, at clock.Reading) {
	e.mu.Lock()
	defer e.mu.Unlock()
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

func (e *evidence) goodbye(session uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.goodbyes[session] = true
}

// sessionView is the evidence about one session as of now.
func (e *evidence) sessionView(s *state.Session, c lease.Configuration, now clock.Reading) decide.SessionView {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := decide.SessionView{Ages: map[string]time.Duration{}, Told: map[string]time.Duration{}, Goodbye: e.goodbyes[s.ID]}
	v.Since, v.Opened = e.young(s.ID, now)
	for voter, h := range e.ages[s.ID] {
		v.Told[voter] = clock.Shorter(h.at, now)
		v.Ages[voter] = h.age + v.Told[voter]
	}
	if closing := e.closings[s.ID]; closing != nil {
		v.Due, v.DueKnown = closing.Due(c, now)
	}
	return v
}

// young is how long a session that was opened under this leadership has been
// known: a voter without a note of it counts from its own start, and a node that
// has just opened it had no time yet to renew.
func (e *evidence) young(session uint64, now clock.Reading) (since time.Duration, opened bool) {
	if session <= e.first {
		return 0, false
	}
	first, ok := e.opened[session]
	if !ok {
		first = now
		e.opened[session] = now
	}
	return clock.Shorter(first, now), true
}

// askAgain is the least time between two rounds of the same question.
const askAgain = 15 * time.Millisecond

// mayAsk reports whether the voters should be asked about a session now.
func (e *evidence) mayAsk(session uint64, now clock.Reading) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if last, ok := e.asked[session]; ok && clock.Shorter(last, now) < askAgain {
		return false
	}
	e.asked[session] = now
	return true
}

// movesView is how far each preparation is.
func (e *evidence) movesView(now clock.Reading) map[string]decide.Preparation {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]decide.Preparation{}
	for name, m := range e.moves {
		out[name] = decide.Preparation{To: m.to, Done: m.done, Failed: m.failed, Waited: clock.Shorter(m.since, now)}
	}
	return out
}

// beginMove notes that a candidate was asked to prepare; false when it has
// been asked already.
func (e *evidence) beginMove(service, to string, now clock.Reading) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.moves[service]; m != nil && m.to == to {
		return false
	}
	e.moves[service] = &move{to: to, since: now}
	return true
}

// endMove notes the candidate's answer.
func (e *evidence) endMove(service, to, failed string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.moves[service]; m != nil && m.to == to {
		m.done, m.failed = failed == "", failed
	}
}

// prune forgets what no longer concerns the state: sessions that are gone, and
// preparations that were used or given up.
func (e *evidence) prune(st *state.State, keep map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.opened {
		if s := st.Sessions[id]; s == nil || s.Status == state.SessionEnded {
			delete(e.opened, id)
		}
	}
	for id := range e.asked {
		if s := st.Sessions[id]; s == nil || s.Status == state.SessionEnded {
			delete(e.asked, id)
		}
	}
	for id := range e.ages {
		if s := st.Sessions[id]; s == nil || s.Status == state.SessionEnded {
			delete(e.ages, id)
			delete(e.closings, id)
			delete(e.goodbyes, id)
		}
	}
	for name := range e.moves {
		if !keep[name] {
			delete(e.moves, name)
		}
	}
}

// pausesView counts each pause from when this leader first saw it.
func (e *evidence) pausesView(st *state.State, now clock.Reading) map[uint64]decide.PauseView {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[uint64]decide.PauseView{}
	count := func(m *state.Mark) {
		if m == nil {
			return
		}
		if _, ok := e.pauses[m.Index]; !ok {
			e.pauses[m.Index] = now
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
