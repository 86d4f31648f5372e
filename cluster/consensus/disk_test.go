package consensus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
)

// faultyDisk is a store whose writes can be made to hang or to fail.
type faultyDisk struct {
	backing

	mu    sync.Mutex
	fail  error
	panic bool
	hung  chan struct{} // closed to go on
	tries int
}

func (d *faultyDisk) write(call func() error) error {
	d.mu.Lock()
	hung, fail, panics := d.hung, d.fail, d.panic
	d.tries++
	d.mu.Unlock()
	if hung != nil {
		<-hung
	}
	if panics {
		panic("page 7: unexpected type")
	}
	if fail != nil {
		return fail
	}
	return call()
}

func (d *faultyDisk) StoreLogs(logs []*raft.Log) error {
	return d.write(func() error { return d.backing.StoreLogs(logs) })
}

func (d *faultyDisk) Set(key, value []byte) error {
	return d.write(func() error { return d.backing.Set(key, value) })
}

// hang makes every write from now on wait until the returned function is called.
func (d *faultyDisk) hang() (heal func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hung := make(chan struct{})
	d.hung = hung
	return sync.OnceFunc(func() {
		d.mu.Lock()
		d.hung = nil
		d.mu.Unlock()
		close(hung)
	})
}

func (d *faultyDisk) breakWith(err error, panics bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.panic = err, panics
}

func (d *faultyDisk) attempts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tries
}

// faulty gives every member of a cluster such a disk.
func faulty(c *testCluster, limit time.Duration) map[*member]*faultyDisk {
	disks := map[*member]*faultyDisk{}
	for _, m := range c.members {
		disk := &faultyDisk{}
		disks[m] = disk
		m.options.DiskLimit = limit
		m.options.wrap = func(b backing) backing {
			disk.backing = b
			return disk
		}
	}
	return disks
}

func without(c *testCluster, m *member) []*member {
	var out []*member
	for _, other := range c.members {
		if other != m {
			out = append(out, other)
		}
	}
	return out
}

// TestLeaderWithAHungDiskIsReplaced is the trap that costs most: the leader's
// main loop waits in a write while its heartbeats go on.
func TestLeaderWithAHungDiskIsReplaced(t *testing.T) {
	const limit = 300 * time.Millisecond
	c := newCluster(t, 3)
	disks := faulty(c, limit)
	c.start()
	c.propose("before")
	c.level([]string{"before"})
	leader, lead := c.leads()
	if _, stalled := leader.node.DiskStalled(); stalled {
		t.Error("stalled before anything hangs")
	}

	heal := disks[leader].hang()
	t.Cleanup(heal)
	began := time.Now()
	unknown := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_, err := leader.node.Propose(ctx, setNode("hung"))
		unknown <- err
	}()
	// raft draws each timeout between one and two of what is configured.
	bound := limit + 3*2*testTiming.Election
	var next *member
	within(t, bound, "new leader", func() bool {
		for _, m := range without(c, leader) {
			if _, ok := m.node.Leading(); ok {
				next = m
				return true
			}
		}
		return false
	})
	t.Logf("replaced after %v (limit of the disk %v)", time.Since(began).Round(time.Millisecond), limit)
	if err := <-unknown; !errors.Is(err, cluster.ErrUnknown) {
		t.Errorf("proposal under way: %v, want an unknown outcome", err)
	}
	select {
	case <-lead.Ctx.Done():
	case <-time.After(bound):
		t.Error("the leadership outlives the stall")
	}
	if since, stalled := leader.node.DiskStalled(); !stalled || since < limit {
		t.Errorf("stalled %v, %v", since, stalled)
	}
	if _, err := leader.node.Propose(bounded(t, 200*time.Millisecond), setNode("refused")); !errors.Is(err, cluster.ErrTimeout) && !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("proposal to the hung node: %v", err)
	}

	// The same command again, to the new leader: committed once.
	if r, err := next.node.Propose(bounded(t, 10*time.Second), setNode("hung")); err != nil || r.Refused != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	c.level([]string{"before", "hung"}, without(c, leader)...)
	heal()
	c.level([]string{"before", "hung"})
	eventually(t, "the stall to be over", func() bool { _, stalled := leader.node.DiskStalled(); return !stalled })
	select {
	case err := <-leader.node.Fatal():
		t.Errorf("a disk that only was slow ended the node: %v", err)
	default:
	}
	c.propose("after")
	c.level([]string{"before", "hung", "after"})
}

