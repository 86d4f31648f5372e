package cluster

import (
	"testing"
)

// Ready is who has applied the record of this very start: one of an earlier
// start says nothing about what was committed since.
func TestReadyIsOfThisStart(t *testing.T) {
	b := newBench(t)
	b.Nonce = 7
	st := b.Voter.View().Clone()
	for _, c := range []struct {
		nonce uint64
		want  bool
	}{{0, false}, {6, false}, {7, true}, {8, false}} {
		st.Nodes["a"].Started = c.nonce
		if got := b.readyIn(st); got != c.want {
			t.Errorf("start %d recorded, this is %d: ready %v", c.nonce, b.Nonce, got)
		}
	}
	delete(st.Nodes, "a")
	if b.readyIn(st) {
		t.Error("ready though the state does not know this node")
	}
}
