package consensus

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// MaxCommand is the largest command, encoded, that is taken: an entry must
// cross the network and reach every disk well within an election timeout.
const MaxCommand = 512 << 10

// enqueueSlice is how long one attempt to reach raft's main loop lasts: the
// longest by which a call outlives its context.
const enqueueSlice = 20 * time.Millisecond

// Propose appends a command and returns what applying it gave, a refusal
// included. Its errors:
//
//	cluster.ErrNotLeader  this node does not lead; the command is not in the log
//	cluster.ErrTimeout    ctx ended before the command was taken; not in the log
//	cluster.ErrUnknown    the command may or may not be, or become, committed: propose it again
//	cluster.ErrInvalid    it is no command, or too large
func (n *Node) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	a, err := n.apply(ctx, cmd)
	if err != nil {
		return state.Result{}, fmt.Errorf("propose %T: %w", cmd, err)
	}
	return a.result, nil
}

func (n *Node) apply(ctx context.Context, cmd state.Command) (applied, error) {
	data, err := EncodeCommand(cmd)
	if err != nil {
		return applied{}, fmt.Errorf("%w: %w", cluster.ErrInvalid, err)
	}
	if len(data) > MaxCommand {
		return applied{}, fmt.Errorf("%w: %d bytes, at most %d are taken", cluster.ErrInvalid, len(data), MaxCommand)
	}
	var answer any
	failpoint.Here("raft.propose.before")
	err = n.ask(ctx, translated, func(timeout time.Duration) (raft.Future, func()) {
		f := n.raft.Apply(data, timeout)
		return f, func() { answer = f.Response() }
	})
	if err != nil {
		return applied{}, err
	}
	failpoint.Here("raft.proposed")
	switch a := answer.(type) {
	case applied:
		return a, nil
	case error:
		return applied{}, fmt.Errorf("%w: %w", cluster.ErrUnknown, a)
	}
	return applied{}, fmt.Errorf("%w: raft answered %T", cluster.ErrUnknown, answer)
}

// Barrier returns when everything that was committed before it is applied to
// this node's machine. Only a leader can: errors as of Propose.
func (n *Node) Barrier(ctx context.Context) error {
	err := n.ask(ctx, translated, func(timeout time.Duration) (raft.Future, func()) {
		return n.raft.Barrier(timeout), nil
	})
	if err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	return nil
}

// ask puts a question to raft's main loop and waits for the answer, both
// bounded by ctx. raft's own timeout covers the first half alone. call makes
// one attempt; what it returns besides is run after a success. translate says
// raft's errors in the cluster's words.
func (n *Node) ask(ctx context.Context, translate func(error) error, call func(timeout time.Duration) (raft.Future, func())) error {
	for {
		if n.raft.State() != raft.Leader {
			return cluster.ErrNotLeader
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", cluster.ErrTimeout, context.Cause(ctx))
		}
		if err := n.verdict.reached(); err != nil {
			return fmt.Errorf("%w: %w", cluster.ErrNotLeader, err)
		}
		if err := n.enter(); err != nil {
			return err
		}
		future, then := call(enqueueSlice)
		if !enqueued(future) {
			n.inflight.Done()
			if err := future.Error(); !errors.Is(err, raft.ErrEnqueueTimeout) {
				return translate(err)
			}
			continue
		}
		return n.await(ctx, future, translate, then)
	}
}

// enqueued tells a future of raft's main loop from an error at once, which
// raft hands out as a future too, but as a plain value.
func enqueued(f raft.Future) bool { return reflect.TypeOf(f).Kind() == reflect.Pointer }

// await waits for raft's answer. The goroutine ends with the answer: raft
// answers everything at the latest when it loses its leadership.
func (n *Node) await(ctx context.Context, future raft.Future, translate func(error) error, then func()) error {
	answered := make(chan error, 1)
	go func() {
		defer n.inflight.Done()
		answered <- future.Error()
	}()
	select {
	case err := <-answered:
		if err != nil {
			return translate(err)
		}
		if then != nil {
			then()
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", cluster.ErrUnknown, context.Cause(ctx))
	case <-n.verdict.done:
		return fmt.Errorf("%w: %w", cluster.ErrUnknown, n.verdict.reached())
	case <-n.halt:
		return fmt.Errorf("%w: %w", cluster.ErrUnknown, errStopping)
	}
}

// translated says an error of raft's in the cluster's words. Where raft is not
// plainly telling that nothing was appended, the outcome is unknown.
func translated(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", cluster.ErrNotLeader, err)
	}
	return fmt.Errorf("%w: %w", cluster.ErrUnknown, err)
}
