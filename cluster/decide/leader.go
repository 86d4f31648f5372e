package decide

import (
	"fmt"
	"slices"
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// PrepareLimit is how long a candidate may take to prepare for a planned move
// before the order is withdrawn with that reason.
const PrepareLimit = 10 * time.Second

// StartLimit is how long a holder may leave a grant without a word that it has
// begun with it, and a giver a hand-over without one that it stops. It renews, but does
// not follow the log, or hangs.
func StartLimit(ttl time.Duration) time.Duration { return max(5*time.Second, 3*ttl) }

// Leader names the next steps of the leader. It decides nothing before the
// leader's own first entry of its term is applied: until then its view may be old.
func Leader(v LeaderView) Plan {
	p := Plan{Notes: map[string]string{}}
	st := v.State
	if st.Leader != v.Self || st.LeaderTerm != v.Term {
		for _, name := range serviceNames(st) {
			p.Notes[name] = "the leader's first entry of its term is not applied yet"
		}
		return p
	}
	v.given = map[string]int{}
	pauses(v, &p)
	sessions(v, &p)
	for _, name := range serviceNames(st) {
		service(v, &p, st.Services[name])
	}
	return p
}

// pauses commits the end of each pause whose time has passed as this leader
// counted it: a new leader counts afresh, so a pause is longer, never shorter.
func pauses(v LeaderView, p *Plan) {
	end := func(service string, m *state.Mark) {
		if m == nil || m.Until == 0 {
			return
		}
		length := time.Duration(m.Until-m.At) * time.Millisecond
		left := length - v.Pauses[m.Index].Counted
		if left > 0 {
			p.wake(left)
			return
		}
		why := "the pause's time is over"
		p.commit(service, state.SetPause{Service: service, On: false, Mark: m.Index, Stamp: state.Stamp{Why: why}}, why)
	}
	end("", v.State.Paused)
	for _, name := range serviceNames(v.State) {
		end(name, v.State.Services[name].Paused)
	}
}

// service decides about one service: grant it, move it, or say what it waits for.
func service(v LeaderView, p *Plan, svc *state.Service) {
	note := func(format string, args ...any) {
		if p.Notes[svc.Name] == "" {
			p.Notes[svc.Name] = fmt.Sprintf(format, args...)
		}
	}
	open := svc.Unfinished()
	switch {
	case svc.Removed:
		note("removed: it is stopped wherever it runs and granted to nobody")
		if len(open) > 0 {
			notEnded(v, p, svc, open[0], "the service was removed")
		}
	case len(open) == 0:
		grant(v, p, svc, note)
	case len(open) == 1:
		held(v, p, svc, open[0], note)
	default:
		note("%s hands over to %s: epoch %d follows %d when %s has stopped",
			open[0].Node, open[len(open)-1].Node, open[len(open)-1].Epoch, open[0].Epoch, open[0].Node)
		notEnded(v, p, svc, open[0], "the hand-over to "+open[len(open)-1].Node)
	}
}

type noteFunc func(format string, args ...any)

// grant gives a service that nobody holds to the best candidate.
func grant(v LeaderView, p *Plan, svc *state.Service, note noteFunc) {
	if why := Paused(v.State, svc.Name); why != "" {
		note("nobody holds it and it is not granted: %s", why)
		return
	}
	best, none := choose(v, svc, "")
	if unknown(v, svc, "") {
		note("nobody holds it; what the nodes are able to is not known yet")
		p.wake(retryAsk)
		return
	}
	if none != "" {
		note("nobody can take it: %s", none)
		p.wake(time.Second)
		return
	}
	v.given[best.Node]++
	why := grantWords(svc, best)
	note("granted to %s: %s", best.Node, why)
	p.commit(svc.Name, state.GrantService{
		Service: svc.Name, Epoch: svc.LastEpoch + 1, Node: best.Node,
		Session: v.State.Nodes[best.Node].Session, Stamp: state.Stamp{Why: why},
	}, why)
}

// grantWords is the reason of a grant: what ended the epoch before, and why this node.
func grantWords(svc *state.Service, best Candidate) string {
	before := "first grant"
	if g := svc.Newest(); g != nil {
		before = fmt.Sprintf("epoch %d of %s is over (%s)", g.Epoch, g.Node, g.Over)
	} else if svc.LastEpoch > 0 {
		before = fmt.Sprintf("epoch %d is over", svc.LastEpoch)
	}
	reason := "best candidate"
	switch {
	case svc.Move != nil && svc.Move.To == best.Node:
		reason = "ordered" + byWords(svc.Move)
	case best.Priority != 0:
		reason = fmt.Sprintf("highest priority, %d", best.Priority)
	case best.sticky:
		reason = "held it last"
	}
	return fmt.Sprintf("%s; %s: %s", before, best.Node, reason)
}

func byWords(m *state.Move) string {
	words := ""
	if m.By != "" {
		words += " by " + m.By
	}
	if m.Why != "" {
		words += ": " + m.Why
	}
	return words
}

// unknown reports whether the verdict on any node but except is still open: to
// choose now could mean to pass the better one over.
func unknown(v LeaderView, svc *state.Service, except string) bool {
	for _, c := range Candidates(v, svc) {
		if c.Unknown && c.Node != except {
			return true
		}
	}
	return false
}

// choose picks the candidate for a service, never the node except; an order
// to move to a named node goes first when that node can. none says why nobody can.
func choose(v LeaderView, svc *state.Service, except string) (best Candidate, none string) {
	list := Candidates(v, svc)
	if m := svc.Move; m != nil && m.To != "" && m.To != except {
		for _, c := range list {
			if c.Node == m.To && c.Can {
				return c, ""
			}
		}
	}
	for _, c := range list {
		if c.Node == except {
			continue
		}
		if c.Can {
			return c, ""
		}
		if none != "" {
			none += "; "
		}
		none += c.Node + " " + c.Why
	}
	if none == "" {
		none = "there is no other node"
	}
	return Candidate{}, none
}

// held looks after a service with one epoch that is not over: it stays, moves
// as planned, or waits for the proof that its holder is gone.
func held(v LeaderView, p *Plan, svc *state.Service, g state.Grant, note noteFunc) {
	s := v.State.Sessions[g.Session]
	switch {
	case s == nil:
		note("epoch %d belongs to session %d, which is not known here", g.Epoch, g.Session)
		return
	case s.Status == state.SessionEnded:
		note("%s", waitForProof(svc, s))
		return
	case s.Status == state.SessionClosing:
		note("%s is being taken from %s: %s; waiting until its lease cannot be left", svc.Name, g.Node, s.Closing)
		return
	case v.State.Nodes[g.Node] == nil || v.State.Nodes[g.Node].Session != s.ID:
		note("%s holds it under session %d, which is not its newest", g.Node, s.ID)
		return
	}
	if idle := v.Unstarted[svc.Name]; idle > StartLimit(s.TTL) && Paused(v.State, svc.Name) == "" {
		notBegun(v, p, g, s, idle, note)
		return
	}
	want, why := moveWanted(v, svc, g)
	if !want {
		note("%s holds it under epoch %d%s", g.Node, g.Epoch, why)
		return
	}
	if stopped := Paused(v.State, svc.Name); stopped != "" {
		note("%s, but %s", why, stopped)
		return
	}
	handOver(v, p, svc, g, why, note)
}

// notBegun takes a service from a holder that renews and does nothing. That is no
// failure of the service: a node whose log stands still opens no new session, and
// one that was killed again and again before it could begin may hold it again.
func notBegun(v LeaderView, p *Plan, g state.Grant, s *state.Session, idle time.Duration, note noteFunc) {
	why := fmt.Sprintf("%s renews but has not begun with epoch %d for %s: it does not follow the log, or hangs", g.Node, g.Epoch, round(idle))
	note("%s", why)
	p.wake(time.Second)
	closeIdle(v, p, s, why)
}

// notEnded takes a service from a holder that renews and goes on as if it had not
// been told to end: its log stands still, on a disk that hangs perhaps. One that
// has begun to stop is left its time.
func notEnded(v LeaderView, p *Plan, svc *state.Service, giver state.Grant, after string) {
	s := v.State.Sessions[giver.Session]
	if s == nil || s.Status != state.SessionOpen {
		return
	}
	idle, serves := v.Unended[svc.Name]
	if !serves {
		return
	}
	if limit := StartLimit(s.TTL); idle <= limit {
		p.wake(limit - idle)
		return
	}
	p.wake(time.Second)
	closeIdle(v, p, s, fmt.Sprintf("%s renews but has not ended epoch %d for %s after %s: it does not follow the log, or hangs",
		giver.Node, giver.Epoch, round(idle), after))
}

// closeIdle closes the session of a node that renews and does nothing else,
// unless that would take something that is paused.
func closeIdle(v LeaderView, p *Plan, s *state.Session, why string) {
	for _, name := range heldUnder(v.State, s) {
		if Paused(v.State, name) != "" {
			return // to close the session would take that one too
		}
	}
	if !slices.ContainsFunc(p.Steps, func(step Step) bool {
		c, ok := step.Command.(state.CloseSession)
		return ok && c.Session == s.ID
	}) {
		closeSession(p, s, why)
	}
}

// waitForProof says what an ended session still needs before its policy lets go.
func waitForProof(svc *state.Service, s *state.Session) string {
	return fmt.Sprintf("session %d of %s has ended (%s), but takeover = %q wants proof that %s is off: "+
		"fence it, or say so with failoverctl failover %s --force once you have seen that it is off",
		s.ID, s.Node, proofWords(s), svc.Spec.Takeover, s.Node, svc.Name)
}

func proofWords(s *state.Session) string {
	words := ""
	for i, p := range s.Proofs {
		if i > 0 {
			words += ", "
		}
		words += string(p.Kind)
	}
	return words
}

// moveWanted reports whether the holder should give the service up while it
// lives, and why. Without a move, why is what else is to be said.
func moveWanted(v LeaderView, svc *state.Service, g state.Grant) (bool, string) {
	n := v.State.Nodes[g.Node]
	if m := svc.Move; m != nil {
		return true, "a move was ordered" + byWords(m)
	}
	if n.Standby != nil {
		return true, g.Node + " is on standby" + markWords(n.Standby)
	}
	for _, f := range svc.Failures {
		if f.Node == g.Node && f.Epoch == g.Epoch {
			return true, fmt.Sprintf("%s cannot run it: %s", g.Node, f.Why)
		}
	}
	if !svc.Spec.Allows(g.Node) {
		return true, fmt.Sprintf("%s is no longer among the nodes that %s names", g.Node, svc.Name)
	}
	if svc.Spec.Failback {
		best, none := choose(v, svc, "")
		if none == "" && !unknown(v, svc, "") && best.Node != g.Node && best.Priority > svc.Spec.Priorities[g.Node] {
			return true, fmt.Sprintf("failback: %s has priority %d, %s has %d", best.Node, best.Priority, g.Node, svc.Spec.Priorities[g.Node])
		}
	}
	return false, ""
}

// handOver prepares the candidate first, and then commits one conditional entry.
func handOver(v LeaderView, p *Plan, svc *state.Service, g state.Grant, why string, note noteFunc) {
	if unknown(v, svc, g.Node) {
		note("%s; what the other nodes are able to is not known yet", why)
		p.wake(retryAsk)
		return
	}
	best, none := choose(v, svc, g.Node)
	if m := svc.Move; none == "" && m != nil && m.To != "" && best.Node != m.To {
		none = fmt.Sprintf("%s cannot take it: %s", m.To, reasonAgainst(v, svc, m.To))
	}
	if none != "" {
		note("%s, but nobody can take it: %s", why, none)
		withdraw(p, svc, "nobody can take it: "+none)
		p.wake(time.Second)
		return
	}
	prep := v.Moves[svc.Name]
	switch {
	case prep.To == best.Node && prep.Failed != "" && svc.Move != nil:
		withdraw(p, svc, fmt.Sprintf("%s could not prepare: %s", best.Node, prep.Failed))
		note("%s, but %s could not prepare: %s", why, best.Node, prep.Failed)
	case prep.To == best.Node && prep.Failed != "":
		note("%s, but %s could not prepare: %s", why, best.Node, prep.Failed)
		p.wake(time.Second)
	case prep.To == best.Node && !prep.Done && prep.Waited > PrepareLimit:
		withdraw(p, svc, fmt.Sprintf("%s did not prepare within %s", best.Node, PrepareLimit))
		note("%s, but %s has been preparing for %s", why, best.Node, round(prep.Waited))
		p.wake(time.Second)
	case prep.To == best.Node && prep.Done:
		note("%s: %s hands over to %s", why, g.Node, best.Node)
		p.commit(svc.Name, state.HandOver{
			Service: svc.Name, From: g.Epoch, FromNode: g.Node, Epoch: svc.LastEpoch + 1,
			ToNode: best.Node, ToSession: v.State.Nodes[best.Node].Session, Stamp: state.Stamp{Why: why},
		}, why)
	default:
		note("%s: %s prepares to receive it from %s", why, best.Node, g.Node)
		p.add(Step{Kind: StepPrepare, Service: svc.Name, Node: best.Node, Why: why})
		p.wake(PrepareLimit)
	}
}

func reasonAgainst(v LeaderView, svc *state.Service, node string) string {
	for _, c := range Candidates(v, svc) {
		if c.Node == node {
			return c.Why
		}
	}
	return "there is no such node"
}

// withdraw cancels an operator's order that cannot be carried out.
func withdraw(p *Plan, svc *state.Service, why string) {
	if m := svc.Move; m != nil {
		p.commit(svc.Name, state.RequestMove{Service: svc.Name, Cancel: true, Mark: m.Index, Stamp: state.Stamp{Why: why}}, why)
	}
}
