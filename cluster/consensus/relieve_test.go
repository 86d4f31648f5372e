package consensus

import (
	"context"
	"testing"
	"time"
)

// A node that holds a service gives a silent leader up later than the others,
// and they cannot win before: a leader whose disk hangs must say so itself.
func TestAHungDiskIsRelievedBesideHesitantNodes(t *testing.T) {
	const limit = 200 * time.Millisecond
	c := newCluster(t, 3)
	disks := faulty(c, limit)
	c.start()
	c.propose("before")
	c.level([]string{"before"})
	leader, _ := c.leads()
	others := without(c, leader)
	for _, m := range others {
		if err := m.node.Hesitate(true); err != nil {
			t.Fatal(err)
		}
	}
	// They hear once more of the leader with the new timeouts in force.
	c.propose("hesitant")
	c.level([]string{"before", "hesitant"})

	t.Cleanup(disks[leader].hang())
	began := time.Now()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_, _ = leader.node.Propose(ctx, setNode("hung")) // its outcome is unknown
	}()
	eventually(t, "another leader", func() bool {
		for _, m := range others {
			if _, ok := m.node.Leading(); ok {
				return true
			}
		}
		return false
	})
	// Two hesitant nodes take two election timeouts at the least by themselves.
	took := time.Since(began)
	t.Logf("replaced after %v", took.Round(time.Millisecond))
	if bound := limit + 2*testTiming.Election; took > bound {
		t.Errorf("replaced after %v, want at most %v", took, bound)
	}
}
