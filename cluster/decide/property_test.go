package decide

import (
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/failoverd/failoverd/cluster/state"
)

// The same view gives the same plan, and changes nothing of the view.
func TestLeaderIsAFunction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawLeaderView(t)
		before := v.State.Clone()
		one := Leader(v)
		for range 5 {
			if d := cmp.Diff(one, Leader(v)); d != "" {
				t.Fatalf("twice asked, two answers: %s", d)
			}
		}
		if d := cmp.Diff(before, v.State); d != "" {
			t.Fatalf("the state was changed: %s", d)
		}
	})
}

func TestMemberIsAFunction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawMemberView(t)
		one := Member(v)
		for range 5 {
			if d := cmp.Diff(one, Member(v)); d != "" {
				t.Fatalf("twice asked, two answers: %s", d)
			}
		}
	})
}

// Whatever the leader names has its reason, every service is spoken of, and the
// leader looks again by itself as long as something can become due.
func TestLeaderExplains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawLeaderView(t)
		p := Leader(v)
		for _, s := range p.Steps {
			if s.Why == "" {
				t.Errorf("no reason: %+v", s)
			}
		}
		for name := range v.State.Services {
			if p.Notes[name] == "" {
				t.Errorf("nothing is said of %s", name)
			}
		}
		for _, s := range v.State.Sessions {
			if s.Status == state.SessionOpen && v.Term == v.State.LeaderTerm && p.Wake == 0 && len(p.Steps) == 0 {
				t.Errorf("session %d is open and the leader never looks again by itself", s.ID)
			}
		}
	})
}

// The state machine takes whatever the leader proposes, one after the other; no
// service is given away while an epoch is not over, and a paused one not at all.
func TestLeaderProposesWhatIsAllowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawLeaderView(t)
		after := v.State.Clone()
		for _, s := range Leader(v).Steps {
			if s.Kind != StepCommit {
				continue
			}
			if v.Term != v.State.LeaderTerm {
				t.Fatalf("decided before the first entry of the term is applied: %+v", s)
			}
			allowedStep(t, v, s)
			res := after.Apply(after.Index+1, v.Term, s.Command)
			// A close may take away what another step of the same plan goes by.
			if res.Refused != nil && res.Refused.Code != state.CodeSessionNotOpen {
				t.Fatalf("%+v is refused: %s", s.Command, res.Refused.Why)
			}
		}
	})
}

func allowedStep(t *rapid.T, v LeaderView, s Step) {
	switch c := s.Command.(type) {
	case state.GrantService:
		svc := v.State.Services[c.Service]
		if open := svc.Unfinished(); len(open) > 0 {
			t.Fatalf("%+v while epoch %d is not over", c, open[0].Epoch)
		}
		movable(t, v, c.Service, c.Node)
	case state.HandOver:
		if open := v.State.Services[c.Service].Unfinished(); len(open) != 1 || open[0].Epoch != c.From {
			t.Fatalf("%+v with these not over: %+v", c, open)
		}
		if p := v.Moves[c.Service]; !p.Done || p.To != c.ToNode {
			t.Fatalf("%+v was not prepared", c)
		}
		movable(t, v, c.Service, c.ToNode)
	case state.EndSession:
		ev := v.Sessions[c.Session]
		if !ev.DueKnown || ev.Due > 0 || c.Proof != state.ProofExpired || c.Term != v.Term {
			t.Fatalf("%+v by the evidence %+v", c, ev)
		}
	case state.CloseSession:
		ev := v.Sessions[c.Session]
		held := heldUnder(v.State, v.State.Sessions[c.Session])
		idle := slices.ContainsFunc(held, func(name string) bool {
			return v.Unstarted[name] > StartLimit(drawnTTL) || v.Unended[name] > StartLimit(drawnTTL)
		})
		if quiet, known := ev.quiet(v.Voters); !ev.Goodbye && !idle && (!known || quiet < drawnTTL*8/10) {
			t.Fatalf("%+v by the evidence %+v", c, ev)
		}
		for _, name := range held {
			if Paused(v.State, name) != "" && !ev.Goodbye {
				t.Fatalf("%+v takes %s, which is paused", c, name)
			}
		}
	}
}

func movable(t *rapid.T, v LeaderView, service, to string) {
	n := v.State.Nodes[to]
	switch {
	case Paused(v.State, service) != "":
		t.Fatalf("%s moves, and %s", service, Paused(v.State, service))
	case n.Standby != nil || !n.Role.Holds() || !v.State.Services[service].Spec.Allows(to):
		t.Fatalf("%s goes to %s, which stands by or may not hold it", service, to)
	case v.State.OpenSession(to) == nil:
		t.Fatalf("%s goes to %s, which has no open session", service, to)
	}
}

// An epoch is begun only when nothing speaks against it: it is this node's own,
// under the session that it renews, not over and not being given up, the node is
// ready and has a lease, and whoever had the service before has stopped.
func TestMemberActivatesNothingItMustNot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawMemberView(t)
		started := map[string]bool{}
		for _, a := range Member(v) {
			if a.Why == "" && a.Kind != ActActivate {
				t.Fatalf("no reason: %+v", a)
			}
			if a.Kind != ActActivate {
				continue
			}
			if started[a.Service] {
				t.Fatalf("two epochs of %s at once", a.Service)
			}
			started[a.Service] = true
			activated(t, v, a)
		}
	})
}

