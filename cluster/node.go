package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/evidence"
	"github.com/failoverd/failoverd/cluster/journal"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// Options is what a node is made of.
type Options struct {
	Self            string
	Role            state.Role
	Address         string // host:port, the base of the node's ports
	SoftwareVersion string
	ConfigHash      string
	Birth           string
	BootID          string
	Nonce           uint64 // of this start of the daemon
	ClusterID       string
	Founders        []Founder // committed by the first leader

	TTL   time.Duration // H of the sessions that this node opens
	Kappa time.Duration // κ of its enforcement

	Clock     clock.Clock
	Voter     *lease.Voter
	Journal   *journal.Journal
	Renewals  Renewals
	Gossip    Gossip
	Guard     Guard
	Builder   Builder
	Peers     Peers
	VoterAddr func(base string) string // where a voter at a base address hears renewals
	Log       *slog.Logger
	// Starts is the data directory's book of starts; nil: none is kept.
	Starts Starts
	// OnRestart makes the daemon start itself anew while its services go on.
	OnRestart func()
	// Alarms are the daemon's own: disk, guard, gate.
	Alarms func() []string
}

// Node is one node's life in a cluster: it observes, decides and does.
type Node struct {
	Options
	ctx    context.Context // ends when the node stops for good
	cancel context.CancelFunc
	wg     tasks

	raft   atomic.Pointer[Consensus] // set by Run
	poke   chan struct{}             // the member's loop looks again
	stir   chan struct{}             // the leader's loop looks again
	events *fanout

	mu      sync.Mutex
	units   map[string]*unit
	session uint64 // that this daemon renews
	refused bool   // a voter said that it is closing or ended
	told    map[decide.Told]bool
	flying  map[string]bool // proposals under way, by what they say
	leaving bool
	dropped string                   // why renewals were given up for good in this session
	reports map[string]heardOf       // other nodes' own accounts, from the survey
	notices map[string]string        // alarms of this node, by subject
	probed  map[probe]bool           // take-overs that were prepared
	writes  map[uint64]clock.Reading // writes to the journal under way: since when
	written uint64

	extending sync.Mutex     // held while the guard and the gates are told a deadline, or a session
	guardless *clock.Reading // since when the guard takes no deadline; guarded by extending

	heard  atomic.Pointer[clock.Reading] // when a voter last answered a renewal, be it by a refusal
	looked atomic.Pointer[clock.Reading] // when the member's loop last began a look
	lead   atomic.Pointer[leadership]
}

// leadership is what this node keeps while it leads.
type leadership struct {
	Leadership
	ev    *evidence.Ledger
	since clock.Reading
	plan  atomic.Pointer[decide.Plan]
	// members orders changes of the membership: one at a time.
	members   sync.Mutex
	unsettled bool // a change of the voters may be in the log and not committed; guarded by members
	committed atomic.Pointer[clock.Reading]
	confirmed atomic.Pointer[clock.Reading] // when a majority last said that this node leads
	restart   restarted                     // the last restart that was ordered; guarded by the node's mu
}

// restarted is a node whose daemon was told to start anew.
type restarted struct {
	node  string
	start uint64 // nonce of the start that it had then
	at    clock.Reading
}

// heardOf is a report and when it came.
type heardOf struct {
	Report
	at     clock.Reading
	missed bool // the newest question had no answer
}

// NewNode makes a node. Nothing runs before Resume or Run.
func NewNode(o Options) *Node {
	ctx, cancel := context.WithCancel(context.Background())
	return &Node{
		Options: o, ctx: ctx, cancel: cancel,
		poke: make(chan struct{}, 1), stir: make(chan struct{}, 1),
		events: newFanout(),
		units:  map[string]*unit{}, told: map[decide.Told]bool{}, flying: map[string]bool{},
		reports: map[string]heardOf{}, notices: map[string]string{}, probed: map[probe]bool{},
		writes: map[uint64]clock.Reading{},
	}
}

