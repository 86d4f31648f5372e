package state

import "slices"

// grantService gives the next epoch of a service to a session (rule 10). Nothing
// that came before may still be running: every earlier epoch is over (R12).
func (s *State) grantService(c GrantService, st Stamp) (uint64, *Refusal) {
	svc := s.Services[c.Service]
	if svc == nil {
		return 0, s.noService(c.Service)
	}
	want := Grant{Epoch: c.Epoch, Node: c.Node, Session: c.Session, Kind: KindGrant}
	if svc.repeats(want) {
		return c.Epoch, nil
	}
	if no := s.mayChangeHands(svc, c.Epoch); no != nil {
		return 0, no
	}
	if open := svc.Unfinished(); len(open) > 0 {
		return 0, refuse(CodeEpochNotOver, "epoch %d of %s on %s is not over: wait for its release or for a proof that session %d ended, or hand it over",
			open[0].Epoch, svc.Name, open[0].Node, open[0].Session)
	}
	if no := s.mayReceive(svc, c.Node, c.Session); no != nil {
		return 0, no
	}
	s.give(svc, want, st)
	s.note(st, Event{Kind: c.Kind(), Service: svc.Name, Node: c.Node, Session: c.Session, Epoch: c.Epoch},
		"%s gets %s under epoch %d", c.Node, svc.Name, c.Epoch)
	return c.Epoch, nil
}

// handOver gives the next epoch while the one before it is not over yet: the
// receiver waits for the giver's word or a proof. Only one epoch may be waited
// for, or the receiver would start on the word of one while another runs (R13).
func (s *State) handOver(c HandOver, st Stamp) (uint64, *Refusal) {
	svc := s.Services[c.Service]
	if svc == nil {
		return 0, s.noService(c.Service)
	}
	want := Grant{Epoch: c.Epoch, Node: c.ToNode, Session: c.ToSession, Kind: KindHandOver, From: c.From}
	from := svc.Grant(c.From)
	if svc.repeats(want) && (from == nil || from.Node == c.FromNode) {
		return c.Epoch, nil
	}
	if no := s.mayChangeHands(svc, c.Epoch); no != nil {
		return 0, no
	}
	if no := s.mayGiveUp(svc, c.From, c.FromNode); no != nil {
		return 0, no
	}
	if c.ToNode == c.FromNode {
		return 0, refuse(CodeSameNode, "%s has %s under epoch %d already: hand it over to another node",
			c.ToNode, svc.Name, c.From)
	}
	if no := s.mayReceive(svc, c.ToNode, c.ToSession); no != nil {
		return 0, no
	}
	s.give(svc, want, st)
	s.note(st, Event{Kind: c.Kind(), Service: svc.Name, Node: c.ToNode, Session: c.ToSession, Epoch: c.Epoch},
		"%s hands %s over to %s under epoch %d", c.FromNode, svc.Name, c.ToNode, c.Epoch)
	return c.Epoch, nil
}

// mayGiveUp checks the giver's side of a hand-over.
func (s *State) mayGiveUp(svc *Service, epoch uint64, node string) *Refusal {
	open := svc.Unfinished()
	at := slices.IndexFunc(open, func(g Grant) bool { return g.Epoch == epoch })
	switch {
	case len(open) == 0:
		return refuse(CodeEpochOver, "no epoch of %s is left to hand over, %d was the last and is over: grant epoch %d instead",
			svc.Name, svc.LastEpoch, svc.LastEpoch+1)
	case len(open) > 1:
		return refuse(CodeEpochNotOver, "epochs %d on %s and %d on %s of %s are both not over: wait until %s released epoch %d, or until %s gives epoch %d up unused",
			open[0].Epoch, open[0].Node, open[1].Epoch, open[1].Node, svc.Name, open[0].Node, open[0].Epoch, open[1].Node, open[1].Epoch)
	case at < 0:
		return refuse(CodeEpochOver, "epoch %d of %s is not the one to hand over, that is epoch %d on %s: look at the state again",
			epoch, svc.Name, open[0].Epoch, open[0].Node)
	case open[at].Node != node:
		return refuse(CodeEpochNode, "epoch %d of %s is with %s and not with %s: look at the state again",
			epoch, svc.Name, open[at].Node, short(node))
	}
	sess := s.Sessions[open[at].Session]
	if sess == nil || sess.Status != SessionOpen {
		return refuse(CodeSessionNotOpen, "session %d of %s is not open, so epoch %d of %s is not handed over: it goes by proof, wait for its release, its expiry or its fencing and grant epoch %d",
			open[at].Session, node, epoch, svc.Name, svc.LastEpoch+1)
	}
	return nil
}

// mayChangeHands checks what a grant and a hand-over have in common about the service.
func (s *State) mayChangeHands(svc *Service, epoch uint64) *Refusal {
	if svc.Removed {
		return refuseRemoved(svc)
	}
	if no := s.refusePaused(svc); no != nil {
		return no
	}
	if epoch != svc.LastEpoch+1 {
		return refuse(CodeEpochWrong, "the next epoch of %s is %d and not %d: look at the state again", svc.Name, svc.LastEpoch+1, epoch)
	}
	return nil
}

