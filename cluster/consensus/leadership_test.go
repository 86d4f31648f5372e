package consensus

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
)

// TestLeadershipsEndAndBeginAnew moves the leadership round and watches what
// each node is handed: terms grow, at most one leadership of a term, each
// context ends, and each LeaderStart was applied under the term that is told.
func TestLeadershipsEndAndBeginAnew(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	var mu sync.Mutex
	terms := map[uint64]string{}
	var watchers sync.WaitGroup
	done := make(chan struct{})
	for _, m := range c.members {
		node, name, machine := m.node, m.name, m.machine
		watchers.Go(func() {
			var last Leadership
			for {
				select {
				case l := <-node.Leaderships():
					if last.Ctx != nil && last.Ctx.Err() == nil {
						t.Errorf("%s: term %d is handed out before term %d has ended", name, l.Term, last.Term)
					}
					if l.Term <= last.Term {
						t.Errorf("%s: term %d after %d", name, l.Term, last.Term)
					}
					if s := machine.Snapshot(); l.Ctx.Err() == nil && (s.Leader != name || s.LeaderTerm != l.Term) {
						t.Errorf("%s: handed term %d, applied %s of %d", name, l.Term, s.Leader, s.LeaderTerm)
					}
					mu.Lock()
					if other, taken := terms[l.Term]; taken {
						t.Errorf("term %d led by %s and %s", l.Term, other, name)
					}
					terms[l.Term] = name
					mu.Unlock()
					last = l
				case <-done:
					return
				}
			}
		})
	}
	for i := range 6 {
		leader, lead := c.leads()
		to := c.members[i%3]
		if to == leader {
			to = c.members[(i+1)%3]
		}
		if err := leader.node.TransferTo(bounded(t, 10*time.Second), to.name); err != nil {
			t.Logf("transfer: %v", err) // best effort; the next round tries again
			continue
		}
		<-lead.Ctx.Done()
		c.propose(fmt.Sprintf("n%d", i))
	}
	close(done)
	watchers.Wait()
	if len(terms) < 4 {
		t.Errorf("only %d leaderships: %v", len(terms), terms)
	}
}

func TestTransferNeedsAVoter(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, _ := c.leads()
	ctx := bounded(t, 10*time.Second)
	if err := leader.node.TransferTo(ctx, "nobody"); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	if err := leader.node.TransferTo(ctx, leader.name); err != nil {
		t.Errorf("itself: %v", err)
	}
	if err := c.followers()[0].node.Transfer(ctx); !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("by a follower: %v", err)
	}
	if err := leader.node.Transfer(ctx); err != nil {
		t.Errorf("to anybody: %v", err)
	}
}

func TestTransferToADeadNodeLeavesTheLeader(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, _ := c.leads()
	dead := c.followers()[0]
	dead.stop()
	if err := leader.node.TransferTo(bounded(t, 10*time.Second), dead.name); !errors.Is(err, cluster.ErrUnknown) {
		t.Errorf("%v", err)
	}
	c.propose("on")
}

func TestLeaderThatAbdicatesIsReplaced(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, lead := c.leads()
	leader.node.abdicate()
	<-lead.Ctx.Done()
	if leader.node.raft.State() == raft.Leader {
		t.Error("still leads")
	}
	c.propose("on")
	c.level([]string{"on"})
}

func TestHesitatingIsSlowerToStand(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, _ := c.leads()
	c.propose("one")
	c.level([]string{"one"})
	others := without(c, leader)
	if err := others[0].node.Hesitate(true); err != nil {
		t.Fatal(err)
	}
	// The slower one's first timeout begins where the other's last ends.
	if got := others[0].node.raft.ReloadableConfig().HeartbeatTimeout; got != 2*testTiming.Heartbeat {
		t.Errorf("heartbeat timeout %v", got)
	}
	if err := others[0].node.Hesitate(false); err != nil {
		t.Fatal(err)
	}
	if got := others[0].node.raft.ReloadableConfig().HeartbeatTimeout; got != testTiming.Heartbeat {
		t.Errorf("heartbeat timeout %v", got)
	}
}
