package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
)

var _ cluster.Consensus = (*Node)(nil)

// Node is this node's part in the replicated log.
type Node struct {
	id      string
	options Options
	log     *slog.Logger

	verdict *verdict
	watch   *watch
	gate    *gate
	fsm     *fsm
	store   io.Closer
	raft    *raft.Raft
	live    atomic.Pointer[raft.Raft] // the same, for connections that come before it is there
	leader  *leader

	members sync.Mutex // one change of the configuration at a time

	mu       sync.Mutex
	stopping bool
	voided   bool           // the directory is being marked as not to be used again
	inflight sync.WaitGroup // futures that raft has still to answer

	wait     sync.WaitGroup // the node's own goroutines
	halt     chan struct{}  // closed when the node is stopping
	stopOnce sync.Once
	stopped  chan struct{} // closed when everything has ended
	stopErr  error
}

// Open starts this node's part on a directory that belongs to a cluster. The
// founder's first start lays the cluster's first configuration; a crash in
// between is resumed by the next Open. It fails before anything has changed
// when the store is damaged, missing or in use, or when the port is taken.
func Open(o Options) (*Node, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open consensus: %w", err)
	}
	self, _ := o.Directory.look()
	if self.Cluster == "" {
		return nil, fmt.Errorf("open consensus: %w: %s belongs to no cluster yet", cluster.ErrInvalid, o.Directory.Path())
	}
	n := &Node{
		id: self.Node, options: o, log: o.Log.With("node", self.Node),
		verdict: newVerdict(), watch: newWatch(o.DiskLimit),
		halt: make(chan struct{}), stopped: make(chan struct{}),
	}
	n.fsm = &fsm{machine: o.Machine, verdict: n.verdict}
	if err := n.start(self); err != nil {
		return nil, fmt.Errorf("open consensus: %w", err)
	}
	return n, nil
}

// start builds the parts from the disk upwards, and takes them down again when one fails.
func (n *Node) start(self cluster.Identity) (err error) {
	var undo []func()
	defer func() {
		if err != nil {
			n.wait.Wait()
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()

	st, err := openStore(n.options, n.watch, n.verdict)
	if err != nil {
		return err
	}
	n.store = st
	undo = append(undo, func() { st.Close() })

	end, err := st.end()
	if err != nil {
		return err
	}
	s, err := n.listen(self)
	if err != nil {
		return err
	}
	s.past = &continuity{
		dir: n.options.Directory, birth: self.Birth, startOf: n.options.StartOf, end: n.endOutlived, held: map[string]heldBy{},
		last: func() uint64 {
			if r := n.live.Load(); r != nil {
				return r.LastIndex()
			}
			return end
		},
	}
	s.stranger, s.memberAt = n.options.Stranger, func(node string) (string, bool) { return memberAt(n.live.Load(), node) }
	network := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s, MaxPool: 3, MaxRPCsInFlight: 1,
		Timeout: n.options.ioTimeout(), Logger: newBridge(n.log),
	})
	n.gate = newGate(network, s, n.watch, n.verdict, n.options.Timing.Election)
	undo = append(undo, func() { n.gate.Close() })

	files := snapshots{SnapshotStore: st.snapshots, gate: n.gate}
	notify := make(chan bool)
	config := n.options.config(n.id, n.log)
	config.NotifyCh = notify
	n.leader = newLeader(n, notify)
	if n.raft, err = n.run(config, st, files, self); err != nil {
		return err
	}
	n.live.Store(n.raft)
	n.gate.knows(n.raft)
	n.wait.Add(3)
	go n.leader.watch()
	go n.probe()
	go func() {
		defer n.wait.Done()
		n.meet()
		n.gate.begin()
	}()
	return nil
}

// run starts raft, after the first configuration was laid if that is to be done
// here. Both use the store, in a goroutine of their own since an error of the
// store parks the caller.
func (n *Node) run(config *raft.Config, st *store, files raft.SnapshotStore, self cluster.Identity) (*raft.Raft, error) {
	var r *raft.Raft
	done := make(chan error, 1)
	go func() {
		done <- caught(func() (err error) {
			if n.options.Directory.lays() {
				if err := lay(st, self.Founders); err != nil {
					return err
				}
			}
			if r, err = raft.NewRaft(config, n.fsm, st.log, st.stable, files, n.gate); err != nil {
				return err
			}
			if err = here(r, n.id, self.Address, n.options.Directory.Path()); err != nil {
				stopRaft(r)
			}
			return err
		})
	}()
	var err error
	select {
	case err = <-done:
	case <-n.verdict.done:
		n.verdict.release()
		err = <-done
	}
	if fatal := n.verdict.reached(); fatal != nil {
		if err == nil {
			r.Shutdown()
		}
		return nil, fatal
	}
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	return r, nil
}

