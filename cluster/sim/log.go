package sim

import (
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// proposeLimit bounds one proposal; it is repeated as long as it is wanted.
const proposeLimit = 3 * time.Second

// keepEvery is how many entries lie between two snapshots of a node.
const keepEvery = 97

// propose appends a command if this node leads; done gets what applying it gave.
func (d *daemon) propose(cmd state.Command, done func(state.Result, failure)) {
	c := &d.raft
	if !c.leads {
		done(state.Result{}, noLeader)
		return
	}
	i := d.appendEntry(entry{term: d.n.raft.term, cmd: cmd})
	finished := false
	finish := func(res state.Result, f failure) {
		if !finished {
			finished = true
			done(res, f)
		}
	}
	c.waiting[i] = waiter{term: d.n.raft.term, done: finish}
	d.after(proposeLimit, func() { finish(state.Result{}, unknown) })
}

func (d *daemon) appendEntry(e entry) uint64 {
	r := &d.n.raft
	r.log = append(r.log, e)
	if e.cmd != nil {
		d.w.say("%s appends %d: %s", d.n.name, r.last(), commandText(e.cmd))
	} else {
		d.w.say("%s appends %d: voters %v", d.n.name, r.last(), e.conf.Voters)
		d.reconfigured()
	}
	d.replicate()
	d.advance()
	return r.last()
}

// forward proposes here when this node leads, else through the leader.
func (d *daemon) forward(cmd state.Command, done func(state.Result, failure)) {
	c := &d.raft
	switch {
	case !c.loaded || c.leader == "":
		d.after(ms, func() { done(state.Result{}, noLeader) })
	case c.leads:
		d.propose(cmd, done)
	default:
		d.call(d.w.byName[c.leader], proposeLimit, func(other *daemon, reply func(func())) {
			other.propose(cmd, func(res state.Result, f failure) {
				reply(func() { done(res, f) })
			})
		}, func() { done(state.Result{}, timedOut) })
	}
}

// commitTo lets everything up to an index be applied, a little later.
func (d *daemon) commitTo(index uint64) {
	c := &d.raft
	c.committed = max(c.committed, index)
	if !c.applying {
		c.applying = true
		d.applySoon()
	}
}

// applySoon applies a few entries at a time: in between, the node looks at what
// it has so far, and a restarted one at what is long over.
func (d *daemon) applySoon() {
	c := &d.raft
	lag := d.w.upTo(500 * us)
	if d.n.lag > 0 {
		lag += d.w.upTo(d.n.lag)
	}
	d.after(lag, func() {
		few := c.applied + 1 + uint64(d.w.rnd.IntN(24))
		d.apply(min(c.committed, few))
		if c.applying = c.applied < c.committed; c.applying {
			d.applySoon()
		}
	})
}

// apply applies up to an index.
func (d *daemon) apply(to uint64) {
	c, r := &d.raft, &d.n.raft
	for c.applied < to {
		c.applied++
		i := c.applied
		e := r.log[i-1]
		d.w.check.applies(d.n, i, e)
		if d.w.bad != "" {
			return
		}
		var res state.Result
		if e.cmd != nil {
			res = d.voter.Apply(i, e.term, e.cmd)
		}
		if w, ok := c.waiting[i]; ok {
			delete(c.waiting, i)
			if w.term != e.term {
				w.done(state.Result{}, unknown)
			} else {
				w.done(res, "")
			}
			if d.n.d != d {
				return // it died of the answer
			}
		}
		if e.conf != nil && c.leads && i == c.confAt {
			d.confCommitted()
		}
		if i%keepEvery == 0 && e.cmd != nil {
			r.kept = d.voter.Snapshot()
			d.w.saw("snapshot kept")
		}
	}
	d.newState()
}

// restore takes a snapshot that a leader sent, early or late; one that is older
// than what was applied must be refused.
func (d *daemon) restore(kept *state.State) {
	c, r := &d.raft, &d.n.raft
	switch {
	case kept == nil || kept.Index > c.committed:
		return
	case kept.Index < c.applied:
		if d.voter.Restore(kept) == nil {
			d.w.say("%s goes back from entry %d to %d", d.n.name, c.applied, kept.Index)
		} else {
			d.w.saw("late snapshot refused")
		}
		return
	case d.voter.Restore(kept) != nil:
		return
	}
	d.w.say("%s restores entry %d", d.n.name, kept.Index)
	d.w.saw("snapshot installed")
	for c.applied < kept.Index {
		c.applied++
		if w, ok := c.waiting[c.applied]; ok {
			delete(c.waiting, c.applied)
			w.done(state.Result{}, unknown)
		}
	}
	if d.n.d == d {
		r.kept = kept
		d.newState()
	}
}

// newState makes the loops look at what has changed.
func (d *daemon) newState() {
	d.poke()
	d.stir()
}

// background proposes once at a time under a name. What must be on the disk
// before is done by first.
func (d *daemon) background(key string, cmd state.Command, first func(func(failure)), done func(res state.Result, f failure, next func())) {
	if d.flying[key] {
		return
	}
	d.flying[key] = true
	finish := func(res state.Result, f failure) {
		done(res, f, func() {
			pause := time.Duration(0)
			if f != "" || res.Refused != nil {
				pause = 50 * ms
			}
			d.after(pause, func() {
				delete(d.flying, key)
				d.poke()
			})
		})
	}
	if first == nil {
		d.forward(cmd, finish)
		return
	}
	first(func(f failure) {
		if f != "" {
			finish(state.Result{}, f)
			return
		}
		d.forward(cmd, finish)
	})
}
