package rpc

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// collector keeps what a watch was given.
type collector struct {
	mu     sync.Mutex
	events []state.Event
	breaks []error
}

func (c *collector) add(e state.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
	return nil
}

func (c *collector) broken(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.breaks = append(c.breaks, err)
}

func (c *collector) indexes() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []uint64
	for _, e := range c.events {
		out = append(out, e.Index)
	}
	return out
}

func (c *collector) broke() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.breaks)
}

func (f *fakeOperator) watches() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watchers)
}

func event(index uint64) state.Event {
	return state.Event{Index: index, Kind: "grant", Service: "pg", Why: fmt.Sprint("reason ", index)}
}

// follow starts a Follow and returns what it collects and how it ends.
func follow(t *testing.T, c *Client, f Follow) (*collector, <-chan error, context.CancelFunc) {
	t.Helper()
	got := &collector{}
	f.Broken = got.broken
	ctx, cancel := context.WithCancel(testContext(t))
	ended := make(chan error, 1)
	go func() { ended <- c.Follow(ctx, f, got.add) }()
	return got, ended, cancel
}

func TestWatchGivesWhatHappensFromNowOn(t *testing.T) {
	op := &fakeOperator{events: []state.Event{event(3), event(5)}}
	_, path := serveUnix(t, op)
	got, ended, cancel := follow(t, dial(t, "unix://"+path), Follow{})
	eventually(t, "the stream has begun", func() bool { return op.watches() == 1 })
	// One entry may give several events; all of them count, once each.
	other := event(7)
	other.Kind = "over"
	op.happen(event(7), other, event(9))
	eventually(t, "three events came", func() bool { return len(got.indexes()) >= 3 })
	op.happen(event(11))
	eventually(t, "the fourth came", func() bool { return len(got.indexes()) >= 4 })
	if diff := cmp.Diff([]state.Event{event(7), other, event(9), event(11)}, got.events); diff != "" {
		t.Error(diff)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "the node's own watch has ended", func() bool { return op.watches() == 0 })
}

// The history has what the bell did not ring for.
func TestWatchMissesNothingThatDidNotRing(t *testing.T) {
	op := &fakeOperator{}
	_, path := serveUnix(t, op)
	got, _, cancel := follow(t, dial(t, "unix://"+path), Follow{})
	defer cancel()
	eventually(t, "the stream has begun", func() bool { return op.watches() == 1 })
	op.set(func() { op.events = append(op.events, event(1), event(2)) })
	eventually(t, "both came", func() bool { return len(got.indexes()) == 2 })
	op.set(func() { op.events = append(op.events, event(3)) })
	op.happen(event(4))
	eventually(t, "the rest came in order", func() bool { return cmp.Equal(got.indexes(), []uint64{1, 2, 3, 4}) })
}

