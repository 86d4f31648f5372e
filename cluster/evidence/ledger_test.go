package evidence

import (
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

const second = time.Second

// at is a reading so long after the leadership began.
func at(d time.Duration) clock.Reading { return clock.Reading{Boot: time.Hour + d, Raw: time.Hour + d} }

var three = lease.NewConfiguration([]string{"a", "b", "c"})

func session(status state.SessionStatus) *state.Session {
	return &state.Session{ID: 7, Node: "a", Status: status, TTL: second, Kappa: 50 * time.Millisecond}
}

// TestEarlierLeadership: what was asked before this leadership began counts for
// nothing, however late its answer comes.
func TestEarlierLeadership(t *testing.T) {
	l, s := New(2, 9, at(0)), session(state.SessionClosing)
	for _, v := range three.Voters {
		l.HeardAge(s, v, time.Hour, true, at(-1), at(second))
	}
	if v := l.Session(s, three, at(second), decide.SessionView{}); len(v.Ages) > 0 || v.DueKnown {
		t.Errorf("answers to an earlier leadership count: %+v", v)
	}
	for _, v := range three.Voters {
		l.HeardAge(s, v, time.Hour, true, at(0), at(second))
	}
	if v := l.Session(s, three, at(second), decide.SessionView{}); len(v.Ages) != 3 || !v.DueKnown || v.Due > 0 {
		t.Errorf("answers to this leadership do not count: %+v", v)
	}
}

// TestOvertaken: an answer that a later one has overtaken does not take its
// place, and neither does it make what is known look fresh.
func TestOvertaken(t *testing.T) {
	l, s := New(2, 9, at(0)), session(state.SessionOpen)
	l.HeardAge(s, "b", 10*time.Millisecond, false, at(2*second), at(2*second))
	l.HeardAge(s, "b", 900*time.Millisecond, false, at(second), at(3*second))
	v := l.Session(s, three, at(3*second), decide.SessionView{})
	if v.Ages["b"] != second+10*time.Millisecond || v.Told["b"] != second {
		t.Errorf("age %s, told %s ago", v.Ages["b"], v.Told["b"])
	}
	// The answer to a later question is news, also when it says the same.
	l.HeardAge(s, "b", 2*second, false, at(3*second), at(4*second))
	if v := l.Session(s, three, at(4*second), v); v.Ages["b"] != 2*second || v.Told["b"] != 0 {
		t.Errorf("age %s, told %s ago", v.Ages["b"], v.Told["b"])
	}
}

// TestEveryConfirmationCounts: of answers with the close applied each is true by
// itself, in whatever order they come.
func TestEveryConfirmationCounts(t *testing.T) {
	one, s := lease.NewConfiguration([]string{"b"}), session(state.SessionClosing)
	l := New(2, 9, at(0))
	l.HeardAge(s, "b", 0, true, at(2*second), at(2*second))
	l.HeardAge(s, "b", 900*time.Millisecond, true, at(second), at(2*second))
	v := l.Session(s, one, at(2*second), decide.SessionView{})
	if want := lease.Wait(s.TTL, s.Kappa) - 900*time.Millisecond; v.Due != want {
		t.Errorf("due in %s, want %s", v.Due, want)
	}
}

func TestAskedAndOpened(t *testing.T) {
	l, s := New(2, 6, at(0)), session(state.SessionOpen)
	if v := l.Session(s, three, at(0), decide.SessionView{}); v.Asked != 0 || !v.Opened || v.Since != 0 {
		t.Errorf("at first %+v", v)
	}
	if !l.MayAsk(7, at(0)) || l.MayAsk(7, at(askAgain-1)) || !l.MayAsk(7, at(askAgain)) {
		t.Error("the same question is asked too often, or never again")
	}
	v := l.Session(s, three, at(second), decide.SessionView{})
	if v.Asked != second-askAgain || v.Since != second {
		t.Errorf("after a second %+v", v)
	}
	if v := New(2, 7, at(0)).Session(s, three, at(0), decide.SessionView{}); v.Opened {
		t.Error("a session that the leader found is called its own")
	}
}

func TestDeaf(t *testing.T) {
	st := state.New()
	l := New(2, 9, at(0))
	if l.Deaf(st, three, "a", second, at(0)) || l.Deaf(st, three, "a", second, at(time.Hour)) {
		t.Error("deaf with nothing to ask about")
	}
	st.Sessions[7] = session(state.SessionOpen)
	l = New(2, 9, at(0))
	for _, c := range []struct {
		at   time.Duration
		deaf bool
	}{{0, false}, {2 * second, false}, {2*second + 1, true}, {2*second + 2, false}} {
		if got := l.Deaf(st, three, "a", second, at(c.at)); got != c.deaf {
			t.Errorf("at %s: deaf %v", c.at, got)
		}
	}
	l = New(2, 9, at(0))
	l.Deaf(st, three, "a", second, at(0))
	l.HeardAge(st.Sessions[7], "c", 0, false, at(second), at(second))
	if l.Deaf(st, three, "a", second, at(2*second+1)) {
		t.Error("deaf though one other of three answers")
	}
}

func TestIdle(t *testing.T) {
	st := state.New()
	st.Services["db"] = &state.Service{Name: "db", LastEpoch: 4, Grants: []state.Grant{{Epoch: 4, Node: "b", Session: 7}}}
	var told Account
	ok := false
	account := func(node, service string) (Account, bool) {
		if node != "b" || service != "db" {
			t.Errorf("asked for %s on %s", service, node)
		}
		return told, ok
	}
	l := New(2, 9, at(0))
	look := func(when time.Duration) (time.Duration, bool) {
		unstarted, unended := l.Idle(st, at(when), account)
		if len(unended) > 0 && len(st.Services["db"].Unfinished()) < 2 {
			t.Errorf("unended without a hand-over: %v", unended)
		}
		d, is := unstarted["db"]
		return d, is
	}
	if _, is := look(0); is {
		t.Error("unstarted though nothing is known of the holder")
	}
	ok = true
	if _, is := look(second); is {
		t.Error("unstarted by an account from before the grant was seen")
	}
	told.At = at(2 * second)
	if d, is := look(3 * second); !is || d != 3*second {
		t.Errorf("unstarted for %s, %v", d, is)
	}
	told.Epoch = 4
	if _, is := look(4 * second); is {
		t.Error("unstarted though it has begun")
	}
	// A hand-over is under way, and then the later epoch alone: counted anew.
	told.Epoch = 0
	st.Services["db"].Grants = append(st.Services["db"].Grants, state.Grant{Epoch: 5, Node: "b", Session: 7, From: 4, Kind: state.KindHandOver})
	if _, is := look(5 * second); is {
		t.Error("unstarted while another epoch is in the way")
	}
	// The giver goes on as if there were no hand-over, and then stops.
	giver := func(when time.Duration) time.Duration {
		_, unended := l.Idle(st, at(when), account)
		return unended["db"]
	}
	told = Account{Epoch: 4, Serves: true, At: at(5 * second)}
	if d := giver(5500 * time.Millisecond); d != 0 {
		t.Errorf("unended for %s by an account from before the hand-over was seen", d)
	}
	told.At = at(5500 * time.Millisecond)
	if d := giver(5800 * time.Millisecond); d != 800*time.Millisecond {
		t.Errorf("unended for %s", d)
	}
	told.Epoch = 0 // it never began, and does not release
	if d := giver(5850 * time.Millisecond); d != 850*time.Millisecond {
		t.Errorf("unended for %s", d)
	}
	told.Epoch, told.Serves = 4, false
	if d := giver(5900 * time.Millisecond); d != 0 {
		t.Errorf("unended for %s though it stops", d)
	}
	st.Services["db"].Grants[0].Over = state.ProofReleased
	told = Account{Own: true}
	look(6 * second)
	if d, _ := look(7 * second); d != second {
		t.Errorf("counted for %s, want a second", d)
	}
}

func TestPrune(t *testing.T) {
	st := state.New()
	st.Index = 20
	st.Sessions[7] = session(state.SessionOpen)
	st.Sessions[8] = &state.Session{ID: 8, Status: state.SessionEnded}
	l := New(2, 6, at(0))
	for _, id := range []uint64{7, 8, 9, 21} {
		l.Goodbye(id)
	}
	l.BeginMove("db", "b", at(0))
	l.BeginMove("web", "c", at(0))
	l.Prune(st, map[string]bool{"web": true})
	if len(l.sessions) != 2 || !l.sessions[7].goodbye || l.sessions[21] == nil {
		t.Errorf("left: %v", l.sessions)
	}
	moves := l.Moves(at(second))
	if len(moves) != 1 || moves["web"].Waited != second {
		t.Errorf("left: %v", moves)
	}
	l.EndMove("web", "b", "") // another candidate's answer
	l.EndMove("web", "c", "no")
	if m := l.Moves(at(second))["web"]; m.Done || m.Failed != "no" {
		t.Errorf("%+v", m)
	}
}
