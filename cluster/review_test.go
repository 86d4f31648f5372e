package cluster

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// A daemon that restarts and cannot make the resources of what it left running
// must not take that for stopped: no release without a stop.
func TestWhatCannotBeBuiltAfterARestartIsNotReleased(t *testing.T) {
	w := served(t)
	h := w.nodes[w.holder("pet")]
	if h.name == w.lead {
		t.Fatal("the holder leads")
	}
	h.kill()
	w.book.breakIt("build pet@" + h.name)
	h.start()
	w.until("the epoch is over", func() bool {
		svc := w.nodes[w.lead].voter.View().Services["pet"]
		g := svc.Grant(1)
		return g == nil || g.Over != "" || svc.LastEpoch > 1 && len(svc.Grants) == 1
	})
	for _, e := range w.nodes[w.lead].voter.View().History {
		if e.Service == "pet" && e.Epoch == 1 && e.Kind == (state.Released{}).Kind() {
			t.Errorf("epoch 1 was released by a node that stopped nothing: %s", e.Why)
		}
	}
}

// Without a guard everything on a node has ended by its old deadline: to go on
// renewing would only keep the service from the others.
func TestAHolderWithoutAGuardLosesItsService(t *testing.T) {
	w := served(t)
	old := w.holder("pet")
	w.book.breakIt("guard@" + old)
	w.until("another serves", func() bool { h := w.holder("pet"); return h == "a" || h == "b" || h == "c" && h != old })
	w.until("it is another", func() bool { h := w.holder("pet"); return len(h) == 1 && h != old })
}

func TestALongerLeaseAfterARestartKeepsNothingFromStarting(t *testing.T) {
	w := served(t)
	h := w.nodes[w.holder("pet")]
	h.kill()
	w.book.stop("pet", "fake", h.name) // not there to be adopted
	h.ttl = 10 * testTTL
	h.start()
	w.until("it serves again", func() bool { return len(w.holder("pet")) == 1 })
	st := w.nodes[w.lead].voter.View()
	if s := st.Sessions[st.Nodes[h.name].Session]; w.holder("pet") == h.name && s.TTL == testTTL {
		return
	}
	t.Errorf("%s serves, want %s under the session that it had", w.holder("pet"), h.name)
}

// A session's promise of how late its end may be is that of the daemon that opened it.
func TestASessionIsNotResumedWithAWorsePromise(t *testing.T) {
	w := served(t)
	h := w.nodes[w.holder("pet")]
	before := w.nodes[w.lead].voter.View().Nodes[h.name].Session
	h.kill()
	h.kappa = 3 * testKappa
	h.start()
	w.until("a session with the new promise", func() bool {
		s, ok := h.journal.Session()
		return ok && s.ID != before && s.Kappa == h.kappa
	})
	w.until("somebody serves", func() bool { return len(w.holder("pet")) == 1 })
}

// A node that lives and is removed must not open a session for each that is closed.
func TestALivingNodeCanBeRemoved(t *testing.T) {
	w := served(t)
	name := "b"
	if name == w.lead || name == w.holder("pet") {
		t.Fatalf("%s leads or holds", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := w.nodes[w.lead].node.ChangeMember(ctx, MemberRequest{Action: "remove", Node: name, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	if w.nodes[w.lead].voter.View().Nodes[name] != nil {
		t.Errorf("%s is still known", name)
	}
}

// A change of the voters whose outcome is unknown may be committed later: the
// next one waits for the leases given before it all the same (R3).
func TestAChangeOfUnknownOutcomeIsWaitedFor(t *testing.T) {
	w := served(t)
	n := w.nodes[w.lead].node
	led := n.lead.Load()
	more := func(voters []string) []string { return append(slices.Clone(voters), "d") }
	led.members.Lock()
	defer led.members.Unlock()
	if err := n.changeVoters(t.Context(), led, more, func(context.Context) error { return ErrUnknown }); !errors.Is(err, ErrUnknown) {
		t.Fatalf("the change: %v", err)
	}
	failed := n.Clock.Now()
	if err := n.changeVoters(t.Context(), led, more, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if waited := clock.Shorter(failed, n.Clock.Now()); waited < lease.Wait(testTTL, testKappa) {
		t.Errorf("the next change came %s after it", waited)
	}
}

func TestOneRestartAtATime(t *testing.T) {
	w := served(t)
	n := w.nodes[w.lead].node
	w.until("all have told of themselves", func() bool { all, _ := n.heardAll(); return all })
	if err := n.RestartNode(t.Context(), "a", "ann", "upgrade"); err != nil {
		t.Fatal(err)
	}
	if err := n.RestartNode(t.Context(), "b", "ann", "upgrade"); !errors.Is(err, ErrRefused) {
		t.Errorf("a second restart while a has not come back: %v", err)
	}
	w.nodes["a"].kill()
	w.nodes["a"].start()
	w.until("a is ready", w.nodes["a"].voter.Ready)
	if err := n.RestartNode(t.Context(), "b", "ann", "upgrade"); err != nil {
		t.Errorf("after a is back: %v", err)
	}
}