// A stream goes on over the end of its daemon, and over a change of node.
func TestFollowGoesOnWhereItBroke(t *testing.T) {
	shared := &fakeOperator{events: []state.Event{event(1)}}
	path := filepath.Join(t.TempDir(), "sock")
	start := func() *Server {
		s := NewServer(ServerOptions{Operator: shared, Log: quiet(), Grace: 200 * time.Millisecond})
		if err := s.ServeUnix(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		return s
	}
	s := start()
	got, _, cancel := follow(t, dial(t, "unix://"+path), Follow{})
	defer cancel()
	eventually(t, "the stream has begun", func() bool { return shared.watches() == 1 })
	var want []uint64
	index := uint64(1)
	for round := range 3 {
		index++
		shared.happen(event(index))
		want = append(want, index)
		eventually(t, "the event came", func() bool { return cmp.Equal(got.indexes(), want) })
		s.Stop()
		eventually(t, "the break was told", func() bool { return got.broke() > 2*round })
		twin := event(index)
		twin.Kind = "over" // of the entry that was seen already
		shared.happen(twin, event(index+1), event(index+2))
		want = append(want, index, index+1, index+2)
		index += 2
		s = start()
		eventually(t, "what happened meanwhile came, once", func() bool { return cmp.Equal(got.indexes(), want) })
	}
}

// A connection that is cut without a word is resumed, too.
func TestFollowOverACutConnection(t *testing.T) {
	op := &fakeOperator{}
	l := listen(t)
	relay := newRelay(t, l)
	s := NewServer(ServerOptions{Operator: op, Log: quiet()})
	if err := s.ServeTCP(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	got, _, cancel := follow(t, dial(t, relay.address()), Follow{})
	defer cancel()
	eventually(t, "the stream has begun", func() bool { return op.watches() == 1 })
	op.happen(event(1))
	eventually(t, "the client has begun, too", func() bool { return len(got.indexes()) == 1 })
	relay.cut()
	op.happen(event(2), event(3))
	eventually(t, "the break was told", func() bool { return got.broke() > 0 })
	relay.mend()
	eventually(t, "both came", func() bool { return cmp.Equal(got.indexes(), []uint64{1, 2, 3}) })
	eventually(t, "the mending was told", func() bool {
		got.mu.Lock()
		defer got.mu.Unlock()
		return got.breaks[len(got.breaks)-1] == nil
	})
}

func TestFollowAfterWhatWasSeen(t *testing.T) {
	op := &fakeOperator{events: []state.Event{event(1), event(2), event(3)}}
	_, path := serveUnix(t, op)
	c := dial(t, "unix://"+path)
	got, _, cancel := follow(t, c, Follow{Resume: true, Seen: []state.Event{event(1), event(2)}})
	defer cancel()
	eventually(t, "the third came", func() bool { return cmp.Equal(got.indexes(), []uint64{3}) })
	all, _, cancelAll := follow(t, c, Follow{Resume: true})
	defer cancelAll()
	eventually(t, "all came", func() bool { return cmp.Equal(all.indexes(), []uint64{1, 2, 3}) })
}

func TestFollowEndsWithTheCallersError(t *testing.T) {
	op := &fakeOperator{events: []state.Event{event(1)}}
	_, path := serveUnix(t, op)
	mine := fmt.Errorf("pipe closed: %w", cluster.ErrNoQuorum) // that it looks like a node's error does not matter
	err := dial(t, "unix://"+path).Follow(testContext(t), Follow{Resume: true}, func(state.Event) error { return mine })
	if err != mine {
		t.Errorf("got %v", err)
	}
}

func TestFollowThatNeverBeganEnds(t *testing.T) {
	err := dial(t, "unix://"+filepath.Join(t.TempDir(), "none")).Watch(testContext(t), cluster.HistoryQuery{}, nil)
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
	op := &fakeOperator{err: cluster.ErrNotFound}
	_, path := serveUnix(t, op)
	err = dial(t, "unix://"+path).Watch(testContext(t), cluster.HistoryQuery{Service: "x"}, nil)
	if !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("no such service: %v", err)
	}
}

// A client that opens a stream and never reads is cut, and holds nothing up.
func TestSlowStreamIsCut(t *testing.T) {
	op := &fakeOperator{}
	s := NewServer(ServerOptions{Log: quiet()})
	l := listen(t)
	g := grpc.NewServer(serverLimits(operatorLimits)...)
	failoverv1.RegisterOperatorServiceServer(g, &operatorServer{op: op, quit: s.quit, senders: &s.work, log: quiet(), slow: 300 * time.Millisecond})
	if err := s.serve(g, l, nil); err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	stream, err := failoverv1.NewOperatorServiceClient(cc).Watch(testContext(t), &failoverv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream has begun", func() bool { return op.watches() == 1 })
	big := event(1)
	for i := range uint64(200) { // more than the stream's window takes
		big.Index, big.Why = i+1, string(make([]byte, 4096))
		op.happen(big)
	}
	eventually(t, "the node's own watch has ended", func() bool { return op.watches() == 0 })
	for err == nil {
		_, err = stream.Recv()
	}
	if want := "the client has read nothing"; err == nil || !cmp.Equal(true, containsText(err.Error(), want)) {
		t.Errorf("the client was told %v", err)
	}
}

func TestBellThatNobodyAnswers(t *testing.T) {
	b := newBell()
	for i := range watchWaiting + 1 {
		if err := b.ring(event(uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.take(); err == nil {
		t.Error("an overflow went unnoticed")
	}
}