// TestAHungDiskWhileAloneIsLostAndRegained: nobody can replace the leader of
// one node; when the disk comes back it leads again, under a new leadership.
func TestAHungDiskWhileAloneIsLostAndRegained(t *testing.T) {
	c := newCluster(t, 1)
	disks := faulty(c, 50*time.Millisecond)
	c.start()
	m, lead := c.leads()
	heal := disks[m].hang()
	t.Cleanup(heal)
	go m.node.Propose(bounded(t, 10*time.Second), setNode("x"))
	<-lead.Ctx.Done()
	if _, ok := m.node.Leading(); ok {
		t.Error("leads with a hung disk")
	}
	heal()
	_, again := c.leads()
	if again.Ctx == lead.Ctx || again.Ctx.Err() != nil {
		t.Error("the old leadership came back")
	}
	c.propose("y")
}

// TestHeartbeatsNeedTheMainLoop: with raft's fast path a follower whose disk
// hangs would go on answering heartbeats, and keep a leader that has no majority.
func TestHeartbeatsNeedTheMainLoop(t *testing.T) {
	c := newCluster(t, 3)
	disks := faulty(c, 10*time.Second) // so that only the followers' silence counts
	c.start()
	c.propose("before")
	c.level([]string{"before"})
	leader, lead := c.leads()
	for _, m := range without(c, leader) {
		t.Cleanup(disks[m].hang())
	}
	_, err := leader.node.Propose(bounded(t, 5*time.Second), setNode("x"))
	if !errors.Is(err, cluster.ErrUnknown) || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the leader stays without anybody's disk behind it: %v", err)
	}
	<-lead.Ctx.Done()
}

