package rpc

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

func containsText(s, part string) bool { return strings.Contains(s, part) }

// bare is a gRPC connection without any of our client's care.
func bare(t *testing.T, l net.Listener) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// limited serves op under limits of the test's own.
func limited(t *testing.T, l limits, op cluster.Operator) net.Listener {
	t.Helper()
	s := NewServer(ServerOptions{Operator: op, Log: quiet()})
	listener := listen(t)
	g := grpc.NewServer(serverLimits(l)...)
	s.register(g, false)
	if err := s.serve(g, limitConns(listener, l.conns), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return listener
}

func TestEveryCallHasADeadline(t *testing.T) {
	op := &fakeOperator{}
	l := limited(t, limits{conns: 2, streams: 4, calls: 4, deadline: 5 * time.Second, longest: 8 * time.Second}, op)
	client := failoverv1.NewOperatorServiceClient(bare(t, l))
	left := func(ctx context.Context) time.Duration {
		if _, err := client.Status(ctx, &failoverv1.StatusRequest{}); err != nil {
			t.Fatal(err)
		}
		deadline, ok := op.ctx.Deadline()
		if !ok {
			t.Fatal("no deadline")
		}
		return time.Until(deadline)
	}
	if got := left(context.Background()); got > 5*time.Second {
		t.Errorf("without the client's: %v", got)
	}
	long, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if got := left(long); got > 8*time.Second {
		t.Errorf("with a long one of the client's: %v", got)
	}
	short, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if got := left(short); got > 1850*time.Millisecond {
		t.Errorf("with 2 s of the client's the node has %v: no time for its last word", got)
	}
}

// A call whose message never comes ends, although no handler has seen it.
func TestHalfACallIsEnded(t *testing.T) {
	l := limited(t, limits{conns: 2, streams: 4, calls: 4, deadline: 100 * time.Millisecond, longest: time.Second}, &fakeOperator{})
	s, err := bare(t, l).NewStream(context.Background(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		failoverv1.OperatorService_Status_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(&failoverv1.StatusResponse{}); err == nil {
		t.Error("it was answered")
	}
}

func TestTooManyCalls(t *testing.T) {
	op := &fakeOperator{block: make(chan struct{}), inside: make(chan struct{}, 9)}
	l := limited(t, limits{conns: 9, streams: 9, calls: 2, deadline: time.Minute, longest: time.Minute}, op)
	ended := make(chan error, 2)
	for range 2 {
		client := failoverv1.NewOperatorServiceClient(bare(t, l))
		go func() {
			_, err := client.Status(context.Background(), &failoverv1.StatusRequest{})
			ended <- err
		}()
	}
	<-op.inside
	<-op.inside
	client := failoverv1.NewOperatorServiceClient(bare(t, l))
	if _, err := client.Status(testContext(t), &failoverv1.StatusRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the third call: %v", err)
	}
	close(op.block)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "there is room again", func() bool {
		_, err := client.Status(testContext(t), &failoverv1.StatusRequest{})
		return err == nil
	})
}

func TestTooManyConnections(t *testing.T) {
	l := limited(t, limits{conns: 1, streams: 4, calls: 4, deadline: time.Minute, longest: time.Minute}, &fakeOperator{})
	first := bare(t, l)
	if _, err := failoverv1.NewOperatorServiceClient(first).Status(testContext(t), &failoverv1.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	second := failoverv1.NewOperatorServiceClient(bare(t, l))
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := second.Status(ctx, &failoverv1.StatusRequest{}); err == nil {
		t.Error("the second connection was served beside the first")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Status(testContext(t), &failoverv1.StatusRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Errorf("after the first has gone: %v", err)
	}
}

func TestRequestTooLarge(t *testing.T) {
	op := &fakeOperator{}
	_, path := serveUnix(t, op)
	err := dial(t, "unix://"+path).Pause(testContext(t), cluster.PauseRequest{Why: strings.Repeat("x", maxRequest+1)})
	if err == nil || errors.Is(err, cluster.ErrUnknown) || op.calls() != 0 {
		t.Errorf("got %v after %d calls", err, op.calls())
	}
	// An answer of that size is no trouble.
	op.explain.Lines = slices.Repeat([]string{strings.Repeat("x", 1024)}, 4*1024)
	if e, err := dial(t, "unix://"+path).Explain(testContext(t), "", ""); err != nil || len(e.Lines) != 4*1024 {
		t.Errorf("a large answer: %d lines, %v", len(e.Lines), err)
	}
}

// What is not gRPC does no harm.
func TestRubbishOnTheWire(t *testing.T) {
	l := limited(t, operatorLimits, &fakeOperator{})
	for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x16\x03\x01"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(text)); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
	if _, err := dial(t, l.Addr().String()).Status(testContext(t)); err != nil {
		t.Error(err)
	}
}

func TestOperatorsPortHasNoPeerService(t *testing.T) {
	l := limited(t, operatorLimits, &fakeOperator{})
	peers := NewPeers(PeersOptions{Codec: fakeCodec{}})
	defer func() { _ = peers.Close() }()
	p, err := peers.Peer(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Propose(testContext(t), state.ClearFailures{Service: "pg"})
	if err == nil || !strings.Contains(err.Error(), "does not know this request") {
		t.Errorf("got %v", err)
	}
	if err := NewServer(ServerOptions{}).ServePeers(listen(t)); err == nil {
		t.Error("ServePeers without a Peer")
	}
}

func TestStopIsBounded(t *testing.T) {
	stuck := &fakeOperator{inside: make(chan struct{})} // its handler sits in a send that nobody takes
	path := t.TempDir() + "/sock"
	s := NewServer(ServerOptions{Operator: stuck, Log: quiet(), Grace: 100 * time.Millisecond})
	if err := s.ServeUnix(path); err != nil {
		t.Fatal(err)
	}
	c := dial(t, "unix://"+path)
	ended := make(chan error, 1)
	go func() { ended <- c.Pause(testContext(t), cluster.PauseRequest{}) }()
	eventually(t, "the call is inside", func() bool { return stuck.calls() == 1 })
	begun := time.Now()
	s.Stop()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("Stop took %v", took)
	}
	if err := <-ended; !errors.Is(err, cluster.ErrUnknown) {
		t.Errorf("the call: %v", err)
	}
	<-stuck.inside
	s.Stop() // again does nothing
	if err := s.ServeUnix(path); !errors.Is(err, ErrClosed) {
		t.Errorf("ServeUnix after Stop: %v", err)
	}
}

// A call that ends within the grace is answered, and streams do not hold Stop up.
func TestStopLetsCallsEnd(t *testing.T) {
	op := &fakeOperator{block: make(chan struct{}), inside: make(chan struct{}, 1)}
	s, path := serveUnix(t, op)
	c := dial(t, "unix://"+path)
	ended := make(chan error, 1)
	go func() { ended <- c.Pause(testContext(t), cluster.PauseRequest{}) }()
	<-op.inside
	stopped := make(chan struct{})
	go func() { s.Stop(); close(stopped) }()
	eventually(t, "Stop has begun", func() bool {
		select {
		case <-s.quit:
			return true
		default:
			return false
		}
	})
	close(op.block)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-stopped
}

func TestListenerThatEndsIsReported(t *testing.T) {
	s := NewServer(ServerOptions{Operator: &fakeOperator{}, Log: quiet()})
	defer s.Stop()
	l := listen(t)
	if err := s.ServeTCP(l); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	select {
	case err := <-s.Failed():
		if !strings.Contains(err.Error(), l.Addr().String()) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing was said")
	}
}
