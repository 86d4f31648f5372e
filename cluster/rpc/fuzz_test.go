package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/consensus"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// logCodec is the codec of the daemon: what stands in the log.
type logCodec struct{}

func (logCodec) Encode(c state.Command) ([]byte, error) { return consensus.EncodeCommand(c) }
func (logCodec) Decode(b []byte) (state.Command, error) { return consensus.DecodeCommand(b) }

// maxCost is how many bytes a request of n bytes may make the server allocate:
// a map entry or a message costs more in memory than on the wire, but not without end.
func maxCost(n int) uint64 { return 1<<20 + 256*uint64(n) }

// serveRaw does with a request's bytes what gRPC does, and returns the answer's.
func serveRaw(t *testing.T, service grpc.ServiceDesc, server any, method int, data []byte) ([]byte, error) {
	t.Helper()
	m := service.Methods[method%len(service.Methods)]
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	response, err := m.Handler(server, context.Background(), func(into any) error {
		if err := proto.Unmarshal(data, into.(proto.Message)); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		return nil
	}, unary)
	runtime.ReadMemStats(&after)
	if cost := after.TotalAlloc - before.TotalAlloc; cost > maxCost(len(data)) {
		t.Fatalf("%s with %d bytes cost %d bytes of memory", m.MethodName, len(data), cost)
	}
	if err != nil {
		if st, ok := status.FromError(err); !ok || st.Code() == codes.OK || st.Code() == codes.Unknown || st.Message() == "" {
			t.Fatalf("%s: an error that says nothing: %v", m.MethodName, err)
		}
		return nil, err
	}
	out, err := proto.Marshal(response.(proto.Message))
	if err != nil {
		t.Fatalf("%s: the answer cannot be sent: %v", m.MethodName, err)
	}
	return out, nil
}

// FuzzOperatorRequest sends anything to each of an operator's methods. The
// node is asked at most once, and an error says what it is.
func FuzzOperatorRequest(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range failoverv1.OperatorService_ServiceDesc.Methods {
		f.Add(byte(i), []byte{})
	}
	add := func(method string, m proto.Message) {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		for i, d := range failoverv1.OperatorService_ServiceDesc.Methods {
			if d.MethodName == method {
				f.Add(byte(i), data)
			}
		}
	}
	add("Apply", applyToWire(filled[cluster.ApplyRequest](r)))
	add("Switchover", &failoverv1.SwitchoverRequest{Service: "erp", To: "b", By: "ops", Why: "because", DryRun: true})
	add("Failover", &failoverv1.FailoverRequest{Service: "erp", To: "b", Force: true, By: "o\x1bps", Why: "line\nline"})
	add("ChangeMember", &failoverv1.ChangeMemberRequest{Action: "add", Node: "d", Address: "192.0.2.4:7400", Role: "voter"})
	add("History", &failoverv1.HistoryRequest{Service: "erp", Limit: -1})
	f.Fuzz(func(t *testing.T, method byte, data []byte) {
		if len(data) > maxRequest {
			return // the transport refuses it
		}
		fake := &fakeOperator{events: []state.Event{{Index: 1, Kind: "x", Why: "y"}}}
		if method&0x80 != 0 {
			fake.err = fmt.Errorf("%w: %q", cluster.ErrRefused, data) // a node that echoes
		}
		server := &operatorServer{op: fake, senders: &sync.WaitGroup{}, log: slog.New(slog.DiscardHandler), slow: time.Second}
		_, err := serveRaw(t, failoverv1.OperatorService_ServiceDesc, server, int(method&0x7f), data)
		if fake.calls() > 1 || err == nil && fake.calls() != 1 {
			t.Fatalf("asked %d times: %v", fake.calls(), err)
		}
	})
}

