package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	leader, lead := c.leads()
	ctx := bounded(t, 60*time.Second)

	d := newMember(t, "d")
	d.openDirectory()
	id := d.dir.Identity()
	_, said := d.dir.look()
	if ok, err := d.dir.settle(said, Decision{Verb: Join, Cluster: ClusterID(c.founders), Founders: append(slices.Clone(c.founders), founder(id))}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	d.start()
	if err := leader.node.Promote(ctx, lead.Term, "d", d.address); !errors.Is(err, cluster.ErrNotFound) {
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
	if err := leader.node.Promote(ctx, lead.Term, "d", "127.0.0.1:1"); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("promote at another address: %v", err)
	}
	for range 2 {
		if err := leader.node.Promote(ctx, lead.Term, "d", d.address); err != nil {
			t.Fatal(err)
		}
	}
	if got := leader.node.Configuration().Voters; len(got) != 4 {
		t.Errorf("voters %v", got)
	}
	eventually(t, "d to see itself vote", func() bool { s, _ := d.node.Configuration().Has("d"); return s.Votes })
	for range 2 {
		if err := leader.node.Demote(ctx, lead.Term, "d"); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := leader.node.Remove(ctx, lead.Term, "d"); err != nil {
			t.Fatal(err)
		}
	}
	if d.node.Removed() && len(d.node.Configuration().Voters) == 0 {
		t.Error("an empty configuration counts as removal")
	}
	if err := leader.node.Demote(ctx, lead.Term, "nobody"); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("demote nobody: %v", err)
	}
	if err := d.node.Remove(ctx, lead.Term, "a"); !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("change by a node that does not lead: %v", err)
	}
}

func TestLastVoterStays(t *testing.T) {
	c := newCluster(t, 1)
	c.start()
	leader, lead := c.leads()
	ctx := bounded(t, 10*time.Second)
	if err := leader.node.Demote(ctx, lead.Term, leader.name); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("demote: %v", err)
	}
	if err := leader.node.Remove(ctx, lead.Term, leader.name); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("remove: %v", err)
	}
	c.propose("still")
}

func TestRemovedLeaderGoesOnAsNothing(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, lead := c.leads()
	others := c.followers()
	if err := leader.node.Remove(bounded(t, 10*time.Second), lead.Term, leader.name); err != nil {
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

// TestStopLeavesNothingRunning counts goroutines after a life with elections,
// refused connections and a transfer.
func TestStopLeavesNothingRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	c := newCluster(t, 3)
	c.start()
	c.propose("one")
	leader, _ := c.leads()
	if err := leader.node.Transfer(bounded(t, 10*time.Second)); err != nil {
		t.Log(err)
	}
	c.propose("two")
	for _, m := range c.members {
		m.stop()
	}
	now := 0
	deadline := time.Now().Add(10 * time.Second)
	for now = runtime.NumGoroutine(); now > before && time.Now().Before(deadline); now = runtime.NumGoroutine() {
		time.Sleep(10 * time.Millisecond)
	}
	if now > before {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after:\n%s", before, now, stacks[:runtime.Stack(stacks, true)])
	}
}

// TestStopIsBoundedWhenTheDiskHangs: the process can end though a write does not.
func TestStopIsBoundedWhenTheDiskHangs(t *testing.T) {
	c := newCluster(t, 1)
	disks := faulty(c, 50*time.Millisecond)
	c.start()
	m, lead := c.leads()
	heal := disks[m].hang()
	t.Cleanup(heal)
	go m.node.Propose(bounded(t, 10*time.Second), setNode("x"))
	<-lead.Ctx.Done()
	if err := m.node.Stop(bounded(t, 500*time.Millisecond)); err == nil {
		t.Error("stopped with a write under way")
	}
	heal()
	if err := m.node.Stop(bounded(t, 20*time.Second)); err != nil {
		t.Errorf("after the disk came back: %v", err)
	}
}
