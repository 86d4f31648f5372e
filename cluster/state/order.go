package state

// setPause keeps a service, or the whole cluster, where it is, or lets it go. A
// pause that comes again with other words or another end replaces the first.
func (s *State) setPause(c SetPause, st Stamp) *Refusal {
	place := &s.Paused
	what := "the cluster"
	if c.Service != "" {
		svc := s.Services[c.Service]
		if svc == nil {
			return s.noService(c.Service)
		}
		if svc.Removed {
			return refuseRemoved(svc)
		}
		place, what = &svc.Paused, c.Service
	}
	e := Event{Kind: c.Kind(), Service: c.Service}
	if c.On {
		if s.mark(place, st, c.Until) {
			s.note(st, e, "%s is paused", what)
		}
		return nil
	}
	if *place == nil || c.Mark != 0 && (*place).Index != c.Mark {
		return nil
	}
	*place = nil
	s.note(st, e, "%s is resumed", what)
	return nil
}

// setStandby makes a node hold nothing new, or serve again.
func (s *State) setStandby(c SetStandby, st Stamp) *Refusal {
	n := s.Nodes[c.Node]
	if n == nil {
		return s.noNode(c.Node)
	}
	e := Event{Kind: c.Kind(), Node: c.Node}
	switch {
	case c.On:
		if s.mark(&n.Standby, st, 0) {
			s.note(st, e, "%s stands by", c.Node)
		}
	case n.Standby != nil:
		n.Standby = nil
		s.note(st, e, "%s serves again", c.Node)
	}
	return nil
}

// mark sets a mark unless the very same one stands there, and reports whether it did.
func (s *State) mark(place **Mark, st Stamp, until int64) bool {
	next := Mark{By: st.By, Reason: st.Why, At: st.At, Until: until, Index: s.Index}
	if old := *place; old != nil {
		same := *old
		same.Index = next.Index
		if same == next {
			return false
		}
	}
	*place = &next
	return true
}

// requestMove orders a planned move, which stands until the service has changed
// hands or the order is withdrawn.
func (s *State) requestMove(c RequestMove, st Stamp) *Refusal {
	svc := s.Services[c.Service]
	if svc == nil {
		return s.noService(c.Service)
	}
	e := Event{Kind: c.Kind(), Service: svc.Name, Node: c.To}
	if c.Cancel {
		m := svc.Move
		if m == nil || c.Mark != 0 && m.Index != c.Mark {
			return nil
		}
		svc.Move = nil
		e.Node = m.To
		s.note(st, e, "order %d to move %s to %s is withdrawn", m.Index, svc.Name, or(m.To, "the best candidate"))
		return nil
	}
	if svc.Removed {
		return refuseRemoved(svc)
	}
	if no := s.refusePaused(svc); no != nil {
		return no
	}
	if m := svc.Move; m != nil && m.To != c.To {
		return refuse(CodeMoveOpen, "%s is already to move to %s (order %d by %s: %s): wait for it, or withdraw it first",
			svc.Name, or(m.To, "the best candidate"), m.Index, or(m.By, "somebody"), or(m.Why, "no reason was given"))
	}
	if c.To != "" {
		if no := s.mayMoveTo(svc, c.To); no != nil {
			return no
		}
		for _, g := range svc.Unfinished() {
			if g.Node == c.To {
				return refuse(CodeMovePointless, "%s has %s already, under epoch %d: choose another node, or none for the best candidate",
					c.To, svc.Name, g.Epoch)
			}
		}
		if s.OpenSession(c.To) == nil {
			return refuse(CodeSessionNotOpen, "%s has no open session and cannot take %s: start failoverd on it, or choose another node",
				c.To, svc.Name)
		}
	}
	next := Move{To: c.To, By: st.By, Why: st.Why, At: st.At, Index: s.Index}
	if old := svc.Move; old != nil {
		same := *old
		same.Index = next.Index
		if same == next {
			return nil
		}
	}
	svc.Move = &next
	s.note(st, e, "%s is to move to %s", svc.Name, or(c.To, "the best candidate"))
	return nil
}

// mayMoveTo checks that a planned move to a node can ever be carried out.
func (s *State) mayMoveTo(svc *Service, node string) *Refusal {
	if no := s.mayHold(svc, node); no != nil {
		return no
	}
	if m := s.Nodes[node].Standby; m != nil {
		return refuse(CodeNodeStandby, "%s stands by (by %s: %s): failoverctl node unstandby %s first, or choose another node",
			node, or(m.By, "somebody"), or(m.Reason, "no reason was given"), node)
	}
	return nil
}
