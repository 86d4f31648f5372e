package sim

import (
	"math/rand/v2"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/state"
)

// device is how a fencing device behaves that can turn a machine off.
type device string

const (
	deviceWorks  device = "works"  // turns it off and says so
	deviceSlow   device = "slow"   // the same, after longer than anybody waits for it, at times
	deviceFails  device = "fails"  // says that it could not, and has not
	deviceSilent device = "silent" // turns it off and its answer is lost
	deviceLies   device = "lies"   // says that it has, and has not
)

var devices = []device{deviceWorks, deviceSlow, deviceFails, deviceSilent, deviceLies}

// fencing is how a cluster fences.
type fencing struct {
	on bool
	// confirmations is how many of a machine's devices must say that it is off.
	confirmations int
	// delay is how long a leader waits after a close.
	delay time.Duration
}

// drawFencing draws whether and how a cluster fences.
func (s *Script) drawFencing(rnd *rand.Rand) {
	s.fencing = fencing{
		on: pick(rnd, 1, 1) == 1, confirmations: 1 + pick(rnd, 2, 1),
		delay: []time.Duration{0, s.timing.ttl / 4, s.timing.ttl, 2 * s.timing.ttl}[rnd.IntN(4)],
	}
}

// draw draws the devices of a machine, as many as must confirm. Of two that must
// confirm one may lie: it is not enough by itself.
func (f fencing) draw(rnd *rand.Rand) []device {
	list := []device{devices[pick(rnd, 6, 2, 2, 1, 2)]}
	if f.confirmations == 2 {
		list = append(list, devices[pick(rnd, 6, 2, 1, 1)])
	}
	return list
}

const (
	// fenceLimit is how long a leader waits for a device.
	fenceLimit = 4 * time.Second
	// fenceRetry is the pause after a fencing that was not confirmed.
	fenceRetry = 2 * time.Second
	// fencedFor is the longest time that a machine stays off after it was fenced.
	fencedFor = 6 * time.Second
)

// shots is what a leader remembers of the fencing of one session.
type shots struct {
	seen  time.Duration // when the leader first saw that it is closed
	busy  bool
	after time.Duration // not before
}

// fence shoots at the machines of sessions that are closed and still hold
// something, LEASE.md 8: StartFence is committed, every device is run, and only
// what enough of them confirm ends the session. It runs beside the lease.
func (d *daemon) fence(led *leadership, st *state.State) {
	if !d.w.fencing.on {
		return
	}
	for _, id := range st.SessionIDs() {
		s := st.Sessions[id]
		if s.Status == state.SessionOpen || s.Node == d.n.name || s.Proven(state.ProofFenced) || len(st.HeldUnder(id)) == 0 {
			continue
		}
		f := led.shots[id]
		if f == nil {
			f = &shots{seen: d.w.now}
			led.shots[id] = f
		}
		if f.busy || d.w.now < max(f.after, f.seen+d.w.fencing.delay) || paused(st, id) {
			continue
		}
		f.busy = true
		cmd := state.StartFence{Session: id, Proposer: d.n.name, Stamp: d.stamp("its session is closed")}
		d.propose(cmd, func(res state.Result, failed failure) {
			if failed != "" || res.Refused != nil || d.led != led || d.died("fence committed") {
				f.busy, f.after = false, d.w.now+fenceRetry
				return
			}
			d.w.saw("fence begun")
			d.shoot(led, f, s)
		})
	}
}

func paused(st *state.State, session uint64) bool {
	for _, h := range st.HeldUnder(session) {
		if decide.Paused(st, h.Service) != "" {
			return true
		}
	}
	return false
}

// shoot runs all devices of a machine, and ends the session when enough confirm.
// A device that does not answer in time confirms nothing.
func (d *daemon) shoot(led *leadership, f *shots, s *state.Session) {
	target := d.w.byName[s.Node]
	over, confirmed := false, 0
	finish := func() {
		if over {
			return
		}
		over = true
		if confirmed < d.w.fencing.confirmations {
			f.busy, f.after = false, d.w.now+fenceRetry
			return
		}
		end := state.EndSession{Session: s.ID, Proof: state.ProofFenced, Stamp: d.stamp("its devices say that it is off")}
		d.propose(end, func(state.Result, failure) { f.busy, f.after = false, d.w.now+fenceRetry })
	}
	waiting := len(target.devices)
	for _, kind := range target.devices {
		d.w.operate(target, kind, func(off bool) {
			d.now(func() {
				waiting--
				if off {
					confirmed++
				}
				if waiting == 0 {
					finish()
				}
			})
		})
	}
	d.after(fenceLimit, finish)
}

// operate lets one device do what it is asked. It is a box of its own: it does its
// work though whoever asked has died meanwhile.
func (w *world) operate(target *node, kind device, answer func(off bool)) {
	w.saw("device " + string(kind))
	took := w.between(50*ms, 800*ms)
	if kind == deviceSlow {
		took += w.upTo(2 * fenceLimit)
	}
	w.after(took, func() {
		switch kind {
		case deviceFails:
			answer(false)
		case deviceLies:
			answer(true)
		default:
			target.shoot()
			if kind != deviceSilent {
				answer(true)
			}
		}
	})
}

// liars is how many of a machine's devices lie, and honest how many can be relied
// on to turn it off and to say so.
func (n *node) liars() int { return n.having(deviceLies) }

func (n *node) honest() int { return n.having(deviceWorks) }

func (n *node) having(kind device) int {
	count := 0
	for _, d := range n.devices {
		if d == kind {
			count++
		}
	}
	return count
}

// shoot turns a machine off; somebody turns it on again later.
func (n *node) shoot() {
	if !n.on {
		return
	}
	n.w.saw("machine fenced")
	n.powerOff()
	n.w.after(n.w.between(ms, fencedFor), n.powerOn)
}