// listen opens the port.
func (n *Node) listen(self cluster.Identity) (*stream, error) {
	listener := n.options.Listener
	if listener == nil {
		bind := n.options.Bind
		if bind == "" {
			var err error
			if bind, err = n.options.Resolve(self.Address); err != nil {
				return nil, fmt.Errorf("listen for raft: %w", err)
			}
		}
		var err error
		if listener, err = net.Listen("tcp", bind); err != nil {
			return nil, fmt.Errorf("listen for raft: %w: is another failoverd running on this address?", err)
		}
	}
	return &stream{
		listener: listener, advertise: self.Address, tls: n.options.TLS, cluster: self.Cluster, node: n.id,
		resolve: n.options.Resolve, log: n.log, lost: make(chan string, 1), open: map[net.Conn]struct{}{},
	}, nil
}

// Fatal delivers, at most once, the error that ended this node's part: a disk
// that failed, an entry that this version does not know, state that would have
// gone back. The node is silent from then on and is to be stopped; whether a
// new start helps stands in the error's text.
func (n *Node) Fatal() <-chan error { return n.verdict.out }

// DiskStalled is how long the oldest access to the store has been under way,
// and whether that is past the limit.
func (n *Node) DiskStalled() (since time.Duration, stalled bool) { return n.watch.stalled() }

// Leader is the name and the address, as in the configuration, of the leader
// that this node knows of; empty when it knows none.
func (n *Node) Leader() (id, address string) {
	if n.verdict.reached() != nil {
		return "", ""
	}
	at, who := n.raft.LeaderWithID()
	return string(who), string(at)
}

// IsLeader reports whether raft counts this node as the leader. It may be the
// leader of an older term that has not heard of the newer: see Leaderships.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader && n.verdict.reached() == nil }

// Term is the term that this node is in.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// Applied is the index of the last command or configuration that the machine
// here has applied. raft's own entries never reach a machine: to see whether a
// node is level with the leader, compare the indexes of their machines.
func (n *Node) Applied() uint64 { return n.fsm.index.Load() }

// Committed is the index up to which this node knows the log to be committed.
func (n *Node) Committed() uint64 { return n.raft.CommitIndex() }

// Hesitate makes this node slower to stand for election, by a factor of two,
// for as long as it holds a service: a leader's death then costs the services
// nothing when another node takes the leadership up.
func (n *Node) Hesitate(on bool) error {
	c := n.raft.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = n.options.Timing.Heartbeat, n.options.Timing.Election
	if on {
		c.HeartbeatTimeout, c.ElectionTimeout = 2*c.HeartbeatTimeout, 2*c.ElectionTimeout
	}
	if err := n.raft.ReloadConfig(c); err != nil {
		return fmt.Errorf("change election timeouts: %w", err)
	}
	n.gate.hesitant.Store(on)
	return nil
}

// Snapshot writes the machine's state to the disk and shortens the log, as
// happens by itself every SnapshotThreshold entries.
func (n *Node) Snapshot(ctx context.Context) error {
	done := make(chan error, 1)
	if err := n.enter(); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	go func() {
		defer n.inflight.Done()
		done <- n.raft.Snapshot().Error()
	}()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			return fmt.Errorf("snapshot: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("snapshot: %w: %w", cluster.ErrTimeout, context.Cause(ctx))
	}
}

// enter counts a call that raft has to answer; the caller calls inflight.Done.
func (n *Node) enter() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping {
		return fmt.Errorf("%w: %w", cluster.ErrNotLeader, errStopping)
	}
	n.inflight.Add(1)
	return nil
}

// Stop ends this node's part: it says nothing more to anybody, ends its
// leadership, and closes the store. A disk that hangs can outlast ctx: Stop
// then returns an error, goes on in the background, and the process should end.
func (n *Node) Stop(ctx context.Context) error {
	n.stopOnce.Do(func() { go n.end() })
	select {
	case <-n.stopped:
		return n.stopErr
	case <-ctx.Done():
		return fmt.Errorf("stop consensus: %w: raft or the disk still keeps it", context.Cause(ctx))
	}
}

func (n *Node) end() {
	defer close(n.stopped)
	n.mu.Lock()
	n.stopping = true
	n.mu.Unlock()

	// What is under way gets its answer first: raft forgets the futures of
	// entries that wait for the state machine when it shuts down.
	answered := make(chan struct{})
	go func() {
		n.inflight.Wait()
		close(answered)
	}()
	patience := time.NewTimer(2 * n.options.Timing.LeaderLease)
	defer patience.Stop()
	select {
	case <-answered:
	case <-patience.C:
	case <-n.verdict.done:
	}

	close(n.halt)
	err := n.gate.Close()
	shutdown := n.raft.Shutdown()
	n.verdict.release()
	err = errors.Join(err, shutdown.Error())
	n.wait.Wait()
	if cerr := n.store.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close store: %w", cerr))
	}
	n.stopErr = err
}
