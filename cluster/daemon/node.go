package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/config"
	"github.com/failoverd/failoverd/cluster/consensus"
	"github.com/failoverd/failoverd/cluster/gossip"
	"github.com/failoverd/failoverd/cluster/journal"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/renew"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
	"github.com/failoverd/failoverd/vip"
)

// codec is the log's encoding, for commands that travel to the leader.
type codec struct{}

func (codec) Encode(c state.Command) ([]byte, error) { return consensus.EncodeCommand(c) }
func (codec) Decode(b []byte) (state.Command, error) { return consensus.DecodeCommand(b) }

// renewals is the renew connection in the words of package cluster.
type renewals struct {
	*renew.Conn
	nonce uint64
}

func (r renewals) Hold(session uint64, ttl time.Duration) { r.Conn.Hold(session, ttl, r.nonce) }
func (r renewals) AskAges(session uint64)                 { r.Conn.Ask(renew.Ages, session) }
func (r renewals) ConfirmClosed(session uint64)           { r.Conn.Ask(renew.ConfirmClosed, session) }

// openNode makes the node, lets it resume what runs, and then opens the log.
func (d *daemon) openNode(ctx context.Context, founded consensus.Founded) error {
	id := d.dir.Identity()
	if err := d.openGossip(founded, id); err != nil {
		return err
	}
	d.node = cluster.NewNode(cluster.Options{
		Self: d.cfg.Name, Role: d.cfg.Role, Address: d.cfg.Address,
		SoftwareVersion: Version, ConfigHash: config.Hash(d.cfg), Birth: id.Birth, BootID: d.bootID, Nonce: d.nonce,
		ClusterID: founded.Cluster, Founders: founded.Founders,
		TTL: d.cfg.Timing.Lease, Kappa: d.kappa(),
		Clock: clock.System(), Voter: d.voter, Journal: d.jour,
		Renewals: renewals{d.renew, d.nonce}, Gossip: d.gossip, Guard: d.keeper, Builder: &builder{d: d},
		Peers: d.peers, VoterAddr: config.RenewAddress, Log: d.log, OnRestart: d.askRestart, Alarms: d.alarms,
		Starts: d.dir,
	})
	d.renew.OnExtend(func(until clock.Reading, _ time.Duration) { d.node.Extended(until) })
	d.renew.OnRefused(d.node.RefusedBy)
	d.renew.OnAge(func(voter string, _ renew.Question, session uint64, age time.Duration, a lease.Standing, asked, at clock.Reading) {
		d.node.HeardAge(voter, session, age, a, asked, at)
	})
	d.onClose(d.node.Close)
	failpoint.Here("daemon.resume.before")
	if err := d.node.Resume(ctx); err != nil {
		return err
	}
	failpoint.Here("daemon.resumed")
	if err := d.cleanAddresses(ctx); err != nil {
		return err
	}
	failpoint.Here("daemon.cleaned")
	secure, err := d.raftTLS()
	if err != nil {
		return err
	}
	t := d.cfg.Timing
	d.raft, err = consensus.Open(consensus.Options{
		Directory: d.dir, Machine: d.voter, TLS: secure,
		Bind:      config.RaftAddress(d.cfg.Address),
		Timing:    consensus.Timing{Heartbeat: t.Heartbeat, Election: t.Election, LeaderLease: t.LeaderLease, Commit: t.Commit},
		Resolve:   func(base string) (string, error) { return config.RaftAddress(base), nil },
		DiskLimit: t.DiskLimit, StartOf: d.startOf, Stranger: d.stranger, Log: d.log,
		SnapshotThreshold: failpoint.Number("consensus.snapshot.threshold", 0),
		SnapshotInterval:  time.Duration(failpoint.Number("consensus.snapshot.ms", 0)) * time.Millisecond,
		TrailingLogs:      failpoint.Number("consensus.snapshot.trailing", 0),
	})
	if err != nil {
		return err
	}
	d.onClose(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
		defer cancel()
		if err := d.raft.Stop(ctx); err != nil {
			d.log.Warn("the log did not close in time", "err", err)
		}
	})
	failpoint.Here("daemon.raft.open")
	d.voters.load(d.raft.Servers)
	d.node.Attach(d.raft) // before anybody can ask the node
	failpoint.Here("daemon.attached")
	d.front.serve(d.node)
	return nil
}

func (d *daemon) openGossip(founded consensus.Founded, id cluster.Identity) error {
	var peers []string
	for _, p := range d.cfg.Peers {
		if p != d.cfg.Address {
			peers = append(peers, config.GossipAddress(p))
		}
	}
	t := d.cfg.Timing
	g, err := gossip.Start(gossip.Options{
		Meta: gossip.Meta{
			Name: d.cfg.Name, Incarnation: uint64(time.Now().UnixNano()), Address: d.cfg.Address,
			Version: Version, ConfigHash: config.Hash(d.cfg), Role: string(id.Role),
		},
		Address: config.GossipAddress(d.cfg.Address), Label: founded.Cluster, Key: d.cfg.GossipKey, Peers: peers,
		Timing:   gossip.Timing{Probe: t.GossipProbe, Timeout: t.GossipTimeout, Interval: t.GossipInterval, Suspicion: t.GossipSuspicion},
		Log:      d.log,
		OnChange: func() { d.front.poke() },
		OnConflict: func(c gossip.Conflict) {
			d.log.Error("two nodes have the same name", "name", c.Name, "known", c.Known, "intruder", c.Intruder)
			d.show("gossip "+c.Intruder, fmt.Sprintf("a second node %s gossips from %s, the first is at %s: find it and stop it", c.Name, c.Intruder, c.Known))
		},
	})
	if err != nil {
		return fmt.Errorf("start gossip: %w", err)
	}
	d.gossip = g
	d.onClose(d.logged("gossip", g.Stop))
	return nil
}

