package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// fakeOperator answers with what it is told to, and keeps what it was asked.
type fakeOperator struct {
	mu     sync.Mutex
	asked  []any // requests, newest last
	err    error
	block  chan struct{} // when set, calls wait until it closes or their context ends
	inside chan struct{} // when set, receives once a call has begun
	ctx    context.Context

	status  cluster.Status
	explain cluster.Explanation
	move    cluster.SwitchoverResult
	members []cluster.Member
	apply   cluster.ApplyResult
	version cluster.Version

	events   []state.Event
	watchers map[chan state.Event]bool
	watching int // how many watches have begun
}

var _ cluster.Operator = (*fakeOperator)(nil)

func (f *fakeOperator) ask(ctx context.Context, request any) error {
	f.mu.Lock()
	f.asked = append(f.asked, request)
	f.ctx = ctx
	block, inside, err := f.block, f.inside, f.err
	f.mu.Unlock()
	if inside != nil {
		inside <- struct{}{}
	}
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// set changes the fake under its lock.
func (f *fakeOperator) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeOperator) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *fakeOperator) last() any {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return nil
	}
	return f.asked[len(f.asked)-1]
}

type explainAsked struct{ Service, Node string }
type restartAsked struct{ Node, By, Why string }
type cleanupAsked struct{ Service, Node, By string }

func (f *fakeOperator) Status(ctx context.Context) (cluster.Status, error) {
	err := f.ask(ctx, "status")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status, err
}
func (f *fakeOperator) Explain(ctx context.Context, service, node string) (cluster.Explanation, error) {
	return f.explain, f.ask(ctx, explainAsked{service, node})
}
func (f *fakeOperator) History(ctx context.Context, q cluster.HistoryQuery) ([]state.Event, error) {
	err := f.ask(ctx, q)
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events), err
}
func (f *fakeOperator) Watch(ctx context.Context, _ cluster.HistoryQuery, fn func(state.Event) error) error {
	c := make(chan state.Event, 4*state.MaxHistory)
	f.mu.Lock()
	if f.watchers == nil {
		f.watchers = map[chan state.Event]bool{}
	}
	f.watchers[c] = true
	f.watching++
	f.mu.Unlock()
	defer f.set(func() { delete(f.watchers, c) })
	for {
		select {
		case e := <-c:
			if err := fn(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// happen commits events: they are in the history and go to every watcher.
func (f *fakeOperator) happen(events ...state.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, events...)
	for c := range f.watchers {
		for _, e := range events {
			c <- e
		}
	}
}
func (f *fakeOperator) Switchover(ctx context.Context, r cluster.SwitchoverRequest) (cluster.SwitchoverResult, error) {
	return f.move, f.ask(ctx, r)
}
func (f *fakeOperator) Failover(ctx context.Context, r cluster.FailoverRequest) (cluster.SwitchoverResult, error) {
	return f.move, f.ask(ctx, r)
}
func (f *fakeOperator) Pause(ctx context.Context, r cluster.PauseRequest) error {
	return f.ask(ctx, r)
}
func (f *fakeOperator) Standby(ctx context.Context, r cluster.StandbyRequest) error {
	return f.ask(ctx, r)
}
func (f *fakeOperator) RestartNode(ctx context.Context, node, by, why string) error {
	return f.ask(ctx, restartAsked{node, by, why})
}
func (f *fakeOperator) Cleanup(ctx context.Context, service, node, by string) error {
	return f.ask(ctx, cleanupAsked{service, node, by})
}
func (f *fakeOperator) Members(ctx context.Context) ([]cluster.Member, error) {
	return f.members, f.ask(ctx, "members")
}
func (f *fakeOperator) ChangeMember(ctx context.Context, r cluster.MemberRequest) error {
	return f.ask(ctx, r)
}
func (f *fakeOperator) Apply(ctx context.Context, r cluster.ApplyRequest) (cluster.ApplyResult, error) {
	return f.apply, f.ask(ctx, r)
}
func (f *fakeOperator) Version(ctx context.Context) (cluster.Version, error) {
	return f.version, f.ask(ctx, "version")
}

// fakePeer is a cluster.Peer of the same kind.
type fakePeer struct {
	fakeOperator
	identity cluster.Identity
	result   state.Result
	report   cluster.Report
}

var _ cluster.Peer = (*fakePeer)(nil)

type goodbyeAsked struct {
	Node    string
	Session uint64
}

func (f *fakePeer) Identity(ctx context.Context) (cluster.Identity, error) {
	return f.identity, f.ask(ctx, "identity")
}
func (f *fakePeer) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	return f.result, f.ask(ctx, cmd)
}
func (f *fakePeer) Stopped(ctx context.Context, m cluster.Stopped) error { return f.ask(ctx, m) }
func (f *fakePeer) Prepare(ctx context.Context, service string) error    { return f.ask(ctx, service) }
func (f *fakePeer) Report(ctx context.Context) (cluster.Report, error) {
	return f.report, f.ask(ctx, "report")
}
func (f *fakePeer) Restart(ctx context.Context, by, why string) error {
	return f.ask(ctx, restartAsked{By: by, Why: why})
}
func (f *fakePeer) Goodbye(ctx context.Context, node string, session uint64) error {
	return f.ask(ctx, goodbyeAsked{node, session})
}

// fakeCodec knows one command, a Cleanup of a service named by the bytes.
type fakeCodec struct{}

func (fakeCodec) Encode(c state.Command) ([]byte, error) {
	clear, ok := c.(state.ClearFailures)
	if !ok {
		return nil, errors.New("unknown command")
	}
	return []byte(clear.Service), nil
}

func (fakeCodec) Decode(b []byte) (state.Command, error) {
	if len(b) == 0 {
		return nil, errors.New("an empty command")
	}
	return state.ClearFailures{Service: string(b)}, nil
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// serveUnix starts a server on a socket of its own and returns both.
func serveUnix(t *testing.T, op cluster.Operator) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s", "sock")
	s := NewServer(ServerOptions{Operator: op, Log: quiet()})
	if err := s.ServeUnix(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s, path
}

func dial(t *testing.T, target string) *Client {
	t.Helper()
	c, err := Dial(target, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// servePeers starts a server for peers on l.
func servePeers(t *testing.T, l net.Listener, op cluster.Operator, p cluster.Peer) *Server {
	t.Helper()
	s := NewServer(ServerOptions{Operator: op, Peer: p, Codec: fakeCodec{}, Log: quiet()})
	if err := s.ServePeers(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("still not after 20 s: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}
