package decide

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawn are bytes to begin a search with. What they mean is rapid's affair.
func drawn(seed uint64) []byte {
	b := make([]byte, 8<<10)
	for i := range b {
		seed = seed*6364136223846793005 + 1442695040888963407
		b[i] = byte(seed >> 56)
	}
	return b
}

// FuzzLeader lets the coverage of the code guide the views that the properties
// only draw. Asked twice the leader says the same, gives every step a reason,
// and commits nothing before the first entry of its own term is applied.
func FuzzLeader(f *testing.F) {
	f.Add(drawn(1))
	f.Add(drawn(2))
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		v := drawLeaderView(t)
		before := v.State.Clone()
		p := Leader(v)
		if d := cmp.Diff(p, Leader(v)); d != "" {
			t.Fatalf("twice asked, two answers: %s", d)
		}
		if d := cmp.Diff(before, v.State); d != "" {
			t.Fatalf("the state was changed: %s", d)
		}
		after := v.State.Clone()
		for _, s := range p.Steps {
			if s.Why == "" {
				t.Fatalf("no reason: %+v", s)
			}
			if s.Kind != StepCommit {
				continue
			}
			if v.Term != v.State.LeaderTerm {
				t.Fatalf("decided before the first entry of the term is applied: %+v", s)
			}
			if res := after.Apply(after.Index+1, v.Term, s.Command); res.Refused != nil {
				t.Fatalf("%#v is refused: %v", s.Command, res.Refused)
			}
			if err := after.Check(); err != nil {
				t.Fatalf("after %#v: %v", s.Command, err)
			}
		}
	}))
}

// FuzzMember does the same for what a node decides of itself: nothing is begun
// that it must not begin, and nothing released that runs.
func FuzzMember(f *testing.F) {
	f.Add(drawn(3))
	f.Add(drawn(4))
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		v := drawMemberView(t)
		acts := Member(v)
		if d := cmp.Diff(acts, Member(v)); d != "" {
			t.Fatalf("twice asked, two answers: %s", d)
		}
		for _, a := range acts {
			switch a.Kind {
			case ActActivate:
				activated(t, v, a)
			case ActRelease:
				if l := v.Local[a.Service]; l.Phase != "" && l.Phase != PhaseStopped && l.Epoch == a.Epoch {
					t.Fatalf("%+v while it is %s", a, l.Phase)
				}
				released(t, v, a)
			case ActOpen:
				if !v.Ready || v.Leaving {
					t.Fatalf("%+v while ready %v, leaving %v", a, v.Ready, v.Leaving)
				}
			}
		}
	}))
}
