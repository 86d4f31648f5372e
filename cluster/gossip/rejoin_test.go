package gossip

import (
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
)

// Nobody calls anew in memberlist itself once the dead are forgotten.
func TestPeersAreCalledUntilTheyAnswer(t *testing.T) {
	later := freeAddress(t)
	o := options("a", 1)
	o.Peers = []string{later, "not an address", later}
	a := start(t, o)
	b := options("b", 1)
	b.Address = later
	start(t, b)
	waitFor(t, "b", sees(a, "b", decide.SightAlive))

	added := start(t, options("c", 1))
	a.SetPeers([]string{later, added.Address(), a.Address()})
	waitFor(t, "c", sees(a, "c", decide.SightAlive))
}

// After a partition that outlasts memberlist's memory neither side would call
// the other: here one side is told of no peers and must be called.
func TestTheForgottenAreCalledAgain(t *testing.T) {
	oa := options("a", 1)
	oa.forget = 300 * time.Millisecond
	a := start(t, oa)
	b := start(t, options("b", 1, a))
	a.SetPeers([]string{b.Address()})
	waitFor(t, "b", sees(a, "b", decide.SightAlive))
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "b dead", sees(a, "b", decide.SightDead))
	waitFor(t, "b forgotten by memberlist", func() bool {
		return time.Since(a.Members()["b"].Since) > 5*oa.forget
	})
	if s := a.Sights()["b"]; s != decide.SightDead {
		t.Errorf("what memberlist has forgotten is %q here", s)
	}
	again := options("b", 2)
	again.Address = b.Address()
	start(t, again)
	waitFor(t, "b again", sees(a, "b", decide.SightAlive))
}

// A name may come back at another address when its node has been dead for long.
func TestANameMayMoveWhenItsNodeIsLongDead(t *testing.T) {
	oa := options("a", 1)
	oa.forget = 300 * time.Millisecond
	a := start(t, oa)
	b := start(t, options("b", 1, a))
	waitFor(t, "b", sees(a, "b", decide.SightAlive))
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "b dead for long", func() bool {
		m := a.Members()["b"]
		return m.State == decide.SightDead && time.Since(m.Since) > 2*oa.forget
	})
	moved := start(t, options("b", 2, a))
	waitFor(t, "b elsewhere", sees(a, "b", decide.SightAlive))
	if !a.book.living()[moved.Address()] {
		t.Error("b is thought to be at its old address")
	}
}

func TestBackOffIsBounded(t *testing.T) {
	g := &Gossip{book: newBook("a"), peers: map[string]*caller{}, wake: make(chan struct{}, 1)}
	g.SetPeers([]string{"192.0.2.1:7402"})
	now := time.Now()
	var calls int
	for at := now; at.Before(now.Add(5 * time.Minute)); at = at.Add(10 * time.Millisecond) {
		calls += len(g.toCall(at))
		if p := g.pause(at); p <= 0 || p > lookAgain {
			t.Fatalf("pause %v", p)
		}
	}
	if least, most := int(5*time.Minute/(lastRetry*5/4)), int(5*time.Minute/(lastRetry*3/4))+8; calls < least || calls > most {
		t.Errorf("%d calls in 5 minutes, wanted %d to %d", calls, least, most)
	}
	g.leaving = true
	if got := g.toCall(now.Add(time.Hour)); got != nil {
		t.Errorf("a node that leaves calls %v", got)
	}
}
