package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

func fakeSpec(name string) state.Spec {
	return state.Spec{Name: name, Takeover: state.TakeoverLease, Resources: []state.Resource{
		{Kind: "process", Name: "fake", Process: &state.Process{Command: []string{"/bin/true"}, StopTimeout: time.Second, StartTimeout: time.Second}},
	}}
}

// served founds a world of three with one service that runs.
func served(t *testing.T) *world {
	w := newWorld(t, "a", "b", "c")
	w.until("three sessions", func() bool {
		st := w.nodes[w.lead].voter.View()
		open := 0
		for _, n := range st.Nodes {
			if s := st.Sessions[n.Session]; s != nil && s.Status == state.SessionOpen {
				open++
			}
		}
		return open == 3
	})
	leader := w.nodes[w.lead].node
	if _, err := leader.Apply(t.Context(), ApplyRequest{Services: []state.Spec{fakeSpec("pet")}, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	w.until("somebody serves", func() bool { return w.holder("pet") != "" })
	return w
}

func TestAServiceIsGrantedToANodeThatDoesNotLead(t *testing.T) {
	w := served(t)
	if h := w.holder("pet"); h != "a" {
		t.Errorf("holder is %q, want a: not the leader, then by name", h)
	}
}

func TestADeadHolderIsReplacedAfterItsLease(t *testing.T) {
	w := served(t)
	old := w.holder("pet")
	w.nodes[old].kill()
	w.until("another serves", func() bool { h := w.holder("pet"); return h != "" && h != old && !strings.Contains(h, "+") })
}

func TestACutOffHolderIsReplacedAndComesBackEmpty(t *testing.T) {
	w := served(t)
	old := w.holder("pet")
	w.setCut(old, true)
	w.until("another serves", func() bool { h := w.holder("pet"); return h != "" && h != old })
	now := w.holder("pet")
	w.setCut(old, false)
	w.until("the old holder has an open session again", func() bool {
		st := w.nodes[w.lead].voter.View()
		s := st.Sessions[st.Nodes[old].Session]
		return s != nil && s.Status == state.SessionOpen && len(w.nodes[old].journal.Entries()) == 0
	})
	if h := w.holder("pet"); h != now {
		t.Errorf("after the heal %q serves, before it %q did", h, now)
	}
}

func TestADaemonRestartedWithinItsLeaseAdopts(t *testing.T) {
	w := served(t)
	h := w.nodes[w.holder("pet")]
	starts := w.book.starts
	epoch := w.nodes[w.lead].voter.View().Services["pet"].LastEpoch
	h.kill()
	h.start()
	w.until("it holds on", func() bool {
		rep, _ := h.node.Report(context.Background())
		return rep.Ready && len(rep.Services) == 1 && rep.Services[0].State == "running"
	})
	if w.book.starts != starts {
		t.Errorf("the service was started %d times more", w.book.starts-starts)
	}
	if e := w.nodes[w.lead].voter.View().Services["pet"].LastEpoch; e != epoch {
		t.Errorf("epoch went from %d to %d", epoch, e)
	}
}

func TestARebootedHolderReleasesAtOnce(t *testing.T) {
	w := served(t)
	h := w.nodes[w.holder("pet")]
	h.kill()
	w.book.stop("pet", "fake", h.name)
	h.boot = h.name + "-boot-2"
	h.start()
	w.until("it serves again under a later epoch", func() bool {
		return w.holder("pet") != "" && w.nodes[w.lead].voter.View().Services["pet"].LastEpoch > 1
	})
}

func TestSwitchoverMovesWithoutAGap(t *testing.T) {
	w := served(t)
	leader := w.nodes[w.lead].node
	from := w.holder("pet")
	res, err := leader.Switchover(t.Context(), SwitchoverRequest{Service: "pet", By: "ann", Why: "patch day"})
	if err != nil {
		t.Fatal(err)
	}
	if res.From != from || res.To == from || w.holder("pet") != res.To {
		t.Errorf("moved %+v, holder %s", res, w.holder("pet"))
	}
	w.until("the old epoch is over", func() bool { return len(w.nodes[w.lead].voter.View().Services["pet"].Unfinished()) == 1 })
}

func TestANewLeaderGoesOnWithAMove(t *testing.T) {
	w := served(t)
	from := w.holder("pet")
	if _, err := w.commit(w.lead, state.RequestMove{Service: "pet", Stamp: state.Stamp{By: "ann"}}); err != nil {
		t.Fatal(err)
	}
	w.elect("b")
	w.until("it has moved", func() bool { h := w.holder("pet"); return h != "" && h != from })
}

func TestABrokenServiceMovesAndIsHeldWhenAllFail(t *testing.T) {
	w := served(t)
	from := w.holder("pet")
	w.book.mu.Lock()
	w.book.broken["pet@"+from] = true
	w.book.mu.Unlock()
	w.book.stop("pet", "fake", from)
	w.until("it runs elsewhere", func() bool { h := w.holder("pet"); return h != "" && h != from })
	st := w.nodes[w.lead].voter.View()
	if len(st.Services["pet"].Failures) != 1 || st.Services["pet"].Failures[0].Node != from {
		t.Errorf("failures: %+v", st.Services["pet"].Failures)
	}
}

func TestPausedNothingMoves(t *testing.T) {
	w := served(t)
	leader := w.nodes[w.lead].node
	if err := leader.Pause(t.Context(), PauseRequest{On: true, By: "ann", Why: "kernel patch"}); err != nil {
		t.Fatal(err)
	}
	if _, err := leader.Switchover(t.Context(), SwitchoverRequest{By: "ann"}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "kernel patch") {
		t.Errorf("switchover while paused: %v", err)
	}
	old := w.holder("pet")
	session := w.nodes[w.lead].voter.View().Nodes[old].Session
	w.setCut(old, true)
	w.until("the leader has seen the silence", func() bool {
		return strings.Contains(leader.lead.Load().plan.Load().Notes["pet"], "does not renew")
	})
	if s := w.nodes[w.lead].voter.View().Sessions[session]; s.Status != state.SessionOpen {
		t.Errorf("session is %s while paused", s.Status)
	}
	w.setCut(old, false)
	w.until("it goes on where it was", func() bool { return w.holder("pet") == old })
}

func TestLeaveMovesTheServiceAway(t *testing.T) {
	w := served(t)
	h := w.nodes[w.holder("pet")]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.node.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	w.until("another serves", func() bool { now := w.holder("pet"); return now != h.name && now != "" })
}

func TestForceIsRefusedWhileTheHolderRenews(t *testing.T) {
	w := served(t)
	_, err := w.nodes[w.lead].node.Failover(t.Context(), FailoverRequest{Service: "pet", Force: true, By: "ann", Why: "it is off"})
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "switchover") {
		t.Errorf("forced failover of a living holder: %v", err)
	}
}

func TestStandbyMovesAndARemovedServiceStops(t *testing.T) {
	w := served(t)
	leader := w.nodes[w.lead].node
	from := w.holder("pet")
	if err := leader.Standby(t.Context(), StandbyRequest{Node: from, On: true, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	w.until("it left the standby node", func() bool { h := w.holder("pet"); return h != "" && h != from })
	if _, err := leader.Apply(t.Context(), ApplyRequest{Prune: true, By: "ann"}); !errors.Is(err, ErrRefused) {
		t.Errorf("removing a running service without yes: %v", err)
	}
	if _, err := leader.Apply(t.Context(), ApplyRequest{Prune: true, Yes: true, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	w.until("nobody serves it", func() bool { return w.holder("pet") == "" })
}

func TestAHolderThatHearsNobodyIsReplaced(t *testing.T) {
	w := served(t)
	old := w.holder("pet")
	w.mu.Lock()
	w.nodes[old].deaf = true
	w.mu.Unlock()
	w.until("another serves", func() bool { h := w.holder("pet"); return h != "" && h != old })
	w.mu.Lock()
	w.nodes[old].deaf = false
	w.mu.Unlock()
	w.until("it has an open session again", func() bool {
		st := w.nodes[w.lead].voter.View()
		s := st.Sessions[st.Nodes[old].Session]
		return s != nil && s.Status == state.SessionOpen
	})
}
