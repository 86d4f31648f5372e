package lease

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/clock/clocktest"
	"github.com/failoverd/failoverd/cluster/state"
)

// replica is a Voter with a log of its own, on a clock that the test moves.
type replica struct {
	*Voter
	t    *testing.T
	clk  *clocktest.Manual
	conf Configuration
	log  []state.Command
}

// newReplica has nodes a, b and c, and has not recorded its own start.
func newReplica(t *testing.T, nonce uint64) *replica {
	t.Helper()
	r := &replica{t: t, clk: clocktest.New(at(time.Hour)), conf: NewConfiguration([]string{"a", "b", "c"})}
	r.Voter = NewVoter("a", nonce, r.clk, func() Configuration { return r.conf })
	r.must(state.Found{ID: "cluster", Key: make([]byte, 32)})
	for i, n := range []string{"a", "b", "c"} {
		r.must(state.SetNode{Node: n, Role: state.RoleVoter, Address: "192.0.2." + string(rune('1'+i)) + ":7100"})
	}
	return r
}

func (r *replica) must(cmd state.Command) state.Result {
	r.t.Helper()
	r.log = append(r.log, cmd)
	res := r.Apply(uint64(len(r.log)), 1, cmd)
	if res.Refused != nil {
		r.t.Fatalf("%s: %v", cmd.Kind(), res.Refused)
	}
	return res
}

func (r *replica) started(nonce uint64) {
	r.t.Helper()
	r.must(state.Started{Node: "a", Nonce: nonce, Birth: "birth", BootID: "boot"})
}

func (r *replica) open() uint64 {
	r.t.Helper()
	return r.must(state.OpenSession{Node: "b", BootID: "boot", TTL: time.Second, Kappa: 50 * ms, Replaces: r.View().Nodes["b"].Session}).Session
}

func (r *replica) want(session, config uint64, why Reason) {
	r.t.Helper()
	ok, got := r.Renew(session, config)
	if got != why || ok != (why == ReasonNone) {
		r.t.Errorf("renew: %v, %q; want %q", ok, got, why)
	}
}

func TestRenewIsRefusedWithTheReason(t *testing.T) {
	r := newReplica(t, 42)
	s := r.open()
	r.want(s, r.conf.ID, ReasonNotReady)
	r.started(41) // an earlier start
	r.want(s, r.conf.ID, ReasonNotReady)
	if r.Ready() {
		t.Error("ready by the nonce of an earlier start")
	}
	r.started(42)
	if !r.Ready() {
		t.Error("not ready with its own nonce")
	}
	r.want(s, r.conf.ID, ReasonNone)
	r.want(s+100, r.conf.ID, ReasonUnknown)
	r.want(1, r.conf.ID, ReasonEnded) // not above what is applied, and not there
	r.want(s, r.conf.ID+1, ReasonConfiguration)

	// The latest configuration counts, whatever was applied when.
	old := r.conf
	r.conf = NewConfiguration([]string{"a", "b", "c", "d"})
	r.want(s, old.ID, ReasonConfiguration)
	r.want(s, r.conf.ID, ReasonNone)
	r.conf = NewConfiguration([]string{"b", "c", "d"})
	r.want(s, r.conf.ID, ReasonNotVoter)
	if _, a := r.Age(s); a != StandingNone {
		t.Errorf("a node that is no voter answers %v", a)
	}
	r.conf = old

	r.must(state.CloseSession{Session: s})
	r.want(s, r.conf.ID, ReasonClosing)
	r.must(state.EndSession{Session: s, Proof: state.ProofExpired, Term: 1})
	r.want(s, r.conf.ID, ReasonEnded)
	r.open() // and forgotten
	if r.View().Sessions[s] != nil {
		t.Fatal("the ended session is kept, this test is for one that is not")
	}
	r.want(s, r.conf.ID, ReasonEnded)
	r.started(43) // a second daemon of this name, or a later start
	r.want(s, r.conf.ID, ReasonNotReady)
}

func TestANonceOfZeroIsNeverReady(t *testing.T) {
	r := newReplica(t, 0)
	if r.Ready() {
		t.Error("ready without a nonce")
	}
}