// Resume takes over what an earlier daemon of this boot left behind: it goes on
// renewing the journal's session at once, before Raft is loaded, and adopts
// what the journal calls active and verifies as running. It returns when
// every record has been looked at.
func (n *Node) Resume(ctx context.Context) error {
	s, ok := n.Journal.Session()
	// A session that promises less lateness than this host now has is not resumed:
	// what runs is stopped and released, and a new one is opened.
	sameBoot := ok && s.BootID == n.BootID && s.Kappa >= n.Kappa
	if sameBoot {
		n.mu.Lock()
		n.session = s.ID
		n.mu.Unlock()
		if err := n.Guard.Use(s.ID); err != nil {
			return fmt.Errorf("resume session %d: %w", s.ID, err)
		}
		n.Renewals.Hold(s.ID, s.TTL)
		n.awaitLease(ctx, s.TTL)
	}
	var mine []journal.Entry
	for _, e := range n.Journal.Entries() {
		if e.State == journal.StateReleasing {
			continue // proven stopped before that was written
		}
		u := n.unit(e.Service)
		if err := u.load(e.Epoch, e.Generation, e.Note); err != nil {
			n.notice("resume "+e.Service, fmt.Sprintf("%s epoch %d may run here and cannot be looked after: %v", e.Service, e.Epoch, err))
			continue // it counts as running until it can be stopped
		}
		if sameBoot && e.BootID == n.BootID && e.Session == s.ID && n.Renewals.Left() > 0 {
			u.claim()
			mine = append(mine, e)
		}
	}
	for _, e := range mine {
		if err := n.unit(e.Service).adopt(); err != nil {
			n.Log.Warn("cannot adopt; it will be stopped first", "service", e.Service, "epoch", e.Epoch, "err", err)
			continue
		}
		n.Log.Info("adopted a running service", "service", e.Service, "epoch", e.Epoch)
	}
	return nil
}

// awaitLease waits for the first majority of a resumed session, no longer than
// its lease could still last.
func (n *Node) awaitLease(ctx context.Context, ttl time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, ttl)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for n.Renewals.Left() <= 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Attach gives the node its log before Run, so that it can be asked at once.
func (n *Node) Attach(c Consensus) { n.raft.Store(&c) }

// Run lives until ctx ends. Leaderships arrive on the channel.
func (n *Node) Run(ctx context.Context, c Consensus, leaderships <-chan Leadership) {
	n.Attach(c)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	run := func(fn func(context.Context)) { n.wg.Go(func() { fn(ctx) }) }
	run(n.enlist)
	run(n.memberLoop)
	run(n.lapseLoop)
	run(n.survey)
	run(func(ctx context.Context) { n.leaderLoop(ctx, leaderships) })
	run(n.publish)
	<-ctx.Done()
	n.wg.Wait()
}

// Close ends what is left of the node's work. What runs under the guard goes on.
func (n *Node) Close() {
	n.cancel()
	n.mu.Lock()
	units := maps.Clone(n.units)
	n.mu.Unlock()
	for _, u := range units {
		u.wg.Wait()
	}
}

// unit returns the service's unit, making it at first need.
func (n *Node) unit(name string) *unit {
	n.mu.Lock()
	defer n.mu.Unlock()
	u := n.units[name]
	if u == nil {
		u = newUnit(name, &unitHost{
			ctx: n.ctx, builder: n.Builder, records: watchedRecords{n},
			left: n.Renewals.Left, until: n.Renewals.Until, wake: n.Poke, now: time.Now,
		}, n.Log)
		n.units[name] = u
	}
	return u
}

// Poke makes the node look again: something has changed.
func (n *Node) Poke() {
	signal(n.poke)
	signal(n.stir)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// consensus is the log, or nil before Run.
func (n *Node) consensus() Consensus {
	if c := n.raft.Load(); c != nil {
		return *c
	}
	return nil
}

// propose commits a command, here when this node leads, else through the leader.
func (n *Node) propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	if n.consensus() == nil {
		return state.Result{}, fmt.Errorf("%s: %w: this node's log is not loaded yet", cmd.Kind(), ErrNoQuorum)
	}
	name, address := n.consensus().Leader()
	switch {
	case name == n.Self:
		return n.consensus().Propose(ctx, cmd)
	case address == "":
		return state.Result{}, fmt.Errorf("%s: %w: no leader is known here", cmd.Kind(), ErrNoQuorum)
	}
	peer, err := n.Peers.Peer(address)
	if err != nil {
		return state.Result{}, fmt.Errorf("reach leader %s: %w", name, err)
	}
	return peer.Propose(ctx, cmd)
}

