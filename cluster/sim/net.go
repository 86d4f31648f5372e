package sim

import "time"

// link is one direction between two nodes.
type link struct {
	cut  bool
	loss int           // of a hundred
	slow time.Duration // the longest delay besides the usual one

	// only is what the faults above are about; empty: everything.
	only traffic
}

// traffic is a kind of message: they go by ports of their own, and a fault may
// be about one of them.
type traffic string

const (
	ofLog    traffic = "log"    // Raft
	ofLease  traffic = "lease"  // renewals and ages
	ofOthers traffic = "others" // calls between nodes
)

// usual is the longest delay of a link that is well.
const usual = 2 * ms

// way is the time that a message takes, or false when it is lost.
func (w *world) way(from, to *node, kind traffic) (time.Duration, bool) {
	if from == to {
		return w.upTo(100 * us), true
	}
	l := &w.links[from.i][to.i]
	if l.only != "" && l.only != kind {
		return 100*us + w.upTo(usual), true
	}
	if l.cut || l.loss > 0 && w.rnd.IntN(100) < l.loss {
		w.traits.lost++
		if l.cut && !w.links[to.i][from.i].cut {
			w.traits.oneWay++
		}
		return 0, false
	}
	d := 100*us + w.upTo(usual)
	if l.slow > 0 {
		d += w.upTo(l.slow)
		w.traits.slowed++
	}
	if at := w.now + d; at < from.arrivals[to.i] {
		w.traits.overtaken++
	} else {
		from.arrivals[to.i] = at
	}
	return d, true
}

// datagram hands something to whatever daemon runs on a node when it arrives. It
// may be lost, late, and now and then arrive twice.
func (w *world) datagram(from, to *node, kind traffic, take func(*daemon)) {
	times := 1
	if from != to && w.chance(100) {
		times = 2
		w.traits.twice++
	}
	for range times {
		if d, ok := w.way(from, to, kind); ok {
			w.after(d, func() { to.receive(take) })
		}
	}
}

// retransmit is how long TCP waits before it sends again what was lost.
const retransmit = 200 * ms

// stream is the time that a message takes over a connection that sends again what
// is lost; false when it is cut.
func (w *world) stream(from, to *node) (time.Duration, bool) {
	for again := range 4 {
		if d, ok := w.way(from, to, ofOthers); ok {
			return d + retransmit<<again - retransmit, true
		}
	}
	return 0, false
}

// receive hands over what has arrived, when the daemon goes on.
func (n *node) receive(take func(*daemon)) {
	if n.d == nil || !n.on {
		return
	}
	if n.frozen || n.suspended {
		if len(n.deferred) < 200 { // a socket's buffer is full at some time
			life := n.d
			n.deferred = append(n.deferred, func() {
				if n.d == life {
					n.receive(take)
				}
			})
		}
		return
	}
	take(n.d)
}

// after makes the daemon do something after d, unless it has died. A daemon that
// is frozen does it when it goes on.
func (d *daemon) after(wait time.Duration, do func()) {
	d.w.after(wait, func() { d.now(do) })
}

func (d *daemon) now(do func()) {
	if d.n.d != d {
		return
	}
	if d.n.frozen || d.n.suspended {
		d.n.deferred = append(d.n.deferred, func() { d.now(do) })
		return
	}
	do()
}

// failure is why a call came to nothing.
type failure string

const (
	noLeader  failure = "no leader"
	unknown   failure = "outcome unknown"
	timedOut  failure = "timed out"
	diskFails failure = "the disk fails"
)

// call asks the daemon of another node. Its answer runs here; when none comes in
// time failed runs instead, and the question may have been heard all the same.
func (d *daemon) call(to *node, limit time.Duration, ask func(other *daemon, reply func(answer func())), failed func()) {
	answered := false
	once := func(do func()) {
		if !answered {
			answered = true
			do()
		}
	}
	d.after(limit, func() { once(failed) })
	wait, ok := d.w.stream(d.n, to)
	if !ok {
		return
	}
	d.w.after(wait, func() {
		to.receive(func(other *daemon) {
			ask(other, func(answer func()) {
				if back, ok := d.w.stream(to, d.n); ok {
					d.after(back, func() { once(answer) })
				}
			})
		})
	})
}
