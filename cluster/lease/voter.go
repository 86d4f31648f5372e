package lease

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/state"
)

// ErrBackwards is Restore's refusal of a snapshot older than what was applied.
var ErrBackwards = errors.New("snapshot is older than what this process has applied")

// Reason is why a voter did not say OK to a renewal.
type Reason uint8

// The reasons of a voter. The values go over the wire and never change their meaning.
const (
	ReasonNone          Reason = 0 // it said OK
	ReasonNotReady      Reason = 1 // has not applied the record of its own start yet
	ReasonUnknown       Reason = 2 // has not applied the entry that opens the session
	ReasonClosing       Reason = 3 // the session is closing: it will end
	ReasonEnded         Reason = 4 // the session has ended, or never was
	ReasonConfiguration Reason = 5 // the request is for another configuration than the voter's latest
	ReasonNotVoter      Reason = 6 // no voter in its own latest configuration
)

// String says the reason in words.
func (r Reason) String() string {
	switch r {
	case ReasonNone:
		return "none"
	case ReasonNotReady:
		return "the voter has not caught up since its start"
	case ReasonUnknown:
		return "the voter does not know the session"
	case ReasonClosing:
		return "the session is closing"
	case ReasonEnded:
		return "the session has ended"
	case ReasonConfiguration:
		return "the voter has another configuration of voters"
	case ReasonNotVoter:
		return "the node asked is not a voter"
	}
	return fmt.Sprintf("reason %d, of a newer version", uint8(r))
}

// Standing is what a voter can vouch for about a session. The values go over the wire.
type Standing uint8

// The standings. Only with the last two does the age mean anything.
const (
	// StandingNone: it cannot tell, being not ready or no voter in its own latest
	// configuration, or not knowing the session, or knowing that it has ended.
	StandingNone Standing = 0
	// StandingOpen: the session is open as far as it has applied; it may still be renewed.
	StandingOpen Standing = 1
	// StandingClosed: it has applied the close; it will never say OK again.
	StandingClosed Standing = 2
)

// String names the standing.
func (s Standing) String() string {
	switch s {
	case StandingOpen:
		return "open"
	case StandingClosed:
		return "closed"
	}
	return "cannot tell"
}

// Voter owns the replicated state of a node and answers for it. Applying,
// restoring, checking and noting a renewal, and computing an age happen under
// one lock: between a check that a session is open and the note of its renewal
// no close can be applied. Methods may be called from any goroutine.
//
// A node that does not vote has a Voter too; it never says OK.
type Voter struct {
	self   string
	nonce  uint64
	clk    clock.Clock
	config func() Configuration
	start  clock.Reading

	mu      sync.Mutex
	st      *state.State
	view    *state.State // copy of st for readers; nil when st has changed since
	renewed map[uint64]clock.Reading
	changed chan struct{}
}

// NewVoter begins with an empty state. Call it after the data directory's lock
// is taken: every session without a note counts as renewed at the time of this
// call, so that no process that said OK before can be alive any more. Nonce is
// drawn anew at each start and is not zero; the voter is ready once its state
// has it. Config returns the latest configuration that raft has, even
// uncommitted; it is called under the lock and must neither block, nor allocate,
// nor call the Voter.
func NewVoter(self string, nonce uint64, clk clock.Clock, config func() Configuration) *Voter {
	return &Voter{
		self: self, nonce: nonce, clk: clk, config: config,
		start:   clk.Now(),
		st:      state.New(),
		renewed: make(map[uint64]clock.Reading),
		changed: make(chan struct{}, 1),
	}
}

// Apply carries out a committed entry. An entry at or below the index that has
// been applied is refused without an effect: a state machine never goes back.
func (v *Voter) Apply(index, term uint64, cmd state.Command) state.Result {
	v.mu.Lock()
	defer v.mu.Unlock()
	if index <= v.st.Index {
		return state.Result{Index: index, Refused: &state.Refusal{
			Code: "already-applied",
			Why:  fmt.Sprintf("entry %d comes after entry %d was applied; restart the daemon if this repeats", index, v.st.Index),
		}}
	}
	res := v.st.Apply(index, term, cmd)
	v.afterChange()
	return res
}

