package decide

import (
	"fmt"
	"sort"
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// CloseAfter is the share of a session's TTL after which a silent session is
// closed (LEASE.md 5): late enough to leave a daemon alone that restarts
// within its lease, and no takeover time is lost, since D counts from the renewal.
const CloseAfter = 0.8

// askAfter is the share of the TTL after which the leader asks the voters what
// they know. Its own note alone is not enough: a node that reaches the leader
// but no majority has no lease, and would never be missed.
const askAfter = 0.4

// retryAsk is how long the leader waits for answers before it asks again.
const retryAsk = 20 * time.Millisecond

func sessionIDs(st *state.State) []uint64 {
	ids := make([]uint64, 0, len(st.Sessions))
	for id := range st.Sessions {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	return ids
}

// sessions decides what becomes of every session that has not ended.
func sessions(v LeaderView, p *Plan) {
	for _, id := range sessionIDs(v.State) {
		s := v.State.Sessions[id]
		switch s.Status {
		case state.SessionOpen:
			openSession(v, p, s)
		case state.SessionClosing:
			closingSession(v, p, s)
		}
	}
}

func openSession(v LeaderView, p *Plan, s *state.Session) {
	ev := v.Sessions[s.ID]
	if ev.Goodbye {
		closeSession(p, s, fmt.Sprintf("%s said goodbye: everything on it is stopped", s.Node))
		return
	}
	quiet, known := ev.quiet(v.Voters)
	renewed, _ := ev.renewed(v.Voters)
	limit := time.Duration(CloseAfter * float64(s.TTL))
	ask := time.Duration(askAfter * float64(s.TTL))
	switch {
	case known && quiet < ask && renewed < ask:
		p.wake(ask - quiet)
		if ev.Asked > 0 && ev.unheard(v.Voters, ask) {
			// The others' silence hides behind those who told: a voter that is
			// dead is asked now and then, and a leader that no one answers sees it.
			askUnheard(p, s, ask-ev.Asked)
		}
		return
	case known && ev.silence(v.Voters) >= limit:
		silent(v, p, s, quiet)
		return
	}
	p.add(Step{Kind: StepAskAges, Session: s.ID, Node: s.Node, Why: fmt.Sprintf("what is known of %s's renewals grows old", s.Node)})
	p.wake(retryAsk)
	if known && quiet < limit {
		p.wake(limit - quiet)
	}
}

// askUnheard asks the voters again that did not answer, at a leisurely pace.
func askUnheard(p *Plan, s *state.Session, wait time.Duration) {
	if wait > 0 {
		p.wake(wait)
		return
	}
	p.add(Step{Kind: StepAskAges, Session: s.ID, Node: s.Node, Why: "not every voter has told of " + s.Node + "'s renewals lately"})
	p.wake(retryAsk)
}

// silent closes the session of a node that no majority has heard, unless
// something that it holds is paused.
func silent(v LeaderView, p *Plan, s *state.Session, quiet time.Duration) {
	if why := pausedHolding(v.State, s); why != "" {
		for _, name := range heldUnder(v.State, s) {
			p.Notes[name] = why
		}
		p.add(Step{Kind: StepAskAges, Session: s.ID, Node: s.Node, Why: why})
		p.wake(retryAsk)
		return
	}
	closeSession(p, s, fmt.Sprintf("%s has not renewed at a majority for %s%s", s.Node, round(quiet), sightWords(v.Sights[s.Node])))
}

func closeSession(p *Plan, s *state.Session, why string) {
	p.add(Step{
		Kind: StepCommit, Node: s.Node, Session: s.ID, Why: why,
		Command: state.CloseSession{Session: s.ID, Stamp: state.Stamp{Why: why}},
	})
}

func closingSession(v LeaderView, p *Plan, s *state.Session) {
	ev := v.Sessions[s.ID]
	switch {
	case ev.DueKnown && ev.Due <= 0:
		why := fmt.Sprintf("no lease of %s under session %d can be left: a majority confirmed the close and the lease ran out", s.Node, s.ID)
		p.add(Step{
			Kind: StepCommit, Node: s.Node, Session: s.ID, Why: why,
			Command: state.EndSession{Session: s.ID, Proof: state.ProofExpired, Term: v.Term, Stamp: state.Stamp{Why: why}},
		})
	case ev.DueKnown:
		p.wake(ev.Due)
	default:
		p.add(Step{Kind: StepConfirmClosed, Session: s.ID, Node: s.Node, Why: s.Closing})
		p.wake(retryAsk)
	}
}

// pausedHolding returns why a silent session is left open: something that it
// holds is paused, and a lapse is not final while the session is open.
func pausedHolding(st *state.State, s *state.Session) string {
	for _, name := range heldUnder(st, s) {
		if why := Paused(st, name); why != "" {
			return fmt.Sprintf("%s does not renew, and nothing is taken from it: %s", s.Node, why)
		}
	}
	return ""
}

// heldUnder names the services with an epoch under the session that is not over.
func heldUnder(st *state.State, s *state.Session) []string {
	var names []string
	for _, name := range serviceNames(st) {
		for _, g := range st.Services[name].Grants {
			if g.Session == s.ID && g.Over == "" {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// Paused returns why nothing may be moved, or "".
func Paused(st *state.State, service string) string {
	if m := st.Paused; m != nil {
		return "the cluster is paused" + markWords(m)
	}
	if svc := st.Services[service]; svc != nil && svc.Paused != nil {
		return service + " is paused" + markWords(svc.Paused)
	}
	return ""
}

func markWords(m *state.Mark) string {
	words := ""
	if m.By != "" {
		words += " by " + m.By
	}
	if m.Reason != "" {
		words += ": " + m.Reason
	}
	return words
}

func sightWords(s Sight) string {
	switch s {
	case SightDead, SightSuspect, SightLeft:
		return ", and gossip calls it " + string(s)
	case SightAlive:
		return ", though gossip calls it alive"
	}
	return ""
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
