package cluster

import (
	"testing"

	"github.com/failoverd/failoverd/cluster/state"
)

// A daemon that restarts and cannot make the resources of what it left running
// must not take that for stopped: no release without a stop.
func TestWhatCannotBeBuiltAfterARestartIsNotReleased(t *testing.T) {
	w := served(t)
	h := w.nodes[w.holder("pet")]
	if h.name == w.lead {
		t.Fatal("the holder leads")
	}
	h.kill()
	w.book.mu.Lock()
	w.book.broken["build pet@"+h.name] = true
	w.book.mu.Unlock()
	h.start()
	w.until("the epoch is over", func() bool {
		svc := w.nodes[w.lead].voter.View().Services["pet"]
		g := svc.Grant(1)
		return g == nil || g.Over != "" || svc.LastEpoch > 1 && len(svc.Grants) == 1
	})
	for _, e := range w.nodes[w.lead].voter.View().History {
		if e.Service == "pet" && e.Epoch == 1 && e.Kind == (state.Released{}).Kind() {
			t.Errorf("epoch 1 was released by a node that stopped nothing: %s", e.Why)
		}
	}
}
