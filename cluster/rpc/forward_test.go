package rpc

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// knownLeader is a leader function over something that may change.
type knownLeader struct {
	address string
	self    bool
	ok      bool
}

// pair is a node "b" with its own operator, before a leader "a" that it reaches over the wire.
type pair struct {
	own, leader *fakeOperator
	known       atomic.Pointer[knownLeader]
	op          cluster.Operator // of b, as a client of b sees it
	address     string           // of a
	relay       *relay
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{
		own:    &fakeOperator{status: cluster.Status{Node: "b", Quorum: true}, version: cluster.Version{Node: "b"}},
		leader: &fakeOperator{status: cluster.Status{Node: "a", Quorum: true}, version: cluster.Version{Node: "a"}},
	}
	l := listen(t)
	p.relay = newRelay(t, l)
	// The leader forwards as well: only the mark on the call keeps it from passing it on.
	confused := Forward(p.leader, func() (string, bool, bool) { return "127.0.0.1:1", false, true }, NewPeers(PeersOptions{}))
	servePeers(t, l, confused, &fakePeer{})
	p.address = p.relay.address()
	p.known.Store(&knownLeader{address: p.address, ok: true})
	peers := NewPeers(PeersOptions{Codec: fakeCodec{}})
	t.Cleanup(func() { _ = peers.Close() })
	p.op = Forward(p.own, func() (string, bool, bool) {
		k := p.known.Load()
		return k.address, k.self, k.ok
	}, peers)
	return p
}

func TestChangesGoToTheLeader(t *testing.T) {
	p := newPair(t)
	ctx := testContext(t)
	changes := map[string]func() error{
		"switchover": func() error { _, err := p.op.Switchover(ctx, cluster.SwitchoverRequest{By: "ann"}); return err },
		"failover":   func() error { _, err := p.op.Failover(ctx, cluster.FailoverRequest{}); return err },
		"pause":      func() error { return p.op.Pause(ctx, cluster.PauseRequest{}) },
		"standby":    func() error { return p.op.Standby(ctx, cluster.StandbyRequest{}) },
		"restart":    func() error { return p.op.RestartNode(ctx, "n", "ann", "why") },
		"cleanup":    func() error { return p.op.Cleanup(ctx, "s", "n", "ann") },
		"member":     func() error { return p.op.ChangeMember(ctx, cluster.MemberRequest{}) },
		"apply":      func() error { _, err := p.op.Apply(ctx, cluster.ApplyRequest{}); return err },
	}
	for name, change := range changes {
		before := p.leader.calls()
		if err := change(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := p.leader.calls() - before; got != 1 {
			t.Errorf("%s reached the leader %d times", name, got)
		}
	}
	if n := p.own.calls(); n != 0 {
		t.Errorf("the node itself was asked %d times", n)
	}
	p.known.Store(&knownLeader{self: true, ok: true})
	if err := p.op.Pause(ctx, cluster.PauseRequest{}); err != nil || p.own.calls() != 1 {
		t.Errorf("as the leader itself: %v, asked %d times", err, p.own.calls())
	}
}

// An election in the middle is waited for; the change is then done once.
func TestChangeWaitsForALeader(t *testing.T) {
	p := newPair(t)
	p.known.Store(&knownLeader{})
	timer := time.AfterFunc(200*time.Millisecond, func() { p.known.Store(&knownLeader{address: p.address, ok: true}) })
	defer timer.Stop()
	if err := p.op.Pause(testContext(t), cluster.PauseRequest{}); err != nil {
		t.Fatal(err)
	}
	if p.leader.calls() != 1 {
		t.Errorf("the leader was asked %d times", p.leader.calls())
	}
}

// A node that has just lost its leadership says so, and the next one is asked.
func TestChangeFollowsTheLeadership(t *testing.T) {
	p := newPair(t)
	p.leader.set(func() { p.leader.err = cluster.ErrNotLeader })
	timer := time.AfterFunc(200*time.Millisecond, func() { p.known.Store(&knownLeader{self: true, ok: true}) })
	defer timer.Stop()
	if err := p.op.Pause(testContext(t), cluster.PauseRequest{}); err != nil {
		t.Fatal(err)
	}
	if p.own.calls() != 1 || p.leader.calls() == 0 {
		t.Errorf("asked: the old leader %d times, the new one %d times", p.leader.calls(), p.own.calls())
	}
}

func TestChangeWithoutALeaderEnds(t *testing.T) {
	for name, known := range map[string]knownLeader{
		"nobody leads":          {},
		"the leader is gone":    {address: "127.0.0.1:1", ok: true},
		"the address is broken": {address: "nonsense", ok: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.known.Store(&known)
			begun := time.Now()
			err := p.op.Pause(testContext(t), cluster.PauseRequest{})
			if name == "the address is broken" {
				if err == nil {
					t.Error("it was taken")
				}
				return
			}
			if !errors.Is(err, cluster.ErrNoQuorum) || errors.Is(err, cluster.ErrUnknown) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(begun); took < time.Second || took > 10*time.Second {
				t.Errorf("gave up after %v", took)
			}
			// The caller's deadline is shorter than our patience, and counts.
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			begun = time.Now()
			err = p.op.Pause(ctx, cluster.PauseRequest{})
			if took := time.Since(begun); took > 2*time.Second || err == nil {
				t.Errorf("within 100 ms: %v after %v", err, took)
			}
		})
	}
}

