package daemon

import (
	"slices"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/journal"
	"github.com/failoverd/failoverd/cluster/lease"
)

func namesOf(v *voters) []string {
	_, targets := v.ask()
	var out []string
	for _, t := range targets {
		out = append(out, t.ID+"@"+t.Addr.String())
	}
	return out
}

// The configuration that counts is the latest that raft has, seen anew at each
// question: the one that was applied last, or seen before, may be older, and a
// voter that goes by it says OK beside a majority that knows nothing of it.
func TestVotersAreOfTheLatestConfiguration(t *testing.T) {
	j, err := journal.Open(t.TempDir(), "boot")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.SetSession(journal.Session{ID: 7, TTL: time.Second, Voters: []journal.VoterAddr{
		{ID: "a", Addr: "192.0.2.1:7402"}, {ID: "b", Addr: "192.0.2.2:7402"},
	}}); err != nil {
		t.Fatal(err)
	}
	v := newVoters(j)
	// Before raft is loaded the journal says whom to ask, and this node votes for nothing.
	if got := namesOf(v); !slices.Equal(got, []string{"a@192.0.2.1:7402", "b@192.0.2.2:7402"}) {
		t.Errorf("of the journal %v", got)
	}
	if got := v.configuration(); len(got.Voters) != 0 || got.ID != (lease.Configuration{}).ID {
		t.Errorf("voting by the journal: %+v", got)
	}

	servers := []cluster.Server{{Name: "a", Address: "192.0.2.1:7400", Votes: true}, {Name: "c", Address: "192.0.2.3:7400", Votes: true}, {Name: "d", Address: "192.0.2.4:7400"}}
	v.load(func() []cluster.Server { return servers })
	two := lease.NewConfiguration([]string{"a", "c"})
	if got := v.configuration(); got.ID != two.ID {
		t.Errorf("raft's %v, want %v: who has no vote is none", got.Voters, two.Voters)
	}
	asked, _ := v.ask()
	if got := namesOf(v); asked.ID != two.ID || len(got) != 2 || got[0][:2] != "a@" || got[1][:2] != "c@" {
		t.Errorf("asked %v of %v", got, asked.Voters)
	}

	for _, change := range []func(){
		func() { servers[2].Votes = true },
		func() { servers = servers[1:] },
		func() {
			servers = append(slices.Clone(servers), cluster.Server{Name: "e", Address: "192.0.2.5:7400", Votes: true})
		},
	} {
		change()
		var names []string
		for _, s := range servers {
			if s.Votes {
				names = append(names, s.Name)
			}
		}
		want := lease.NewConfiguration(names)
		asked, targets := v.ask()
		if got := v.configuration(); got.ID != want.ID || asked.ID != want.ID || len(targets) != len(names) {
			t.Errorf("voting by %v and asking %v, want %v", got.Voters, asked.Voters, want.Voters)
		}
	}
	// An address that moves is asked at its new place, though the voters are the same.
	before := namesOf(v)
	servers = slices.Clone(servers)
	servers[0].Address = "192.0.2.33:7400"
	if after := namesOf(v); slices.Equal(before, after) {
		t.Errorf("still asked at %v", after)
	}
}

func TestAVoterWithoutAUsableAddressIsNotAsked(t *testing.T) {
	if got := target("a", "nowhere"); got.ID != "a" || got.Addr.IsValid() {
		t.Errorf("%+v", got)
	}
}