func TestAge(t *testing.T) {
	r := newReplica(t, 42)
	s := r.open()
	type answer struct {
		Age      time.Duration
		Standing Standing
	}
	check := func(what string, want answer) {
		t.Helper()
		age, a := r.Age(s)
		if diff := cmp.Diff(want, answer{age, a}); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
	r.clk.Advance(300 * ms)
	check("not ready", answer{0, StandingNone})
	r.started(42)
	check("never renewed: since the process began", answer{300 * ms, StandingOpen})
	r.want(s, r.conf.ID, ReasonNone)
	check("just renewed", answer{0, StandingOpen})
	r.clk.Move(500*ms, 200*ms)
	check("the shorter time", answer{200 * ms, StandingOpen})
	r.must(state.CloseSession{Session: s})
	r.want(s, r.conf.ID, ReasonClosing) // and notes nothing
	check("closed", answer{200 * ms, StandingClosed})
	r.clk.Suspend(time.Hour)
	check("suspended: the other clock stood still", answer{200 * ms, StandingClosed})
	r.clk.Advance(time.Second)
	check("later", answer{1200 * ms, StandingClosed})
	r.must(state.EndSession{Session: s, Proof: state.ProofExpired, Term: 1})
	check("ended", answer{0, StandingNone})
	s = 1000
	check("unknown", answer{0, StandingNone})
}

func TestRestoreNeverGoesBack(t *testing.T) {
	r := newReplica(t, 42)
	r.started(42)
	s := r.open()
	early := r.Snapshot()
	r.want(s, r.conf.ID, ReasonNone)
	r.clk.Advance(100 * ms)
	r.must(state.CloseSession{Session: s})
	late := r.Snapshot()

	before := r.View()
	if err := r.Restore(early); !errors.Is(err, ErrBackwards) {
		t.Fatalf("restore of an older snapshot: %v", err)
	}
	if diff := cmp.Diff(before, r.View()); diff != "" {
		t.Errorf("a refused snapshot has changed the state:\n%s", diff)
	}
	r.want(s, r.conf.ID, ReasonClosing)
	if err := r.Restore(late); err != nil {
		t.Errorf("restore of the same index: %v", err)
	}
	if err := r.Restore(nil); err == nil {
		t.Error("restore of nothing")
	}
	// The note of the renewal is not in the snapshot and is still there.
	if age, a := r.Age(s); age != 100*ms || a != StandingClosed {
		t.Errorf("after a restore: age %v, %v", age, a)
	}

	// A new process restores the same: ready by the nonce that is in it only if it
	// is its own, and without any note.
	clk := clocktest.New(at(2 * time.Hour))
	for nonce, ready := range map[uint64]bool{42: true, 43: false} {
		v := NewVoter("a", nonce, clk, func() Configuration { return r.conf })
		clk.Advance(time.Second)
		if err := v.Restore(late); err != nil {
			t.Fatal(err)
		}
		if v.Ready() != ready {
			t.Errorf("nonce %d is ready: %v", nonce, v.Ready())
		}
		if age, _ := v.Age(s); ready && age != time.Second {
			t.Errorf("age %v, want that of the process", age)
		}
	}
	// What was given to Restore is not kept.
	v := NewVoter("a", 42, clk, func() Configuration { return r.conf })
	mine := late.Clone()
	if err := v.Restore(mine); err != nil {
		t.Fatal(err)
	}
	delete(mine.Sessions, s)
	if ok, why := v.Renew(s, r.conf.ID); ok || why != ReasonClosing {
		t.Errorf("renew: %v, %v", ok, why)
	}
}

func TestApplyNeverGoesBack(t *testing.T) {
	r := newReplica(t, 42)
	r.started(42)
	s := r.open()
	r.must(state.CloseSession{Session: s})
	before := r.View()
	for index := range uint64(len(r.log)) + 1 {
		if res := r.Apply(index, 9, state.SetPause{On: true}); res.Refused == nil {
			t.Errorf("entry %d was applied again", index)
		}
	}
	if diff := cmp.Diff(before, r.View()); diff != "" {
		t.Error(diff)
	}
}

func TestViewIsSharedUntilTheNextChange(t *testing.T) {
	r := newReplica(t, 42)
	v := r.View()
	if r.View() != v || r.Snapshot() != v {
		t.Error("a view is copied though nothing has changed")
	}
	s := r.open()
	if v.Sessions[s] != nil {
		t.Error("a view has changed under its reader")
	}
	if r.View().Sessions[s] == nil {
		t.Error("a view does not show the change")
	}
}

func TestChangedTellsOfManyChangesOnce(t *testing.T) {
	r := newReplica(t, 42)
	select {
	case <-r.Changed():
	default:
		t.Fatal("nothing was told")
	}
	select {
	case <-r.Changed():
		t.Fatal("told twice")
	default:
	}
	if err := r.Restore(r.Snapshot()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.Changed():
	default:
		t.Error("a restore was not told")
	}
}

func TestRenewAllocatesNothing(t *testing.T) {
	r := newReplica(t, 42)
	r.started(42)
	s := r.open()
	if n := testing.AllocsPerRun(100, func() { r.Renew(s, r.conf.ID) }); n != 0 {
		t.Errorf("%v allocations per renewal", n)
	}
	if n := testing.AllocsPerRun(100, func() { r.Renew(s, 1); r.Age(s); r.Renew(s+9, r.conf.ID) }); n != 0 {
		t.Errorf("%v allocations per refusal and age", n)
	}
}

func TestNotesOfEndedSessionsAreDropped(t *testing.T) {
	r := newReplica(t, 42)
	r.started(42)
	for range 50 {
		s := r.open()
		r.want(s, r.conf.ID, ReasonNone)
		r.must(state.CloseSession{Session: s})
		r.must(state.EndSession{Session: s, Proof: state.ProofExpired, Term: 1})
	}
	if n := len(r.renewed); n != 0 {
		t.Errorf("%d notes of ended sessions", n)
	}
}

// slowClock stops each reader until it is let go, so that a test can look at
// what happens between the check of a renewal and its note.
type slowClock struct {
	clock.Clock
	entered, release chan struct{}
}

func (c *slowClock) Now() clock.Reading {
	c.entered <- struct{}{}
	<-c.release
	return c.Clock.Now()
}

// Between the check that a session is open and the note of its renewal no close
// is applied: else the age told of a closed session could be from before it.
func TestCheckAndNoteAreOneStep(t *testing.T) {
	r := newReplica(t, 42)
	r.started(42)
	s := r.open()
	slow := &slowClock{Clock: r.clk, entered: make(chan struct{}, 1), release: make(chan struct{})}
	r.Voter.clk = slow
	var wg sync.WaitGroup
	wg.Go(func() { r.Renew(s, r.conf.ID) })
	<-slow.entered // checked, not noted yet
	if r.mu.TryLock() {
		r.mu.Unlock()
		t.Error("an entry could be applied between the check and the note")
	}
	close(slow.release)
	wg.Wait()
}
