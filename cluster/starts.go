package cluster

import (
	"context"
	"fmt"
)

// Starts is the data directory's own book of the daemon's starts.
type Starts interface {
	// Begin notes a start by its nonce, synced; noting it again does nothing.
	Begin(nonce uint64) error
	// Began reports whether a start was noted here.
	Began(nonce uint64) bool
}

// usurped reports whether the recorded start of this node is one of another's.
func (n *Node) usurped() bool {
	self := n.Voter.View().Nodes[n.Self]
	if n.Starts == nil || self == nil || self.Started == 0 || n.Starts.Began(self.Started) {
		n.notice("twin", "")
		return false
	}
	n.notice("twin", fmt.Sprintf("another daemon has started under the name %s, on a copy of this node's data directory, and this one holds nothing any more: find that one and stop it, then restart failoverd here", n.Self))
	return true
}

// noteStart writes this start down before it is proposed. A disk that hangs
// keeps only the write waiting.
func (n *Node) noteStart(ctx context.Context) error {
	if n.Starts == nil {
		return nil
	}
	if name, _ := n.consensus().Leader(); name == "" {
		return fmt.Errorf("record the start: %w: no leader is known here", ErrNoQuorum)
	}
	done := make(chan error, 1)
	go func() { done <- n.Starts.Begin(n.Nonce) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("note the start on the disk: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
