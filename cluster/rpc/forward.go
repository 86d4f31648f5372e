package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

const (
	// patience is how long a change waits for a leader: an election in profile
	// "default" and a bit.
	patience = 3 * time.Second
	// retryChange is the first wait before a change is tried again; it doubles up to retryChangeMost.
	retryChange     = 25 * time.Millisecond
	retryChangeMost = 400 * time.Millisecond
	// leaderRead is how long a read waits for the leader before the node
	// answers from its own view.
	leaderRead = 1500 * time.Millisecond
)

// Forward wraps a node's own Operator. What only the leader can do goes to the
// leader, once: a call that was forwarded is never forwarded again. While no
// leader takes it, a change is tried again until ctx ends or patience runs
// out; it is never tried again when it may already have been done.
//
// Status, Explain, History and Members are read from the leader, and from the
// node's own view when the leader does not answer or WithLocal asks for it; a
// Status from the own view then claims no quorum. Watch and Version are always
// the node's own: every node sees each event, and a stream that does not
// depend on the leader outlives it.
//
// leader tells the leader's address, whether this node is it, and whether
// there is one; it is called for every attempt.
func Forward(local cluster.Operator, leader func() (address string, self bool, ok bool), peers cluster.Peers) cluster.Operator {
	return &forward{local: local, leader: leader, peers: peers}
}

type forward struct {
	local  cluster.Operator
	leader func() (string, bool, bool)
	peers  cluster.Peers
}

// How far a change may have gone before it is asked of a leader again.
const (
	// notAsked: only while no leader was asked, for changes of several entries,
	// which would stumble over their own first half.
	notAsked = iota
	// notTaken: also when the asked node says that it does not lead.
	notTaken
)

// change has do done by the leader.
func change[T any](ctx context.Context, f *forward, again int, do func(context.Context, cluster.Operator) (T, error)) (T, error) {
	if isForwarded(ctx) {
		return do(ctx, f.local)
	}
	give := time.Now().Add(patience)
	for wait := retryChange; ; wait = min(2*wait, retryChangeMost) {
		out, asked, err := attempt(ctx, f, do)
		if err == nil || asked && (again == notAsked || !notTakenBy(err)) {
			return out, err
		}
		if time.Now().Add(wait).After(give) {
			return out, fmt.Errorf("no leader has taken the request within %v: %w", patience, noLeader(err))
		}
		select {
		case <-ctx.Done():
			return out, fmt.Errorf("%w: %w", noLeader(err), ctx.Err())
		case <-time.After(wait):
		}
	}
}

// attempt makes one try; asked is false when certainly nobody was asked.
func attempt[T any](ctx context.Context, f *forward, do func(context.Context, cluster.Operator) (T, error)) (out T, asked bool, err error) {
	address, self, ok := f.leader()
	switch {
	case self:
		out, err = do(ctx, f.local)
		return out, true, err
	case !ok:
		return out, false, fmt.Errorf("no leader is known: %w", cluster.ErrNoQuorum)
	}
	op, err := f.peers.Operator(address)
	if err != nil {
		return out, true, fmt.Errorf("ask the leader at %s: %w", address, err) // waiting mends no address
	}
	out, err = do(withForwarded(ctx), op)
	// What the leader says of others that it cannot reach does not arrive as
	// ErrUnreachable: this one is about the leader.
	if errors.Is(err, ErrUnreachable) && ctx.Err() == nil {
		return out, false, fmt.Errorf("the leader did not take it: %w", err)
	}
	return out, true, err
}

// notTakenBy reports whether the asked node says that nothing was done because
// it does not lead, or has no majority.
func notTakenBy(err error) bool {
	if errors.Is(err, cluster.ErrUnknown) || errors.Is(err, cluster.ErrTimeout) {
		return false
	}
	return errors.Is(err, cluster.ErrNotLeader) || errors.Is(err, cluster.ErrNoQuorum)
}

// noLeader makes sure that an error for want of a leader is one of the
// sentinels of package cluster: ErrUnreachable means nothing to the asker of this node.
func noLeader(err error) error {
	if errors.Is(err, cluster.ErrNoQuorum) || errors.Is(err, cluster.ErrNotLeader) {
		return err
	}
	return fmt.Errorf("%w: %w", cluster.ErrNoQuorum, err)
}

// read gets from the leader, or from the node itself; alone then says why the
// leader was not asked or did not answer.
func read[T any](ctx context.Context, f *forward, get func(context.Context, cluster.Operator) (T, error)) (out T, alone error, err error) {
	if isForwarded(ctx) || IsLocal(ctx) {
		out, err = get(ctx, f.local)
		return out, nil, err
	}
	address, self, ok := f.leader()
	switch {
	case self:
		out, err = get(ctx, f.local)
		return out, nil, err
	case !ok:
		alone = errors.New("no leader is known")
	default:
		if out, err = askLeader(ctx, f, address, get); err == nil || isAnswer(err) {
			return out, nil, err
		}
		alone = fmt.Errorf("the leader at %s did not answer: %w", address, err)
	}
	out, err = get(ctx, f.local)
	return out, alone, err
}

