package cluster

import (
	"context"
	"testing"

	"github.com/failoverd/failoverd/cluster/decide"
)

// lookingResource looks around while it is being stopped.
type lookingResource struct {
	benchResource
	look func()
}

func (r lookingResource) Stop(ctx context.Context) error {
	r.look()
	return r.benchResource.Stop(ctx)
}

// LEASE.md 9: stopped first, and only then journaled as being released.
func TestNothingIsReleasedBeforeItHasStopped(t *testing.T) {
	b := newBench(t)
	u := b.holds(decide.PhaseRunning)
	early := -1
	u.mu.Lock()
	u.resources = []Resource{lookingResource{benchResource{b}, func() { early = len(b.journal.Entries()) }}}
	u.mu.Unlock()
	b.act(b.Voter.View(), decide.Act{Kind: decide.ActGiveUp, Service: "erp", Epoch: 1, Why: "for the test"})
	u.wg.Wait()
	if early != 0 {
		t.Errorf("%d records of a release while it was being stopped", early)
	}
	if got := len(b.journal.Entries()); got != 1 {
		t.Errorf("%d records afterwards, want 1", got)
	}
}
