package sim

import (
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
)

// retryStop is the pause between two stops that could not be proven, and
// stuckAfter how many of them make the node let its lease run out instead.
const (
	retryStop  = time.Second
	stuckAfter = 3
)

// watchInterval is how often what runs is asked whether it still does.
const watchInterval = time.Second

// unit is one service on a node and the one operation that is under way.
type unit struct {
	d        *daemon
	name     string
	phase    decide.Phase
	epoch    uint64
	gen      uint64
	failed   string
	reported uint64
	busy     bool
	wasCut   bool   // the start under way is to end
	abort    func() // ends it, once there is something to end
	watching uint64 // counts watches: an older one stops
	retry    time.Duration
	unproven int
}

func (d *daemon) unit(name string) *unit {
	u := d.units[name]
	if u == nil {
		u = &unit{d: d, name: name, phase: decide.PhaseStopped}
		d.units[name] = u
	}
	return u
}

func (u *unit) begin(phase decide.Phase) bool {
	if u.busy || u.d.w.now < u.retry {
		return false
	}
	u.busy, u.phase = true, phase
	return true
}

func (u *unit) end(phase decide.Phase) {
	u.busy, u.phase = false, phase
	if phase == decide.PhaseUnknown {
		u.unproven++
		u.retry = u.d.w.now + retryStop
	} else {
		u.unproven = 0
	}
	u.d.poke()
}

// cut ends a start that is under way, as soon as it comes to that; a watch too.
func (u *unit) cut() {
	u.watching++
	if u.busy && u.phase == decide.PhaseStarting && !u.wasCut {
		u.wasCut = true
		if u.abort != nil {
			u.d.after(u.d.w.upTo(5*ms), u.abort)
		}
	}
}

// activate journals the epoch as active, then starts it.
func (u *unit) activate(epoch, gen uint64) {
	d := u.d
	if !u.begin(decide.PhaseStarting) {
		return
	}
	u.epoch, u.gen, u.failed, u.reported = epoch, gen, "", 0
	if d.died("active not journaled") {
		return
	}
	u.wasCut, u.abort = false, nil
	d.journalActive(u.name, epoch, gen, func(f failure) {
		if d.died("active journaled") {
			return
		}
		if f != "" {
			u.stopAfterFailure("journal: " + string(f))
			return
		}
		d.after(d.w.upTo(3*ms), func() {
			u.start(func(failed string) {
				if failed != "" {
					u.stopAfterFailure(failed)
					return
				}
				if d.died("started") {
					return
				}
				u.end(decide.PhaseRunning)
				u.watch()
			})
		})
	})
}

// What ends a start and is no fault of the service.
const (
	lapsed   = "the lease ran out"
	cutShort = "cut short"
)

// start starts what serves, unless the lease ran out meanwhile. The guard starts
// nothing past the deadline that it was told; that is no fault of the service.
func (u *unit) start(done func(failed string)) {
	d := u.d
	switch {
	case u.wasCut:
		done(cutShort)
		return
	case d.left() <= 0 || !d.n.guarded(d.session):
		done(lapsed)
		return
	}
	if runs := d.n.running[u.name]; runs == nil || runs.epoch != u.epoch {
		d.n.started(u.name, u.epoch, d.session)
	}
	finished := false
	finish := func(failed string) {
		if !finished {
			finished, u.abort = true, nil
			done(failed)
		}
	}
	u.abort = func() { finish(cutShort) }
	d.after(d.w.between(ms, 60*ms), func() {
		if d.n.broken[u.name] {
			finish("exit status 3")
			return
		}
		finish("")
	})
}

// stopAfterFailure proves that nothing of a failed start is left.
func (u *unit) stopAfterFailure(cause string) {
	u.phase = decide.PhaseStopping
	u.stopAll(func(proven bool) {
		if cause != lapsed && cause != cutShort {
			u.failed = cause
		}
		if !proven {
			u.end(decide.PhaseUnknown)
			return
		}
		u.end(decide.PhaseStopped)
	})
}

// stopAll stops what serves; proven is false when it cannot tell.
func (u *unit) stopAll(done func(proven bool)) {
	d := u.d
	d.after(d.w.between(ms, 40*ms), func() {
		if d.n.unstop[u.name] && d.n.running[u.name] != nil {
			done(false)
			return
		}
		d.n.ended(u.name, "stopped")
		done(true)
	})
}

// stop stops without giving up; then runs when everything is proven stopped, and
// the stop ends with it.
func (u *unit) stop(why string, then func(done func(ok bool))) {
	u.cut()
	if !u.begin(decide.PhaseStopping) {
		return
	}
	u.d.w.say("%s stops %s %d: %s", u.d.n.name, u.name, u.epoch, why)
	u.stopAll(func(proven bool) {
		if !proven {
			u.end(decide.PhaseUnknown)
			return
		}
		if then == nil {
			u.end(decide.PhaseStopped)
			return
		}
		then(func(ok bool) {
			if !ok {
				u.retry = u.d.w.now + retryStop
			}
			u.end(decide.PhaseStopped)
		})
	})
}

// releasing journals that an epoch was never started or is proven stopped.
func (u *unit) releasing(epoch uint64, done func(failure)) {
	if u.busy || u.epoch == epoch && u.phase != decide.PhaseStopped {
		done("an operation is under way")
		return
	}
	u.busy = true
	u.d.journalReleasing(u.name, epoch, func(f failure) {
		u.busy = false
		done(f)
	})
}

// watch starts again what has stopped by itself; what cannot be is a failure.
func (u *unit) watch() {
	d := u.d
	u.watching++
	token := u.watching
	var look func()
	look = func() {
		if u.watching != token || u.phase != decide.PhaseRunning {
			return
		}
		runs := d.n.running[u.name]
		if runs != nil && runs.epoch == u.epoch {
			d.after(watchInterval, look)
			return
		}
		d.w.say("%s: %s stopped by itself", d.n.name, u.name)
		u.wasCut = false
		u.start(func(failed string) {
			if u.watching != token || u.phase != decide.PhaseRunning {
				return
			}
			if failed == "" {
				d.after(watchInterval, look)
				return
			}
			if u.begin(decide.PhaseStopping) {
				u.watching++
				u.stopAfterFailure(failed)
			}
		})
	}
	d.after(watchInterval, look)
}

// local is the unit as decide sees it.
func (u *unit) local(applied uint64, failedInState bool) decide.Local {
	if u.reported != 0 && applied >= u.reported && !failedInState {
		u.failed, u.reported = "", 0
	}
	return decide.Local{Epoch: u.epoch, Phase: u.phase, Generation: u.gen, Failed: u.failed, Reported: u.reported != 0}
}

func (u *unit) idle() bool { return !u.busy && u.phase == decide.PhaseStopped }
