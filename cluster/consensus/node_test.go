package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

func TestNodesElectAndCommit(t *testing.T) {
	for _, size := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := newCluster(t, size)
			c.start()
			leader, lead := c.leads()
			r := c.propose("one")
			if r.Index == 0 || r.Refused != nil {
				t.Fatalf("result %+v", r)
			}
			c.propose("two")
			c.level([]string{"one", "two"})
			if err := leader.node.Barrier(bounded(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			for _, m := range c.members {
				eventually(t, m.name+" to know the leader", func() bool {
					id, address := m.node.Leader()
					return id == leader.name && address == leader.address
				})
				s := m.machine.Snapshot()
				if s.Leader != leader.name || s.LeaderTerm != lead.Term {
					t.Errorf("%s believes in leader %s of term %d, want %s of %d", m.name, s.Leader, s.LeaderTerm, leader.name, lead.Term)
				}
				if got := m.node.Configuration().Voters; len(got) != size || !slices.IsSorted(got) {
					t.Errorf("voters %v", got)
				}
			}
		})
	}
}

func TestFollowersAndStoppedNodesTakeNoProposals(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	follower := c.followers()[0]
	if _, err := follower.node.Propose(bounded(t, 5*time.Second), setNode("x")); !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("follower: %v", err)
	}
	if err := follower.node.Barrier(bounded(t, 5*time.Second)); !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("follower: %v", err)
	}
	leader, _ := c.leads()
	node := leader.node
	if _, err := node.Propose(bounded(t, 5*time.Second), nil); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("no command: %v", err)
	}
	large := state.SetServices{Stamp: state.Stamp{Why: string(make([]byte, MaxCommand))}}
	if _, err := node.Propose(bounded(t, 5*time.Second), large); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("large command: %v", err)
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := node.Propose(over, setNode("x")); !errors.Is(err, cluster.ErrTimeout) {
		t.Errorf("after the deadline: %v", err)
	}
	leader.stop()
	if _, err := node.Propose(bounded(t, 5*time.Second), setNode("x")); err == nil {
		t.Error("a stopped node took a proposal")
	}
	if err := node.Stop(bounded(t, 5*time.Second)); err != nil {
		t.Errorf("second stop: %v", err)
	}
}

