package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Server is a line of the Raft configuration.
type Server = cluster.Server

// Configuration is the latest configuration that this node has in its log,
// committed or not.
type Configuration struct {
	Voters  []string // sorted names; the c of LEASE.md is a hash of these
	Servers []Server // everybody, sorted by name
}

// Has reports whether a node is in the configuration, and its line.
func (c Configuration) Has(name string) (Server, bool) {
	for _, s := range c.Servers {
		if s.Name == name {
			return s, true
		}
	}
	return Server{}, false
}

// Configuration is taken from one look at raft. raft gives no index with it.
func (n *Node) Configuration() Configuration {
	var c Configuration
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		line := Server{Name: string(s.ID), Address: string(s.Address), Votes: s.Suffrage == raft.Voter}
		c.Servers = append(c.Servers, line)
		if line.Votes {
			c.Voters = append(c.Voters, line.Name)
		}
	}
	slices.Sort(c.Voters)
	slices.SortFunc(c.Servers, func(a, b Server) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// Servers is the latest configuration, sorted by name.
func (n *Node) Servers() []Server { return n.Configuration().Servers }

// AddNonvoter adds a node without a vote, or corrects the address of one. A
// node that votes is refused: under its name would stand another's disk.
func (n *Node) AddNonvoter(ctx context.Context, name, address string) error {
	return n.change(ctx, "add "+name, 0, func(c Configuration) (bool, error) {
		s, ok := c.Has(name)
		if ok && s.Votes {
			return false, fmt.Errorf("%w: %s votes already: demote and remove it before it is added anew", cluster.ErrRefused, name)
		}
		return ok && s.Address == address, nil
	}, func(t time.Duration) raft.Future {
		return n.raft.AddNonvoter(raft.ServerID(name), raft.ServerAddress(address), 0, t)
	})
}

// Promote gives a vote to a node that is in the configuration, at that
// address, without one, in the term of this node's leadership that is given.
func (n *Node) Promote(ctx context.Context, term uint64, name, address string) error {
	return n.change(ctx, "promote "+name, term, func(c Configuration) (bool, error) {
		s, ok := c.Has(name)
		if !ok {
			return false, fmt.Errorf("%w: %s is no member: it is added without a vote first", cluster.ErrNotFound, name)
		}
		if s.Address != address {
			return false, fmt.Errorf("%w: %s is a member at %s, not at %s: remove it before it is added anew", cluster.ErrRefused, name, s.Address, address)
		}
		return s.Votes, nil
	}, func(t time.Duration) raft.Future {
		return n.raft.AddVoter(raft.ServerID(name), raft.ServerAddress(address), 0, t)
	})
}

// Demote takes a node's vote, in the given term.
func (n *Node) Demote(ctx context.Context, term uint64, name string) error {
	return n.change(ctx, "demote "+name, term, func(c Configuration) (bool, error) {
		s, ok := c.Has(name)
		if !ok {
			return false, fmt.Errorf("%w: %s is no member", cluster.ErrNotFound, name)
		}
		return !s.Votes, nil
	}, func(t time.Duration) raft.Future { return n.raft.DemoteVoter(raft.ServerID(name), 0, t) })
}

// Remove takes a node out of the configuration, in the given term: it may be one
// that votes. A leader that removes itself
// steps down; the removed node keeps running, and Removed says so.
func (n *Node) Remove(ctx context.Context, term uint64, name string) error {
	return n.change(ctx, "remove "+name, term, func(c Configuration) (bool, error) {
		_, ok := c.Has(name)
		return !ok, nil
	}, func(t time.Duration) raft.Future { return n.raft.RemoveServer(raft.ServerID(name), 0, t) })
}

// Removed reports whether the latest configuration that this node knows has
// members, and this node is none of them. It then takes part in nothing; an
// operator may admit it again, with an empty data directory.
func (n *Node) Removed() bool {
	c := n.Configuration()
	_, in := c.Has(n.id)
	return len(c.Servers) > 0 && !in
}

// change makes one change of the configuration. done tells from the present
// one whether there is nothing to do, or why it is refused. raft's condition on
// the configuration's index cannot be used, since raft never tells that index;
// instead changes are made one at a time, and only a leader makes any. Nor would
// it tell two leaderships apart, and what LEASE.md 14 waits for is of one: a
// change of the voters is taken in the given term alone. 0 is any term.
func (n *Node) change(ctx context.Context, what string, term uint64, done func(Configuration) (bool, error), call func(time.Duration) raft.Future) error {
	n.members.Lock()
	defer n.members.Unlock()
	if n.raft.State() != raft.Leader {
		return fmt.Errorf("%s: %w", what, cluster.ErrNotLeader)
	}
	finished, err := done(n.Configuration())
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if finished {
		// It may stand in the log without being committed.
		return n.Barrier(ctx)
	}
	failpoint.Here("raft.member.before")
	if n.leader.beforeChange != nil {
		n.leader.beforeChange()
	}
	err = n.ask(ctx, refused, func(timeout time.Duration) (raft.Future, func()) { return n.inTerm(term, timeout, call), nil })
	if err == nil {
		failpoint.Here("raft.member.changed")
		n.log.Info("membership changed", "change", what)
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// inTerm hands a change to raft while the leadership of its term lasts. raft
// appends it in the same turn of its main loop in which it takes it.
func (n *Node) inTerm(term uint64, timeout time.Duration, call func(time.Duration) raft.Future) raft.Future {
	if term == 0 {
		return call(timeout)
	}
	var future raft.Future = notTaken{}
	n.leader.during(term, func() { future = call(timeout) })
	return future
}

// notTaken is the answer to a change whose term is over. Like raft's own answers
// at once it is a plain value.
type notTaken struct{}

// Error says that nothing was appended.
func (notTaken) Error() error { return raft.ErrNotLeader }

// refused translates the answer to a change. raft refuses a configuration that
// makes no sense with errors that have no name, before it appends anything.
func refused(err error) error {
	for _, known := range []error{raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrLeadershipTransferInProgress, raft.ErrRaftShutdown, raft.ErrAbortedByRestore, errStopping} {
		if errors.Is(err, known) {
			return translated(err)
		}
	}
	return fmt.Errorf("%w: %w", cluster.ErrRefused, err)
}
