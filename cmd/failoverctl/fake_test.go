package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/cluster/state"
)

// fakeNode answers what it is told to and keeps what it was asked to change.
type fakeNode struct {
	mu     sync.Mutex
	asked  []any
	err    error
	status cluster.Status
	events []state.Event
	move   cluster.SwitchoverResult
	apply  cluster.ApplyResult
	block  bool // changes wait for the end of their context
	local  bool // the newest read asked for the node's own view
	inside chan struct{}
	// refuseUnforced is what a failover without force gets.
	refuseUnforced error
}

var _ cluster.Operator = (*fakeNode)(nil)

func (f *fakeNode) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeNode) read(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.local = rpc.IsLocal(ctx)
	return f.err
}

func (f *fakeNode) change(ctx context.Context, request any) error {
	f.mu.Lock()
	f.asked = append(f.asked, request)
	err, block, inside := f.err, f.block, f.inside
	f.mu.Unlock()
	if inside != nil {
		inside <- struct{}{}
	}
	if block {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (f *fakeNode) take() []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

func (f *fakeNode) Status(ctx context.Context) (cluster.Status, error) {
	err := f.read(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status, err
}
func (f *fakeNode) Explain(ctx context.Context, service, node string) (cluster.Explanation, error) {
	return cluster.Explanation{Service: service, Node: node, Lines: []string{"explained: " + service + " " + node}}, f.read(ctx)
}
func (f *fakeNode) History(ctx context.Context, q cluster.HistoryQuery) ([]state.Event, error) {
	err := f.read(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []state.Event
	for _, e := range f.events {
		if (q.Service == "" || e.Service == q.Service) && (q.Node == "" || e.Node == q.Node) {
			out = append(out, e)
		}
	}
	if q.Limit > 0 {
		out = out[max(0, len(out)-q.Limit):]
	}
	return slices.Clone(out), err
}
func (f *fakeNode) Watch(ctx context.Context, _ cluster.HistoryQuery, _ func(state.Event) error) error {
	<-ctx.Done() // the history tells the events
	return ctx.Err()
}
func (f *fakeNode) Switchover(ctx context.Context, r cluster.SwitchoverRequest) (cluster.SwitchoverResult, error) {
	return f.move, f.change(ctx, r)
}
func (f *fakeNode) Failover(ctx context.Context, r cluster.FailoverRequest) (cluster.SwitchoverResult, error) {
	err := f.change(ctx, r)
	if err == nil && !r.Force {
		err = f.refuseUnforced
	}
	return f.move, err
}
func (f *fakeNode) Pause(ctx context.Context, r cluster.PauseRequest) error { return f.change(ctx, r) }
func (f *fakeNode) Standby(ctx context.Context, r cluster.StandbyRequest) error {
	return f.change(ctx, r)
}
func (f *fakeNode) RestartNode(ctx context.Context, node, by, why string) error {
	return f.change(ctx, []string{"restart", node, by, why})
}
func (f *fakeNode) Cleanup(ctx context.Context, service, node, by string) error {
	return f.change(ctx, []string{"cleanup", service, node, by})
}
func (f *fakeNode) Members(ctx context.Context) ([]cluster.Member, error) {
	return []cluster.Member{{Name: "a", Address: "192.0.2.1:7400", Role: state.RoleVoter, Vote: "voter", Alive: "yes"}}, f.read(ctx)
}
func (f *fakeNode) ChangeMember(ctx context.Context, r cluster.MemberRequest) error {
	return f.change(ctx, r)
}
func (f *fakeNode) Apply(ctx context.Context, r cluster.ApplyRequest) (cluster.ApplyResult, error) {
	return f.apply, f.change(ctx, r)
}
func (f *fakeNode) Version(ctx context.Context) (cluster.Version, error) {
	return cluster.Version{Node: "a", Version: "1.2.3", Protocol: 1, Go: "go1.26"}, f.read(ctx)
}

// node starts a fake node on a socket of its own.
func node(t *testing.T) (*fakeNode, string) {
	t.Helper()
	f := &fakeNode{status: cluster.Status{
		Cluster: "c1", Node: "a", Leader: "a", Quorum: true, Voters: 3, VotersUp: 3, At: time.Date(2026, 3, 14, 14, 5, 0, 0, time.UTC),
		Services: []cluster.ServiceStatus{{Name: "pg", Holder: "a", Epoch: 4, State: "running", LeaseLeft: time.Second}},
		Nodes: []cluster.NodeStatus{
			{Name: "a", Role: state.RoleVoter, Address: "192.0.2.1:7400", Alive: "yes", Ready: true, Leader: true, Holds: []string{"pg", "web"}},
			{Name: "b", Role: state.RoleVoter, Alive: "yes", Ready: true},
		},
	}}
	path := filepath.Join(t.TempDir(), "sock")
	s := rpc.NewServer(rpc.ServerOptions{Operator: f, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Grace: 200 * time.Millisecond})
	if err := s.ServeUnix(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return f, path
}

// screenBuffer is a buffer that one goroutine writes and another reads.
type screenBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screenBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screenBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// call is one run of failoverctl in a test.
type call struct {
	in       io.Reader
	env      map[string]string
	terminal bool // standard input
	screen   [2]int
	ctx      context.Context
	out, err screenBuffer
}

func (c *call) run(args ...string) int {
	if c.in == nil {
		c.in = strings.NewReader("")
	}
	if c.ctx == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		c.ctx = ctx
	}
	return run(c.ctx, args, environment{
		in: c.in, out: &c.out, err: &c.err, inTerminal: c.terminal, location: time.UTC,
		getenv:      func(name string) string { return c.env[name] },
		outTerminal: func() (int, int, bool) { return c.screen[0], c.screen[1], c.screen[0] > 0 },
		user:        func() string { return "ann" },
	})
}

// ctl runs failoverctl against a socket and returns what came of it.
func ctl(path string, args ...string) (code int, out, err string) {
	c := &call{}
	code = c.run(append([]string{"--socket", path}, args...)...)
	return code, c.out.String(), c.err.String()
}

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
