package decide

import (
	"fmt"
	"slices"
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// Candidate says whether a node could take a service now, and why not.
type Candidate struct {
	Node string
	Can  bool
	Why  string // always set: the reason in words
	// Unknown: whether it could is not known yet. A new leader knows nothing of
	// anybody until a majority has answered.
	Unknown  bool
	Priority int
	held     int
	sticky   bool
	leads    bool
}

// Candidates judges every node for a service, the best first. Eligible nodes
// come before the others; among them priority decides, then whoever held the
// service last, then who does not lead, then who holds fewer services, then the name.
func Candidates(v LeaderView, svc *state.Service) []Candidate {
	list := make([]Candidate, 0, len(v.State.Nodes))
	last := ""
	if g := svc.Newest(); g != nil {
		last = g.Node
	}
	for _, name := range nodeNames(v.State) {
		c := judge(v, svc, v.State.Nodes[name])
		c.Priority = svc.Spec.Priorities[name]
		c.sticky = name == last
		c.leads = name == v.Self
		c.held = holds(v.State, name) + v.given[name]
		list = append(list, c)
	}
	slices.SortStableFunc(list, func(a, b Candidate) int {
		switch {
		case better(a, b):
			return -1
		case better(b, a):
			return 1
		}
		return 0
	})
	return list
}

func better(a, b Candidate) bool {
	switch {
	case a.Can != b.Can:
		return a.Can
	case a.Priority != b.Priority:
		return a.Priority > b.Priority
	case a.sticky != b.sticky:
		return a.sticky
	case a.leads != b.leads:
		return b.leads
	case a.held != b.held:
		return a.held < b.held
	}
	return a.Node < b.Node
}

// holds counts the epochs that are not over and belong to the node.
func holds(st *state.State, node string) int {
	n := 0
	for _, svc := range st.Services {
		for _, g := range svc.Grants {
			if g.Node == node && g.Over == "" {
				n++
			}
		}
	}
	return n
}

func judge(v LeaderView, svc *state.Service, n *state.Node) Candidate {
	no := func(format string, args ...any) Candidate {
		return Candidate{Node: n.Name, Why: fmt.Sprintf(format, args...)}
	}
	switch {
	case !n.Role.Holds():
		return no("is a %s: it votes only", n.Role)
	case len(svc.Spec.Nodes) > 0 && !slices.Contains(svc.Spec.Nodes, n.Name):
		return no("is not among the nodes that %s names", svc.Name)
	case n.Standby != nil:
		return no("is on standby%s", markWords(n.Standby))
	}
	s := v.State.Sessions[n.Session]
	switch {
	case n.Session == 0 || s == nil:
		return no("has no session yet: its daemon has not joined since it was added")
	case s.Status != state.SessionOpen:
		return no("its session is %s: %s", s.Status, s.Closing)
	}
	ev := v.Sessions[s.ID]
	if ev.Goodbye {
		return no("said goodbye")
	}
	if c := renews(v, s, ev, no); c != nil {
		return *c
	}
	for _, f := range svc.Failures {
		if f.Node == n.Name {
			return no("failed to run it under epoch %d: %s (failoverctl cleanup %s %s forgets that)", f.Epoch, f.Why, svc.Name, n.Name)
		}
	}
	if why := v.Unable[svc.Name][n.Name]; why != "" {
		return no("says that it could not run it: %s", why)
	}
	return Candidate{Node: n.Name, Can: true, Why: "yes"}
}

// renews judges whether a node has a lease, as far as the voters tell; nil: it has.
// A session alone is not enough: a node whose renewals reach nobody opens one
// after the other, and would be given everything, in vain, again and again.
func renews(v LeaderView, s *state.Session, ev SessionView, no func(string, ...any) Candidate) *Candidate {
	limit := candidateQuiet(s.TTL)
	renewed, known := ev.renewed(v.Voters)
	if known && renewed < limit {
		return nil
	}
	verdict := func(unknown bool, format string, args ...any) *Candidate {
		c := no(format, args...)
		c.Unknown = unknown
		return &c
	}
	if !known {
		return verdict(true, "it is not known yet whether it renews: too few voters have told")
	}
	switch {
	case ev.Opened && renewed > ev.Since:
		return verdict(ev.Since < limit/2, "has not renewed yet since it opened its session")
	case ev.silence(v.Voters) < limit:
		return verdict(true, "it is not known yet whether it still renews: what the voters told is old")
	}
	return verdict(false, "has not renewed for %s", round(renewed))
}

// candidateQuiet is how long a node may be silent and still be chosen: half of
// its lease, so that one lost datagram does not rule anybody out.
func candidateQuiet(ttl time.Duration) time.Duration { return ttl / 2 }

func nodeNames(st *state.State) []string {
	names := make([]string, 0, len(st.Nodes))
	for name := range st.Nodes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func serviceNames(st *state.State) []string {
	names := make([]string, 0, len(st.Services))
	for name := range st.Services {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
