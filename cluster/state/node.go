package state

import (
	"bytes"
	"fmt"
	"strings"
)

// keySize is the length of the cluster's key in bytes.
const keySize = 32

// found gives the cluster its identity, once. Of two first leaders that drew
// keys for the same identity, the first one's key stays: read it from the state.
func (s *State) found(c Found, st Stamp) *Refusal {
	if !validIdent(c.ID) || len(c.Key) != keySize {
		return refuse(CodeBadCluster, "a cluster needs an identity of 1 to %d printable characters and a key of %d bytes, not %d: draw both again",
			maxIdent, keySize, len(c.Key))
	}
	if s.Cluster.ID != "" {
		if s.Cluster.ID == c.ID {
			return nil
		}
		return refuse(CodeClusterExists, "this is cluster %s already, it cannot become %s: a node of another cluster joins with an empty data directory and failoverctl members add",
			s.Cluster.ID, c.ID)
	}
	s.Cluster = Cluster{ID: c.ID, Key: bytes.Clone(c.Key)}
	s.note(st, Event{Kind: c.Kind()}, "cluster %s is founded", c.ID)
	return nil
}

// leaderStart notes who leads the entry's own term (R3, R11): whoever finds its
// own term here knows that it has applied everything committed before it led.
func (s *State) leaderStart(c LeaderStart, st Stamp) *Refusal {
	if err := ValidName(c.Node); err != nil {
		return refuse(CodeBadNode, "%v: give the leader the name from its node file", err)
	}
	if s.LeaderTerm == s.Term && s.Leader != "" {
		if s.Leader == c.Node {
			return nil
		}
		return refuse(CodeLeaderDiffers, "%s leads term %d already and so %s cannot: a term has one leader; look for two nodes with one name or address",
			s.Leader, s.Term, c.Node)
	}
	s.Leader, s.LeaderTerm = c.Node, s.Term
	s.note(st, Event{Kind: c.Kind(), Node: c.Node}, "%s leads term %d", c.Node, s.Term)
	return nil
}

// setNode adds a node or changes its role, its address or its data's birth. An
// empty address or birth leaves the recorded one.
func (s *State) setNode(c SetNode, st Stamp) *Refusal {
	n := s.Nodes[c.Node]
	if err := s.badNode(c, n); err != nil {
		return refuse(CodeBadNode, "node %q cannot be set: %v; correct it and try again", short(c.Node), err)
	}
	if n == nil {
		s.Nodes[c.Node] = &Node{Name: c.Node, Role: c.Role, Address: c.Address, Birth: c.Birth}
		s.note(st, Event{Kind: c.Kind(), Node: c.Node}, "%s is added as a %s at %s", c.Node, c.Role, c.Address)
		return nil
	}
	if held := s.HeldBy(c.Node); len(held) > 0 && !c.Role.Holds() {
		return refuse(CodeNodeHolds, "%s still has %s and cannot become a %s: move its services away first (failoverctl node standby %s)",
			c.Node, heldText(held), c.Role, c.Node)
	}
	// New data under an old name means a new journal, which does not know what
	// the old one had begun to release. In the same boot the same open session
	// would be given back to it, and it could activate such an epoch again (R1).
	fresh := c.Birth != "" && n.Birth != "" && c.Birth != n.Birth
	if open := s.UnendedSessions(c.Node); fresh && len(open) > 0 {
		return refuse(CodeNodeSession, "%s cannot come back with new data while session %d of its old data is %s: stop the old daemon and wait for the session to end, or fence the node",
			c.Node, open[0].ID, open[0].Status)
	}

	next := *n
	next.Role = c.Role
	next.Address = or(c.Address, n.Address)
	next.Birth = or(c.Birth, n.Birth)
	if fresh {
		// What the old data's daemon was recorded for is void with it.
		next.Started, next.BootID = 0, ""
	}
	if next == *n {
		return nil
	}
	*n = next
	s.note(st, Event{Kind: c.Kind(), Node: c.Node}, "%s is now a %s at %s", c.Node, n.Role, n.Address)
	return nil
}

