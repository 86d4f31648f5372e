package state

import (
	"maps"
	"slices"
)

// NodeNames returns the names of all nodes, sorted.
func (s *State) NodeNames() []string { return slices.Sorted(maps.Keys(s.Nodes)) }

// ServiceNames returns, sorted, the services in force and those that were removed
// but have an epoch that is not over. Services that are gone are left out.
func (s *State) ServiceNames() []string {
	var names []string
	for name, svc := range s.Services {
		if !svc.Gone() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// SessionIDs returns the sessions that are still known, oldest first.
func (s *State) SessionIDs() []uint64 { return slices.Sorted(maps.Keys(s.Sessions)) }

// OpenSession returns the node's open session, or nil.
func (s *State) OpenSession(node string) *Session {
	n := s.Nodes[node]
	if n == nil {
		return nil
	}
	if sess := s.Sessions[n.Session]; sess != nil && sess.Status == SessionOpen {
		return sess
	}
	return nil
}

// UnendedSessions returns the node's sessions that are open or closing, oldest
// first. More than one is possible: a new session leaves the older one closing.
func (s *State) UnendedSessions(node string) []*Session {
	var out []*Session
	for _, id := range s.SessionIDs() {
		if sess := s.Sessions[id]; sess.Node == node && sess.Status != SessionEnded {
			out = append(out, sess)
		}
	}
	return out
}

// Held is an epoch of a service that is not over.
type Held struct {
	Service string
	Grant   Grant
}

// HeldBy returns the epochs of a node that are not over, in whatever session,
// sorted by service and epoch. A hand-over that the node receives counts.
func (s *State) HeldBy(node string) []Held {
	return s.held(func(g Grant) bool { return g.Node == node })
}

// HeldUnder returns the epochs of a session that are not over, sorted by service and epoch.
func (s *State) HeldUnder(session uint64) []Held {
	return s.held(func(g Grant) bool { return g.Session == session })
}

func (s *State) held(match func(Grant) bool) []Held {
	var out []Held
	for _, name := range s.ServiceNames() {
		for _, g := range s.Services[name].Unfinished() {
			if match(g) {
				out = append(out, Held{Service: name, Grant: g})
			}
		}
	}
	return out
}

// Accepted reports whether a grant of the service is over, and by which proof:
// its own mark, or the first proof of its ended session that the service's policy
// accepts now.
func (s *State) Accepted(svc *Service, g Grant) (ProofKind, bool) {
	if g.Over != "" {
		return g.Over, true
	}
	if svc == nil {
		return "", false
	}
	sess := s.Sessions[g.Session]
	if sess == nil || sess.Status != SessionEnded {
		return "", false
	}
	for _, p := range sess.Proofs {
		if svc.Spec.Takeover.Accepts(p.Kind) {
			return p.Kind, true
		}
	}
	return "", false
}

// PausedBy returns the mark that keeps the service where it is: the cluster's,
// else the service's own, else nil.
func (s *State) PausedBy(service string) *Mark {
	if s.Paused != nil {
		return s.Paused
	}
	if svc := s.Services[service]; svc != nil {
		return svc.Paused
	}
	return nil
}

// Grant returns the grant of an epoch that is still known, or nil.
func (s *Service) Grant(epoch uint64) *Grant {
	for i := range s.Grants {
		if s.Grants[i].Epoch == epoch {
			return &s.Grants[i]
		}
	}
	return nil
}

// Gone reports whether the service was removed and every epoch of it is over:
// only its last epoch is kept, for a later service of the same name.
func (s *Service) Gone() bool { return s.Removed && len(s.Unfinished()) == 0 }

// Allows reports whether the specification lets the node hold the service. The
// node's role is another question.
func (s Spec) Allows(node string) bool {
	return len(s.Nodes) == 0 || slices.Contains(s.Nodes, node)
}
