package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Members lists the nodes of the state and of the Raft configuration.
func (n *Node) Members(ctx context.Context) ([]Member, error) {
	n.ask(ctx, askLimit)
	st := n.Voter.View()
	votes := map[string]string{}
	addresses := map[string]string{}
	for _, s := range n.consensus().Servers() {
		votes[s.Name], addresses[s.Name] = "nonvoter", s.Address
		if s.Votes {
			votes[s.Name] = "voter"
		}
	}
	leader, _ := n.consensus().Leader()
	view := n.anyView(n.lead.Load(), st)
	var out []Member
	for _, name := range sortedNames(st.Nodes) {
		m := st.Nodes[name]
		ns := n.nodeStatus(st, view, leader, name)
		vote := votes[name]
		if vote == "" {
			vote = "none"
		}
		out = append(out, Member{Name: name, Address: m.Address, Role: m.Role, Vote: vote, Alive: ns.Alive, Birth: m.Birth})
	}
	for _, name := range sortedNames(votes) {
		if st.Nodes[name] == nil {
			out = append(out, Member{Name: name, Address: addresses[name], Vote: votes[name], Alive: "unknown", Waiting: "in the Raft configuration, but not in the state: members remove " + name})
		}
	}
	return out, nil
}

// ChangeMember changes the membership, one voter at a time, by the rules of LEASE.md 14.
func (n *Node) ChangeMember(ctx context.Context, r MemberRequest) error {
	led, err := n.leading()
	if err != nil {
		return err
	}
	if !led.members.TryLock() {
		return fmt.Errorf("%w: another change of the membership is under way", ErrRefused)
	}
	defer led.members.Unlock()
	// What was waited for belongs to this leadership: a change must not slip into
	// a later one of this node.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(led.Ctx, cancel)()
	err = n.changeMember(ctx, led, r)
	if led.Ctx.Err() != nil && errors.Is(err, ErrTimeout) {
		return fmt.Errorf("%w: the leadership has changed meanwhile: %w", ErrNotLeader, err)
	}
	return err
}

func (n *Node) changeMember(ctx context.Context, led *leadership, r MemberRequest) error {
	switch r.Action {
	case "add":
		return n.addMember(ctx, led, r)
	case "promote":
		return n.promoteMember(ctx, led, r)
	case "demote":
		return n.demoteMember(ctx, led, r)
	case "remove":
		return n.removeMember(ctx, led, r.Node, r)
	case "replace":
		return n.replaceMember(ctx, led, r)
	}
	return fmt.Errorf("%w: no such change %q; there are add, promote, demote, remove, replace", ErrInvalid, r.Action)
}

// addMember lets a node in without a vote; a voter is promoted once it has caught up.
func (n *Node) addMember(ctx context.Context, led *leadership, r MemberRequest) error {
	st := n.Voter.View()
	role := r.Role
	if role == "" {
		role = state.RoleVoter
	}
	known := st.Nodes[r.Node]
	if known != nil && (known.Role != role || n.admitted(r.Node, role)) {
		return fmt.Errorf("%w: %s is a member already", ErrRefused, r.Node)
	}
	id, err := n.identityAt(ctx, r.Address)
	if err != nil {
		return fmt.Errorf("%w: %s does not answer at %s; start its daemon first: %w", ErrRefused, r.Node, r.Address, err)
	}
	switch {
	case id.Node != r.Node:
		return fmt.Errorf("%w: the node at %s calls itself %q, not %q", ErrRefused, r.Address, id.Node, r.Node)
	case known != nil && (known.Birth != id.Birth || known.Address != r.Address):
		return fmt.Errorf("%w: another %s is a member already, at %s; failoverctl members replace %s %s %s puts this one in its place", ErrRefused, r.Node, known.Address, r.Node, r.Node, r.Address)
	case id.Cluster != "" && id.Cluster != st.Cluster.ID:
		return fmt.Errorf("%w: %s has the data of another cluster (%s); move its data directory aside first", ErrRefused, r.Node, id.Cluster)
	}
	failpoint.Here("members.add.before")
	if _, err := n.commit(ctx, state.SetNode{Node: r.Node, Role: role, Address: r.Address, Birth: id.Birth, Stamp: n.stamp(r.By, r.Why)}); err != nil {
		return err
	}
	failpoint.Here("members.add.noted")
	if err := n.consensus().AddNonvoter(ctx, r.Node, r.Address); err != nil {
		return fmt.Errorf("add %s: %w", r.Node, err)
	}
	failpoint.Here("members.add.in")
	if !role.Votes() {
		return nil
	}
	return n.giveVote(ctx, led, r.Node, r.Address)
}

// admitted reports whether an addition under that role was carried through. One
// that lost its leader half way is taken up again by whoever asks again.
func (n *Node) admitted(name string, role state.Role) bool {
	return slices.ContainsFunc(n.consensus().Servers(), func(s Server) bool { return s.Name == name && s.Votes == role.Votes() })
}

