package rpc

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// maxRequest is the most that a request may hold, in bytes: a cluster's
// services with room to spare.
const maxRequest = 1 << 20

// lastWord is how much earlier than its client a node gives up, so that its
// word on what is under way arrives before the client stops listening.
const lastWord = 250 * time.Millisecond

// limits bound what one listener may cost, whoever talks to it.
type limits struct {
	conns    int           // open connections; more wait in the kernel's queue
	streams  uint32        // calls at a time on one connection
	calls    int64         // calls at a time on the listener
	deadline time.Duration // of a call whose client sets none
	longest  time.Duration // of any call
}

// Operators' streams end after longest and are taken up again by the client.
var (
	operatorLimits = limits{conns: 64, streams: 16, calls: 64, deadline: 2 * time.Minute, longest: time.Hour}
	peerLimits     = limits{conns: 64, streams: 64, calls: 128, deadline: 10 * time.Second, longest: 10 * time.Minute}
)

// serverLimits are the options of a gRPC server with these limits.
func serverLimits(l limits) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxSendMsgSize(maxAnswer),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.MaxConcurrentStreams(l.streams),
		grpc.ConnectionTimeout(5 * time.Second), // of the handshake
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingEvery / 2, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: unacked}),
		grpc.WaitForHandlers(true),
		grpc.InTapHandle(l.tap()),
		grpc.UnaryInterceptor(unary),
		grpc.StreamInterceptor(stream),
	}
}

// tap runs when a call's headers have come and before its message: it bounds
// the number of calls, and gives each a deadline that also ends one whose
// message never comes.
func (l limits) tap() tap.ServerInHandle {
	var calls atomic.Int64
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		if calls.Add(1) > l.calls {
			calls.Add(-1)
			return ctx, status.Error(codes.ResourceExhausted, "too many calls at a time: try again")
		}
		within := l.longest
		if deadline, ok := ctx.Deadline(); ok {
			left := time.Until(deadline)
			within = min(within, left-min(left/10, lastWord))
		} else if info.FullMethodName != failoverv1.OperatorService_Watch_FullMethodName {
			within = l.deadline
		}
		ctx, cancel := context.WithTimeout(ctx, within)
		// The parent ends with the call, whatever way it goes.
		context.AfterFunc(ctx, func() {
			cancel()
			calls.Add(-1)
		})
		return ctx, nil
	}
}

// unary is around every call that has one answer.
func unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if m, ok := request.(proto.Message); ok {
		if err := checkRequest(m); err != nil {
			return nil, encodeError(err)
		}
	}
	response, err := handler(fromHeaders(ctx), request)
	if err != nil {
		return nil, encodeError(err)
	}
	if m, ok := response.(proto.Message); ok {
		cleanText(m)
	}
	return response, nil
}

// stream is around every stream.
func stream(service any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return encodeError(handler(service, s))
}

// limitedListener accepts while fewer than its number of connections are open.
type limitedListener struct {
	net.Listener
	free chan struct{}
	done chan struct{}
	once sync.Once
}

func limitConns(l net.Listener, n int) net.Listener {
	return &limitedListener{Listener: l, free: make(chan struct{}, n), done: make(chan struct{})}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.free })}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
