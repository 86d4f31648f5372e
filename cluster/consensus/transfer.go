package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Transfer gives the leadership to the voter that is furthest ahead. See TransferTo.
func (n *Node) Transfer(ctx context.Context) error { return n.TransferTo(ctx, "") }

// TransferTo gives the leadership to a voter, to the one furthest ahead when
// name is empty. It returns nil when this node leads no more. On an error the
// transfer may still come about. raft takes no proposals meanwhile, and can
// forget to take them again (hashicorp/raft issue 696): a leader that still
// takes none after a while steps down.
func (n *Node) TransferTo(ctx context.Context, name string) error {
	if name == n.id && n.IsLeader() {
		return nil
	}
	failpoint.Here("raft.transfer.before")
	future, err := n.transfer(name)
	if err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	answered := make(chan error, 1)
	go func() {
		defer n.inflight.Done()
		answered <- future.Error()
	}()
	n.wait.Add(1)
	go n.unstick()

	select {
	case err = <-answered:
	case <-ctx.Done():
		return fmt.Errorf("transfer leadership: %w: %w", cluster.ErrUnknown, context.Cause(ctx))
	case <-n.halt:
		return fmt.Errorf("transfer leadership: %w: %w", cluster.ErrUnknown, errStopping)
	}
	failpoint.Here("raft.transfer.answered")
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return fmt.Errorf("transfer leadership: %w", cluster.ErrNotLeader)
	}
	return fmt.Errorf("transfer leadership: %w: %w", cluster.ErrUnknown, err)
}

// transfer begins a transfer; the caller calls inflight.Done after success.
func (n *Node) transfer(name string) (raft.Future, error) {
	if !n.IsLeader() {
		return nil, cluster.ErrNotLeader
	}
	to, ok := n.Configuration().Has(name)
	if name != "" && !ok {
		return nil, fmt.Errorf("%w: %s is no member", cluster.ErrNotFound, name)
	}
	if name != "" && !to.Votes {
		return nil, fmt.Errorf("%w: %s has no vote", cluster.ErrRefused, name)
	}
	if err := n.enter(); err != nil {
		return nil, err
	}
	var future raft.Future
	if name == "" {
		future = n.raft.LeadershipTransfer()
	} else {
		future = n.raft.LeadershipTransferToServer(raft.ServerID(to.Name), raft.ServerAddress(to.Address))
	}
	if !enqueued(future) {
		n.inflight.Done()
		return nil, fmt.Errorf("%w: another transfer is under way", cluster.ErrRefused)
	}
	return future, nil
}

// unstick watches a leader after it has begun a transfer.
func (n *Node) unstick() {
	defer n.wait.Done()
	limit := 2*n.options.Timing.Election + n.options.ioTimeout() + n.options.Timing.Heartbeat
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for ctx.Err() == nil {
		err := n.Barrier(ctx)
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return // it leads and takes proposals, or leads no more
		}
		t := time.NewTimer(n.options.Timing.Heartbeat / 4)
		select {
		case <-t.C:
		case <-n.halt:
			t.Stop()
			return
		}
	}
	n.log.Error("a transfer of the leadership is stuck: this node steps down", "limit", limit)
	n.abdicate()
}

// abdicate makes raft step down, for which it has no call: the gate is shut
// for sending until the leader finds that it has lost its majority.
func (n *Node) abdicate() {
	n.gate.silent.Store(true)
	defer n.gate.silent.Store(false)
	patience := time.NewTimer(10 * n.options.Timing.Heartbeat)
	defer patience.Stop()
	look := time.NewTicker(max(n.options.Timing.LeaderLease/10, time.Millisecond))
	defer look.Stop()
	for n.raft.State() == raft.Leader {
		select {
		case <-look.C:
		case <-patience.C:
			return
		case <-n.halt:
			return
		}
	}
}