// Restore replaces the state by a snapshot's, of which it keeps a copy. A
// snapshot with an index below what this process has applied is refused with
// ErrBackwards before anything is changed: it could reopen a session that was
// closed, and raft 1.8 does hand on such late snapshots (R9). The notes of
// renewals stay: they belong to this process, not to the state.
func (v *Voter) Restore(st *state.State) error {
	if st == nil {
		return errors.New("restore snapshot: it has no state")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if st.Index < v.st.Index {
		return fmt.Errorf("restore snapshot of index %d over %d: %w", st.Index, v.st.Index, ErrBackwards)
	}
	v.st = st.Clone()
	v.afterChange()
	return nil
}

// afterChange drops what no longer holds. The note of an ended session goes, as
// nothing is ever answered for one. A session that the state has forgotten keeps
// its note: that it ended would be a guess.
func (v *Voter) afterChange() {
	v.view = nil
	for id := range v.renewed {
		if s := v.st.Sessions[id]; s != nil && s.Status == state.SessionEnded {
			delete(v.renewed, id)
		}
	}
	select {
	case v.changed <- struct{}{}:
	default: // one is waiting to be read already
	}
}

// View returns the state as it is now. It is shared by all readers until the
// next change and must not be modified.
func (v *Voter) View() *state.State {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.view == nil {
		v.view = v.st.Clone()
	}
	return v.view
}

// Snapshot returns what is to be saved: the same as View. No renewal is part of
// it: after a restart every session counts as renewed at the start.
func (v *Voter) Snapshot() *state.State { return v.View() }

// Changed returns a channel with room for one value, which is sent after the
// state has changed. Changes that nobody has read of yet are told of once: read
// it, then look at View. It has one reader.
func (v *Voter) Changed() <-chan struct{} { return v.changed }

// Ready reports whether this process may count as a voter: its state holds the
// nonce of its own start, so it has applied everything that was committed
// before that start was recorded.
func (v *Voter) Ready() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ready()
}

func (v *Voter) ready() bool {
	n := v.st.Nodes[v.self]
	return n != nil && v.nonce != 0 && n.Started == v.nonce
}

// Renew checks a request to renew a session, made for the configuration with
// the given ID, and notes the renewal when it is granted. The answer may be sent
// at any time later. Nothing is allocated but the note of a session's first renewal.
func (v *Voter) Renew(session, configID uint64) (ok bool, why Reason) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.ready() {
		return false, ReasonNotReady
	}
	s := v.st.Sessions[session]
	if s == nil {
		// A session's number is the index of the entry that opens it: what has been
		// applied past that and is not here was there and has been forgotten.
		if session <= v.st.Index {
			return false, ReasonEnded
		}
		return false, ReasonUnknown
	}
	switch s.Status {
	case state.SessionOpen:
	case state.SessionClosing:
		return false, ReasonClosing
	default:
		return false, ReasonEnded
	}
	c := v.config()
	if !c.Has(v.self) {
		return false, ReasonNotVoter
	}
	if c.ID != configID {
		return false, ReasonConfiguration
	}
	v.renewed[session] = v.clk.Now()
	return true, ReasonNone
}

// Age returns how long ago this voter last said OK to a session, counted
// shorter; for one without a note, how long ago this process started. The
// standing says whether the answer may be given: to Ages with StandingOpen or
// StandingClosed, to ConfirmClosed with StandingClosed alone.
func (v *Voter) Age(session uint64) (age time.Duration, a Standing) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.st.Sessions[session]
	if s == nil || !v.ready() || !v.config().Has(v.self) {
		return 0, StandingNone
	}
	switch s.Status {
	case state.SessionOpen:
		a = StandingOpen
	case state.SessionClosing:
		a = StandingClosed
	default:
		return 0, StandingNone
	}
	last, noted := v.renewed[session]
	if !noted {
		last = v.start
	}
	return max(clock.Shorter(last, v.clk.Now()), 0), a
}
