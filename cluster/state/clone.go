package state

import (
	"bytes"
	"maps"
	"slices"
)

// Clone returns a copy that shares nothing with s that either of them may change.
// The history is shared: events are never changed once they are in it, an append
// to s goes behind the end that the copy can see, and an append to the copy finds
// no room and moves to an array of its own.
func (s *State) Clone() *State {
	c := *s
	c.Cluster.Key = bytes.Clone(s.Cluster.Key)
	c.Nodes = make(map[string]*Node, len(s.Nodes))
	for k, n := range s.Nodes {
		c.Nodes[k] = n.clone()
	}
	c.Sessions = make(map[uint64]*Session, len(s.Sessions))
	for k, sess := range s.Sessions {
		c.Sessions[k] = sess.clone()
	}
	c.Services = make(map[string]*Service, len(s.Services))
	for k, svc := range s.Services {
		c.Services[k] = svc.clone()
	}
	c.Paused = copied(s.Paused)
	c.History = slices.Clip(s.History)
	return &c
}

func (n *Node) clone() *Node {
	c := *n
	c.Standby = copied(n.Standby)
	return &c
}

func (s *Session) clone() *Session {
	c := *s
	c.Proofs = slices.Clone(s.Proofs)
	c.Fence = copied(s.Fence)
	return &c
}

func (s *Service) clone() *Service {
	c := *s
	c.Spec = s.Spec.clone()
	c.Grants = slices.Clone(s.Grants)
	c.Paused = copied(s.Paused)
	c.Move = copied(s.Move)
	c.Failures = slices.Clone(s.Failures)
	return &c
}

// clone copies a specification into the one form that is stored: what is empty
// is nil, so that equal specifications compare and encode as equal.
func (s Spec) clone() Spec {
	s.Nodes = list(s.Nodes)
	s.Priorities = table(s.Priorities)
	s.Resources = list(s.Resources)
	for i := range s.Resources {
		r := &s.Resources[i]
		r.VIP = copied(r.VIP)
		if r.Process = copied(r.Process); r.Process != nil {
			r.Process.Command = list(r.Process.Command)
			r.Process.Environment = table(r.Process.Environment)
		}
		if r.Exec = copied(r.Exec); r.Exec != nil {
			r.Exec.Start = list(r.Exec.Start)
			r.Exec.Stop = list(r.Exec.Stop)
			r.Exec.Status = list(r.Exec.Status)
		}
	}
	return s
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func list[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return slices.Clone(s)
}

func table[V any](m map[string]V) map[string]V {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}