func TestRefusalIsAResult(t *testing.T) {
	c := newCluster(t, 1)
	c.start()
	leader, _ := c.leads()
	r, err := leader.node.Propose(bounded(t, 5*time.Second), state.RemoveNode{Node: "nobody"})
	if err != nil || r.Refused == nil {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestRestartKeepsWhatWasCommitted(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	c.propose("one")
	c.level([]string{"one"})
	_, before := c.leads()
	for _, m := range c.members {
		m.stop()
	}
	if before.Ctx.Err() == nil {
		t.Error("a leadership outlives its node")
	}
	c.start()
	c.propose("two")
	c.level([]string{"one", "two"})
	if _, after := c.leads(); after.Term <= before.Term {
		t.Errorf("term %d after %d", after.Term, before.Term)
	}
}

// crash takes the directory as it stands while the node runs, ends the node,
// and puts the image in the directory's place.
func (m *member) crash() {
	m.t.Helper()
	image := m.path + ".image"
	if err := os.CopyFS(image, os.DirFS(m.path)); err != nil {
		m.t.Fatal(err)
	}
	m.stop()
	if err := os.RemoveAll(m.path); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(image, m.path); err != nil {
		m.t.Fatal(err)
	}
}

func TestCrashOfTheLeaderLosesNothing(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	var want []string
	for i := range 6 {
		name := fmt.Sprintf("n%d", i)
		c.propose(name)
		want = append(want, name)
		leader, _ := c.leads()
		leader.crash()
		c.propose(name + "-without")
		want = append(want, name+"-without")
		leader.start()
	}
	c.level(want)
}

func TestLaggardGetsASnapshot(t *testing.T) {
	c := newCluster(t, 3)
	for _, m := range c.members {
		m.options = Options{SnapshotThreshold: 1 << 20, TrailingLogs: 1}
	}
	c.start()
	c.propose("first")
	laggard := c.followers()[0]
	c.level([]string{"first"})
	laggard.stop()
	others := slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return m == laggard })
	want := []string{"first"}
	for i := range 20 {
		name := fmt.Sprintf("n%d", i)
		c.propose(name, others...)
		want = append(want, name)
	}
	for _, m := range others {
		eventually(t, "level before the snapshot", func() bool { return len(m.machine.names()) == len(want) })
		if err := m.node.Snapshot(bounded(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	c.propose("after", others...)
	want = append(want, "after")
	laggard.start()
	c.level(want)
	// And once more from its own disk.
	laggard.stop()
	laggard.start()
	c.level(want)

	eventually(t, "equal states", func() bool {
		return cmp.Equal(c.members[0].machine.Snapshot(), c.members[1].machine.Snapshot()) &&
			cmp.Equal(c.members[1].machine.Snapshot(), c.members[2].machine.Snapshot())
	})
}

func TestSnapshotsAreTakenByThemselves(t *testing.T) {
	c := newCluster(t, 1)
	c.members[0].options = Options{SnapshotThreshold: 8, SnapshotInterval: 10 * time.Millisecond, TrailingLogs: 2}
	c.start()
	for i := range 30 {
		c.propose(fmt.Sprintf("n%d", i))
	}
	eventually(t, "snapshots, the older ones removed", func() bool {
		dirs, err := os.ReadDir(filepath.Join(c.members[0].path, snapshotDir))
		return err == nil && len(dirs) >= 1 && len(dirs) <= retained+1
	})
	c.members[0].stop()
	c.start()
	c.leads()
	if got := len(c.members[0].machine.names()); got != 30 {
		t.Errorf("%d of 30 came back", got)
	}
}

func TestMembership(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, _ := c.leads()
	ctx := bounded(t, 60*time.Second)

	d := newMember(t, "d")
	d.openDirectory()
	id := d.dir.Identity()
	_, said := d.dir.look()
	if ok, err := d.dir.settle(said, Decision{Verb: Join, Cluster: ClusterID(c.founders), Founders: append(slices.Clone(c.founders), founder(id))}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	d.start()
	if err := leader.node.Promote(ctx, "d", d.address); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("promote a stranger: %v", err)
	}
	if err := leader.node.AddNonvoter(ctx, "e", leader.address); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("add at an address that is taken: %v", err)
	}
	if err := leader.node.AddNonvoter(ctx, leader.name, "127.0.0.1:1"); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("move a voter: %v", err)
	}
	for range 2 { // again is the same
		if err := leader.node.AddNonvoter(ctx, "d", d.address); err != nil {
			t.Fatal(err)
		}
	}
	if s, ok := leader.node.Configuration().Has("d"); !ok || s.Votes {
		t.Errorf("d is %+v", s)
	}
	c.propose("one")
	c.level([]string{"one"}, d)
	if err := leader.node.Promote(ctx, "d", "127.0.0.1:1"); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("promote at another address: %v", err)
	}
	for range 2 {
		if err := leader.node.Promote(ctx, "d", d.address); err != nil {
			t.Fatal(err)
		}
	}
	if got := leader.node.Configuration().Voters; len(got) != 4 {
		t.Errorf("voters %v", got)
	}
	eventually(t, "d to see itself vote", func() bool { s, _ := d.node.Configuration().Has("d"); return s.Votes })
	for range 2 {
		if err := leader.node.Demote(ctx, "d"); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := leader.node.Remove(ctx, "d"); err != nil {
			t.Fatal(err)
		}
	}
	if d.node.Removed() && len(d.node.Configuration().Voters) == 0 {
		t.Error("an empty configuration counts as removal")
	}
	if err := leader.node.Demote(ctx, "nobody"); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("demote nobody: %v", err)
	}
	if err := d.node.Remove(ctx, "a"); !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("change by a node that does not lead: %v", err)
	}
}

func TestLastVoterStays(t *testing.T) {
	c := newCluster(t, 1)
	c.start()
	leader, _ := c.leads()
	ctx := bounded(t, 10*time.Second)
	if err := leader.node.Demote(ctx, leader.name); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("demote: %v", err)
	}
	if err := leader.node.Remove(ctx, leader.name); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("remove: %v", err)
	}
	c.propose("still")
}

func TestRemovedLeaderGoesOnAsNothing(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, lead := c.leads()
	others := c.followers()
	if err := leader.node.Remove(bounded(t, 10*time.Second), leader.name); err != nil {
		t.Fatal(err)
	}
	<-lead.Ctx.Done()
	if !leader.node.Removed() {
		t.Error("the removed node does not say so")
	}
	c.propose("without", others...)
	if leader.node.IsLeader() {
		t.Error("the removed node leads")
	}
	select {
	case err := <-leader.node.Fatal():
		t.Errorf("fatal: %v", err)
	default:
	}
}

func TestChangesWithoutAMajorityAreUnknown(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, lead := c.leads()
	for _, m := range c.followers() {
		m.stop()
	}
	_, err := leader.node.Propose(bounded(t, 10*time.Second), setNode("x"))
	if !errors.Is(err, cluster.ErrUnknown) && !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("propose: %v", err)
	}
	<-lead.Ctx.Done()
	if _, ok := leader.node.Leading(); ok {
		t.Error("leads without a majority")
	}
}

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
