package state

import (
	"fmt"
	"time"
)

// MaxTTL is the longest lease that is accepted: longer than any sensible one,
// short enough that no sum of waiting times overflows.
const MaxTTL = time.Hour

// openSession begins a new life of a node's claim (rule 13). The same boot gets
// its open session back; anything else closes the older session, which then ends
// by a proof of its own: a new session is no proof (R5).
func (s *State) openSession(c OpenSession, st Stamp) (uint64, *Refusal) {
	n := s.Nodes[c.Node]
	if n == nil {
		return 0, s.noNode(c.Node)
	}
	if !n.Role.Holds() {
		return 0, refuseRole(n)
	}
	if err := badSession(c); err != nil {
		return 0, refuse(CodeBadSession, "%s cannot open a session: %v; correct the lease in its node file", c.Node, err)
	}
	cur := s.Sessions[n.Session]
	if cur != nil && cur.Status == SessionOpen && cur.BootID == c.BootID && (c.Replaces == cur.ID || c.Replaces == cur.Replaces) {
		return cur.ID, nil
	}
	if c.Replaces != n.Session {
		return 0, refuse(CodeSessionReplaced, "the current session of %s is %d, not %d: look at the state again and replace that one; if %s did not open it, there are two nodes of that name",
			c.Node, n.Session, c.Replaces, c.Node)
	}

	if cur != nil && cur.Status == SessionOpen {
		how := "in the same boot"
		if cur.BootID != c.BootID {
			how = "after a reboot"
		}
		s.close(cur, fmt.Sprintf("replaced by session %d %s", s.Index, how))
		s.note(Stamp{At: st.At, By: st.By}, Event{Kind: CloseSession{}.Kind(), Node: cur.Node, Session: cur.ID},
			"session %d of %s is closed: %s", cur.ID, cur.Node, cur.Closing)
	}
	s.Sessions[s.Index] = &Session{
		ID: s.Index, Node: c.Node, BootID: c.BootID, Replaces: n.Session,
		TTL: c.TTL, Kappa: c.Kappa, Status: SessionOpen,
	}
	n.Session = s.Index
	s.note(st, Event{Kind: c.Kind(), Node: c.Node, Session: s.Index}, "session %d of %s is opened with a lease of %v", s.Index, c.Node, c.TTL)
	return s.Index, nil
}

// badSession says what is wrong with the numbers of a session, if anything.
func badSession(c OpenSession) error {
	switch {
	case !validIdent(c.BootID):
		return fmt.Errorf("its boot id must have 1 to %d printable characters", maxIdent)
	case c.TTL <= 0 || c.TTL > MaxTTL:
		return fmt.Errorf("a lease of %v is not above 0 and at most %v", c.TTL, MaxTTL)
	case c.Kappa <= 0 || c.Kappa >= c.TTL:
		return fmt.Errorf("a kappa of %v is not above 0 and below the lease of %v", c.Kappa, c.TTL)
	}
	return nil
}

// closeSession stops all renewals of a session for ever (rule 5).
func (s *State) closeSession(c CloseSession, st Stamp) *Refusal {
	sess := s.Sessions[c.Session]
	if sess == nil {
		return s.noSession(c.Session)
	}
	if sess.Status != SessionOpen {
		return nil
	}
	s.close(sess, or(st.Why, "no reason was given"))
	s.note(st, Event{Kind: c.Kind(), Node: sess.Node, Session: sess.ID}, "session %d of %s is closed", sess.ID, sess.Node)
	return nil
}

func (s *State) close(sess *Session, why string) {
	sess.Status, sess.Closing = SessionClosing, why
}

// endSession adds a proof to a session that is closed (rules 7 and 8). Proofs
// accumulate: one that expired may later be fenced, for the services that ask for it.
func (s *State) endSession(c EndSession, st Stamp) *Refusal {
	sess := s.Sessions[c.Session]
	if sess == nil {
		return s.noSession(c.Session)
	}
	if no := s.unproven(sess, c, st); no != nil {
		return no
	}
	if sess.Proven(c.Proof) {
		return nil
	}
	sess.Status = SessionEnded
	sess.Proofs = append(sess.Proofs, Proof{Kind: c.Proof, Index: s.Index, By: st.By, Why: st.Why, At: st.At})
	s.note(st, Event{Kind: c.Kind(), Node: sess.Node, Session: sess.ID}, "session %d of %s is over: %s", sess.ID, sess.Node, c.Proof)
	for _, name := range s.ServiceNames() {
		s.settle(s.Services[name], st)
	}
	return nil
}

