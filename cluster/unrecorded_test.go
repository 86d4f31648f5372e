package cluster

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/state"
)

// roomless is a journal on a disk without room.
type roomless struct{ full bool }

func (r *roomless) Active(string, uint64, uint64, []byte) error {
	if r.full {
		return fmt.Errorf("write record: %w", unix.ENOSPC)
	}
	return nil
}
func (r *roomless) Releasing(string, uint64) error { return nil }

// A start that cannot be written down is no failure of the service, which would
// keep it from that node until an operator has looked: nothing was begun, which
// is what the leader is told, and it is tried again when the disk may have room.
func TestAStartThatCannotBeRecordedIsNoFailure(t *testing.T) {
	now := time.Unix(1, 0)
	disk := &roomless{full: true}
	woken := make(chan struct{}, 16)
	u := newUnit("pet", &unitHost{
		ctx: t.Context(), builder: refusing{nil}, records: disk,
		left:  func() time.Duration { return time.Second },
		until: func() (clock.Reading, bool) { return clock.Reading{Boot: 2 * time.Hour, Raw: 2 * time.Hour}, true },
		wake:  func() { woken <- struct{}{} }, now: func() time.Time { return now },
	}, testLog("a"))
	activate := func() { u.activate(1, 1, state.Spec{Name: "pet"}, Origin{Service: "pet", Epoch: 1}) }
	for range 5 {
		activate()
		<-woken
		if l := u.local(0, false); l.Failed != "" || l.Phase != decide.PhaseStopped || l.Epoch != 0 || u.report().Epoch != 0 {
			t.Fatalf("without room: %+v", l)
		}
		if activate(); u.local(0, false).Phase != decide.PhaseStopped {
			t.Fatal("tried again at once")
		}
		now = now.Add(2 * retryRecord)
	}
	disk.full = false
	activate()
	<-woken
	if l := u.local(0, false); l.Phase != decide.PhaseRunning || l.Epoch != 1 {
		t.Fatalf("with room: %+v", l)
	}
	u.stop("the test is over", nil)
	u.wg.Wait()
}
