package cluster

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

var _ Operator = (*Node)(nil)

// LogVersion is the version of the commands that this build writes and reads.
const LogVersion = 1

// askLimit bounds how long a status waits for other nodes.
const askLimit = 400 * time.Millisecond

// Status is this node's account of the cluster. Only a leader with a majority
// behind it says that a quorum stands behind the answer.
func (n *Node) Status(ctx context.Context) (Status, error) {
	n.ask(ctx, askLimit)
	st := n.Voter.View()
	s := Status{
		Cluster: st.Cluster.ID, Node: n.Self, Term: st.Term, Index: st.Index, At: time.Now(),
		Age: -1, Paused: st.Paused, Alarms: n.alarms(),
	}
	if st.Cluster.ID == "" {
		s.Cluster = n.ClusterID
	}
	if n.consensus() != nil {
		s.Leader, _ = n.consensus().Leader()
	}
	led := n.lead.Load()
	if led != nil {
		s.Age, s.Quorum = n.confirm(ctx, led)
	}
	view := n.anyView(led, st)
	for _, name := range sortedNames(st.Nodes) {
		ns := n.nodeStatus(st, view, s.Leader, name)
		if st.Nodes[name].Role.Votes() {
			s.Voters++
			if ns.Alive == "yes" {
				s.VotersUp++
			}
		}
		s.Nodes = append(s.Nodes, ns)
		for _, a := range ns.Alarms {
			if name != n.Self {
				s.Alarms = append(s.Alarms, name+": "+a)
			}
		}
	}
	for _, name := range sortedNames(st.Services) {
		if svc := st.Services[name]; !svc.Removed || len(svc.Unfinished()) > 0 {
			s.Services = append(s.Services, n.serviceStatus(led, st, view, svc))
		}
	}
	return s, nil
}

// confirmedFor is how long a confirmation by a majority is good enough to be
// shown: each costs the log an entry.
const confirmedFor = 500 * time.Millisecond

// confirm asks a majority whether this node still leads, unless one has said so
// just now. age is how old that word is.
func (n *Node) confirm(ctx context.Context, led *leadership) (age time.Duration, ok bool) {
	if at := led.confirmed.Load(); at != nil {
		if age = clock.Longer(*at, n.Clock.Now()); age < confirmedFor {
			return age, led.Ctx.Err() == nil
		}
	}
	asked := n.Clock.Now()
	limited, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := n.consensus().Barrier(limited); err != nil {
		return -1, false
	}
	led.confirmed.Store(&asked)
	return 0, true
}

// anyView is the leader's view, or as much of one as a node has that does not lead.
func (n *Node) anyView(led *leadership, st *state.State) decide.LeaderView {
	if led != nil {
		return n.leaderView(led, st)
	}
	v := decide.LeaderView{State: st, Self: n.Self, Sessions: map[uint64]decide.SessionView{}, Sights: n.Gossip.Sights()}
	if n.consensus() != nil {
		v.Voters = n.configuration().Voters
	}
	for id := range st.Sessions {
		if age, standing := n.Voter.Age(id); standing == lease.StandingOpen {
			v.Sessions[id] = decide.SessionView{Ages: map[string]time.Duration{n.Self: age}}
		}
	}
	return v
}

func (n *Node) nodeStatus(st *state.State, view decide.LeaderView, leader, name string) NodeStatus {
	m := st.Nodes[name]
	ns := NodeStatus{
		Name: name, Role: m.Role, Address: m.Address, Leader: name == leader, Session: m.Session,
		Version: m.Version, Standby: m.Standby, Renewed: -1, Alive: "unknown",
		ConfigDiffers: m.ConfigHash != "" && m.ConfigHash != n.ConfigHash,
	}
	if s := st.Sessions[m.Session]; s != nil {
		ns.SessionState = string(s.Status)
		for _, age := range view.Sessions[s.ID].Ages {
			if ns.Renewed < 0 || age < ns.Renewed {
				ns.Renewed = age
			}
		}
	}
	switch view.Sights[name] {
	case decide.SightAlive:
		ns.Alive = "yes"
	case decide.SightSuspect:
		ns.Alive = "suspect"
	case decide.SightDead, decide.SightLeft:
		ns.Alive = "no"
	}
	if rep, ok := n.recent(name); ok {
		ns.Alive, ns.Ready, ns.Alarms = "yes", rep.Ready, rep.Alarms
	}
	for _, svc := range sortedNames(st.Services) {
		for _, g := range st.Services[svc].Unfinished() {
			if g.Node == name {
				ns.Holds = append(ns.Holds, svc)
				break
			}
		}
	}
	return ns
}

func (n *Node) serviceStatus(led *leadership, st *state.State, view decide.LeaderView, svc *state.Service) ServiceStatus {
	out := ServiceStatus{
		Name: svc.Name, Epoch: svc.LastEpoch, State: "stopped", LeaseLeft: -1, Takeover: svc.Spec.Takeover,
		Paused: svc.Paused, Move: svc.Move, Failures: svc.Failures, Last: lastMove(st, svc.Name),
	}
	if open := svc.Unfinished(); len(open) > 0 {
		g := open[0]
		out.Holder, out.Epoch, out.State = g.Node, g.Epoch, "unknown"
		out.Since = time.UnixMilli(g.At)
		n.holderStatus(&out, g)
		if s := st.Sessions[g.Session]; s != nil {
			out.Kappa = s.Kappa
			if s.Status != state.SessionOpen && out.State == "unknown" {
				out.State = "waiting"
			}
		}
	}
	for _, c := range decide.Candidates(view, svc) {
		if c.Node != out.Holder {
			out.Candidates = append(out.Candidates, Candidate{Node: c.Node, Can: c.Can, Why: c.Why, Priority: c.Priority})
		}
	}
	if led != nil {
		if p := led.plan.Load(); p != nil {
			out.Next = p.Notes[svc.Name]
		}
	}
	if out.Next == "" {
		out.Next = "unknown: this node does not lead"
	}
	return out
}

