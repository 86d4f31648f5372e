package cluster

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/clock/clocktest"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/evidence"
	"github.com/failoverd/failoverd/cluster/journal"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// bench is a node of which nothing runs, with parts that write down in which
// order they were used and can be told to fail.
type bench struct {
	*Node
	clk     *clocktest.Manual
	journal *journal.Journal

	mu    sync.Mutex
	did   []string
	fails map[string]bool
	until clock.Reading
	held  bool
	// armed is called when the resource is armed.
	armed func()
}

func newBench(t *testing.T) *bench {
	t.Helper()
	j, err := journal.Open(t.TempDir(), "boot")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{clk: clocktest.New(clock.Reading{Boot: time.Hour, Raw: time.Hour}), journal: j, fails: map[string]bool{}}
	voter := lease.NewVoter("a", 1, b.clk, func() lease.Configuration { return lease.NewConfiguration([]string{"a"}) })
	for i, cmd := range []state.Command{
		state.SetNode{Node: "a", Role: state.RoleVoter, Address: "192.0.2.1:7400"},
		state.SetNode{Node: "b", Role: state.RoleVoter, Address: "192.0.2.2:7400"},
		state.OpenSession{Node: "a", BootID: "boot", TTL: time.Second, Kappa: time.Millisecond},
	} {
		if res := voter.Apply(uint64(i+1), 1, cmd); res.Refused != nil {
			t.Fatal(res.Refused)
		}
	}
	b.Node = NewNode(Options{
		Self: "a", BootID: "boot", TTL: time.Second, Kappa: time.Millisecond, Clock: b.clk, Voter: voter, Journal: j,
		Renewals: b, Guard: b, Builder: b, Peers: b, VoterAddr: func(a string) string { return a }, Log: testLog("a"),
	})
	b.Attach(benchLog{})
	t.Cleanup(func() {
		b.Close()
		b.wg.Wait()
		_ = j.Close() // some tests have closed it
	})
	return b
}

// benchLog is a log that takes nothing; only its list of servers is asked for.
type benchLog struct{ Consensus }

func (benchLog) Leader() (string, string) { return "", "" }
func (benchLog) Servers() []Server {
	return []Server{{Name: "a", Address: "192.0.2.1:7400", Votes: true}}
}

func (b *bench) do(what string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.did = append(b.did, what)
	if b.fails[what] {
		return errors.New("for the test")
	}
	return nil
}

func (b *bench) deeds() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.did)
}

func (b *bench) Extend(clock.Reading) error { return b.do("guard") }
func (b *bench) Use(uint64) error           { return b.do("use") }
func (b *bench) Alive() bool                { return true }

func (b *bench) Hold(session uint64, _ time.Duration) {
	what := "hold"
	if s, ok := b.journal.Session(); !ok || s.ID != session {
		what = "hold unjournaled"
	}
	_ = b.do(what)
}
func (b *bench) Drop() { _ = b.do("drop") }
func (b *bench) Until() (clock.Reading, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.until, b.held
}
func (b *bench) Left() time.Duration {
	until, held := b.Until()
	if !held {
		return 0
	}
	return clock.Left(b.clk.Now(), until)
}
func (*bench) AskAges(uint64)       {}
func (*bench) ConfirmClosed(uint64) {}

func (b *bench) Peer(string) (Peer, error)         { return nil, cmp.Or(b.do("tell"), errors.New("nobody")) }
func (b *bench) Operator(string) (Operator, error) { return nil, errors.New("nobody") }

func (b *bench) Build(state.Spec, Origin) ([]Resource, error) {
	return []Resource{benchResource{b}}, b.do("build")
}
func (*bench) Able(state.Spec) error { return nil }

type benchResource struct{ b *bench }

