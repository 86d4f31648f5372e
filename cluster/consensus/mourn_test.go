package consensus

import (
	"fmt"
	"testing"
	"time"
)

// slow has timeouts so long that no election by timeout can come in between.
var slow = Timing{Heartbeat: 1500 * time.Millisecond, Election: 1500 * time.Millisecond, LeaderLease: time.Second, Commit: 20 * time.Millisecond}

func slowCluster(t *testing.T, n int) *testCluster {
	t.Helper()
	c := newCluster(t, n)
	for _, m := range c.members {
		m.options.Timing = slow
	}
	c.start()
	c.propose("before")
	c.level([]string{"before"})
	return c
}

func TestDeathOfTheLeadersProcessIsSeenAtOnce(t *testing.T) {
	c := slowCluster(t, 3)
	leader, _ := c.leads()
	others := c.followers()
	// As when the process is killed: the sockets go, and nothing is said.
	leader.node.gate.Close()
	took := within(t, slow.Heartbeat/2, "new leader", func() bool {
		for _, m := range others {
			if _, ok := m.node.Leading(); ok {
				return true
			}
		}
		return false
	})
	t.Logf("first commit of a new leader after %v, heartbeat timeout %v", took.Round(time.Millisecond), slow.Heartbeat)
}

func TestLostConnectionsAloneMoveNothing(t *testing.T) {
	c := slowCluster(t, 3)
	leader, lead := c.leads()
	want := []string{"before"}
	for i := range 5 {
		leader.node.gate.inner.CloseStreams()
		name := fmt.Sprintf("n%d", i)
		c.propose(name)
		want = append(want, name)
	}
	c.level(want)
	if lead.Ctx.Err() != nil {
		t.Error("the leadership has moved")
	}
	if _, ok := leader.node.Leading(); !ok {
		t.Error("the leader leads no more")
	}
	// Nor does the death of one who does not lead.
	dead := c.followers()[0]
	dead.node.gate.Close()
	c.propose("on", leader)
	if lead.Ctx.Err() != nil {
		t.Error("the leadership has moved")
	}
}
