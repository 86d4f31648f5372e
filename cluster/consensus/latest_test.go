package consensus

import (
	"testing"
	"time"
)

// A configuration counts from the moment that it is in the log (raft's rule, and
// the c of LEASE.md): a voter that waited for it to be committed or applied would
// say OK by another list than those who have it.
func TestTheLatestConfigurationCounts(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, _ := c.leads()
	if got := leader.node.Configuration().Voters; len(got) != 3 {
		t.Fatalf("voters %v", got)
	}
	for _, m := range c.followers() {
		m.stop()
	}
	done := make(chan error, 1)
	go func() { done <- leader.node.AddNonvoter(bounded(t, 10*time.Second), "x", "127.0.0.1:1") }()
	eventually(t, "the server that nobody has confirmed", func() bool {
		_, ok := leader.node.Configuration().Has("x")
		return ok
	})
	if err := <-done; err == nil {
		t.Error("a change without a majority is called done")
	}
	if _, ok := leader.node.Configuration().Has("x"); !ok {
		t.Error("it is forgotten with the leadership")
	}
}