func (n *Node) identityAt(ctx context.Context, address string) (Identity, error) {
	peer, err := n.Peers.Peer(address)
	if err != nil {
		return Identity{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return peer.Identity(ctx)
}

func (n *Node) promoteMember(ctx context.Context, led *leadership, r MemberRequest) error {
	m := n.Voter.View().Nodes[r.Node]
	if m == nil {
		return fmt.Errorf("%w: no member %q", ErrNotFound, r.Node)
	}
	role := r.Role
	if role == "" {
		role = state.RoleVoter
	}
	if m.Role != role {
		if _, err := n.commit(ctx, state.SetNode{Node: r.Node, Role: role, Address: m.Address, Stamp: n.stamp(r.By, r.Why)}); err != nil {
			return err
		}
	}
	return n.giveVote(ctx, led, r.Node, m.Address)
}

func (n *Node) giveVote(ctx context.Context, led *leadership, name, address string) error {
	return n.changeVoters(ctx, led, func(voters []string) []string {
		if slices.Contains(voters, name) {
			return voters
		}
		return append(slices.Clone(voters), name)
	}, func(ctx context.Context) error { return n.consensus().Promote(ctx, led.Term, name, address) })
}

func (n *Node) takeVote(ctx context.Context, led *leadership, name string) error {
	return n.changeVoters(ctx, led, func(voters []string) []string {
		return slices.DeleteFunc(slices.Clone(voters), func(v string) bool { return v == name })
	}, func(ctx context.Context) error { return n.consensus().Demote(ctx, led.Term, name) })
}

func (n *Node) demoteMember(ctx context.Context, led *leadership, r MemberRequest) error {
	m := n.Voter.View().Nodes[r.Node]
	if m == nil {
		return fmt.Errorf("%w: no member %q", ErrNotFound, r.Node)
	}
	if m.Role == state.RoleWitness {
		return fmt.Errorf("%w: a witness without a vote is nothing; remove it instead", ErrRefused)
	}
	if r.Node == n.Self {
		return n.stepAside(ctx, r.Node)
	}
	if err := n.takeVote(ctx, led, r.Node); err != nil {
		return err
	}
	_, err := n.commit(ctx, state.SetNode{Node: r.Node, Role: state.RoleMember, Address: m.Address, Stamp: n.stamp(r.By, r.Why)})
	return err
}

// stepAside gives the leadership away: a leader does not change its own vote.
func (n *Node) stepAside(ctx context.Context, node string) error {
	if err := n.consensus().Transfer(ctx); err != nil {
		return fmt.Errorf("%w: %s leads, and could not give the leadership away: %w", ErrRefused, node, err)
	}
	return fmt.Errorf("%w: %s was leading and has given that away; the new leader is asked next", ErrNotLeader, node)
}

func (n *Node) removeMember(ctx context.Context, led *leadership, name string, r MemberRequest) error {
	st := n.Voter.View()
	configured := slices.ContainsFunc(n.consensus().Servers(), func(s Server) bool { return s.Name == name })
	if st.Nodes[name] == nil && !configured {
		return fmt.Errorf("%w: no member %q", ErrNotFound, name)
	}
	if name == n.Self {
		return n.stepAside(ctx, name)
	}
	if st.Nodes[name] == nil {
		return n.removeServer(ctx, led, name) // what a removal that was cut short has left
	}
	for _, svc := range sortedNames(st.Services) {
		for _, g := range st.Services[svc].Unfinished() {
			if g.Node == name {
				return fmt.Errorf("%w: %s has epoch %d of %s; move that first: failoverctl switchover %s", ErrRefused, name, g.Epoch, svc, svc)
			}
		}
	}
	if err := n.endSessionOf(ctx, name, r); err != nil {
		return err
	}
	if slices.Contains(n.configuration().Voters, name) {
		if err := n.takeVote(ctx, led, name); err != nil {
			return err
		}
	}
	// Out of the state first: as long as it is a server, it hears of it.
	failpoint.Here("members.remove.before")
	done, err := n.commit(ctx, state.RemoveNode{Node: name, Stamp: n.stamp(r.By, r.Why)})
	if err != nil {
		return err
	}
	failpoint.Here("members.remove.noted")
	n.awaitHeard(ctx, st.Nodes[name].Address, done.Index)
	return n.removeServer(ctx, led, name)
}

// heardLimit is how long a removal waits for the removed node to hear of it.
const heardLimit = time.Second

// awaitHeard waits until the node at address has applied the entry, so that it
// knows what has become of it. One that does not answer is not waited for.
func (n *Node) awaitHeard(ctx context.Context, address string, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, heardLimit)
	defer cancel()
	peer, err := n.Peers.Peer(address)
	if err != nil {
		return
	}
	for {
		if rep, err := peer.Report(ctx); err != nil || rep.Index >= index {
			return
		}
		if sleep(ctx, 5*time.Millisecond) != nil {
			return
		}
	}
}

// removeServer takes a node that is not in the state any more off the log.
func (n *Node) removeServer(ctx context.Context, led *leadership, name string) error {
	if slices.Contains(n.configuration().Voters, name) {
		if err := n.takeVote(ctx, led, name); err != nil {
			return err
		}
	}
	failpoint.Here("members.remove.server")
	if err := n.consensus().Remove(ctx, led.Term, name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// endSessionOf closes the session of a node that is to go and waits for its end.
func (n *Node) endSessionOf(ctx context.Context, name string, r MemberRequest) error {
	for {
		st := n.Voter.View()
		var open *state.Session
		for _, s := range st.Sessions {
			if s.Node == name && s.Status != state.SessionEnded {
				open = s
			}
		}
		if open == nil {
			return nil
		}
		if st.Nodes[name].Standby == nil {
			// A node that stands by is given nothing while it goes.
			if _, err := n.commit(ctx, state.SetStandby{Node: name, On: true, Stamp: n.stamp(r.By, "it is being removed")}); err != nil {
				return err
			}
		}
		if open.Status == state.SessionOpen {
			failpoint.Here("members.close.before")
			if _, err := n.commit(ctx, state.CloseSession{Session: open.ID, Stamp: n.stamp(r.By, name+" is being removed")}); err != nil {
				return err
			}
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%w: session %d of %s has not ended yet; ask again", ErrTimeout, open.ID, name)
		}
	}
}

// replaceMember admits new data under an old name, or a new node in place of
// an old one: the old goes first, the new comes without a vote, then votes.
func (n *Node) replaceMember(ctx context.Context, led *leadership, r MemberRequest) error {
	old := r.Replaces
	if old == "" {
		old = r.Node
	}
	st := n.Voter.View()
	m := st.Nodes[old]
	if m == nil {
		return fmt.Errorf("%w: no member %q", ErrNotFound, old)
	}
	if r.Address == "" {
		r.Address = m.Address
	}
	if r.Role == "" {
		r.Role = m.Role
	}
	if err := n.removeMember(ctx, led, old, r); err != nil {
		return err
	}
	return n.addMember(ctx, led, r)
}

// changeVoters changes the voters when LEASE.md 14 allows it, and waits for that as
// long as ctx lasts.
func (n *Node) changeVoters(ctx context.Context, led *leadership, next func([]string) []string, change func(context.Context) error) error {
	why := ""
	for {
		current := n.configuration()
		wanted := lease.NewConfiguration(next(current.Voters))
		if wanted.ID == current.ID {
			return nil
		}
		ok, wait, reason, err := n.mayChangeVoters(ctx, led, current, wanted)
		if err != nil {
			return err
		}
		if ok {
			failpoint.Here("members.vote.before")
			led.unsettled = true // also after an error it may be in the log
			if err := change(ctx); err != nil {
				return fmt.Errorf("change voters: %w", err)
			}
			failpoint.Here("members.vote.changed")
			n.settled(led)
			return nil
		}
		why = reason
		if wait <= 0 || wait > time.Second {
			wait = 50 * time.Millisecond
		}
		if err := sleep(ctx, wait); err != nil {
			return fmt.Errorf("%w: the voters could not be changed yet: %s", ErrTimeout, why)
		}
	}
}

// settled notes that a change of the voters is committed, now at the latest.
func (n *Node) settled(led *leadership) {
	at := n.Clock.Now()
	led.committed.Store(&at)
	led.unsettled = false
}

func (n *Node) mayChangeVoters(ctx context.Context, led *leadership, current, wanted lease.Configuration) (bool, time.Duration, string, error) {
	if led.Ctx.Err() != nil {
		return false, 0, "", fmt.Errorf("%w: the leadership has changed meanwhile", ErrNotLeader)
	}
	if err := n.consensus().Barrier(ctx); err != nil {
		return false, 0, "", fmt.Errorf("change voters: %w", err)
	}
	if led.unsettled {
		n.settled(led) // the barrier came after it in the log
	}
	st := n.Voter.View()
	applied := map[string]uint64{n.Self: st.Index}
	committed := st.Index
	asked := n.Clock.Now()
	n.ask(ctx, time.Second)
	n.mu.Lock()
	for name, r := range n.reports {
		if r.Ready && clock.Shorter(asked, r.at) >= 0 {
			applied[name] = r.Index
		}
	}
	n.mu.Unlock()
	now := n.Clock.Now()
	ok, wait, why := lease.MayChange(lease.MembershipView{
		Now: now, Term: led.Term, State: st, FirstApplied: led.since, LastCommitted: led.committed.Load(),
		Current: current, Next: wanted, Committed: committed, Applied: applied,
	})
	return ok, wait, why, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
