package cluster

import (
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/evidence"
	"github.com/failoverd/failoverd/cluster/state"
)

// TestLeaderShowsWhatItAskedAndWhoHasNotBegun: the leader's view tells decide when
// it last asked, and which holder has not begun by its own fresh account.
func TestLeaderShowsWhatItAskedAndWhoHasNotBegun(t *testing.T) {
	b := newBench(t)
	b.Gossip = noGossip{}
	voter := b.Voter
	for i, cmd := range []state.Command{
		state.OpenSession{Node: "b", BootID: "boot-b", TTL: time.Second, Kappa: time.Millisecond},
		state.SetServices{Services: []state.Spec{{Name: "db", Takeover: state.TakeoverLease}}},
		state.GrantService{Service: "db", Epoch: 1, Node: "b", Session: 4},
	} {
		if res := voter.Apply(uint64(4+i), 1, cmd); res.Refused != nil {
			t.Fatal(res.Refused)
		}
	}
	led := &leadership{Leadership: Leadership{Term: 1}, ev: evidence.New(1, 6, b.clk.Now())}
	look := func() decide.LeaderView { return b.leaderView(led, voter.View()) }
	if v := look(); v.Sessions[4].Asked != 0 || len(v.Unstarted) > 0 {
		t.Fatalf("at first: asked %s ago, unstarted %v", v.Sessions[4].Asked, v.Unstarted)
	}
	led.ev.MayAsk(4, b.clk.Now())
	b.clk.Advance(6 * time.Second)
	tell := func(epoch uint64) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reports["b"] = heardOf{Report: Report{Node: "b", Services: []ServiceReport{{Name: "db", Epoch: epoch}}}, at: b.clk.Now()}
	}
	tell(0)
	v := look()
	if v.Sessions[4].Asked != 6*time.Second {
		t.Errorf("asked %s ago, want 6s", v.Sessions[4].Asked)
	}
	if v.Unstarted["db"] != 6*time.Second {
		t.Errorf("unstarted %v, want db for 6s", v.Unstarted)
	}
	tell(1)
	if v := look(); len(v.Unstarted) > 0 {
		t.Errorf("b has begun, and the view says %v", v.Unstarted)
	}
	tell(0)
	b.clk.Advance(2*surveyInterval + 1)
	if v := look(); len(v.Unstarted) > 0 {
		t.Errorf("b's account is old, and the view says %v", v.Unstarted)
	}
}

// TestProbesAreForgotten: what was prepared for a session is forgotten when the
// session is over.
func TestProbesAreForgotten(t *testing.T) {
	b := newBench(t)
	st := state.New()
	st.Sessions[7] = &state.Session{ID: 7, Status: state.SessionClosing}
	st.Sessions[8] = &state.Session{ID: 8, Status: state.SessionEnded}
	for _, id := range []uint64{6, 7, 8} {
		b.probed[probe{service: "db", session: id}] = true
	}
	b.foresee(st)
	if len(b.probed) != 1 || !b.probed[probe{service: "db", session: 7}] {
		t.Errorf("left: %v", b.probed)
	}
}