// holderStatus fills in what the holder itself says.
func (n *Node) holderStatus(out *ServiceStatus, g state.Grant) {
	rep, ok := n.recent(g.Node)
	if !ok {
		return
	}
	out.LeaseLeft = rep.LeaseLeft
	out.State = "waiting"
	for _, s := range rep.Services {
		if s.Name == out.Name && s.Epoch == g.Epoch {
			out.State, out.Guarantee, out.Resources = s.State, s.Guarantee, s.Resources
			if !s.Since.IsZero() {
				out.Since = s.Since
			}
		}
	}
}

// lastMove is the newest grant or hand-over of a service.
func lastMove(st *state.State, service string) *state.Event {
	for i := len(st.History) - 1; i >= 0; i-- {
		e := st.History[i]
		if e.Service == service && (e.Kind == (state.GrantService{}).Kind() || e.Kind == (state.HandOver{}).Kind()) {
			return &e
		}
	}
	return nil
}

// Explain says in sentences why a service is where it is and what would move it.
func (n *Node) Explain(ctx context.Context, service, node string) (Explanation, error) {
	n.ask(ctx, askLimit)
	st := n.Voter.View()
	svc, err := pick(st, service)
	if err != nil {
		return Explanation{}, err
	}
	if node != "" && st.Nodes[node] == nil {
		return Explanation{}, fmt.Errorf("%w: no node %q", ErrNotFound, node)
	}
	led := n.lead.Load()
	view := n.anyView(led, st)
	status := n.serviceStatus(led, st, view, svc)
	ex := Explanation{Service: svc.Name, Node: node, Lines: explainLines(st, svc, status)}
	if led == nil {
		ex.Lines = append(ex.Lines, "This node does not lead: what the others know is not in this answer.")
	}
	for _, c := range decide.Candidates(view, svc) {
		if node == "" || c.Node == node {
			ex.Candidates = append(ex.Candidates, Candidate{Node: c.Node, Can: c.Can, Why: c.Why, Priority: c.Priority})
		}
	}
	ex.History = filter(st.History, HistoryQuery{Service: svc.Name, Node: node, Limit: 10})
	return ex, nil
}

func explainLines(st *state.State, svc *state.Service, s ServiceStatus) []string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if s.Holder == "" {
		say("Nobody holds %s now; its last epoch was %d.", svc.Name, svc.LastEpoch)
	} else {
		say("%s holds %s under epoch %d and says that it is %s.", s.Holder, svc.Name, s.Epoch, s.State)
	}
	if g := svc.Newest(); g != nil {
		say("Epoch %d went to %s because: %s.", g.Epoch, g.Node, g.Why)
	}
	say("Now: %s.", s.Next)
	if svc.Spec.Takeover == state.TakeoverFence {
		say("takeover = \"fence\": when the holder is lost, the end of its lease is not enough; it must be fenced, or an operator must say that it is off.")
	} else {
		say("takeover = \"lease\": when the holder is lost, another takes over once its lease cannot be left.")
	}
	for _, f := range svc.Failures {
		say("%s failed to run it under epoch %d: %s; failoverctl cleanup %s %s forgets that.", f.Node, f.Epoch, f.Why, svc.Name, f.Node)
	}
	if why := decide.Paused(st, svc.Name); why != "" {
		say("Nothing moves: %s.", why)
	}
	return lines
}

// History returns the newest events, oldest first.
func (n *Node) History(_ context.Context, q HistoryQuery) ([]state.Event, error) {
	return filter(n.Voter.View().History, q), nil
}

func filter(all []state.Event, q HistoryQuery) []state.Event {
	var out []state.Event
	for _, e := range all {
		if matches(e, q) {
			out = append(out, e)
		}
	}
	if q.Limit > 0 && len(out) > q.Limit {
		out = out[len(out)-q.Limit:]
	}
	return out
}

func matches(e state.Event, q HistoryQuery) bool {
	return (q.Service == "" || e.Service == q.Service) && (q.Node == "" || e.Node == q.Node)
}

// Watch hands on every event from now on.
func (n *Node) Watch(ctx context.Context, q HistoryQuery, fn func(state.Event) error) error {
	c := n.events.listen()
	defer n.events.leave(c)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.ctx.Done():
			return fmt.Errorf("%w: the daemon stops", ErrNotLeader)
		case e, ok := <-c:
			if !ok {
				return fmt.Errorf("%w: the listener did not keep up with the events; ask again", ErrTimeout)
			}
			if !matches(e, q) {
				continue
			}
			if err := fn(e); err != nil {
				return err
			}
		}
	}
}

// restUntilApplied waits until something later than an index is applied.
func (n *Node) restUntilApplied(ctx context.Context, index uint64) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			if n.Voter.View().Index > index {
				return true
			}
		}
	}
}

// Version is what this node runs.
func (n *Node) Version(context.Context) (Version, error) {
	return Version{Node: n.Self, Version: n.SoftwareVersion, Protocol: LogVersion, Go: runtime.Version()}, nil
}
