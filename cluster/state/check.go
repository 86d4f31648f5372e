package state

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// maxEpoch bounds epochs that are read from outside, far below where they would
// wrap; a restore may have raised them above the log's index.
const maxEpoch = 1 << 62

// Check reports every contradiction in the state, joined; nil for any state that
// Apply made. It holds for whatever commands came, in whatever order.
func (s *State) Check() error {
	c := &complaints{}
	c.check(s.LeaderTerm <= s.Term, "leader term %d is above the term %d", s.LeaderTerm, s.Term)
	c.check(s.Leader == "" || ValidName(s.Leader) == nil, "the leader's name %q cannot be", short(s.Leader))
	if s.Cluster.ID != "" || len(s.Cluster.Key) > 0 {
		c.check(validIdent(s.Cluster.ID) && len(s.Cluster.Key) == keySize, "the cluster has no usable identity and key")
	}
	c.mark("the cluster's pause", s.Paused, s.Index)
	for _, name := range s.NodeNames() {
		c.at = "node " + short(name)
		s.checkNode(c, name, s.Nodes[name])
	}
	for _, id := range s.SessionIDs() {
		c.at = fmt.Sprintf("session %d", id)
		s.checkSession(c, id, s.Sessions[id])
	}
	owners := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		c.at = "service " + short(name)
		s.checkService(c, name, s.Services[name], owners)
	}
	c.at = "history"
	c.check(len(s.History) <= MaxHistory, "%d events are more than %d", len(s.History), MaxHistory)
	last := uint64(0)
	for i, e := range s.History {
		c.check(e.Index >= last && e.Index <= s.Index, "event %d has index %d", i, e.Index)
		c.check(e.Kind != "" && e.Why != "", "event %d has no kind or no reason", i)
		last = e.Index
	}
	return errors.Join(c.errs...)
}

func (s *State) checkNode(c *complaints, name string, n *Node) {
	if n == nil {
		c.add("it is empty")
		return
	}
	c.check(n.Name == name, "it is called %q", short(n.Name))
	if err := s.badNode(SetNode{Node: n.Name, Role: n.Role, Address: n.Address, Birth: n.Birth}, nil); err != nil {
		c.add("%v", err)
	}
	c.check(n.Started == 0 || n.Birth != "", "it started without a birth")
	if n.Session != 0 {
		sess := s.Sessions[n.Session]
		c.check(sess != nil && sess.Node == name, "its session %d is not there", n.Session)
	}
	c.mark("standby", n.Standby, s.Index)
}

func (s *State) checkSession(c *complaints, id uint64, sess *Session) {
	if sess == nil {
		c.add("it is empty")
		return
	}
	c.check(id != 0 && sess.ID == id && id <= s.Index, "its id is %d, the state's index %d", sess.ID, s.Index)
	c.check(sess.Replaces < id, "it replaces the later session %d", sess.Replaces)
	if err := badSession(OpenSession{BootID: sess.BootID, TTL: sess.TTL, Kappa: sess.Kappa}); err != nil {
		c.add("%v", err)
	}
	n := s.Nodes[sess.Node]
	if n == nil {
		c.add("its node %q is not there", short(sess.Node))
		return
	}
	c.check(id <= n.Session, "its node knows an older one, %d", n.Session)
	c.check(sess.Status != SessionOpen || id == n.Session, "it is open, but the node's current one is %d", n.Session)
	switch sess.Status {
	case SessionOpen:
		c.check(sess.Closing == "" && sess.Fence == nil && len(sess.Proofs) == 0, "it is open, with a reason to close, a fence or a proof")
	case SessionClosing:
		c.check(sess.Closing != "" && len(sess.Proofs) == 0, "it is closing without a reason or with a proof")
	case SessionEnded:
		c.check(sess.Closing != "" && len(sess.Proofs) > 0, "it is ended without a reason or a proof")
	default:
		c.add("its status is %q", short(string(sess.Status)))
	}
	c.check(sess.Fence == nil || sess.Fence.Index <= s.Index, "its fence is of a later index")
	kinds := map[ProofKind]bool{}
	for _, p := range sess.Proofs {
		c.check(TakeoverLease.Accepts(p.Kind) && !kinds[p.Kind], "its proof %q is unknown or there twice", short(string(p.Kind)))
		c.check(p.Index <= s.Index, "its proof %s is of a later index", short(string(p.Kind)))
		c.check(p.Kind != ProofFenced || sess.Fence != nil, "it was fenced without a fence")
		kinds[p.Kind] = true
	}
}