// TestAFailedWriteEndsTheNodesPart: not retried, not shrugged at, no panic.
func TestAFailedWriteEndsTheNodesPart(t *testing.T) {
	broken := errors.New("input/output error")
	for _, panics := range []bool{false, true} {
		for _, leads := range []bool{true, false} {
			t.Run(fmt.Sprintf("leader=%v,panic=%v", leads, panics), func(t *testing.T) {
				c := newCluster(t, 3)
				disks := faulty(c, time.Second)
				c.start()
				c.propose("before")
				c.level([]string{"before"})
				victim, lead := c.leads()
				if !leads {
					victim = c.followers()[0]
				}
				disks[victim].breakWith(broken, panics)
				c.propose("after", without(c, victim)[0], without(c, victim)[1], victim)
				select {
				case err := <-victim.node.Fatal():
					if !errors.Is(err, ErrDisk) || !panics && !errors.Is(err, broken) || !strings.Contains(err.Error(), "check the disk") {
						t.Errorf("fatal: %v", err)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("no fatal error")
				}
				if leads {
					<-lead.Ctx.Done()
				}
				tries := disks[victim].attempts()
				// The disk is well again, but what is on it is not known.
				disks[victim].breakWith(nil, false)
				c.propose("more", without(c, victim)...)
				c.level([]string{"before", "after", "more"}, without(c, victim)...)
				if got := disks[victim].attempts(); got != tries {
					t.Errorf("%d writes after the failed one", got-tries)
				}
				if victim.node.IsLeader() {
					t.Error("still counts as leader")
				}
				if id, _ := victim.node.Leader(); id != "" {
					t.Error("still names a leader")
				}
				if _, err := victim.node.Propose(bounded(t, 5*time.Second), setNode("x")); err == nil {
					t.Error("takes a proposal")
				}
				// After a restart it is a node like any other.
				victim.stop()
				victim.start()
				c.level([]string{"before", "after", "more"})
			})
		}
	}
}

// TestATermThatCannotBeSavedDoesNotPanic: raft panics there.
func TestATermThatCannotBeSavedDoesNotPanic(t *testing.T) {
	c := newCluster(t, 3)
	disks := faulty(c, time.Second)
	c.start()
	leader, _ := c.leads()
	victims := without(c, leader)
	for _, m := range victims {
		disks[m].breakWith(errors.New("no space left on device"), false)
	}
	leader.stop() // the others stand for election, and must write a term
	some := make(chan error, 2)
	for _, m := range victims {
		fatal := m.node.Fatal()
		go func() {
			select {
			case err := <-fatal:
				some <- err
			case <-t.Context().Done():
			}
		}()
	}
	select {
	case err := <-some:
		if !errors.Is(err, ErrDisk) {
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no fatal error")
	}
}

// TestAnEntryThatCannotBeReadEndsTheNodesPart: raft panics there too.
func TestAnEntryThatCannotBeReadEndsTheNodesPart(t *testing.T) {
	v := newVerdict()
	g := &guarded{inner: &unreadable{}, watch: newWatch(time.Second), verdict: v}
	done := make(chan error, 1)
	go func() { done <- logStore{g}.GetLog(7, new(raft.Log)) }()
	<-v.done
	if err := v.reached(); !errors.Is(err, ErrDisk) {
		t.Errorf("%v", err)
	}
	select {
	case err := <-done:
		t.Fatalf("raft was told %v and would panic", err)
	case <-time.After(50 * time.Millisecond):
	}
	v.release()
	if err := <-done; err == nil {
		t.Error("no error")
	}
}

// TestNothingIsWrittenAfterAFailedWrite: raft has several goroutines that write.
func TestNothingIsWrittenAfterAFailedWrite(t *testing.T) {
	disk := &faultyDisk{backing: &memoryDisk{}}
	g := &guarded{inner: disk, watch: newWatch(time.Second), verdict: newVerdict()}
	disk.breakWith(errors.New("input/output error"), false)
	var wait sync.WaitGroup
	wait.Go(func() { logStore{g}.StoreLog(&raft.Log{Index: 1}) })
	<-g.verdict.done
	disk.breakWith(nil, false)
	wait.Go(func() { (&stableStore{guarded: g}).SetUint64([]byte(keyTerm), 1) })
	wait.Go(func() { logStore{g}.StoreLog(&raft.Log{Index: 1}) })
	time.AfterFunc(50*time.Millisecond, g.verdict.release)
	wait.Wait()
	if got := disk.attempts(); got != 1 {
		t.Errorf("%d writes, want the failed one alone", got)
	}
}

// TestAHungReadCountsToo: a page that is not in memory is read from the disk.
func TestAHungReadCountsToo(t *testing.T) {
	slow := &slowRead{goOn: make(chan struct{})}
	g := &guarded{inner: slow, watch: newWatch(20 * time.Millisecond), verdict: newVerdict()}
	done := make(chan error, 1)
	go func() { done <- logStore{g}.GetLog(7, new(raft.Log)) }()
	<-g.watch.changed
	if _, stalled := g.watch.stalled(); !stalled {
		t.Error("not stalled")
	}
	close(slow.goOn)
	if err := <-done; !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("%v", err)
	}
	<-g.watch.changed
	if _, stalled := g.watch.stalled(); stalled {
		t.Error("still stalled")
	}
}

type slowRead struct {
	backing
	goOn chan struct{}
}

func (s *slowRead) GetLog(uint64, *raft.Log) error {
	<-s.goOn
	return raft.ErrLogNotFound
}

type unreadable struct{ backing }

func (*unreadable) GetLog(index uint64, log *raft.Log) error {
	*log = raft.Log{Index: index, Term: 1, Data: []byte("flipped"), Extensions: []byte{1, 2, 3, 4}}
	return nil
}

func TestTheDiskIsProbedWhileLeading(t *testing.T) {
	c := newCluster(t, 1)
	c.members[0].options.DiskLimit = 20 * time.Millisecond
	c.start()
	c.leads()
	eventually(t, "a probe", func() bool { return fileSize(c.members[0].path+"/"+probeFile) > 0 })
}
