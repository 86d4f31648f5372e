package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/proto"
)

// The client's times. A dead peer must be known as dead while a takeover can
// still use the answer, so a connection is tried for a second at most, tried
// again twice a second, and probed by the kernel while it is idle (gRPC's own
// pings are 10 s apart at least).
const (
	connectTimeout = time.Second
	retryFirst     = 20 * time.Millisecond
	retryMost      = 500 * time.Millisecond
	// unacked is how long sent bytes may stay without a sign of life
	// (TCP_USER_TIMEOUT, which gRPC sets from the keepalive's timeout).
	unacked   = 2 * time.Second
	pingEvery = 10 * time.Second

	maxAnswer = 16 << 20 // bytes; a whole history of long reasons
)

// conn is a connection to one node that is made again when it breaks, and that
// remembers why it could not be made.
type conn struct {
	target string // for people: host:port, or the socket's path
	cc     *grpc.ClientConn
	cancel context.CancelFunc
	done   chan struct{}
	closed atomic.Bool

	mu    sync.Mutex
	cause error // of the newest failed attempt, nil after a successful one
}

// newConn prepares a connection to unix:///path or host:port. A warm one is
// made at once and made again whenever it breaks; another waits for a call.
func newConn(target string, tlsConfig *tls.Config, warm bool) (*conn, error) {
	network, address, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	c := &conn{target: address, done: make(chan struct{})}
	if network == "unix" {
		c.target = "socket " + address
	}
	creds := insecure.NewCredentials()
	if tlsConfig != nil && network == "tcp" {
		creds = credentials.NewTLS(tlsConfig)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(&watchedCreds{TransportCredentials: creds, conn: c}),
		grpc.WithContextDialer(c.dialer(network, address)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: retryMost},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: unacked, PermitWithoutStream: true}),
		grpc.WithIdleTimeout(0), // an idle connection stays, so that the next call pays no handshake
		grpc.WithStatsHandler(sentTracker{}),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.MaxCallSendMsgSize(maxRequest)),
	}
	if network == "unix" {
		options = append(options, grpc.WithAuthority("localhost"))
	}
	// The address is resolved by the dialer, not by gRPC: no proxy variable and
	// no service configuration from DNS has a say.
	c.cc, err = grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return nil, fmt.Errorf("prepare a connection to %s: %w", target, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	if warm {
		go c.keepWarm(ctx)
	} else {
		close(c.done)
	}
	return c, nil
}

// parseTarget splits unix:///path and host:port.
func parseTarget(target string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(target, "unix:"); ok {
		path = "/" + strings.TrimLeft(path, "/")
		if path == "/" {
			return "", "", fmt.Errorf("%q names no socket: write unix:///path", target)
		}
		return "unix", path, nil
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil || host == "" || port == "" {
		return "", "", fmt.Errorf("%q is no address of a node: write host:port, or unix:///path", target)
	}
	return "tcp", target, nil
}

// dialer connects and remembers why it could not.
func (c *conn) dialer(network, address string) func(context.Context, string) (net.Conn, error) {
	d := net.Dialer{
		Timeout: connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: time.Second, Interval: 500 * time.Millisecond, Count: 3,
		},
	}
	return func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, address)
		c.connected(err)
		return conn, err
	}
}

func (c *conn) remember(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cause = err
}

// connected notes how an attempt to connect ended. That it could be made says
// nothing against what the other side said of our certificate last time.
func (c *conn) connected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var refused *certificateRefused
	if err != nil || !errors.As(c.cause, &refused) {
		c.cause = err
	}
}

func (c *conn) lastCause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// keepWarm connects again whenever the connection falls idle, until ctx ends.
func (c *conn) keepWarm(ctx context.Context) {
	defer close(c.done)
	for {
		state := c.cc.GetState()
		if state == connectivity.Idle {
			c.cc.Connect()
		}
		if !c.cc.WaitForStateChange(ctx, state) {
			return
		}
	}
}

func (c *conn) close() error {
	c.closed.Store(true)
	c.cancel()
	<-c.done
	return c.cc.Close()
}

// watchedCreds remembers why a handshake failed; gRPC gives its text only.
type watchedCreds struct {
	credentials.TransportCredentials
	conn *conn
}

func (w *watchedCreds) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		w.conn.remember(fmt.Errorf("TLS handshake: %w", err))
		return conn, info, err
	}
	return &attentiveConn{Conn: conn, conn: w.conn}, info, nil
}

func (w *watchedCreds) Clone() credentials.TransportCredentials {
	return &watchedCreds{TransportCredentials: w.TransportCredentials.Clone(), conn: w.conn}
}

// sentTracker notes on a call's context that its request went out.
type sentTracker struct{}

type sentKey struct{}

func (sentTracker) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (sentTracker) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); !ok {
		return
	}
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
}
func (sentTracker) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentTracker) HandleConn(context.Context, stats.ConnStats)                       {}

// effort says what a call may cost and whether it can change something.
type effort struct {
	changing bool
	within   time.Duration // the deadline when the caller has none
}

// What calls may take when their caller sets no deadline.
var (
	reading  = effort{within: 10 * time.Second}
	changing = effort{changing: true, within: 2 * time.Minute}
	// Between nodes an answer that takes longer is as good as none.
	asking  = effort{within: 3 * time.Second}
	telling = effort{changing: true, within: 5 * time.Second}
)

// call makes one unary call and gives its error the meaning of outcome. stub
// and method are the generated client's constructor and method expression.
func call[Stub any, Req proto.Message, Resp, Out any](
	ctx context.Context, dial func() (*conn, error), e effort,
	stub func(grpc.ClientConnInterface) Stub, method func(Stub, context.Context, Req, ...grpc.CallOption) (Resp, error),
	request Req, out func(Resp) Out,
) (Out, error) {
	var none Out
	c, err := dial()
	if err != nil {
		return none, err
	}
	if err := checkText(request); err != nil {
		return none, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.within)
		defer cancel()
	}
	sent := new(atomic.Bool)
	response, err := method(stub(c.cc), toHeaders(context.WithValue(ctx, sentKey{}, sent)), request)
	if err != nil {
		return none, c.meaning(err, sent.Load(), e.changing)
	}
	return out(response), nil
}

// meaning is decodeError with what this connection knows.
func (c *conn) meaning(err error, sent, changing bool) error {
	if c.closed.Load() && !(sent && changing) {
		return fmt.Errorf("connection to %s: %w", c.target, ErrClosed)
	}
	o := outcome{target: c.target, sent: sent, changing: changing}
	if !sent {
		o.cause = c.lastCause()
	}
	return decodeError(err, o)
}