// What may have been done is not done again.
func TestUnknownOutcomeIsNotRepeated(t *testing.T) {
	p := newPair(t)
	p.leader.set(func() { p.leader.block, p.leader.inside = make(chan struct{}), make(chan struct{}, 9) })
	defer close(p.leader.block)
	got := make(chan error, 1)
	go func() { got <- p.op.Pause(testContext(t), cluster.PauseRequest{}) }()
	<-p.leader.inside
	p.relay.cut()
	p.known.Store(&knownLeader{self: true, ok: true})
	if err := <-got; !errors.Is(err, cluster.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if p.leader.calls() != 1 || p.own.calls() != 0 {
		t.Errorf("asked: the leader %d times, the node itself %d times", p.leader.calls(), p.own.calls())
	}
}

// A change of several entries is asked of one leader only: its second try
// would stumble over the first half. And what a leader cannot reach is no
// reason to look for another leader.
func TestChangeOfSeveralEntriesIsAskedOnce(t *testing.T) {
	for _, cause := range []error{cluster.ErrNotLeader, cluster.ErrNoQuorum, ErrUnreachable} {
		for _, self := range []bool{true, false} {
			p := newPair(t)
			p.own.err, p.leader.err = cause, cause
			if self {
				p.known.Store(&knownLeader{self: true, ok: true})
			}
			ctx := testContext(t)
			for _, err := range []error{
				p.op.ChangeMember(ctx, cluster.MemberRequest{Action: "add"}),
				p.op.RestartNode(ctx, "c", "ann", "why"),
				func() error { _, err := p.op.Failover(ctx, cluster.FailoverRequest{}); return err }(),
			} {
				if err == nil || cause == ErrUnreachable && errors.Is(err, cluster.ErrNoQuorum) {
					t.Errorf("%v, self %v: got %v", cause, self, err)
				}
			}
			if n := p.own.calls() + p.leader.calls(); n != 3 {
				t.Errorf("%v, self %v: three changes were asked for %d times", cause, self, n)
			}
		}
	}
}

func TestRefusalOfTheLeaderIsFinal(t *testing.T) {
	p := newPair(t)
	p.leader.set(func() { p.leader.err = &state.Refusal{Code: "paused", Why: "pg is paused"} })
	_, err := p.op.Switchover(testContext(t), cluster.SwitchoverRequest{})
	if !errors.Is(err, cluster.ErrRefused) || err.Error() != "pg is paused" || p.leader.calls() != 1 {
		t.Errorf("got %v after %d calls", err, p.leader.calls())
	}
}

func TestReadsPreferTheLeader(t *testing.T) {
	p := newPair(t)
	ctx := testContext(t)
	st, err := p.op.Status(ctx)
	if err != nil || st.Node != "a" || !st.Quorum || len(st.Alarms) != 0 {
		t.Fatalf("got %+v, %v", st, err)
	}
	if st, err = p.op.Status(WithLocal(ctx)); err != nil || st.Node != "b" || len(st.Alarms) != 0 {
		t.Errorf("WithLocal: %+v, %v", st, err)
	}
	if v, err := p.op.Version(ctx); err != nil || v.Node != "b" {
		t.Errorf("Version: %+v, %v", v, err)
	}
	// The mark of WithLocal goes over the wire as well.
	_, path := serveUnix(t, p.op)
	if st, err = dial(t, "unix://"+path).Status(WithLocal(ctx)); err != nil || st.Node != "b" {
		t.Errorf("WithLocal over the wire: %+v, %v", st, err)
	}
	p.leader.set(func() { p.leader.err = cluster.ErrNotFound })
	if _, err := p.op.Explain(ctx, "x", ""); !errors.Is(err, cluster.ErrNotFound) || p.own.calls() != 3 {
		t.Errorf("the leader's word that there is no such service: %v; own view asked %d times", err, p.own.calls())
	}
}

// Without the leader a node tells what it knows, and that nobody stands behind it.
func TestReadsFallBackToTheOwnView(t *testing.T) {
	for name, lose := range map[string]func(*pair){
		"no leader":            func(p *pair) { p.known.Store(&knownLeader{}) },
		"leader unreachable":   func(p *pair) { p.known.Store(&knownLeader{address: "127.0.0.1:1", ok: true}) },
		"leader does not lead": func(p *pair) { p.leader.set(func() { p.leader.err = cluster.ErrNotLeader }) },
		"leader hangs":         func(p *pair) { p.leader.set(func() { p.leader.block = make(chan struct{}) }) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			lose(p)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			st, err := p.op.Status(ctx)
			if err != nil || st.Node != "b" || st.Quorum {
				t.Fatalf("got %+v, %v", st, err)
			}
			if len(st.Alarms) != 1 || !strings.Contains(st.Alarms[0], "view of node b alone") {
				t.Errorf("alarms %q", st.Alarms)
			}
			e, err := p.op.Explain(ctx, "x", "")
			if err != nil || len(e.Lines) != 1 || !strings.Contains(e.Lines[0], "No quorum stands behind") {
				t.Errorf("Explain: %+v, %v", e, err)
			}
		})
	}
}

func TestWatchIsTheNodesOwn(t *testing.T) {
	p := newPair(t)
	ctx, cancel := context.WithCancel(testContext(t))
	ended := make(chan error, 1)
	go func() {
		ended <- p.op.Watch(ctx, cluster.HistoryQuery{}, func(state.Event) error { return nil })
	}()
	eventually(t, "the node's own Watch has begun", func() bool {
		p.own.mu.Lock()
		defer p.own.mu.Unlock()
		return p.own.watching == 1
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
