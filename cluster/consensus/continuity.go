package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A voter's word is good because its disk keeps it: the entries that it said it
// holds, the votes that it gave. A data directory that was put back from an
// older copy has lost some of them without knowing, and with it a majority can
// elect a leader that lacks what is committed. The node cannot tell, but the
// others can: each connection begins with what each end knows of the other's
// past, and the node whose directory does not know its own past takes part in
// nothing any more.
//
// Two things are known of a node. Every replica knows its latest start, from
// the log: a directory notes each start before it is proposed, so that one
// which does not know the start was copied before it, or was started elsewhere
// while another copy of it ran. And whoever has sent it entries knows, until it
// is started anew itself, up to which committed entry the node has said that it
// holds the log: committed entries are never taken back.
//
// What cannot be seen: a copy that went back in time, when nobody who knows
// better can be reached before it is asked for its vote.

// ErrOutlived means that the data directory is an older copy of itself, or a
// copy of which another was in use since: what this node has promised
// meanwhile is not in it.
var ErrOutlived = errors.New("data directory is an older copy")

// StartOf is what a replica knows of a node's latest start.
type StartOf struct {
	Birth   string // of the data that was started; empty: nothing is known
	Start   uint64 // its nonce
	Applied uint64 // how far the replica that says so has applied the log
}

// past is what one node knows of another's.
type past struct {
	StartBirth string `json:"start_birth,omitempty"`
	Start      uint64 `json:"start,omitempty"`
	Applied    uint64 `json:"applied,omitempty"`

	HeldBirth string `json:"held_birth,omitempty"`
	Held      uint64 `json:"held,omitempty"` // committed entry up to which it said that it holds the log
}

// continuity holds what the others know against this node's own directory, and
// keeps what this node knows of them.
type continuity struct {
	dir     *Directory
	birth   string
	startOf func(node string) StartOf // may be nil
	last    func() uint64             // this node's last entry on the disk
	end     func(error)               // ends this node's part

	mu   sync.Mutex
	held map[string]heldBy
}

type heldBy struct {
	birth string
	index uint64
}

// met notes whose data answers under a name. New data has promised nothing yet.
func (c *continuity) met(node, birth string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[node].birth != birth {
		c.held[node] = heldBy{birth: birth}
	}
}

// holds notes a node's word that it has the log up to a committed entry.
func (c *continuity) holds(node string, index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h, ok := c.held[node]; ok && h.index < index {
		h.index = index
		c.held[node] = h
	}
}

// about is what this node knows of another's past.
func (c *continuity) about(node string) past {
	c.mu.Lock()
	h := c.held[node]
	c.mu.Unlock()
	p := past{HeldBirth: h.birth, Held: h.index}
	if c.startOf != nil {
		s := c.startOf(node)
		p.StartBirth, p.Start, p.Applied = s.Birth, s.Start, s.Applied
	}
	return p
}

// check holds what another node knows of this one's past against this one's
// directory. What it returns has ended this node's part.
func (c *continuity) check(teller string, p past) error {
	err := c.outlived(teller, p)
	if err != nil {
		c.end(err)
	}
	return err
}

func (c *continuity) outlived(teller string, p past) error {
	last := c.last()
	switch {
	case p.HeldBirth == c.birth && p.Held > last:
		return fmt.Errorf("%w: %s: this node has told %s that it holds entry %d, and its log ends at %d: %s",
			ErrOutlived, c.dir.Path(), teller, p.Held, last, adviceDamaged)
	// Who has applied no more than stands in this log knows nothing that is not
	// in it, be the start ever so old.
	case p.StartBirth == c.birth && p.Start != 0 && p.Applied > last && !c.dir.Began(p.Start):
		return fmt.Errorf("%w: %s: %s knows of a start of this node that is not noted in it, so it was copied before that start, or is in use elsewhere: %s",
			ErrOutlived, c.dir.Path(), teller, adviceDamaged)
	}
	return nil
}

// endOutlived ends this node's part and notes in the directory that it must
// not be used again. A disk that hangs does not keep the end waiting.
func (n *Node) endOutlived(err error) {
	n.verdict.reach(err)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping || n.voided {
		return
	}
	n.voided = true
	n.wait.Add(1)
	go func() {
		defer n.wait.Done()
		if werr := n.options.Directory.void(err); werr != nil {
			n.log.Warn("cannot note that the data directory is an older copy", "error", werr)
		}
	}()
}

// meetLimit bounds how long a start waits for the others' word.
const meetLimit = 250 * time.Millisecond

// meet greets every other node once before this one answers anybody: one of
// them may know that this node's data is an older copy, and it need not be the
// one that asks for a vote first. Who does not answer is not waited for.
func (n *Node) meet() {
	patience := min(n.options.Timing.Election/2, meetLimit)
	var wait sync.WaitGroup
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if string(s.ID) == n.id {
			continue
		}
		wait.Go(func() {
			conn, err := n.gate.stream.Dial(target(s.ID, s.Address), patience)
			if err != nil {
				n.log.Debug("not met before the start", "other", s.ID, "error", err)
				return
			}
			conn.Close()
		})
	}
	wait.Wait()
}

// here refuses to run at another address than the one under which the log knows
// this node: a copy of another machine's data directory.
func here(r *raft.Raft, id, address, path string) error {
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if string(s.ID) == id && string(s.Address) != address {
			return fmt.Errorf("%w: %s: its log knows node %s at %s, and this node is at %s: a copy of another machine's data directory must not run; start with an empty one, and admit it with 'failoverctl members replace' if the node has really moved",
				ErrForeign, path, id, s.Address, address)
		}
	}
	return nil
}

// stopRaft ends a raft that must not run, and waits for it.
func stopRaft(r *raft.Raft) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		_ = r.Shutdown().Error() // it always is nil
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