func activated(t *rapid.T, v MemberView, a Act) {
	if !v.Ready || v.Lapsed || !v.Lease || v.Leaving || v.Refused {
		t.Fatalf("%+v while ready %v, lease %v, lapsed %v, leaving %v, refused %v", a, v.Ready, v.Lease, v.Lapsed, v.Leaving, v.Refused)
	}
	if l, ok := v.Local[a.Service]; ok && l.Phase != PhaseStopped {
		t.Fatalf("%+v while epoch %d is %s", a, l.Epoch, l.Phase)
	}
	for _, r := range v.Records {
		if r.Service == a.Service && r.Epoch == a.Epoch && (r.Releasing || !r.SameBoot || r.Session != v.Session) {
			t.Fatalf("%+v with the record %+v", a, r)
		}
	}
	svc := v.State.Services[a.Service]
	if svc == nil || a.Epoch > svc.LastEpoch {
		t.Fatalf("%+v, which the state does not know", a)
	}
	g := svc.Grant(a.Epoch)
	if g == nil || g.Over != "" || svc.Removed || svc.LastEpoch > a.Epoch {
		t.Fatalf("%+v, which is over or not wanted", a)
	}
	if s := v.State.Sessions[v.Session]; s == nil || s.Status != state.SessionOpen {
		t.Fatalf("%+v under session %d, which is not open", a, v.Session)
	}
	for _, r := range v.Records {
		if r.Service == a.Service && r.Epoch == a.Epoch {
			return // it was begun before, so it might be begun
		}
	}
	if g.Node != v.Self || g.Session != v.Session {
		t.Fatalf("%+v, which is %s's under session %d", a, g.Node, g.Session)
	}
	if g.Kind == state.KindHandOver {
		giver := svc.Grant(g.From)
		told := v.Told[Told{Service: a.Service, From: g.From, Epoch: g.Epoch, Index: g.Index}]
		if giver != nil && giver.Over == "" && !told {
			t.Fatalf("%+v while epoch %d on %s is not over and it has not said that it stopped", a, giver.Epoch, giver.Node)
		}
	}
}

// Nothing is released or erased that may be running, and nothing is forgotten
// before the end is applied.
func TestMemberReleasesNothingThatRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawMemberView(t)
		for _, a := range Member(v) {
			l := v.Local[a.Service]
			runs := l.Phase != "" && l.Phase != PhaseStopped && l.Epoch == a.Epoch
			switch a.Kind {
			case ActRelease:
				if runs {
					t.Fatalf("%+v while it is %s", a, l.Phase)
				}
				released(t, v, a)
			case ActErase:
				svc := v.State.Services[a.Service]
				if g := svc.Grant(a.Epoch); runs || g != nil && g.Over == "" || a.Epoch > svc.LastEpoch {
					t.Fatalf("%+v while it is %s, in the state %+v", a, l.Phase, g)
				}
			}
		}
	})
}

// released: an epoch that was begun is released only as being given up.
func released(t *rapid.T, v MemberView, a Act) {
	l := v.Local[a.Service]
	for _, r := range v.Records {
		if r.Service == a.Service && r.Epoch == a.Epoch && !r.Releasing && l.Epoch <= a.Epoch {
			t.Fatalf("%+v, which is active in the journal", a)
		}
	}
}

// A node with a service that it must not run gives it up or stops it.
func TestMemberEndsWhatMustEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawMemberView(t)
		acts := Member(v)
		for _, r := range v.Records {
			l, ok := v.Local[r.Service]
			if !ok || l.Phase == PhaseStopped || l.Epoch != r.Epoch || r.Releasing {
				continue
			}
			foreign := !r.SameBoot || r.Session != v.Session || v.Session == 0
			if !v.Lapsed && !v.Refused && !v.Leaving && !foreign {
				continue
			}
			ended := false
			for _, a := range acts {
				ended = ended || a.Service == r.Service && (a.Kind == ActStop || a.Kind == ActGiveUp)
			}
			if !ended {
				t.Fatalf("%+v goes on, lapsed %v, refused %v, leaving %v", r, v.Lapsed, v.Refused, v.Leaving)
			}
		}
	})
}

// One session at a time, and none while something of the last may run.
func TestMemberOpensASessionWhenAllIsStopped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawMemberView(t)
		for _, a := range Member(v) {
			if a.Kind != ActOpen {
				continue
			}
			if !v.Ready || v.Leaving || v.Deaf || a.Session != v.State.Nodes[v.Self].Session {
				t.Fatalf("%+v while ready %v, leaving %v, deaf %v", a, v.Ready, v.Leaving, v.Deaf)
			}
			for name, l := range v.Local {
				if l.Phase != PhaseStopped {
					t.Fatalf("%+v while %s is %s", a, name, l.Phase)
				}
			}
		}
	})
}

// TestMain keeps rapid from leaving files beside the cases: the seed that it
// prints shows a failure again.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