// poke makes the node look again, when there is one.
func (f *front) poke() {
	if n, err := f.get(); err == nil {
		n.Poke()
	}
}

// cleanAddresses removes what a dead predecessor left on this host, except what
// was adopted.
func (d *daemon) cleanAddresses(ctx context.Context) error {
	keep := d.node.ActiveAddresses()
	removed, err := vip.CleanStale(ctx, vip.CleanOptions{Gate: d.gate, Keep: keep, Known: d.journalled(), Log: d.log})
	if err != nil {
		return fmt.Errorf("clean addresses left behind: %w", err)
	}
	for _, p := range removed {
		d.log.Warn("removed an address that an earlier daemon left behind", "address", p)
	}
	return nil
}

// journalled are the addresses of services that the journal still names.
func (d *daemon) journalled() []netip.Addr {
	var out []netip.Addr
	for _, e := range d.jour.Entries() {
		if e.State == journal.StateActive {
			out = append(out, cluster.NotedAddresses(e.Note)...)
		}
	}
	return out
}

// live runs the node until it is told to stop, to restart, or cannot go on.
func (d *daemon) live(ctx context.Context) error {
	run, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.node.Run(run, d.raft, d.raft.Leaderships())
	}()
	defer func() { stop(); <-done }()
	d.log.Info("running", "node", d.cfg.Name, "address", d.cfg.Address, "cluster", d.dir.Identity().Cluster, "profile", d.cfg.Profile, "version", Version)
	select {
	case err := <-d.raft.Fatal():
		return fmt.Errorf("cannot go on: %w", err)
	case err := <-d.server.Failed():
		return fmt.Errorf("cannot be reached any more: %w", err)
	case <-d.restart:
		failpoint.Here("daemon.restart")
		d.handLeadership()
		return ErrRestart
	case <-ctx.Done():
	}
	d.log.Info("stopping: what runs here moves to another node, or is stopped and released")
	leave, cancel := context.WithTimeout(context.Background(), leaveLimit)
	defer cancel()
	err := d.node.Leave(leave)
	d.handLeadership()
	if err != nil {
		return fmt.Errorf("left without releasing everything; what is not released ends with its lease: %w", err)
	}
	limited, cancelLeave := context.WithTimeout(context.Background(), time.Second)
	defer cancelLeave()
	if err := d.gossip.Leave(limited); err != nil {
		d.log.Debug("gossip goodbye", "err", err)
	}
	failpoint.Here("daemon.left")
	return d.endGuard()
}

// handLeadership gives the leadership away before a stop, so that the others
// need no election by timeout.
func (d *daemon) handLeadership() {
	if !d.raft.IsLeader() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := d.raft.Transfer(ctx); err != nil {
		d.log.Info("could not hand the leadership over; the others elect", "err", err)
	}
}

// endGuard ends the guard after a stop for good: nothing is supervised any more.
func (d *daemon) endGuard() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	if err := d.keeper.end(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		d.log.Warn("the guard stays", "err", err)
	}
	failpoint.Here("daemon.guard.ended")
	return nil
}

// alarms are the daemon's own, for status.
func (d *daemon) alarms() []string {
	out := d.keeper.alarms()
	if d.gate == nil {
		out = append(out, "no kernel gate, addresses are bounded by their lifetime alone: "+d.noGate)
	}
	if d.cfg.TLS != nil {
		if end, err := d.cfg.TLS.Expiry(); err != nil {
			out = append(out, "certificate: "+err.Error())
		} else if left := time.Until(end); left < 30*24*time.Hour {
			out = append(out, fmt.Sprintf("the certificate %s expires on %s", d.cfg.TLS.Cert, end.Format(time.DateOnly)))
		}
	}
	return out
}

func (d *daemon) vipEvent(event, text string) {
	level, subject := slog.LevelWarn, "address "+text
	switch event {
	case vip.EventLinkUp, vip.EventResumed:
		level, subject = slog.LevelInfo, ""
	}
	d.log.Log(context.Background(), level, "address", "event", event, "text", text)
	if subject != "" {
		d.show(subject, text)
	}
}

// startOf is what this node knows of another's latest start.
func (d *daemon) startOf(node string) consensus.StartOf {
	st := d.voter.View()
	n := st.Nodes[node]
	if n == nil {
		return consensus.StartOf{}
	}
	return consensus.StartOf{Birth: n.Birth, Start: n.Started, Applied: st.Index}
}

// stranger shows that a member was refused, or has refused this node.
func (d *daemon) stranger(node, why string) {
	d.show("raft "+node, fmt.Sprintf("no connection with %s: %s", node, why))
}

// show puts an event among the alarms for a while. Before there is a node that
// has any, the log alone tells of it.
func (d *daemon) show(subject, text string) {
	n, err := d.front.get()
	if err != nil {
		return
	}
	n.Notice(subject, text)
	time.AfterFunc(shownFor, func() { n.Notice(subject, "") })
}

// shownFor is how long an event stays among the alarms.
const shownFor = 15 * time.Minute
