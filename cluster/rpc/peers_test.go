package rpc

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

func newPeers(t testing.TB, o PeersOptions) *Peers {
	o.Codec = fakeCodec{}
	p := NewPeers(o)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// The word of a hand-over finds its connection made: no handshake is between
// the last and the first packet.
func TestWarmConnectionAnswersAtOnce(t *testing.T) {
	l := listen(t)
	servePeers(t, l, &fakeOperator{}, &fakePeer{})
	p, err := newPeers(t, PeersOptions{}).Peer(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	if err := p.Stopped(ctx, cluster.Stopped{}); err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for range 50 {
		<-time.After(5 * time.Millisecond) // idle in between
		begun := time.Now()
		if err := p.Stopped(ctx, cluster.Stopped{Service: "pg", Epoch: 3}); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	t.Logf("median %v, worst %v", took[len(took)/2], took[len(took)-1])
	// A quarter of a millisecond when the machine is idle; ten times that when it is not.
	if took[len(took)/2] > 10*time.Millisecond {
		t.Errorf("the median is %v", took[len(took)/2])
	}
}

func TestDeadPeerFailsFastAndComesBack(t *testing.T) {
	l := listen(t)
	address := l.Addr().String()
	s := NewServer(ServerOptions{Operator: &fakeOperator{}, Peer: &fakePeer{}, Codec: fakeCodec{}, Log: quiet(), Grace: 100 * time.Millisecond})
	if err := s.ServePeers(l); err != nil {
		t.Fatal(err)
	}
	p, err := newPeers(t, PeersOptions{}).Peer(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	if err := p.Prepare(ctx, "pg"); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	for range 20 { // however often it is tried
		begun := time.Now()
		err := p.Stopped(ctx, cluster.Stopped{})
		if err == nil || time.Since(begun) > 2*time.Second {
			t.Fatalf("%v after %v", err, time.Since(begun))
		}
	}
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	servePeers(t, again, &fakeOperator{}, &fakePeer{})
	begun := time.Now()
	eventually(t, "the peer answers again", func() bool { return p.Prepare(ctx, "pg") == nil })
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v to find the peer again", took)
	}
}

// A connection that nobody asks anything of is made again by itself.
func TestConnectionIsKeptWarm(t *testing.T) {
	l := listen(t)
	servePeers(t, l, &fakeOperator{}, &fakePeer{})
	relay := newRelay(t, l)
	if _, err := newPeers(t, PeersOptions{}).Peer(relay.address()); err != nil {
		t.Fatal(err)
	}
	open := func() bool {
		relay.mu.Lock()
		defer relay.mu.Unlock()
		return len(relay.conns) > 0
	}
	eventually(t, "it is connected before the first call", open)
	relay.cut()
	relay.mend()
	eventually(t, "it is connected again", open)
}

func TestPeersForgetAndClose(t *testing.T) {
	peers := newPeers(t, PeersOptions{Forget: time.Nanosecond})
	first, err := peers.Peer("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peers.Peer("127.0.0.1:2"); err != nil {
		t.Fatal(err)
	}
	if n := len(peers.conns); n != 1 {
		t.Errorf("%d connections are kept", n)
	}
	// A forgotten connection is made again when its peer is asked something.
	if err := first.Prepare(testContext(t), "pg"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	if err := peers.Close(); err != nil {
		t.Error(err)
	}
	if err := first.Prepare(testContext(t), "pg"); !errors.Is(err, ErrClosed) {
		t.Errorf("a call after Close: %v", err)
	}
	if _, err := peers.Peer("127.0.0.1:1"); !errors.Is(err, ErrClosed) {
		t.Errorf("Peer after Close: %v", err)
	}
}

func TestPeersMapAddresses(t *testing.T) {
	l := listen(t)
	servePeers(t, l, &fakeOperator{}, &fakePeer{identity: cluster.Identity{Node: "a"}})
	peers := newPeers(t, PeersOptions{Address: func(base string) (string, error) {
		if base != "a:7000" {
			return "", errors.New("no such node")
		}
		return l.Addr().String(), nil
	}})
	p, err := peers.Peer("a:7000")
	if err != nil {
		t.Fatal(err)
	}
	if i, err := p.Identity(testContext(t)); err != nil || i.Node != "a" {
		t.Errorf("%+v, %v", i, err)
	}
	if _, err := peers.Operator("b:7000"); err == nil {
		t.Error("an address that maps to nothing was taken")
	}
}

func TestCommandThatCannotBeEncoded(t *testing.T) {
	peer := &fakePeer{}
	l := listen(t)
	servePeers(t, l, &fakeOperator{}, peer)
	p, err := newPeers(t, PeersOptions{}).Peer(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	if _, err := p.Propose(ctx, state.Found{}); err == nil {
		t.Error("a command that the codec does not know was sent")
	}
	if _, err := p.Propose(ctx, state.ClearFailures{}); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("a command that the other side cannot read: %v", err)
	}
	if peer.calls() != 0 {
		t.Errorf("the peer was asked %d times", peer.calls())
	}
}

func BenchmarkStopped(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := NewServer(ServerOptions{Operator: &fakeOperator{}, Peer: &countlessPeer{}, Codec: fakeCodec{}, Log: quiet()})
	if err := s.ServePeers(l); err != nil {
		b.Fatal(err)
	}
	defer s.Stop()
	p, err := newPeers(b, PeersOptions{}).Peer(l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := p.Stopped(context.Background(), cluster.Stopped{Service: "pg", Epoch: 1}); err != nil {
			b.Fatal(err)
		}
	}
}

// countlessPeer keeps nothing of what it is asked.
type countlessPeer struct{ fakePeer }

func (*countlessPeer) Stopped(context.Context, cluster.Stopped) error { return nil }
