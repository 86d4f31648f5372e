package consensus

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
)

// regain makes a leader lose its leadership and win it back, and returns the new one.
func (c *testCluster) regain(leader *member, old Leadership) Leadership {
	c.t.Helper()
	var now Leadership
	eventually(c.t, "the leadership lost and regained", func() bool {
		l, leads := leader.node.Leading()
		switch {
		case leads && l.Term > old.Term:
			now = l
			return true
		case leads:
			leader.node.abdicate()
			return false
		}
		for _, m := range without(c, leader) {
			if m.node.IsLeader() {
				// Best effort, and asked again.
				if err := m.node.TransferTo(bounded(c.t, 5*time.Second), leader.name); err != nil {
					c.t.Logf("hand the leadership back: %v", err)
				}
			}
		}
		return false
	})
	return now
}

// TestAChangeBelongsToTheTermThatCheckedIt freezes a change between the last
// check and the append, until this node leads in a later term, in which nobody
// has waited. raft would take the change.
func TestAChangeBelongsToTheTermThatCheckedIt(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, lead := c.leads()
	others := without(c, leader)
	name := others[1].name
	changes := map[string]func() error{
		"demote": func() error { return leader.node.Demote(bounded(t, 90*time.Second), lead.Term, name) },
		"remove": func() error { return leader.node.Remove(bounded(t, 90*time.Second), lead.Term, name) },
	}
	for what, change := range changes {
		froze := 0
		leader.node.leader.beforeChange = func() {
			froze++
			c.regain(leader, lead)
		}
		if err := change(); !errors.Is(err, cluster.ErrNotLeader) {
			t.Errorf("%s, checked in an older term: %v", what, err)
		}
		if froze == 0 {
			t.Fatalf("%s was not frozen before its append", what)
		}
		if got := leader.node.Configuration().Voters; !slices.Contains(got, name) {
			t.Fatalf("%s has taken the vote of %s: %v", what, name, got)
		}
		leader.node.leader.beforeChange = nil
		lead, _ = leader.node.Leading()
	}
	// In its own term the same change is taken.
	eventually(t, "a change in its own term", func() bool {
		now, ok := leader.node.Leading()
		return ok && leader.node.Demote(bounded(t, 90*time.Second), now.Term, name) == nil
	})
}

// TestNoTermBeginsDuringAnAppend pins down what the check under the lock rests
// on: raft hands over each gain and loss of leadership, unbuffered, before it
// takes a change of the configuration in that term.
func TestNoTermBeginsDuringAnAppend(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, lead := c.leads()
	others := without(c, leader)
	ok := leader.node.leader.during(lead.Term, func() {
		eventually(t, "raft to step down", func() bool {
			leader.node.abdicate()
			return leader.node.raft.State() != raft.Leader
		})
		// While the lock is held it cannot come to lead anew, by then as the only
		// one that stands, and takes nothing.
		f := leader.node.raft.DemoteVoter(raft.ServerID(others[0].name), 0, time.Second)
		if enqueued(f) && f.Error() == nil {
			t.Error("raft took a change of the voters in a term of which nobody had been told")
		}
		if leader.node.raft.State() == raft.Leader {
			t.Error("raft went on to lead before it was let know that it had led")
		}
	})
	if !ok {
		t.Fatal("the leadership of now is not the one that was handed out")
	}
	eventually(t, "the leadership to be over", func() bool { return lead.Ctx.Err() != nil })
	if leader.node.leader.during(lead.Term, func() {}) {
		t.Errorf("term %d goes on", lead.Term)
	}
}
