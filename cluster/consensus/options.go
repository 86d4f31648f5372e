package consensus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
)

// Timing is raft's. Zero values take the defaults, which are those of the
// profile "default".
type Timing struct {
	Heartbeat   time.Duration // a follower that hears nothing for one to two of these stands for election; default 500 ms
	Election    time.Duration // a candidate gives up after one to two of these; default = Heartbeat
	LeaderLease time.Duration // a leader without a majority for this long steps down; at most Heartbeat; default = Heartbeat/2
	Commit      time.Duration // a follower learns of a commit at the latest after one to two of these; default 50 ms
}

// Options is what Open needs.
type Options struct {
	// Directory is the node's locked data directory. It must belong to a
	// cluster (see RunFounding); the node does not close it.
	Directory *Directory
	Machine   Machine

	// Bind is the host:port to listen on; default: the directory's address,
	// resolved. Listener, when set, is used instead; the node closes it.
	Bind     string
	Listener net.Listener
	// Resolve maps a member's address, as it stands in the configuration, to
	// the host:port where its raft listens. Default: the same.
	Resolve func(address string) (string, error)
	// TLS secures both directions: certificates, ClientCAs, RootCAs, and
	// ClientAuth = RequireAndVerifyClientCert. nil: plain TCP.
	TLS *tls.Config

	Timing Timing
	// DiskLimit is the age from which an access to the disk counts as stuck: a
	// leader then stops sending, and a peer takes over. Default 1 s.
	DiskLimit time.Duration
	// CheckLimit bounds the reading through of the store at the start; beyond
	// it the start goes on with a warning. Default 10 s.
	CheckLimit time.Duration

	SnapshotThreshold uint64        // entries since the last snapshot; default 4096
	SnapshotInterval  time.Duration // between looks at that; default 30 s
	TrailingLogs      uint64        // entries kept after a snapshot; default 4096

	// StartOf tells what the replicated state knows of a node's latest start: a
	// node whose data is older than that is told so. Called from any goroutine;
	// nil: nothing is known.
	StartOf func(node string) StartOf
	// Stranger is told, from any goroutine, of a member with which a connection
	// was refused, by either of the two, and why. It must return at once; may be nil.
	Stranger func(node, why string)

	Log *slog.Logger // default: slog.Default()

	wrap func(backing) backing // for tests that break the disk
}

// withDefaults fills in what is zero and refuses what makes no sense.
func (o Options) withDefaults() (Options, error) {
	if o.Directory == nil || o.Machine == nil {
		return o, fmt.Errorf("%w: consensus needs a directory and a machine", cluster.ErrInvalid)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Resolve == nil {
		o.Resolve = func(address string) (string, error) { return address, nil }
	}
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&o.Timing.Heartbeat, 500*time.Millisecond)
	def(&o.Timing.Election, o.Timing.Heartbeat)
	def(&o.Timing.LeaderLease, o.Timing.Heartbeat/2)
	def(&o.Timing.Commit, 50*time.Millisecond)
	def(&o.DiskLimit, time.Second)
	def(&o.CheckLimit, 10*time.Second)
	def(&o.SnapshotInterval, 30*time.Second)
	if o.SnapshotThreshold == 0 {
		o.SnapshotThreshold = 4096
	}
	if o.TrailingLogs == 0 {
		o.TrailingLogs = 4096
	}
	for _, d := range []time.Duration{o.Timing.Heartbeat, o.Timing.Election, o.Timing.LeaderLease, o.Timing.Commit, o.DiskLimit, o.CheckLimit, o.SnapshotInterval} {
		if d < 0 {
			return o, fmt.Errorf("%w: a time of consensus is negative: %v", cluster.ErrInvalid, d)
		}
	}
	return o, mutual(o.TLS)
}

// mutual refuses a TLS configuration that would let anybody in.
func mutual(c *tls.Config) error {
	switch {
	case c == nil:
		return nil
	case c.ClientAuth != tls.RequireAndVerifyClientCert || c.ClientCAs == nil:
		return errors.New("tls: the other nodes' certificates must be required and verified (ClientAuth, ClientCAs)")
	case c.RootCAs == nil:
		return errors.New("tls: RootCAs is missing: the system's certificate authorities must not vouch for a node")
	case c.InsecureSkipVerify:
		return errors.New("tls: verification must not be skipped")
	}
	return nil
}

// config is raft's.
func (o Options) config(id string, log *slog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.HeartbeatTimeout = o.Timing.Heartbeat
	c.ElectionTimeout = o.Timing.Election
	c.LeaderLeaseTimeout = o.Timing.LeaderLease
	c.CommitTimeout = o.Timing.Commit
	c.SnapshotThreshold = o.SnapshotThreshold
	c.SnapshotInterval = o.SnapshotInterval
	c.TrailingLogs = o.TrailingLogs
	// A node that was removed keeps running, holds nothing and says so: an
	// operator may admit it again. raft would shut itself down under us.
	c.ShutdownOnRemove = false
	// A node cut off must not force an election when it returns.
	c.PreVoteDisabled = false
	c.NoLegacyTelemetry = true
	c.Logger = newBridge(log)
	return c
}

// ioTimeout bounds a request to another node, its disk's sync included. It is
// also how long a connection into a hole keeps a heartbeat waiting after the
// network has healed.
func (o Options) ioTimeout() time.Duration {
	return min(max(3*o.Timing.Election, 500*time.Millisecond), 10*time.Second)
}
