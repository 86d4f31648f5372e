package consensus

import (
	"testing"
	"time"
)

func TestThreeNodesElectAndCommit(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, lead := c.leads()
	if lead.Term == 0 || lead.Ctx.Err() != nil {
		t.Fatalf("leadership %+v", lead)
	}
	r := c.propose("one")
	if r.Index == 0 || r.Refused != nil {
		t.Fatalf("result %+v", r)
	}
	c.propose("two")
	c.level([]string{"one", "two"})
	if err := leader.node.Barrier(bounded(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
}
