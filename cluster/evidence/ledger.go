// Package evidence is what a leader remembers between two looks: what the voters
// told of each session, how far each prepared move is, since when a pause is
// known, and since when nobody answers. It is made with a leadership and thrown
// away with it: a new leader asks again (LEASE.md 7).
//
// It asks nobody and decides nothing. The node fills it and shows it to package
// decide, and so does the simulation, which thereby runs what the node runs.
package evidence

import (
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// Ledger is the memory of one leadership. Its methods may be called from any
// goroutine. All readings are of this node's own clock.
type Ledger struct {
	term  uint64
	first uint64 // index of the state when the leadership began
	begun clock.Reading

	mu       sync.Mutex
	answered map[string]clock.Reading // voters: when each last answered
	sessions map[uint64]*told
	moves    map[string]*move
	pauses   map[uint64]clock.Reading // when the mark was first seen
	starts   map[string]seen          // by service
	deaf     *clock.Reading           // since when no majority answers
}

// told is what is known of one session.
type told struct {
	opened  *clock.Reading // of this leadership: when it was first seen
	asked   *clock.Reading // when the voters were last asked
	ages    map[string]heard
	closing *lease.Closing
	goodbye bool
}

// heard is an age as told by a voter.
type heard struct {
	age   time.Duration
	asked clock.Reading // when the question was sent that it answers
	at    clock.Reading // when the answer was received
}

// move is the preparation of a candidate for one service.
type move struct {
	to     string
	since  clock.Reading
	done   bool
	failed string
}

// New begins the memory of the leadership of a term. First is the index that this
// node's state had then.
func New(term, first uint64, now clock.Reading) *Ledger {
	return &Ledger{
		term: term, first: first, begun: now,
		answered: map[string]clock.Reading{}, sessions: map[uint64]*told{},
		moves: map[string]*move{}, pauses: map[uint64]clock.Reading{}, starts: map[string]seen{},
	}
}

func (l *Ledger) told(session uint64) *told {
	t := l.sessions[session]
	if t == nil {
		t = &told{ages: map[string]heard{}}
		l.sessions[session] = t
	}
	return t
}

// HeardAge notes a voter's answer to a question that was sent at asked and
// answered at at. An answer to a question of an earlier leadership counts for
// nothing. One that was overtaken by the answer to a later question does not take
// its place: a renewal that is known would be forgotten. Only an answer that the
// voter gave with the close applied counts as a bound for the session's end;
// of these each is true by itself.
func (l *Ledger) HeardAge(s *state.Session, voter string, age time.Duration, closed bool, asked, at clock.Reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before(asked, l.begun) {
		return
	}
	if last, ok := l.answered[voter]; !ok || before(last, at) {
		l.answered[voter] = at
	}
	t := l.told(s.ID)
	if last, ok := t.ages[voter]; !ok || !before(asked, last.asked) {
		t.ages[voter] = heard{age: age, asked: asked, at: at}
	}
	if !closed || s.Status != state.SessionClosing {
		return
	}
	if t.closing == nil {
		t.closing = lease.NewClosing(s.ID, s.TTL, s.Kappa, l.term)
	}
	t.closing.Answer(voter, age, at)
}

// before reports whether a was surely read before b on the same machine.
func before(a, b clock.Reading) bool { return clock.Longer(a, b) > 0 }

// Goodbye notes that a session's node said that everything on it is stopped.
func (l *Ledger) Goodbye(session uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told(session).goodbye = true
}

// Session is the evidence about one session as of now. The maps of room are used
// again for it, if it has any.
func (l *Ledger) Session(s *state.Session, c lease.Configuration, now clock.Reading, room decide.SessionView) decide.SessionView {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.told(s.ID)
	v := decide.SessionView{Ages: room.Ages, Told: room.Told, Goodbye: t.goodbye}
	if v.Ages == nil || v.Told == nil {
		v.Ages, v.Told = make(map[string]time.Duration, len(c.Voters)), make(map[string]time.Duration, len(c.Voters))
	}
	clear(v.Ages)
	clear(v.Told)
	if t.asked != nil {
		v.Asked = max(clock.Shorter(*t.asked, now), 1) // 0 is never
	}
	// A voter without a note of a session counts from its own start, and a node
	// that has just opened one had no time yet to renew.
	if v.Opened = s.ID > l.first; v.Opened {
		if t.opened == nil {
			t.opened = &now
		}
		v.Since = clock.Shorter(*t.opened, now)
	}
	for voter, h := range t.ages {
		v.Told[voter] = clock.Shorter(h.at, now)
		v.Ages[voter] = h.age + v.Told[voter]
	}
	if t.closing != nil {
		v.Due, v.DueKnown = t.closing.Due(c, now)
	}
	return v
}

// askAgain is the least time between two rounds of the same question.
const askAgain = 15 * time.Millisecond

// MayAsk reports whether the voters should be asked about a session now, and
// notes that they are.
func (l *Ledger) MayAsk(session uint64, now clock.Reading) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.told(session)
	if t.asked != nil && clock.Shorter(*t.asked, now) < askAgain {
		return false
	}
	t.asked = &now
	return true
}

// Moves is how far each preparation is.
func (l *Ledger) Moves(now clock.Reading) map[string]decide.Preparation {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.moves) == 0 {
		return nil
	}
	out := map[string]decide.Preparation{}
	for name, m := range l.moves {
		out[name] = decide.Preparation{To: m.to, Done: m.done, Failed: m.failed, Waited: clock.Shorter(m.since, now)}
	}
	return out
}

// BeginMove notes that a candidate is asked to prepare; false when it has been
// asked already.
func (l *Ledger) BeginMove(service, to string, now clock.Reading) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.moves[service]; m != nil && m.to == to {
		return false
	}
	l.moves[service] = &move{to: to, since: now}
	return true
}

// EndMove notes the candidate's answer; failed is empty when it has prepared.
func (l *Ledger) EndMove(service, to, failed string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.moves[service]; m != nil && m.to == to {
		m.done, m.failed = failed == "", failed
	}
}

// Pauses counts each pause from when this leader first saw it.
func (l *Ledger) Pauses(st *state.State, now clock.Reading) map[uint64]decide.PauseView {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out map[uint64]decide.PauseView
	count := func(m *state.Mark) {
		if m == nil {
			return
		}
		if _, ok := l.pauses[m.Index]; !ok {
			l.pauses[m.Index] = now
		}
		if out == nil {
			out = map[uint64]decide.PauseView{}
		}
		out[m.Index] = decide.PauseView{Counted: clock.Shorter(l.pauses[m.Index], now)}
	}
	count(st.Paused)
	for _, svc := range st.Services {
		count(svc.Paused)
	}
	for index := range l.pauses {
		if _, ok := out[index]; !ok {
			delete(l.pauses, index)
		}
	}
	return out
}

// Prune forgets what no longer concerns the state: sessions that are gone, and
// preparations of services that are not in keep.
func (l *Ledger) Prune(st *state.State, keep map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.sessions {
		// What is not in a state that does not reach that far is not gone.
		if s := st.Sessions[id]; s == nil && id <= st.Index || s != nil && s.Status == state.SessionEnded {
			delete(l.sessions, id)
		}
	}
	for name := range l.moves {
		if !keep[name] {
			delete(l.moves, name)
		}
	}
	for name := range l.starts {
		if st.Services[name] == nil {
			delete(l.starts, name)
		}
	}
}
