package cluster

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
)

// The end of the lease is seen without any news: what is only starting then is
// cut, and the member's loop looks at the rest.
func TestTheEndOfTheLeaseIsSeen(t *testing.T) {
	b := newBench(t)
	u := b.holds(decide.PhaseStarting)
	var cut atomic.Bool
	u.mu.Lock()
	u.interrupt = func() { cut.Store(true) }
	u.mu.Unlock()
	b.lease()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); b.lapseLoop(ctx) }()
	defer func() { stop(); <-ended }()
	await := func(what string, c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(20 * time.Second):
			t.Fatalf("not in 20 s: %s", what)
		}
	}
	await("the lease is seen", b.poke)
	if cut.Load() {
		t.Fatal("cut while the lease is good")
	}
	b.clk.Advance(2 * time.Second)
	await("its end is seen", b.poke)
	if !cut.Load() {
		t.Error("a start goes on past the lease")
	}
}

// What decide is shown of the lease: whether there is one, and whether it is over.
func TestTheEndOfTheLeaseIsDecidedUpon(t *testing.T) {
	b := newBench(t)
	st := b.Voter.View()
	if v := b.memberView(st); v.Lease || !v.Lapsed {
		t.Errorf("before any lease: lease %v, lapsed %v", v.Lease, v.Lapsed)
	}
	b.lease()
	if v := b.memberView(st); !v.Lease || v.Lapsed {
		t.Errorf("with a lease: lease %v, lapsed %v", v.Lease, v.Lapsed)
	}
	b.clk.Advance(2 * time.Second)
	if v := b.memberView(st); v.Lease || !v.Lapsed {
		t.Errorf("after its end: lease %v, lapsed %v", v.Lease, v.Lapsed)
	}
}
