package consensus

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A configuration counts from the moment that it is in the log (raft's rule, and
// the c of LEASE.md): a voter that waited for it to be committed or applied would
// say OK by another list than those who have it.
func TestTheLatestConfigurationCounts(t *testing.T) {
	c := newCluster(t, 3)
	c.start()
	leader, _ := c.leads()
	if got := leader.node.Configuration().Voters; len(got) != 3 {
		t.Fatalf("voters %v", got)
	}
	for _, m := range c.followers() {
		m.stop()
	}
	done := make(chan error, 1)
	go func() { done <- leader.node.AddNonvoter(bounded(t, 10*time.Second), "x", "127.0.0.1:1") }()
	eventually(t, "the server that nobody has confirmed", func() bool {
		_, ok := leader.node.Configuration().Has("x")
		return ok
	})
	if err := <-done; err == nil {
		t.Error("a change without a majority is called done")
	}
	if _, ok := leader.node.Configuration().Has("x"); !ok {
		t.Error("it is forgotten with the leadership")
	}
}

// A vote is on the disk before it is given.
func TestAVoteIsOnTheDiskWhenItIsGiven(t *testing.T) {
	disk := &memoryDisk{}
	s := stableOver(t, disk)
	for term, candidate := range map[uint64]string{4: "b"} {
		if err := s.SetUint64([]byte(keyVoteTerm), term); err != nil {
			t.Fatal(err)
		}
		if err := s.Set([]byte(keyVoteFor), []byte(candidate)); err != nil {
			t.Fatal(err)
		}
		if b, err := loadBallot(disk); err != nil || b.VoteTerm != term || string(b.VoteFor) != candidate {
			t.Errorf("on the disk %+v, %v", b, err)
		}
	}
}

// As long as an access to the disk hangs nothing is sent: a leader's heartbeats
// would keep its followers, though it can commit nothing.
func TestNothingIsSentWhileTheDiskHangs(t *testing.T) {
	w := newWatch(time.Millisecond)
	g := &gate{watch: w, verdict: newVerdict()}
	if err := g.shut(); err != nil {
		t.Fatalf("shut while all is well: %v", err)
	}
	end := w.begin()
	eventually(t, "the gate to shut", func() bool { return errors.Is(g.shut(), errShut) })
	end()
	if err := g.shut(); err != nil {
		t.Errorf("shut after the access has ended: %v", err)
	}
}

// Lists of peers are compared by what is in them.
func TestPeersOfAnotherListFoundNothing(t *testing.T) {
	self, b, c := blank(0), blank(1), blank(2)
	b.Peers[2] = "10.0.0.4:1"
	if d := NextFounding(self, answersOf(b, c)); d.Verb != Wait || !strings.Contains(d.Why, "another list of peers") {
		t.Errorf("%+v", d)
	}
}