func (r benchResource) Name() string { return "r" }
func (r benchResource) Arm(clock.Reading) error {
	if r.b.armed != nil {
		r.b.armed()
	}
	return r.b.do("arm")
}
func (r benchResource) Start(context.Context, uint64) error { return r.b.do("start") }
func (r benchResource) Stop(context.Context) error          { return r.b.do("stop") }
func (r benchResource) Running(context.Context) (bool, error) {
	return true, nil
}

// lease gives the node a lease of a second.
func (b *bench) lease() clock.Reading {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until, b.held = b.clk.Now().Add(time.Second), true
	return b.until
}

// holds gives the node a service in that phase.
func (b *bench) holds(phase decide.Phase) *unit {
	u := b.unit("erp")
	u.mu.Lock()
	defer u.mu.Unlock()
	u.epoch, u.resources = 1, []Resource{benchResource{b}}
	u.setPhase(phase)
	return u
}

func expect(t *testing.T, b *bench, want ...string) {
	t.Helper()
	if got := b.deeds(); !slices.Equal(got, want) {
		t.Errorf("did %v, want %v", got, want)
	}
}

// LEASE.md, enforcement: the guard first, then the kernel's gates.
func TestTheGuardIsToldBeforeAnythingIsArmed(t *testing.T) {
	b := newBench(t)
	b.holds(decide.PhaseRunning)
	b.Extended(b.lease())
	expect(t, b, "guard", "arm")
}

func TestNothingIsArmedThatTheGuardDoesNotKnowOf(t *testing.T) {
	b := newBench(t)
	b.holds(decide.PhaseRunning)
	b.fails["guard"] = true
	b.Extended(b.lease())
	expect(t, b, "guard")
}

// A deadline of a session that was replaced since is nobody's any more.
func TestADeadlineOfAnotherSessionIsNotTold(t *testing.T) {
	b := newBench(t)
	b.holds(decide.PhaseRunning)
	late := b.lease()
	b.mu.Lock()
	b.held = false // the new session has no lease yet
	b.mu.Unlock()
	b.Extended(late)
	expect(t, b)
}

// The clock is read again at the end: what was armed too late is torn down.
func TestALeaseThatEndsWhileItIsArmedIsTornDown(t *testing.T) {
	b := newBench(t)
	u := b.holds(decide.PhaseStarting)
	cut := 0
	u.interrupt = func() { cut++ }
	b.Extended(b.lease())
	if cut != 0 {
		t.Fatal("cut while the lease is good")
	}
	b.armed = func() { b.clk.Advance(2 * time.Second) }
	b.Extended(b.lease())
	if cut != 1 {
		t.Errorf("a start that the lease has left goes on")
	}
}

// LEASE.md 12: a session is journaled before its first renewal, and the guard
// works for it by then.
func TestASessionIsJournaledBeforeItIsRenewed(t *testing.T) {
	b := newBench(t)
	b.opened(3)
	expect(t, b, "drop", "use", "hold")
}

func TestASessionThatCannotBeJournaledIsNotRenewed(t *testing.T) {
	b := newBench(t)
	if err := b.journal.Close(); err != nil {
		t.Fatal(err)
	}
	b.opened(3)
	expect(t, b)
}

func TestASessionThatTheGuardDoesNotTakeIsNotRenewed(t *testing.T) {
	b := newBench(t)
	b.fails["use"] = true
	b.opened(3)
	expect(t, b, "drop", "use")
}

// LEASE.md 9 and 10: the message follows the journal, and without a journal
// there is neither message nor release.
func TestNobodyIsToldBeforeTheReleaseIsJournaled(t *testing.T) {
	b := newBench(t)
	a := decide.Act{Service: "erp", Epoch: 1, To: "b", Tell: &decide.Told{Service: "erp", From: 1, Epoch: 2, Index: 9}, Why: "a move"}
	if err := b.givenUp(a); err != nil {
		t.Fatal(err)
	}
	if e := b.journal.Entries(); len(e) != 1 || e[0].State != journal.StateReleasing {
		t.Errorf("journaled %+v", e)
	}
	b.Close()
	b.wg.Wait()
	if !slices.Contains(b.deeds(), "tell") {
		t.Error("the receiver was not told")
	}

	b = newBench(t)
	if err := b.journal.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.givenUp(a); err == nil {
		t.Error("given up without a journal")
	}
	b.Close()
	b.wg.Wait()
	expect(t, b, "drop") // of the renewals: the lease's end proves what the journal cannot
}

