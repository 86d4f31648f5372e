package consensus

import (
	"io/fs"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A full disk and a read-only one pass: the leader steps down and another takes
// over, and the node takes part again without a new start.
func TestADiskWithoutRoomIsWaitedFor(t *testing.T) {
	for _, refusal := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS} {
		t.Run(refusal.Error(), func(t *testing.T) {
			c := newCluster(t, 3)
			disks := faulty(c, 200*time.Millisecond)
			c.start()
			c.propose("before")
			c.level([]string{"before"})
			leader, lead := c.leads()
			disks[leader].breakWith(&fs.PathError{Op: "write", Path: "raft.db", Err: refusal}, false)
			go leader.node.Propose(bounded(t, time.Second), setNode("after")) // its outcome is unknown
			<-lead.Ctx.Done()
			c.propose("after", without(c, leader)...)
			c.level([]string{"before", "after"}, without(c, leader)...)
			if _, stalled := leader.node.DiskStalled(); !stalled {
				t.Error("no stall to be told of")
			}
			if leader.node.watch.room() == nil {
				t.Error("no reason to be told")
			}
			disks[leader].breakWith(nil, false)
			c.level([]string{"before", "after"})
			select {
			case err := <-leader.node.Fatal():
				t.Errorf("ended: %v", err)
			default:
			}
			c.propose("more")
			c.level([]string{"before", "after", "more"})
		})
	}
}

// A node can be stopped while it waits for room.
func TestStopWithoutRoom(t *testing.T) {
	c := newCluster(t, 1)
	disks := faulty(c, 50*time.Millisecond)
	c.start()
	m, lead := c.leads()
	disks[m].breakWith(&fs.PathError{Op: "write", Path: "raft.db", Err: unix.ENOSPC}, false)
	go m.node.Propose(bounded(t, time.Second), setNode("x")) // its outcome is unknown
	<-lead.Ctx.Done()
	if err := m.node.Stop(bounded(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
}

// What a sync says is final, for want of room too.
func TestOnlyARefusedWriteIsTriedAgain(t *testing.T) {
	for _, err := range []error{unix.ENOSPC, unix.EIO, &fs.PathError{Op: "sync", Err: unix.ENOSPC}, &fs.PathError{Op: "write", Err: unix.EIO}} {
		if noRoom(err) {
			t.Errorf("%v would be tried again", err)
		}
	}
}
