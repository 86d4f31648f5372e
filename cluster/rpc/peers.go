package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// Codec is the log's encoding of commands. Package consensus has it.
type Codec interface {
	Encode(state.Command) ([]byte, error)
	Decode([]byte) (state.Command, error)
}

// PeersOptions configures Peers.
type PeersOptions struct {
	Codec Codec
	TLS   *tls.Config // nil: no TLS
	// Address, when set, turns a node's address in the cluster's state into
	// the address of its peer listener.
	Address func(string) (string, error)
	// Forget is how long a connection that nobody uses is kept; 0: 10 minutes.
	Forget time.Duration
}

// Peers implements cluster.Peers. It keeps a warm connection to each address
// that it was asked for: a hand-over's word must not wait for a handshake.
type Peers struct {
	options PeersOptions

	mu     sync.Mutex
	conns  map[string]*peerConn // by address as asked for
	closed bool
}

type peerConn struct {
	*conn
	used time.Time
}

var _ cluster.Peers = (*Peers)(nil)

// NewPeers returns Peers without connections. Close it.
func NewPeers(o PeersOptions) *Peers {
	if o.Forget <= 0 {
		o.Forget = 10 * time.Minute
	}
	return &Peers{options: o, conns: map[string]*peerConn{}}
}

// Peer returns the peer at a node's address and begins to connect to it. It
// fails for what is no address only: whether somebody answers, its calls tell.
func (p *Peers) Peer(address string) (cluster.Peer, error) {
	if _, err := p.conn(address); err != nil {
		return nil, err
	}
	return &peerClient{codec: p.options.Codec, dial: func() (*conn, error) { return p.conn(address) }}, nil
}

// Operator is Peer for the operator's calls, which nodes forward to the leader.
func (p *Peers) Operator(address string) (cluster.Operator, error) {
	if _, err := p.conn(address); err != nil {
		return nil, err
	}
	return operatorClient{dial: func() (*conn, error) { return p.conn(address) }}, nil
}

// conn returns the connection to address, and drops those that nobody uses.
func (p *Peers) conn(address string) (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	now := time.Now()
	if c, ok := p.conns[address]; ok {
		c.used = now
		return c.conn, nil
	}
	target := address
	if p.options.Address != nil {
		var err error
		if target, err = p.options.Address(address); err != nil {
			return nil, err
		}
	}
	c, err := newConn(target, p.options.TLS, true)
	if err != nil {
		return nil, err
	}
	for other, old := range p.conns {
		if now.Sub(old.used) > p.options.Forget {
			delete(p.conns, other)
			_ = old.close() // fails only when closed already
		}
	}
	p.conns[address] = &peerConn{conn: c, used: now}
	return c, nil
}

// Close ends all connections, and every call on them.
func (p *Peers) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for address, c := range p.conns {
		delete(p.conns, address)
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

// peerClient is cluster.Peer over whatever connection dial gives.
type peerClient struct {
	dial  func() (*conn, error)
	codec Codec
}

func tell[Req proto.Message, Resp, Out any](
	ctx context.Context, c *peerClient, e effort,
	method func(failoverv1.PeerServiceClient, context.Context, Req, ...grpc.CallOption) (Resp, error),
	request Req, out func(Resp) Out,
) (Out, error) {
	return call(ctx, c.dial, e, failoverv1.NewPeerServiceClient, method, request, out)
}

// The methods of cluster.Peer, as that interface describes them.

func (c *peerClient) Identity(ctx context.Context) (cluster.Identity, error) {
	return tell(ctx, c, asking, failoverv1.PeerServiceClient.Identity, &failoverv1.IdentityRequest{}, identityFromWire)
}

func (c *peerClient) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	command, err := c.codec.Encode(cmd)
	if err != nil {
		return state.Result{}, err
	}
	return tell(ctx, c, telling, failoverv1.PeerServiceClient.Propose, &failoverv1.ProposeRequest{Command: command}, resultFromWire)
}

func (c *peerClient) Stopped(ctx context.Context, m cluster.Stopped) error {
	_, err := tell(ctx, c, telling, failoverv1.PeerServiceClient.Stopped, stoppedToWire(m), nothing[*failoverv1.StoppedResponse])
	return err
}

func (c *peerClient) Prepare(ctx context.Context, service string) error {
	_, err := tell(ctx, c, asking, failoverv1.PeerServiceClient.Prepare,
		&failoverv1.PrepareRequest{Service: service}, nothing[*failoverv1.PrepareResponse])
	return err
}

func (c *peerClient) Report(ctx context.Context) (cluster.Report, error) {
	return tell(ctx, c, asking, failoverv1.PeerServiceClient.Report, &failoverv1.ReportRequest{}, reportFromWire)
}

func (c *peerClient) Restart(ctx context.Context, by, why string) error {
	_, err := tell(ctx, c, telling, failoverv1.PeerServiceClient.Restart,
		&failoverv1.RestartRequest{By: by, Why: why}, nothing[*failoverv1.RestartResponse])
	return err
}

func (c *peerClient) Goodbye(ctx context.Context, node string, session uint64) error {
	_, err := tell(ctx, c, telling, failoverv1.PeerServiceClient.Goodbye,
		&failoverv1.GoodbyeRequest{Node: node, Session: session}, nothing[*failoverv1.GoodbyeResponse])
	return err
}
