package daemon

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/config"
	"github.com/failoverd/failoverd/cluster/consensus"
	"github.com/failoverd/failoverd/cluster/gossip"
	"github.com/failoverd/failoverd/cluster/journal"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/renew"
	"github.com/failoverd/failoverd/cluster/rpc"
	"github.com/failoverd/failoverd/fencing/guard"
	"github.com/failoverd/failoverd/internal/failpoint"
	"github.com/failoverd/failoverd/vip"
	"github.com/failoverd/failoverd/vip/gate"
)

// Version is the version of this build; set by the linker.
var Version = "devel"

// The times of a daemon's end.
const (
	// leaveLimit bounds giving everything up before a stop for good.
	leaveLimit = 60 * time.Second
	// stopLimit bounds closing what is left.
	stopLimit = 5 * time.Second
)

// ErrRestart is returned by Run when the process should execute itself anew.
var ErrRestart = errors.New("restart ordered")

// Options is what a daemon runs with.
type Options struct {
	Config *config.Node
	Log    *slog.Logger
}

// daemon is everything that is open, in the order in which it was opened.
type daemon struct {
	cfg     *config.Node
	log     *slog.Logger
	closers []func() // last in, first out
	restart chan struct{}

	bootID string
	nonce  uint64
	dir    *consensus.Directory
	jour   *journal.Journal
	gate   *gate.Gate // nil: nftables cannot be used here
	noGate string     // why
	keeper *keeper
	voters *voters
	voter  *lease.Voter
	renew  *renew.Conn
	front  *front
	peers  *rpc.Peers
	server *rpc.Server
	pool   *vip.Pool
	raft   *consensus.Node
	gossip *gossip.Gossip
	node   *cluster.Node
}

// Run runs a node until ctx ends; then it gives everything up in good order.
// It returns ErrRestart when the process should execute itself anew, with
// everything that runs left to its lease.
func Run(ctx context.Context, o Options) error {
	d := &daemon{cfg: o.Config, log: o.Log, restart: make(chan struct{}, 1)}
	failpoint.In(o.Config.DataDir)
	defer d.close()
	if err := d.openLocal(ctx); err != nil {
		return err
	}
	if err := d.openNetwork(); err != nil {
		return err
	}
	failpoint.Here("daemon.network.open")
	founded, err := d.found(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return d.endGuard() // stopped before there was a cluster: nothing to give up
		}
		return err
	}
	if err := d.openNode(ctx, founded); err != nil {
		return err
	}
	return d.live(ctx)
}

// onClose has fn called at the end, before what was opened earlier is closed.
func (d *daemon) onClose(fn func()) { d.closers = append(d.closers, fn) }

func (d *daemon) close() {
	for i := len(d.closers) - 1; i >= 0; i-- {
		d.closers[i]()
	}
}

// logged makes a closer of something whose failure to close changes nothing.
func (d *daemon) logged(what string, fn func() error) func() {
	return func() {
		if err := fn(); err != nil {
			d.log.Debug("close", "what", what, "err", err)
		}
	}
}

// openLocal opens what is on this host: the directory, the journal, the
// kernel's gate and the guard.
func (d *daemon) openLocal(ctx context.Context) error {
	var err error
	if d.bootID, err = clock.BootID(); err != nil {
		return err
	}
	if d.nonce, err = drawNonce(); err != nil {
		return err
	}
	d.dir, err = consensus.OpenDirectory(d.cfg.DataDir, consensus.Self{
		Node: d.cfg.Name, Role: d.cfg.Role, Address: d.cfg.Address, Peers: d.cfg.Peers, Version: Version,
	})
	if err != nil {
		return err
	}
	d.onClose(d.logged("data directory", d.dir.Close))
	failpoint.Here("daemon.directory.open")
	if d.jour, err = journal.Open(d.cfg.DataDir, d.bootID); err != nil {
		return err
	}
	d.onClose(d.logged("journal", d.jour.Close))
	failpoint.Here("daemon.journal.open")
	switch d.gate, err = gate.Open(d.gateName()); {
	case errors.Is(err, gate.ErrInUse):
		return fmt.Errorf("another daemon of a node %q runs here: %w", d.cfg.Name, err)
	case err != nil:
		d.noGate = err.Error()
		d.log.Warn("no kernel gate: addresses are bounded by their lifetime alone", "err", err)
	default:
		d.onClose(d.logged("gate", d.gate.Close))
		d.gate.OnDamage(func(x gate.Damage) {
			d.vipEvent("gate-damaged", "somebody changed the kernel's gate; it was repaired: "+x.String())
		})
	}
	if problems := d.cfg.Timing.Check(d.gate != nil); len(problems) > 0 {
		return &config.Error{Problems: problems}
	}
	failpoint.Here("daemon.gate.open")
	d.keeper, err = newKeeper(ctx, guard.SpawnOptions{Binary: d.cfg.Guard, Dir: d.cfg.DataDir, Realtime: true}, d.gateName(), d.cfg.Timing.Lease/2, d.log)
	if err != nil {
		return err
	}
	failpoint.Here("daemon.guard.open")
	d.onClose(d.logged("guard connection", d.keeper.close))
	d.background(d.keeper.run)
	d.pool = vip.NewPool(vip.Options{Gate: d.gate, Log: d.log, Report: d.vipEvent})
	d.onClose(d.logged("addresses", d.pool.Close))
	return nil
}

// background runs fn until the daemon closes, and waits for it there.
func (d *daemon) background(fn func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(ctx)
	}()
	d.onClose(func() { cancel(); <-done })
}