func askLeader[T any](ctx context.Context, f *forward, address string, get func(context.Context, cluster.Operator) (T, error)) (T, error) {
	within := leaderRead
	if deadline, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(deadline)/2) // the own view needs time too
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	op, err := f.peers.Operator(address)
	if err != nil {
		var none T
		return none, err
	}
	return get(withForwarded(ctx), op)
}

// isAnswer reports whether err is the leader's answer to a read rather than the want of one.
func isAnswer(err error) bool {
	for _, e := range []error{cluster.ErrNotFound, cluster.ErrInvalid, cluster.ErrRefused} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// The reads.

func (f *forward) Status(ctx context.Context) (cluster.Status, error) {
	st, alone, err := read(ctx, f, func(ctx context.Context, op cluster.Operator) (cluster.Status, error) { return op.Status(ctx) })
	if err == nil && alone != nil {
		// What a node that does not lead knows by itself has no majority behind it.
		st.Quorum = false
		if st.Waiting == "" {
			st.Alarms = append(st.Alarms, fmt.Sprintf("this is the view of node %s alone: %v", st.Node, alone))
		}
	}
	return st, err
}

func (f *forward) Explain(ctx context.Context, service, node string) (cluster.Explanation, error) {
	e, alone, err := read(ctx, f, func(ctx context.Context, op cluster.Operator) (cluster.Explanation, error) {
		return op.Explain(ctx, service, node)
	})
	if err == nil && alone != nil {
		e.Lines = append(e.Lines, fmt.Sprintf("No quorum stands behind this explanation: %v.", alone))
	}
	return e, err
}

func (f *forward) History(ctx context.Context, q cluster.HistoryQuery) ([]state.Event, error) {
	events, _, err := read(ctx, f, func(ctx context.Context, op cluster.Operator) ([]state.Event, error) { return op.History(ctx, q) })
	return events, err
}

func (f *forward) Members(ctx context.Context) ([]cluster.Member, error) {
	members, _, err := read(ctx, f, func(ctx context.Context, op cluster.Operator) ([]cluster.Member, error) { return op.Members(ctx) })
	return members, err
}

func (f *forward) Watch(ctx context.Context, q cluster.HistoryQuery, fn func(state.Event) error) error {
	return f.local.Watch(ctx, q, fn)
}

func (f *forward) Version(ctx context.Context) (cluster.Version, error) { return f.local.Version(ctx) }

// The changes.

func (f *forward) Switchover(ctx context.Context, r cluster.SwitchoverRequest) (cluster.SwitchoverResult, error) {
	return change(ctx, f, notTaken, func(ctx context.Context, op cluster.Operator) (cluster.SwitchoverResult, error) {
		return op.Switchover(ctx, r)
	})
}

func (f *forward) Failover(ctx context.Context, r cluster.FailoverRequest) (cluster.SwitchoverResult, error) {
	return change(ctx, f, notAsked, func(ctx context.Context, op cluster.Operator) (cluster.SwitchoverResult, error) {
		return op.Failover(ctx, r)
	})
}

func (f *forward) Apply(ctx context.Context, r cluster.ApplyRequest) (cluster.ApplyResult, error) {
	return change(ctx, f, notTaken, func(ctx context.Context, op cluster.Operator) (cluster.ApplyResult, error) { return op.Apply(ctx, r) })
}

// order is change for what answers with an error alone.
func (f *forward) order(ctx context.Context, again int, do func(context.Context, cluster.Operator) error) error {
	_, err := change(ctx, f, again, func(ctx context.Context, op cluster.Operator) (struct{}, error) { return struct{}{}, do(ctx, op) })
	return err
}

func (f *forward) Pause(ctx context.Context, r cluster.PauseRequest) error {
	return f.order(ctx, notTaken, func(ctx context.Context, op cluster.Operator) error { return op.Pause(ctx, r) })
}

func (f *forward) Standby(ctx context.Context, r cluster.StandbyRequest) error {
	return f.order(ctx, notTaken, func(ctx context.Context, op cluster.Operator) error { return op.Standby(ctx, r) })
}

func (f *forward) RestartNode(ctx context.Context, node, by, why string) error {
	return f.order(ctx, notAsked, func(ctx context.Context, op cluster.Operator) error { return op.RestartNode(ctx, node, by, why) })
}

func (f *forward) Cleanup(ctx context.Context, service, node, by string) error {
	return f.order(ctx, notTaken, func(ctx context.Context, op cluster.Operator) error { return op.Cleanup(ctx, service, node, by) })
}

func (f *forward) ChangeMember(ctx context.Context, r cluster.MemberRequest) error {
	return f.order(ctx, notAsked, func(ctx context.Context, op cluster.Operator) error { return op.ChangeMember(ctx, r) })
}
