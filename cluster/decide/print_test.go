package decide

import (
	"fmt"
	"maps"
	"slices"

	"github.com/failoverd/failoverd/cluster/state"
)

// lead prints the leader's plan, and what the state machine makes of its commits.
func (r *script) lead() {
	p := Leader(r.l)
	after := r.l.State.Clone()
	for _, s := range p.Steps {
		fmt.Fprintf(&r.out, "%s\n", stepText(r.l.State, s))
		if s.Kind != StepCommit {
			continue
		}
		if res := after.Apply(after.Index+1, r.l.Term, s.Command); res.Refused != nil {
			fmt.Fprintf(&r.out, "  REFUSED (%s): %s\n", res.Refused.Code, res.Refused.Why)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Notes)) {
		fmt.Fprintf(&r.out, "note %s: %s\n", name, p.Notes[name])
	}
	if p.Wake > 0 {
		fmt.Fprintf(&r.out, "look again in %s\n", p.Wake)
	}
	if len(p.Steps) == 0 && len(p.Notes) == 0 && p.Wake == 0 {
		fmt.Fprintln(&r.out, "nothing")
	}
}

func stepText(st *state.State, s Step) string {
	what := ""
	switch s.Kind {
	case StepPrepare:
		what = s.Service + " on " + s.Node
	case StepAskAges, StepConfirmClosed:
		what = fmt.Sprintf("%s/%d", s.Node, s.Session)
	case StepCommit:
		what = commandText(st, s.Command)
	}
	return fmt.Sprintf("%s %s: %s", s.Kind, what, s.Why)
}

func commandText(st *state.State, cmd state.Command) string {
	switch c := cmd.(type) {
	case state.CloseSession:
		return fmt.Sprintf("%s %s/%d", c.Kind(), st.Sessions[c.Session].Node, c.Session)
	case state.EndSession:
		return fmt.Sprintf("%s %s/%d %s in term %d", c.Kind(), st.Sessions[c.Session].Node, c.Session, c.Proof, c.Term)
	case state.GrantService:
		return fmt.Sprintf("%s %s epoch %d to %s/%d", c.Kind(), c.Service, c.Epoch, c.Node, c.Session)
	case state.HandOver:
		return fmt.Sprintf("%s %s epoch %d of %s to %s/%d as %d", c.Kind(), c.Service, c.From, c.FromNode, c.ToNode, c.ToSession, c.Epoch)
	case state.SetPause:
		return fmt.Sprintf("%s %s off, mark %d", c.Kind(), c.Service, c.Mark)
	case state.ReportFailure:
		return fmt.Sprintf("%s %s epoch %d on %s", c.Kind(), c.Service, c.Epoch, c.Node)
	case state.RequestMove:
		return fmt.Sprintf("%s %s cancelled, mark %d", c.Kind(), c.Service, c.Mark)
	}
	return fmt.Sprintf("%#v", cmd)
}

// act prints what the member does.
func (r *script) act() {
	acts := Member(r.m)
	for _, a := range acts {
		fmt.Fprintln(&r.out, actText(a))
	}
	if len(acts) == 0 {
		fmt.Fprintln(&r.out, "nothing")
	}
}

func actText(a Act) string {
	what := fmt.Sprintf("%s %d", a.Service, a.Epoch)
	if a.Kind == ActOpen {
		what = fmt.Sprintf("in place of %d", a.Session)
	}
	if a.Tell != nil {
		what += fmt.Sprintf(", then tell %s to start %d by entry %d", a.To, a.Tell.Epoch, a.Tell.Index)
	}
	return fmt.Sprintf("%s %s: %s", a.Kind, what, a.Why)
}