// badNode says what is wrong with the text of a SetNode, if anything.
func (s *State) badNode(c SetNode, n *Node) error {
	if err := ValidName(c.Node); err != nil {
		return err
	}
	if !c.Role.Votes() && !c.Role.Holds() {
		return fmt.Errorf("its role %q is none of voter, witness, member", short(string(c.Role)))
	}
	if c.Birth != "" && !validIdent(c.Birth) {
		return fmt.Errorf("its birth must have 1 to %d printable characters", maxIdent)
	}
	if c.Address == "" && n != nil {
		return nil
	}
	if err := validHostPort(c.Address); err != nil {
		return fmt.Errorf("its address: %w", err)
	}
	return nil
}

// removeNode forgets a node that holds nothing and has no unended session: both
// are promises that somebody still has to wait for.
func (s *State) removeNode(c RemoveNode, st Stamp) *Refusal {
	if s.Nodes[c.Node] == nil {
		return s.noNode(c.Node)
	}
	if held := s.HeldBy(c.Node); len(held) > 0 {
		return refuse(CodeNodeHolds, "%s still has %s and cannot be removed: move its services away (failoverctl node standby %s) or wait until they are over",
			c.Node, heldText(held), c.Node)
	}
	if open := s.UnendedSessions(c.Node); len(open) > 0 {
		return refuse(CodeNodeSession, "session %d of %s is %s and must end before the node is removed: stop failoverd on %s and try again when its lease has run out",
			open[0].ID, c.Node, open[0].Status, c.Node)
	}
	delete(s.Nodes, c.Node)
	for _, svc := range s.Services {
		removeFailures(svc, func(f Failure) bool { return f.Node == c.Node })
	}
	s.note(st, Event{Kind: c.Kind(), Node: c.Node}, "%s is removed", c.Node)
	return nil
}

// started records a daemon's start. The birth tells a node from a second one of
// the same name, and from itself with a wiped disk.
func (s *State) started(c Started, st Stamp) *Refusal {
	n := s.Nodes[c.Node]
	if n == nil {
		return s.noNode(c.Node)
	}
	// A nonce of 0 would make a voter ready that no leader has heard of (I7).
	if c.Nonce == 0 || !validIdent(c.Birth) || !validIdent(c.BootID) {
		return refuse(CodeBadStart, "a start of %s needs a nonce above 0, a birth and a boot id of 1 to %d printable characters: restart failoverd on %s",
			c.Node, maxIdent, c.Node)
	}
	if n.Birth != "" && n.Birth != c.Birth {
		return refuse(CodeBirthDiffers, "%s started with data %s, but its recorded data is %s: it is a second node of that name or its disk was wiped; rename it, or admit the new data with failoverctl members replace %s",
			c.Node, c.Birth, n.Birth, c.Node)
	}
	next := *n
	next.Birth, next.Started, next.BootID = c.Birth, c.Nonce, c.BootID
	next.Version, next.ConfigHash = tidyText(c.Version), tidyText(c.ConfigHash)
	if next == *n {
		return nil
	}
	*n = next
	s.note(st, Event{Kind: c.Kind(), Node: c.Node}, "failoverd %s started on %s", or(n.Version, "of unknown version"), c.Node)
	return nil
}

// noNode refuses a name that no node has.
func (s *State) noNode(name string) *Refusal {
	return refuse(CodeNodeUnknown, "no node %q is known, it was removed or never added: see failoverctl members (known: %s)",
		short(name), or(strings.Join(s.NodeNames(), ", "), "none"))
}

// heldText lists epochs for a sentence.
func heldText(held []Held) string {
	var parts []string
	for _, h := range held {
		parts = append(parts, fmt.Sprintf("epoch %d of %s", h.Grant.Epoch, h.Service))
	}
	return strings.Join(parts, ", ")
}