// mayReceive checks what a grant and a hand-over have in common about the receiver.
func (s *State) mayReceive(svc *Service, node string, session uint64) *Refusal {
	if no := s.mayHold(svc, node); no != nil {
		return no
	}
	sess := s.Sessions[session]
	if sess == nil {
		return s.noSession(session)
	}
	if sess.Node != node {
		return refuse(CodeSessionNode, "session %d belongs to %s and not to %s: look at the state again", session, sess.Node, node)
	}
	if sess.Status != SessionOpen {
		return refuse(CodeSessionNotOpen, "session %d of %s is %s and can take nothing more: wait until %s opens a new one, or choose another node",
			session, node, sess.Status, node)
	}
	return nil
}

// mayHold checks that a node is one that may hold the service at all.
func (s *State) mayHold(svc *Service, node string) *Refusal {
	n := s.Nodes[node]
	if n == nil {
		return s.noNode(node)
	}
	if !n.Role.Holds() {
		return refuseRole(n)
	}
	if !svc.Spec.Allows(node) {
		return refuse(CodeNodeNotAllowed, "%s is not among the nodes of %s: choose another node, or add it to nodes and failoverctl apply", node, svc.Name)
	}
	return nil
}

// repeats reports whether a grant is the service's newest one, asked for again.
func (s *Service) repeats(want Grant) bool {
	g := s.Newest()
	return g != nil && g.Epoch == want.Epoch && g.Kind == want.Kind && g.From == want.From &&
		g.Node == want.Node && g.Session == want.Session
}

// give adds a grant; whatever move was ordered is under way with it.
func (s *State) give(svc *Service, g Grant, st Stamp) {
	g.Index, g.Why, g.At = s.Index, st.Why, st.At
	svc.LastEpoch = g.Epoch
	svc.Move = nil
	svc.Grants = append(svc.Grants, g)
	svc.pruneGrants()
}

// released marks an epoch over on its holder's word that it has stopped, or has
// never started (rules 9 and 10). Of an epoch that is over it is no news.
func (s *State) released(c Released, st Stamp) *Refusal {
	svc := s.Services[c.Service]
	if svc == nil {
		return s.noService(c.Service)
	}
	if c.Epoch == 0 || c.Epoch > svc.LastEpoch {
		return refuse(CodeEpochUnknown, "epoch %d of %s was never given, the last is %d: look at the state again", c.Epoch, svc.Name, svc.LastEpoch)
	}
	g := svc.Grant(c.Epoch)
	if g == nil {
		return nil
	}
	if g.Node != c.Node {
		return refuse(CodeEpochNode, "epoch %d of %s is with %s, so %s cannot release it: only its holder's word counts",
			c.Epoch, svc.Name, g.Node, short(c.Node))
	}
	if g.Over != "" {
		return nil
	}
	s.note(st, Event{Kind: c.Kind(), Service: svc.Name, Node: g.Node, Session: g.Session, Epoch: g.Epoch},
		"%s released %s (epoch %d)", g.Node, svc.Name, g.Epoch)
	s.markOver(svc, g, ProofReleased, st)
	svc.tidyUp()
	return nil
}

// settle marks every epoch of the service over that a proof of its ended session
// ends under the policy of now.
func (s *State) settle(svc *Service, st Stamp) {
	for i := range svc.Grants {
		g := &svc.Grants[i]
		if kind, over := s.Accepted(svc, *g); over && g.Over == "" {
			s.markOver(svc, g, kind, st)
		}
	}
	svc.tidyUp()
}

// markOver ends an epoch for ever.
func (s *State) markOver(svc *Service, g *Grant, kind ProofKind, st Stamp) {
	g.Over, g.OverIndex = kind, s.Index
	because := ""
	if st.Why != "" {
		because = " (" + st.Why + ")"
	}
	s.note(Stamp{At: st.At, By: st.By}, Event{Kind: KindOver, Service: svc.Name, Node: g.Node, Session: g.Session, Epoch: g.Epoch},
		"epoch %d of %s on %s is over: %s%s", g.Epoch, svc.Name, g.Node, kind, because)
}

// KindOver is the kind of an event that says that an epoch is over; all other
// events carry the kind of their command.
const KindOver = "over"

// tidyUp forgets what nobody waits for any more.
func (s *Service) tidyUp() {
	s.pruneGrants()
	if s.Gone() {
		s.Spec, s.Generation = Spec{}, 0
		s.Paused, s.Move, s.Failures = nil, nil, nil
	}
}

// pruneGrants keeps the epochs that are not over and the newest one.
func (s *Service) pruneGrants() {
	s.Grants = slices.DeleteFunc(s.Grants, func(g Grant) bool { return g.Over != "" && g.Epoch != s.LastEpoch })
}

// noService refuses a name that no service has.
func (s *State) noService(name string) *Refusal {
	return refuse(CodeServiceUnknown, "no service %q is known: see failoverctl status, or put it in force with failoverctl apply", short(name))
}

func refuseRemoved(svc *Service) *Refusal {
	return refuse(CodeServiceRemoved, "%s was removed and its last epoch was %d: put it in force again with failoverctl apply", svc.Name, svc.LastEpoch)
}

// refusePaused refuses whatever a pause of the cluster or of the service forbids.
func (s *State) refusePaused(svc *Service) *Refusal {
	if p := s.Paused; p != nil {
		return refuse(CodePaused, "the cluster is paused (by %s: %s) and %s stays where it is: failoverctl resume first",
			or(p.By, "somebody"), or(p.Reason, "no reason was given"), svc.Name)
	}
	if p := svc.Paused; p != nil {
		return refuse(CodePaused, "%s is paused (by %s: %s) and stays where it is: failoverctl resume %s first",
			svc.Name, or(p.By, "somebody"), or(p.Reason, "no reason was given"), svc.Name)
	}
	return nil
}