// FuzzPeerRequest sends anything to each of the methods of other nodes. A
// command that reaches the node is one that the log can hold.
func FuzzPeerRequest(f *testing.F) {
	for i, d := range failoverv1.PeerService_ServiceDesc.Methods {
		f.Add(byte(i), []byte{})
		if d.MethodName != "Propose" {
			continue
		}
		for _, cmd := range []state.Command{state.Released{Service: "erp", Epoch: 3, Node: "a"}, state.SetServices{Services: []state.Spec{{Name: "erp", Takeover: state.TakeoverLease}}}} {
			body, err := consensus.EncodeCommand(cmd)
			if err != nil {
				f.Fatal(err)
			}
			data, err := proto.Marshal(&failoverv1.ProposeRequest{Command: body})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(byte(i), data)
		}
	}
	stopped, err := proto.Marshal(&failoverv1.StoppedRequest{Service: "erp", From: 1, Epoch: 2, Index: 3, Node: "a"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(2), stopped)
	f.Fuzz(func(t *testing.T, method byte, data []byte) {
		if len(data) > maxRequest {
			return
		}
		fake := &fakePeer{identity: cluster.Identity{Node: "a", Peers: []string{"192.0.2.1:7400"}}}
		_, err := serveRaw(t, failoverv1.PeerService_ServiceDesc, &peerServer{peer: fake, codec: logCodec{}}, int(method), data)
		if fake.calls() > 1 || err == nil && fake.calls() != 1 {
			t.Fatalf("asked %d times: %v", fake.calls(), err)
		}
		if cmd, ok := fake.last().(state.Command); ok {
			if _, err := consensus.EncodeCommand(cmd); err != nil {
				t.Fatalf("a command reached the node that the log cannot hold: %v", err)
			}
		}
	})
}

// watchStream is the server's end of a stream that nobody needs to read.
type watchStream struct {
	grpc.ServerStream
	ctx  context.Context
	sent func(*failoverv1.WatchResponse) error
}

func (w *watchStream) Context() context.Context               { return w.ctx }
func (w *watchStream) Send(m *failoverv1.WatchResponse) error { return w.sent(m) }

// FuzzWatchRequest asks for a stream from any place in the history. What comes
// is in order, and nothing of the history behind that place is left out.
func FuzzWatchRequest(f *testing.F) {
	for _, m := range []*failoverv1.WatchRequest{{}, {Resume: true}, {Resume: true, FromIndex: 2}, {Resume: true, FromIndex: 1 << 63, Service: "erp"}} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &failoverv1.WatchRequest{}
		if len(data) > maxRequest || proto.Unmarshal(data, r) != nil {
			return
		}
		fake := &fakeOperator{}
		for i := range uint64(5) {
			fake.events = append(fake.events, state.Event{Index: i + 1, Kind: "x", Why: "y"})
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var got []uint64
		quit := make(chan struct{})
		server := &operatorServer{op: fake, quit: quit, senders: &sync.WaitGroup{}, log: slog.New(slog.DiscardHandler), slow: time.Second}
		stop := sync.OnceFunc(func() { close(quit) })
		want := 0
		if r.GetResume() {
			want = int(max(5-int64(min(r.GetFromIndex(), 6))+1, 0))
			want = min(want, 5)
		}
		err := server.Watch(r, &watchStream{ctx: ctx, sent: func(m *failoverv1.WatchResponse) error {
			for _, e := range m.GetEvents() {
				got = append(got, e.GetIndex())
			}
			if len(got) >= want {
				stop()
			}
			return nil
		}})
		stop()
		server.senders.Wait()
		if err == nil {
			t.Fatal("a stream ended without a word")
		}
		if checkRequest(r) != nil {
			if len(got) > 0 {
				t.Fatal("a request that is refused got an answer")
			}
			return
		}
		if len(got) != want {
			t.Fatalf("%v events came, not %d: %v", got, want, err)
		}
		for i, index := range got {
			if i > 0 && index <= got[i-1] {
				t.Fatalf("events out of order: %v", got)
			}
		}
	})
}