func drawNonce() (uint64, error) {
	var b [8]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return 0, fmt.Errorf("draw nonce: %w", err)
		}
		if n := binary.LittleEndian.Uint64(b[:]); n != 0 {
			return n, nil
		}
	}
}

// openNetwork opens the sockets: renewals, peers, operators.
func (d *daemon) openNetwork() error {
	d.voters = newVoters(d.jour)
	d.voter = lease.NewVoter(d.cfg.Name, d.nonce, clock.System(), d.voters.configuration)
	at, err := netip.ParseAddrPort(config.RenewAddress(d.cfg.Address))
	if err != nil {
		return fmt.Errorf("address %s: %w", d.cfg.Address, err)
	}
	d.renew, err = renew.Listen(renew.Options{
		Address: at, Self: d.cfg.Name, Key: d.key, Voter: d.voter, Clock: clock.System(),
		Targets: d.voters.ask, Interval: d.renewInterval(), Log: d.log,
	})
	if err != nil {
		return fmt.Errorf("listen for renewals: %w", err)
	}
	d.onClose(d.logged("renewals", d.renew.Close))
	client, server, err := d.tls()
	if err != nil {
		return err
	}
	d.peers = rpc.NewPeers(rpc.PeersOptions{
		Codec: codec{}, TLS: client,
		Address: func(base string) (string, error) { return config.PeerAddress(base), nil },
	})
	d.onClose(d.logged("peers", d.peers.Close))
	d.front = &front{
		self: d.cfg.Name, identity: d.dir.Identity,
		version: cluster.Version{Node: d.cfg.Name, Version: Version, Protocol: cluster.LogVersion, Go: runtime.Version()},
	}
	d.server = rpc.NewServer(rpc.ServerOptions{
		Operator: rpc.Forward(operatorFront{d.front}, d.leader, d.peers),
		Peer:     d.front, Codec: codec{}, Log: d.log, TLS: server,
	})
	d.onClose(d.server.Stop)
	failpoint.Here("daemon.network.before")
	return d.listen()
}

func (d *daemon) listen() error {
	if err := d.server.ServeUnix(d.cfg.Socket); err != nil {
		return fmt.Errorf("listen for operators: %w", err)
	}
	peers, err := net.Listen("tcp", config.PeerAddress(d.cfg.Address))
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	if err := d.server.ServePeers(peers); err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	if d.cfg.API == "" {
		return nil
	}
	api, err := net.Listen("tcp", d.cfg.API)
	if err != nil {
		return fmt.Errorf("listen for operators: %w", err)
	}
	return d.server.ServeTCP(api)
}

// renewInterval is the setting's, unless the session that is resumed was opened
// with a lease too short for it: a session keeps its lease.
func (d *daemon) renewInterval() time.Duration {
	interval := d.cfg.Timing.Renew
	if s, ok := d.jour.Session(); ok && s.BootID == d.bootID && s.TTL > 0 {
		interval = min(interval, s.TTL/8)
	}
	return interval
}

// tls loads the certificates for both directions; nil without a tls block.
func (d *daemon) tls() (client, server *tls.Config, err error) {
	if d.cfg.TLS == nil {
		return nil, nil, nil
	}
	if client, err = d.cfg.TLS.Client(); err != nil {
		return nil, nil, err
	}
	if server, err = d.cfg.TLS.Server(); err != nil {
		return nil, nil, err
	}
	return client, server, nil
}

// raftTLS is one configuration for both directions of the log's connections.
func (d *daemon) raftTLS() (*tls.Config, error) {
	client, server, err := d.tls()
	if err != nil || server == nil {
		return nil, err
	}
	both := server.Clone()
	both.RootCAs, both.Certificates = server.ClientCAs, server.Certificates
	both.GetClientCertificate = client.GetClientCertificate
	both.VerifyConnection = client.VerifyConnection
	return both, nil
}

// key authenticates renewals: the state's, or until that is loaded the journal's.
func (d *daemon) key() []byte {
	if k := d.voter.View().Cluster.Key; len(k) > 0 {
		return k
	}
	if s, ok := d.jour.Session(); ok {
		return s.Key
	}
	return nil
}

// leader tells where the leader is, for calls that only it can answer.
func (d *daemon) leader() (address string, self, ok bool) {
	n, err := d.front.get()
	if err != nil {
		return "", true, true // there is no cluster yet: this node's own answer says why
	}
	return n.Leader()
}

// found waits until this node belongs to a cluster.
func (d *daemon) found(ctx context.Context) (consensus.Founded, error) {
	return consensus.RunFounding(ctx, consensus.FoundingOptions{
		Directory: d.dir,
		Ask: func(ctx context.Context, address string) (cluster.Identity, error) {
			p, err := d.peers.Peer(address)
			if err != nil {
				return cluster.Identity{}, err
			}
			return p.Identity(ctx)
		},
		Progress: func(why string) {
			d.front.wait(why)
			d.log.Info("waiting for a cluster", "why", why)
		},
	})
}

func (d *daemon) askRestart() {
	select {
	case d.restart <- struct{}{}:
	default:
	}
}

// gateName tells the tables of several nodes in one network namespace apart.
func (d *daemon) gateName() string { return gate.DefaultName + "-" + d.cfg.Name }

// kappa is how late this host's enforcement may be: the slowest of its tiers.
func (d *daemon) kappa() time.Duration {
	if d.gate == nil {
		return addressKappa + guardKappa
	}
	return guardKappa
}

// κ of LEASE.md: the address lifetime alone, and the guard with the kernel's timer.
const (
	addressKappa = 400 * time.Millisecond
	guardKappa   = 50 * time.Millisecond
)
