package sim

import (
	"fmt"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// daemon is one life of a node's daemon: all of it is forgotten when it dies.
type daemon struct {
	w     *world
	n     *node
	nonce uint64
	voter *lease.Voter
	raft  consensus

	holder  *lease.Holder
	held    bool   // it renews
	rounds  uint64 // counts changes of what is renewed: an older sender stops
	lastSeq uint64

	session uint64 // that this daemon renews
	refused bool
	dropped bool
	leaving bool
	told    map[decide.Told]bool
	units   map[string]*unit
	flying  map[string]bool
	looking bool // the member's next look is on its way
	blocked bool // the member's loop waits for the disk
	looked  clock.Reading
	begun   bool // the loops run
	hush    hush
	asks    *clock.Reading // since when no voter has answered a renewal; nil: one has, or none was asked

	led *leadership
}

// start begins a life of the daemon: it resumes what the journal says, and takes
// part in the log a little later.
func (n *node) start() {
	w := n.w
	w.nonces++
	d := &daemon{
		w: w, n: n, nonce: w.nonces,
		told: map[decide.Told]bool{}, units: map[string]*unit{}, flying: map[string]bool{},
	}
	n.d = d
	n.frozen, n.deferred = false, nil
	d.reconfigured()
	d.voter = lease.NewVoter(n.name, d.nonce, n, func() lease.Configuration { return d.raft.conf })
	w.say("%s: the daemon starts with nonce %d", n.name, d.nonce)
	d.after(w.between(5*ms, 150*ms), d.load)
	d.resume()
}

// resume goes on renewing the journal's session at once, and adopts what is found running.
func (d *daemon) resume() {
	s := d.n.disk.session
	if s == nil || s.boot != d.n.boot {
		d.adopt(false)
		return
	}
	d.session = s.id
	d.hold(s.id, s.ttl)
	end := d.n.Now().Add(s.ttl)
	var wait func()
	wait = func() {
		if d.left() <= 0 && clock.Left(d.n.Now(), end) > 0 {
			d.after(2*ms, wait)
			return
		}
		d.adopt(true)
	}
	d.after(2*ms, wait)
}

// adopt looks at every record once: what is this session's and runs goes on.
func (d *daemon) adopt(sameBoot bool) {
	s := d.n.disk.session
	for _, r := range d.n.disk.records {
		if r.releasing {
			continue // proven stopped before that was written
		}
		u := d.unit(r.service)
		u.epoch, u.gen, u.phase = r.epoch, r.gen, decide.PhaseUnknown
		own := sameBoot && r.boot == d.n.boot && r.session == s.id
		if runs := d.n.running[r.service]; own && d.left() > 0 && runs != nil && runs.epoch == r.epoch {
			u.phase = decide.PhaseRunning
			d.w.stats.Adopted++
			d.w.say("%s adopts %s %d", d.n.name, r.service, r.epoch)
			u.watch()
		}
	}
	d.begun = true
	d.looked = d.n.Now()
	d.enlist()
	d.memberTick()
	d.lapseLook(false)
	d.stir()
}

// enlist keeps this start recorded: an older one may come late.
func (d *daemon) enlist() {
	if d.voter.Ready() {
		d.after(time.Second, d.enlist)
		return
	}
	cmd := state.Started{
		Node: d.n.name, Nonce: d.nonce, Birth: "data-" + d.n.name, BootID: d.n.bootID(),
		Stamp: state.Stamp{By: d.n.name, Why: "the daemon has started"},
	}
	d.forward(cmd, func(_ state.Result, f failure) {
		wait := 60 * ms
		if f != "" {
			wait = 20 * ms
		}
		d.after(wait, d.enlist)
	})
}

func (n *node) bootID() string { return fmt.Sprintf("%s-boot-%d", n.name, n.boot) }

// ---- renewals

// hold begins to renew a session, at once and then at every interval.
func (d *daemon) hold(session uint64, ttl time.Duration) {
	h := d.holder
	if h == nil || h.Session() != session || h.TTL() != ttl {
		if h != nil {
			d.lastSeq = h.Seq()
		}
		h = lease.NewHolder(session, ttl, d.nonce)
		h.After(d.lastSeq)
		d.holder = h
	}
	d.held = true
	d.rounds++
	d.round(d.rounds)
}

// drop stops renewing; what was granted in time runs out by itself.
func (d *daemon) drop(why string) {
	if d.dropped {
		return
	}
	d.w.say("%s renews no longer: %s", d.n.name, why)
	d.dropped = true
	d.asks = nil // it asks nobody any more
	d.rounds++
	d.held = false
}

// targets is whom a renewal asks: the latest configuration, or, before the log is
// loaded, the one in the journal.
func (d *daemon) targets() lease.Configuration {
	if !d.raft.loaded && d.n.disk.session != nil {
		return d.n.disk.session.voters
	}
	return d.raft.conf
}

func (d *daemon) round(which uint64) {
	if d.rounds != which || !d.held {
		return
	}
	h, conf := d.holder, d.targets()
	session, nonce := h.Session(), h.Nonce()
	if d.asks == nil {
		now := d.n.Now()
		d.asks = &now
	}
	seq := h.Begin(d.n.Now(), conf)
	for _, v := range conf.Voters {
		to := d.w.byName[v]
		if to == d.n {
			d.renewAt(d, session, nonce, seq, conf.ID)
			continue
		}
		d.w.datagram(d.n, to, ofLease, func(other *daemon) { d.renewAt(other, session, nonce, seq, conf.ID) })
	}
	d.after(d.w.timing.renew, func() { d.round(which) })
}

// renewAt is the voter's side of a renewal, and the way of its answer.
func (d *daemon) renewAt(voter *daemon, session, nonce, seq, config uint64) {
	ok, why := voter.voter.Renew(session, config)
	if ok {
		d.w.check.renewed(voter, session)
	}
	d.w.datagram(voter.n, d.n, ofLease, func(now *daemon) {
		if voter != now {
			now.asks = nil
		}
		if ok {
			now.gotOK(voter.n.name, session, nonce, seq)
		} else {
			now.gotNo(session, nonce, why)
		}
	})
}

func (d *daemon) gotOK(voter string, session, nonce, seq uint64) {
	if d.holder == nil || !d.held || !d.holder.OK(voter, session, nonce, seq, d.n.Now()) {
		return
	}
	d.after(d.w.upTo(ms), d.extended)
}

// extended tells the guard, and reads the clock again.
func (d *daemon) extended() {
	if !d.held {
		return
	}
	until, ok := d.holder.Until()
	if !ok || clock.Left(d.n.Now(), until) <= 0 {
		return
	}
	d.w.check.extends(d.n, d.holder.Session(), until)
	d.n.extend(d.holder.Session(), until)
}

func (d *daemon) gotNo(session, nonce uint64, why lease.Reason) {
	if !d.held || d.holder.Session() != session || d.holder.Nonce() != nonce || session != d.session || d.refused {
		return
	}
	if why == lease.ReasonClosing || why == lease.ReasonEnded {
		d.refused = true
		d.w.say("%s: the voters have taken session %d: %s", d.n.name, session, why)
		d.poke()
	}
}

// deaf reports whether the others have left every renewal of a whole lease unanswered.
func (d *daemon) deaf(ttl time.Duration) bool {
	return d.asks != nil && clock.Longer(*d.asks, d.n.Now()) > ttl
}

// left is what is left of the lease by this machine's clocks.
func (d *daemon) left() time.Duration {
	if d.holder == nil {
		return 0
	}
	return d.holder.Left(d.n.Now())
}

// hungAfter is how long the member's loop may hang before the node lets its lease run out.
const hungAfter = 5 * time.Second

// lapseLook notices the end of the lease on time.
func (d *daemon) lapseLook(held bool) {
	left := d.left()
	if k := &d.n.disk; clock.Longer(d.looked, d.n.Now()) > hungAfter || len(k.writes) > 0 && clock.Longer(k.writes[0].since, d.n.Now()) > hungAfter {
		d.drop("its own work has hung")
	}
	d.hushed(left)
	if left <= 0 && held {
		d.w.say("%s: the lease ran out", d.n.name)
		for _, name := range services {
			if u := d.units[name]; u != nil && u.phase == decide.PhaseStarting {
				u.cut()
			}
		}
	}
	if left > 0 != held {
		d.poke()
	}
	wait := min(left, lookInterval)
	if wait <= 0 {
		wait = 20 * ms
	}
	d.after(wait, func() { d.lapseLook(left > 0) })
}

// hush is a holder that is heard and hears nobody: as long as it asks, no voter's
// note grows old. It falls silent for two leases, and then tries again.
type hush struct {
	session        uint64
	lapsed, silent *clock.Reading
}

func (d *daemon) hushed(left time.Duration) {
	h, s := &d.hush, d.n.disk.session
	if s == nil || d.session == 0 || s.id != d.session || d.refused || d.dropped || h.session != d.session || left > 0 && h.silent == nil {
		*h = hush{session: d.session}
		return
	}
	now := d.n.Now()
	switch {
	case h.silent != nil:
		if clock.Shorter(*h.silent, now) > 2*s.ttl {
			d.hold(d.session, s.ttl)
			*h = hush{session: d.session}
		}
	case h.lapsed == nil:
		h.lapsed = &now
	case clock.Longer(*h.lapsed, now) > s.ttl:
		d.w.say("%s falls silent", d.n.name)
		d.rounds++
		d.held = false
		h.silent = &now
	}
}

// opened makes a committed session this daemon's: journal first, then renew.
func (d *daemon) opened(id uint64, next func()) {
	st := d.voter.View()
	s := st.Sessions[id]
	if s == nil || d.session == id && !d.refused && !d.dropped {
		next()
		return
	}
	keep := resumed{boot: d.n.boot, id: id, ttl: s.TTL, voters: d.raft.conf}
	if d.died("session opened, not journaled") {
		return
	}
	d.journal(func() { d.n.disk.session = &keep }, func(f failure) {
		if f != "" {
			next()
			return
		}
		if d.died("session journaled") {
			return
		}
		d.session, d.refused, d.dropped = id, false, false
		d.w.say("%s renews session %d", d.n.name, id)
		d.hold(id, s.TTL)
		next()
	})
}

// died is the plan's way to kill the daemon at a step.
func (d *daemon) died(step string) bool {
	if d.n.d != d {
		return true
	}
	if d.n.crashAt == "" || d.n.crashAt != step {
		return false
	}
	d.n.crashAt = ""
	d.w.say("%s dies here: %s", d.n.name, step)
	d.w.saw("died: " + step)
	away := d.w.upTo(200 * ms)
	if d.w.chance(2) {
		away = d.w.upTo(3 * d.w.timing.ttl)
	}
	d.n.crash(away)
	return true
}

// steps are the places where a daemon can be made to die.
var steps = []string{
	"session opened, not journaled", "session journaled", "active not journaled", "active journaled", "started",
	"stopped, not journaled", "releasing journaled", "told", "release proposed", "release committed",
	"close committed", "end committed", "grant committed", "hand-over committed", "fence committed",
}
