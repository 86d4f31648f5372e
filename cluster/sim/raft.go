package sim

import (
	"slices"
	"time"

	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// entry is a line of the log: a command, a set of voters, or nothing at all.
type entry struct {
	term uint64
	cmd  state.Command
	conf *lease.Configuration
}

// raftDisk is what a node never forgets.
type raftDisk struct {
	term  uint64
	voted string
	log   []entry      // index i stands at place i-1
	kept  *state.State // the latest snapshot; the log is kept nevertheless
}

func (r *raftDisk) last() uint64 { return uint64(len(r.log)) }

func (r *raftDisk) lastTerm() uint64 {
	if len(r.log) == 0 {
		return 0
	}
	return r.log[len(r.log)-1].term
}

// config is the latest configuration in the log, committed or not, and its index.
func (r *raftDisk) config() (lease.Configuration, uint64) {
	for i := len(r.log) - 1; i >= 0; i-- {
		if r.log[i].conf != nil {
			return *r.log[i].conf, uint64(i + 1)
		}
	}
	return lease.Configuration{}, 0
}

// peer is what a leader knows of another node's log.
type peer struct {
	match uint64
	next  uint64
	heard time.Duration // when it last answered
}

// consensus is a daemon's part in the log, all of it forgotten with the daemon.
type consensus struct {
	loaded    bool
	leads     bool
	candidate bool
	votes     map[string]bool
	stands    uint64 // counts the questions whether it would be elected
	leader    string // as far as known
	heard     time.Duration
	patience  time.Duration
	peers     map[string]*peer
	conf      lease.Configuration
	confAt    uint64
	committed uint64
	applied   uint64
	applying  bool
	spreading bool
	waiting   map[uint64]waiter
	hungSince time.Duration
}

// waiter is a proposal whose entry is in the leader's log.
type waiter struct {
	term uint64
	done func(state.Result, failure)
}

// load begins to take part, some time after the daemon's start.
func (d *daemon) load() {
	c := &d.raft
	c.loaded = true
	c.waiting = map[uint64]waiter{}
	d.reconfigured()
	if kept := d.n.raft.kept; kept != nil && d.voter.Restore(kept) == nil {
		c.applied, c.committed = kept.Index, kept.Index
		d.w.saw("snapshot loaded")
		d.newState()
	}
	c.heard = d.w.now
	d.awaitElection()
}

// reconfigured takes the latest configuration from the log.
func (d *daemon) reconfigured() { d.raft.conf, d.raft.confAt = d.n.raft.config() }

// beat sends what there is, and at least a sign of life, and counts who answers.
func (d *daemon) beat(term uint64) {
	c := &d.raft
	if !c.leads || d.n.raft.term != term {
		return
	}
	heard := 1
	for _, v := range c.conf.Voters {
		if p := c.peers[v]; p != nil && d.w.now-p.heard <= d.w.timing.election {
			heard++
		}
	}
	if heard < c.conf.Majority() {
		d.stepDown()
		return
	}
	d.replicate()
	d.after(d.w.timing.beat, func() { d.beat(term) })
}

// diskLimit is how long a leader's disk may hang before it stops its signs of life.
const diskLimit = 300 * ms

// replicate sends every other node what its log lacks.
func (d *daemon) replicate() {
	if d.n.diskHung && d.w.now-d.raft.hungSince > diskLimit {
		return
	}
	for _, n := range d.w.nodes {
		if n != d.n {
			d.send(n)
		}
	}
}

// atOnce is how many entries go in one message.
const atOnce = 64

func (d *daemon) send(to *node) {
	c, r := &d.raft, &d.n.raft
	p := c.peers[to.name]
	if to.d == nil && !d.w.chance(4) {
		return // nobody is there to hear it: spare the event
	}
	prev := p.next - 1
	var prevTerm uint64
	if prev > 0 {
		prevTerm = r.log[prev-1].term
	}
	list := r.log[prev:min(prev+atOnce, r.last())]
	list = slices.Clip(list)
	term, committed, kept := r.term, c.committed, r.kept
	if len(list) > 0 {
		p.next = prev + uint64(len(list)) + 1
	}
	d.w.datagram(d.n, to, ofLog, func(other *daemon) {
		ok, theirs, at := other.append(d.n.name, term, prev, prevTerm, list, committed)
		if theirs != 0 && ok {
			other.install(kept)
		}
		if theirs == 0 {
			return // it cannot answer now
		}
		d.w.datagram(to, d.n, ofLog, func(now *daemon) {
			if now == d {
				d.appended(to, term, ok, theirs, at)
			}
		})
	})
}

// append takes what a leader sends. It returns whether the logs agree up to at,
// and this node's term; 0: no answer.
func (d *daemon) append(leader string, term, prev, prevTerm uint64, list []entry, committed uint64) (ok bool, theirs, at uint64) {
	c, r := &d.raft, &d.n.raft
	if !c.loaded || d.n.diskHung && len(list) > 0 {
		return false, 0, 0
	}
	if term < r.term {
		return false, r.term, 0
	}
	if term > r.term {
		d.newTerm(term)
	}
	c.candidate, c.leader, c.heard = false, leader, d.w.now
	if prev > r.last() {
		return false, term, r.last()
	}
	if prev > 0 && r.log[prev-1].term != prevTerm {
		return false, term, prev - 1
	}
	for i, e := range list {
		place := prev + uint64(i)
		if place < r.last() {
			if r.log[place].term == e.term {
				continue
			}
			if place < c.committed {
				d.w.fail("%s would lose entry %d that is committed", d.n.name, place+1)
				return false, 0, 0
			}
			r.log = r.log[:place:place]
		}
		r.log = append(r.log, list[i:]...)
		d.reconfigured()
		break
	}
	at = prev + uint64(len(list))
	if c := min(committed, at); c > d.raft.committed {
		d.commitTo(c)
	}
	return true, term, at
}

// install takes the leader's snapshot now and then when it is far ahead of what
// is applied here, as a leader sends it whose log no longer goes back that far.
func (d *daemon) install(kept *state.State) {
	c := &d.raft
	if kept != nil && kept.Index > c.applied+8 && kept.Index <= c.committed && d.w.chance(4) {
		d.restore(kept)
	}
}

// appended takes a follower's answer.
func (d *daemon) appended(from *node, term uint64, ok bool, theirs, at uint64) {
	c, r := &d.raft, &d.n.raft
	if theirs > r.term {
		d.newTerm(theirs)
		return
	}
	if !c.leads || term != r.term {
		return
	}
	p := c.peers[from.name]
	p.heard = d.w.now
	if !ok {
		p.next = max(min(p.next, at+1), p.match+1, 1)
		d.send(from)
		return
	}
	p.match = max(p.match, at)
	p.next = max(p.next, p.match+1)
	if p.next <= r.last() {
		d.send(from)
	}
	d.advance()
}

// advance commits what a majority has, up to the last entry of the leader's own term.
func (d *daemon) advance() {
	c, r := &d.raft, &d.n.raft
	for i := r.last(); i > c.committed && r.log[i-1].term == r.term; i-- {
		have := 0
		for _, v := range c.conf.Voters {
			if v == d.n.name && !d.n.diskHung || c.peers[v] != nil && c.peers[v].match >= i {
				have++
			}
		}
		if have < c.conf.Majority() {
			continue
		}
		d.w.check.committed(d.n, r.log, i)
		d.commitTo(i)
		if !c.spreading {
			c.spreading = true
			d.after(d.w.upTo(5*ms), func() {
				c.spreading = false
				if c.leads {
					d.replicate()
				}
			})
		}
		return
	}
}
