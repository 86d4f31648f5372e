package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// front answers operators and peers from the first moment: before there is a
// cluster it says why not, afterwards the node answers.
type front struct {
	self     string
	version  cluster.Version
	identity func() cluster.Identity

	mu      sync.Mutex
	node    *cluster.Node
	waiting string
}

func (f *front) serve(n *cluster.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.node = n
}

func (f *front) wait(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = why
}

// get returns the node, or the reason why there is none yet.
func (f *front) get() (*cluster.Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node != nil {
		return f.node, nil
	}
	why := f.waiting
	if why == "" {
		why = "the daemon is starting"
	}
	return nil, fmt.Errorf("%w: %s is not in a cluster yet: %s", cluster.ErrNoQuorum, f.self, why)
}

var (
	_ cluster.Peer     = (*front)(nil)
	_ cluster.Operator = operatorFront{}
)

func (f *front) Identity(ctx context.Context) (cluster.Identity, error) {
	if n, err := f.get(); err == nil {
		id, err := n.Identity(ctx)
		if err == nil {
			id.Peers = f.identity().Peers
		}
		return id, err
	}
	return f.identity(), nil
}

func (f *front) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	n, err := f.get()
	if err != nil {
		return state.Result{}, err
	}
	return n.Propose(ctx, cmd)
}

func (f *front) Stopped(ctx context.Context, m cluster.Stopped) error {
	n, err := f.get()
	if err != nil {
		return err
	}
	return n.Stopped(ctx, m)
}

func (f *front) Prepare(ctx context.Context, service string) error {
	n, err := f.get()
	if err != nil {
		return err
	}
	return n.Prepare(ctx, service)
}

func (f *front) Report(ctx context.Context) (cluster.Report, error) {
	n, err := f.get()
	if err != nil {
		return cluster.Report{}, err
	}
	return n.Report(ctx)
}

func (f *front) Restart(ctx context.Context, by, why string) error {
	n, err := f.get()
	if err != nil {
		return err
	}
	return n.Restart(ctx, by, why)
}

func (f *front) Goodbye(ctx context.Context, node string, session uint64) error {
	n, err := f.get()
	if err != nil {
		return err
	}
	return n.Goodbye(ctx, node, session)
}

// operatorFront is the operator's side of a front.
type operatorFront struct{ f *front }

func (o operatorFront) Status(ctx context.Context) (cluster.Status, error) {
	n, err := o.f.get()
	if err == nil {
		return n.Status(ctx)
	}
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	id := o.f.identity()
	return cluster.Status{Node: o.f.self, Cluster: id.Cluster, Waiting: o.f.waiting, At: time.Now(), Age: -1}, nil
}

func (o operatorFront) Explain(ctx context.Context, service, node string) (cluster.Explanation, error) {
	n, err := o.f.get()
	if err != nil {
		return cluster.Explanation{}, err
	}
	return n.Explain(ctx, service, node)
}

func (o operatorFront) History(ctx context.Context, q cluster.HistoryQuery) ([]state.Event, error) {
	n, err := o.f.get()
	if err != nil {
		return nil, err
	}
	return n.History(ctx, q)
}

func (o operatorFront) Watch(ctx context.Context, q cluster.HistoryQuery, fn func(state.Event) error) error {
	n, err := o.f.get()
	if err != nil {
		return err
	}
	return n.Watch(ctx, q, fn)
}

func (o operatorFront) Switchover(ctx context.Context, r cluster.SwitchoverRequest) (cluster.SwitchoverResult, error) {
	n, err := o.f.get()
	if err != nil {
		return cluster.SwitchoverResult{}, err
	}
	return n.Switchover(ctx, r)
}

func (o operatorFront) Failover(ctx context.Context, r cluster.FailoverRequest) (cluster.SwitchoverResult, error) {
	n, err := o.f.get()
	if err != nil {
		return cluster.SwitchoverResult{}, err
	}
	return n.Failover(ctx, r)
}

func (o operatorFront) Pause(ctx context.Context, r cluster.PauseRequest) error {
	n, err := o.f.get()
	if err != nil {
		return err
	}
	return n.Pause(ctx, r)
}

func (o operatorFront) Standby(ctx context.Context, r cluster.StandbyRequest) error {
	n, err := o.f.get()
	if err != nil {
		return err
	}
	return n.Standby(ctx, r)
}

func (o operatorFront) RestartNode(ctx context.Context, node, by, why string) error {
	n, err := o.f.get()
	if err != nil {
		return err
	}
	return n.RestartNode(ctx, node, by, why)
}

func (o operatorFront) Cleanup(ctx context.Context, service, node, by string) error {
	n, err := o.f.get()
	if err != nil {
		return err
	}
	return n.Cleanup(ctx, service, node, by)
}

func (o operatorFront) Members(ctx context.Context) ([]cluster.Member, error) {
	n, err := o.f.get()
	if err != nil {
		return nil, err
	}
	return n.Members(ctx)
}

func (o operatorFront) ChangeMember(ctx context.Context, r cluster.MemberRequest) error {
	n, err := o.f.get()
	if err != nil {
		return err
	}
	return n.ChangeMember(ctx, r)
}

func (o operatorFront) Apply(ctx context.Context, r cluster.ApplyRequest) (cluster.ApplyResult, error) {
	n, err := o.f.get()
	if err != nil {
		return cluster.ApplyResult{}, err
	}
	return n.Apply(ctx, r)
}

func (o operatorFront) Version(context.Context) (cluster.Version, error) { return o.f.version, nil }