func (s *State) checkService(c *complaints, name string, svc *Service, owners map[string]string) {
	if svc == nil {
		c.add("it is empty")
		return
	}
	c.check(svc.Name == name && ValidName(name) == nil, "it is called %q", short(svc.Name))
	c.check(svc.LastEpoch <= maxEpoch, "its last epoch %d is too high", svc.LastEpoch)
	c.check(svc.Generation <= s.Index, "its generation %d is above the index", svc.Generation)
	c.mark("its pause", svc.Paused, s.Index)
	s.checkGrants(c, svc)
	if svc.Gone() {
		c.check(svc.Spec.Name == "" && svc.Paused == nil && svc.Move == nil && svc.Failures == nil, "it is gone and still has something")
		return
	}
	c.check(svc.Spec.Name == name, "its specification is that of %q", short(svc.Spec.Name))
	if err := svc.Spec.Validate(); err != nil {
		c.errs = append(c.errs, err)
	}
	for _, a := range svc.Spec.addresses() {
		other := owners[a.String()]
		c.check(other == "", "its address %s is that of %s as well", a, other)
		owners[a.String()] = name
	}
	if m := svc.Move; m != nil {
		c.check(!svc.Removed && m.Index <= s.Index, "its move cannot be")
		c.check(m.To == "" || s.mayMoveTo(svc, m.To) == nil, "its move to %q cannot be carried out", short(m.To))
	}
	for i, f := range svc.Failures {
		c.check(s.Nodes[f.Node] != nil && f.Epoch <= svc.LastEpoch && f.Index <= s.Index, "its failure on %q cannot be", short(f.Node))
		c.check(i == 0 || svc.Failures[i-1].Node < f.Node, "its failures are out of order")
	}
}

// checkGrants checks the chain of epochs: at most one hand-over is under way,
// and whatever is not over has a session to wait for.
func (s *State) checkGrants(c *complaints, svc *Service) {
	last := uint64(0)
	for i, g := range svc.Grants {
		newest := i == len(svc.Grants)-1
		c.check(g.Epoch > last && g.Epoch <= svc.LastEpoch, "epoch %d is out of order", g.Epoch)
		last = g.Epoch
		c.check(ValidName(g.Node) == nil && g.Index <= s.Index && g.OverIndex <= s.Index, "epoch %d has no usable node or index", g.Epoch)
		c.check(g.Kind == KindGrant && g.From == 0 || g.Kind == KindHandOver && g.From > 0 && g.From < g.Epoch, "epoch %d is a %q from %d", g.Epoch, short(string(g.Kind)), g.From)
		if g.Over != "" {
			c.check(newest, "epoch %d is over and not the newest", g.Epoch)
			c.check(TakeoverLease.Accepts(g.Over), "epoch %d is over by %q", g.Epoch, short(string(g.Over)))
			continue
		}
		sess := s.Sessions[g.Session]
		c.check(sess != nil && sess.Node == g.Node, "epoch %d is not over and its session %d is not there", g.Epoch, g.Session)
		n := s.Nodes[g.Node]
		c.check(n != nil && n.Role.Holds(), "epoch %d is not over and %q is no node that may hold", g.Epoch, short(g.Node))
		kind, over := s.Accepted(svc, g)
		c.check(!over, "epoch %d is over by %s and not marked", g.Epoch, kind)
	}
	open := svc.Unfinished()
	c.check(len(open) <= 2, "%d epochs are not over", len(open))
	if len(open) == 2 {
		c.check(open[1].Kind == KindHandOver && open[1].From == open[0].Epoch && open[1].Node != open[0].Node, "epochs %d and %d are not over and no hand-over joins them", open[0].Epoch, open[1].Epoch)
	}
}

func (c *complaints) check(ok bool, format string, args ...any) {
	if !ok {
		c.add(format, args...)
	}
}

func (c *complaints) mark(what string, m *Mark, index uint64) {
	c.check(m == nil || m.Index <= index, "%s is of a later index", what)
}
