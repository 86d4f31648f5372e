package rpc

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/failoverd/failoverd/cluster"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// ServerOptions configures a Server.
type ServerOptions struct {
	Operator cluster.Operator // answers operators; usually made by Forward
	Peer     cluster.Peer     // answers peers; needed by ServePeers alone
	Codec    Codec            // of proposed commands; needed by ServePeers alone
	Log      *slog.Logger     // nil: slog.Default
	// TLS is used by the TCP listeners; nil: no TLS. It decides who may
	// connect: set ClientAuth to RequireAndVerifyClientCert.
	TLS *tls.Config
	// Grace is how long Stop lets calls end by themselves; 0: 2 s.
	Grace time.Duration
}

// Server answers operators and peers. Its Serve methods listen at once, fail
// if they cannot, and serve until Stop.
type Server struct {
	options ServerOptions
	log     *slog.Logger

	quit   chan struct{} // closed by Stop: streams end
	failed chan error
	work   sync.WaitGroup // serve loops and the senders of streams

	mu      sync.Mutex
	servers []*grpc.Server
	cleanup []func()
	stopped bool
}

// NewServer returns a server that does not listen yet.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Grace <= 0 {
		o.Grace = 2 * time.Second
	}
	return &Server{
		options: o,
		log:     o.Log.With("part", "rpc"),
		quit:    make(chan struct{}),
		failed:  make(chan error, 1),
	}
}

// Failed gives the first error of a listener that ended without Stop: nobody
// can reach the node there any more.
func (s *Server) Failed() <-chan error { return s.failed }

// ServeUnix serves operators on a Unix socket at path, of mode 0660 in a
// directory that is made with mode 0750 when it is not there. Who may open the
// socket may give any order. A socket that a dead daemon left behind is
// replaced; one on which somebody answers is an error.
func (s *Server) ServeUnix(path string) error {
	listener, err := listenUnix(path)
	if err != nil {
		return err
	}
	g := grpc.NewServer(serverLimits(operatorLimits)...)
	s.register(g, false)
	return s.serve(g, listener, listener.remove)
}

// ServeTCP serves operators on a listener.
func (s *Server) ServeTCP(listener net.Listener) error {
	g := grpc.NewServer(append(serverLimits(operatorLimits), s.credentials()...)...)
	s.register(g, false)
	return s.serve(g, limitConns(listener, operatorLimits.conns), nil)
}

// ServePeers serves other nodes on a listener: their own calls, and operators'
// calls that they forward.
func (s *Server) ServePeers(listener net.Listener) error {
	if s.options.Peer == nil || s.options.Codec == nil {
		return errors.New("serve peers: no Peer or no Codec was given")
	}
	g := grpc.NewServer(append(serverLimits(peerLimits), s.credentials()...)...)
	s.register(g, true)
	return s.serve(g, limitConns(listener, peerLimits.conns), nil)
}

func (s *Server) credentials() []grpc.ServerOption {
	if s.options.TLS == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.Creds(&tellingCreds{credentials.NewTLS(s.options.TLS)})}
}

func (s *Server) register(g *grpc.Server, peers bool) {
	failoverv1.RegisterOperatorServiceServer(g, &operatorServer{
		op: s.options.Operator, quit: s.quit, senders: &s.work, log: s.log, slow: watchSlow,
	})
	if peers {
		failoverv1.RegisterPeerServiceServer(g, &peerServer{peer: s.options.Peer, codec: s.options.Codec})
	}
}

func (s *Server) serve(g *grpc.Server, listener net.Listener, cleanup func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		err := listener.Close()
		if cleanup != nil {
			cleanup()
		}
		return errors.Join(fmt.Errorf("serve on %s: %w", listener.Addr(), ErrClosed), err)
	}
	s.servers = append(s.servers, g)
	if cleanup != nil {
		s.cleanup = append(s.cleanup, cleanup)
	}
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		err := g.Serve(listener)
		select {
		case <-s.quit:
		default:
			err = fmt.Errorf("listen on %s: %w", listener.Addr(), errors.Join(err, ErrClosed))
			s.log.Error("a listener has ended", "address", listener.Addr().String(), "error", err)
			select {
			case s.failed <- err:
			default:
			}
		}
	}()
	return nil
}

// Stop ends streams, lets other calls go on for the grace that was set, then
// cancels them, and returns when nothing runs any more; twice the grace after
// its call at the latest, so that a call that ignores its end cannot keep a
// daemon from ending.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.stopped = true
	close(s.quit)

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var all sync.WaitGroup
		for _, g := range s.servers {
			all.Go(g.GracefulStop)
		}
		all.Wait()
		s.work.Wait()
	}()
	if !waitFor(ended, s.options.Grace) {
		for _, g := range s.servers {
			go g.Stop() // waits for handlers as GracefulStop does; ended tells
		}
		if !waitFor(ended, s.options.Grace) {
			s.log.Error("a call goes on although its context has ended; not waiting for it", "grace", s.options.Grace)
		}
	}
	for _, f := range s.cleanup {
		f()
	}
}

func waitFor(c <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}