// unproven says why an EndSession proves nothing, or nil.
func (s *State) unproven(sess *Session, c EndSession, st Stamp) *Refusal {
	if sess.Status == SessionOpen {
		return refuse(CodeSessionOpen, "session %d of %s is open: close it first, a session that voters still renew is not over",
			sess.ID, sess.Node)
	}
	switch c.Proof {
	case ProofExpired:
		// The ages that make an expiry were gathered in a term; a new leader's
		// majority may be another one (R11).
		if c.Term != s.Term {
			return refuse(CodeTermDiffers, "the expiry of session %d of %s was computed in term %d and committed in term %d: ask the voters for their ages again",
				sess.ID, sess.Node, c.Term, s.Term)
		}
	case ProofFenced:
		if sess.Fence == nil {
			return refuse(CodeNoFence, "no fencing of session %d of %s was begun: commit StartFence, run the device, and end the session when it confirms",
				sess.ID, sess.Node)
		}
	case ProofVouched:
		if st.By == "" || st.Why == "" {
			return refuse(CodeUnsigned, "whoever vouches that %s is off (session %d) must sign with a name and a reason: repeat it with both",
				sess.Node, sess.ID)
		}
	case ProofReleased:
		// Each epoch is released by its own entry, behind its own journal record
		// (rule 9). A goodbye must not stand in for them.
		if held := s.HeldUnder(sess.ID); len(held) > 0 {
			return refuse(CodeSessionHolds, "session %d of %s still has %s: release each of them first",
				sess.ID, sess.Node, heldText(held))
		}
	default:
		return refuse(CodeBadProof, "%q is no proof that session %d of %s is over: use released, fenced, expired or vouched",
			short(string(c.Proof)), sess.ID, sess.Node)
	}
	return nil
}

// startFence records that a session's node is about to be shot (rule 8).
func (s *State) startFence(c StartFence, st Stamp) *Refusal {
	sess := s.Sessions[c.Session]
	if sess == nil {
		return s.noSession(c.Session)
	}
	if s.Nodes[c.Proposer] == nil {
		return s.noNode(c.Proposer)
	}
	if c.Proposer == sess.Node {
		return refuse(CodeSelfFence, "%s would fence itself (session %d): let another node lead, or stop failoverd on %s",
			c.Proposer, sess.ID, c.Proposer)
	}
	if sess.Status == SessionOpen {
		return refuse(CodeSessionOpen, "session %d of %s is open: close it before %s is fenced",
			sess.ID, sess.Node, sess.Node)
	}
	if s.Paused != nil {
		return refuse(CodePaused, "%s is not fenced while the cluster is paused (by %s: %s): failoverctl resume first",
			sess.Node, or(s.Paused.By, "somebody"), or(s.Paused.Reason, "no reason was given"))
	}
	for _, h := range s.HeldUnder(sess.ID) {
		if p := s.Services[h.Service].Paused; p != nil {
			return refuse(CodePaused, "%s is not fenced while %s, which it has under epoch %d, is paused (by %s: %s): failoverctl resume %s first",
				sess.Node, h.Service, h.Grant.Epoch, or(p.By, "somebody"), or(p.Reason, "no reason was given"), h.Service)
		}
	}
	if sess.Fence != nil {
		return nil
	}
	sess.Fence = &Fence{By: c.Proposer, Why: st.Why, Index: s.Index}
	s.note(st, Event{Kind: c.Kind(), Node: sess.Node, Session: sess.ID}, "%s fences %s (session %d)", c.Proposer, sess.Node, sess.ID)
	return nil
}

// noSession refuses a session that is not known.
func (s *State) noSession(id uint64) *Refusal {
	return refuse(CodeSessionUnknown, "session %d is not known, it ended long ago or never was: look at the state again for the node's current session", id)
}

// refuseRole refuses a node whose role may not hold.
func refuseRole(n *Node) *Refusal {
	return refuse(CodeNodeRole, "%s is a %s and never holds a service: choose a voter or a member", n.Name, n.Role)
}