// commit proposes and makes a refusal an error.
func (n *Node) commit(ctx context.Context, cmd state.Command) (state.Result, error) {
	res, err := n.propose(ctx, cmd)
	if err != nil {
		return res, err
	}
	if res.Refused != nil {
		return res, fmt.Errorf("%w: %w", ErrRefused, res.Refused)
	}
	return res, nil
}

// stamp says who proposes and why.
func (n *Node) stamp(by, why string) state.Stamp {
	if by == "" {
		by = n.Self
	}
	return state.Stamp{At: time.Now().UnixMilli(), By: by, Why: why}
}

// proposeLimit bounds one proposal; it is repeated as long as it is wanted.
const proposeLimit = 3 * time.Second

// background proposes once at a time under a name, and hands the result on.
// What must be on the disk before the proposal is done by first.
func (n *Node) background(key string, cmd state.Command, first func() error, done func(state.Result, error)) {
	n.mu.Lock()
	if n.flying[key] {
		n.mu.Unlock()
		return
	}
	n.flying[key] = true
	n.mu.Unlock()
	n.wg.Go(func() { // after the node's end nothing is proposed any more
		var res state.Result
		var err error
		if first != nil {
			err = first()
		}
		if err == nil {
			ctx, cancel := context.WithTimeout(n.ctx, proposeLimit)
			res, err = n.propose(ctx, cmd)
			cancel()
		}
		done(res, err)
		if err != nil || res.Refused != nil {
			n.pauseAfterFailure(n.ctx)
		}
		n.mu.Lock()
		delete(n.flying, key)
		n.mu.Unlock()
		n.Poke()
	})
}

// pauseAfterFailure keeps a proposal that failed from being repeated in a hot loop.
func (n *Node) pauseAfterFailure(ctx context.Context) {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// notice sets or clears (text "") an alarm of this node.
func (n *Node) notice(subject, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if text == "" {
		delete(n.notices, subject)
		return
	}
	if n.notices[subject] != text {
		n.Log.Warn("alarm", "subject", subject, "text", text)
	}
	n.notices[subject] = text
}

// Notice shows an alarm of this node until it is cleared by an empty text.
func (n *Node) Notice(subject, text string) { n.notice(subject, text) }

// Leader is where the leader is, as far as known here.
func (n *Node) Leader() (address string, self, ok bool) {
	c := n.consensus()
	if c == nil {
		return "", false, false
	}
	name, address := c.Leader()
	return address, name == n.Self, name != ""
}

// enlist keeps this daemon's start recorded. It may have to do so again: the
// record of an earlier start that was still on its way can be applied later.
//
// But when it is a start that this node's own directory knows nothing of, a
// second daemon runs on a copy of that directory. To record this start again
// would only take turns with it: this node stands down and says so.
func (n *Node) enlist(ctx context.Context) {
	for {
		n.enlistOnce(ctx)
		for n.Voter.Ready() || n.usurped() {
			if sleep(ctx, time.Second) != nil {
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// enlistOnce records this daemon's start through a leader until the applied
// state shows it: only then is the node ready.
func (n *Node) enlistOnce(ctx context.Context) {
	refused := 0
	for !n.Voter.Ready() {
		limited, cancel := context.WithTimeout(ctx, proposeLimit)
		var res state.Result
		err := n.noteStart(ctx)
		if err == nil {
			res, err = n.propose(limited, state.Started{
				Node: n.Self, Nonce: n.Nonce, Birth: n.Birth, BootID: n.BootID,
				Version: n.SoftwareVersion, ConfigHash: n.ConfigHash, Stamp: n.stamp("", "the daemon has started"),
			})
		}
		cancel()
		wait := 20 * time.Millisecond
		switch {
		case err == nil && res.Refused != nil:
			// While a cluster is being founded, its nodes are named one by one.
			if refused++; refused > 5 {
				n.notice("start", "this node is not let in: "+res.Refused.Why)
			}
			wait = 100 * time.Millisecond
		case err == nil:
			n.notice("start", "")
			wait = 60 * time.Millisecond // it is applied here in a moment
		case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EROFS):
			n.notice("start", "this node cannot take part: "+err.Error())
		case !errors.Is(err, ErrNoQuorum) && !errors.Is(err, ErrNotLeader):
			n.Log.Debug("cannot record the start yet", "err", err)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
	n.notice("start", "")
	n.Log.Info("ready: the log is caught up to this start")
	n.Poke()
}