// Nothing is begun that the journal does not hold, that is not armed, or past the lease.
func TestAStartIsJournaledAndArmedFirst(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*bench)
		want    []string
	}{
		"in order":                 {func(b *bench) { b.lease() }, []string{"build", "arm", "start"}},
		"without a journal":        {func(b *bench) { b.lease(); _ = b.journal.Close() }, nil},
		"without a lease":          {func(*bench) {}, []string{"build"}},
		"not armed":                {func(b *bench) { b.lease(); b.fails["arm"] = true }, []string{"build", "arm"}},
		"the lease ends meanwhile": {func(b *bench) { b.lease(); b.armed = func() { b.clk.Advance(time.Minute) } }, []string{"build", "arm"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if err := b.journal.SetSession(journal.Session{ID: 3, TTL: time.Second}); err != nil {
				t.Fatal(err)
			}
			c.prepare(b)
			u := b.unit("erp")
			err := u.start(t.Context(), state.Spec{Name: "erp"}, Origin{Service: "erp", Epoch: 1})
			if (err == nil) != slices.Contains(c.want, "start") {
				t.Errorf("started: %v", err)
			}
			expect(t, b, c.want...)
		})
	}
}

// Stopped means proven: whatever cannot be stopped is not given up.
func TestWhatIsNotProvenStoppedIsNotGivenUp(t *testing.T) {
	for _, fails := range []bool{false, true} {
		b := newBench(t)
		b.fails["stop"] = fails
		u := b.holds(decide.PhaseRunning)
		given := false
		u.stop("for the test", func() error { given = true; return nil })
		u.wg.Wait()
		if given == fails {
			t.Errorf("stop fails: %v, given up: %v", fails, given)
		}
		if want := map[bool]decide.Phase{false: decide.PhaseStopped, true: decide.PhaseUnknown}[fails]; u.phase != want {
			t.Errorf("it is %s, want %s", u.phase, want)
		}
	}
}

// Another node proposes what concerns itself; it decides nothing for the cluster.
func TestPeersProposeOnlyForThemselves(t *testing.T) {
	for _, cmd := range []state.Command{
		state.GrantService{}, state.HandOver{}, state.EndSession{}, state.CloseSession{}, state.SetPause{}, state.SetServices{},
		state.SetNode{}, state.RemoveNode{}, state.StartFence{}, state.LeaderStart{}, state.Found{},
	} {
		b := newBench(t)
		if _, err := b.Propose(t.Context(), cmd); !errors.Is(err, ErrInvalid) {
			t.Errorf("a peer proposes %s: %v", cmd.Kind(), err)
		}
	}
}

// A bound for a session's end is an answer given with the close applied, and
// counts only once this leader has applied it too.
func TestOnlyAnswersAfterTheCloseBoundASession(t *testing.T) {
	one := lease.NewConfiguration([]string{"a"})
	now := clock.Reading{Boot: time.Hour, Raw: time.Hour}
	for _, c := range []struct {
		status state.SessionStatus
		closed bool
		known  bool
	}{
		{state.SessionClosing, true, true}, {state.SessionClosing, false, false}, {state.SessionOpen, true, false},
	} {
		e := evidence.New(1, 0, now)
		s := &state.Session{ID: 7, Status: c.status, TTL: time.Second}
		e.HeardAge(s, "a", time.Hour, c.closed, now, now)
		if v := e.Session(s, one, now, decide.SessionView{}); v.DueKnown != c.known {
			t.Errorf("%+v: due %v, %v", c, v.Due, v.DueKnown)
		}
	}
}
