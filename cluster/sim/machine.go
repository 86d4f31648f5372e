package sim

import (
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
)

const million = 1_000_000

// node is a machine and what is on its disk; it survives its daemon.
type node struct {
	w    *world
	i    int
	name string

	on        bool
	boot      int
	suspended bool
	frozen    bool     // the daemon alone
	deferred  []func() // what the daemon will do when it goes on

	// The clocks showed read at true time since, and go on at rates that are
	// wrong by so many parts in a million.
	read            clock.Reading
	since           time.Duration
	crystal         int64 // how wrong it is by itself
	slewBoot, drift int64 // how wrong the two clocks go now
	suspends        bool  // else it is slewed at times; both at once is outside of what LEASE.md covers

	disk disk
	raft raftDisk

	// running is what really runs and may serve, whatever the daemon knows.
	running map[string]*serving
	// deadline is what the guard and the kernel were told; they end what runs at
	// most κ later.
	deadline clock.Reading
	leased   bool
	session  uint64 // whose deadline that is
	enforce  uint64 // counts changes of what enforcement waits for

	broken   map[string]bool // services that do not start here
	unstop   map[string]bool // services whose stop cannot be proven here
	lag      time.Duration   // the longest time from commit to apply
	crashAt  string          // the step at which the daemon dies next
	diskHung bool
	diskBad  bool // the next sync fails

	devices  []device         // that can turn it off
	arrivals [7]time.Duration // when the latest message to each node arrives

	d *daemon // nil: none runs
}

// serving is one service that runs.
type serving struct {
	epoch   uint64
	session uint64
	since   time.Duration
}

// Now reads the machine's clocks; it makes node a clock.Clock.
func (n *node) Now() clock.Reading {
	d := n.w.now - n.since
	return clock.Reading{Boot: n.read.Boot + scaled(d, n.slewBoot), Raw: n.read.Raw + scaled(d, n.drift)}
}

// scaled is what a clock that is wrong by ppm shows of d.
func scaled(d time.Duration, ppm int64) time.Duration {
	return d + d/million*time.Duration(ppm) + d%million*time.Duration(ppm)/million
}

// unscaled is how much true time passes until such a clock has gone on by d, or
// has passed since it had.
func unscaled(d time.Duration, ppm int64) time.Duration {
	if ppm <= -million {
		return time.Hour
	}
	return time.Duration(float64(d)*million/float64(million+ppm)) + 1
}

// setRates changes how fast the clocks go from now on.
func (n *node) setRates(boot, raw int64) {
	n.read, n.since = n.Now(), n.w.now
	n.slewBoot, n.drift = boot, raw
	n.rearm()
}

// extend is the guard's word: nothing here may run past the deadline.
func (n *node) extend(session uint64, until clock.Reading) {
	n.deadline, n.leased, n.session = until, true, session
	n.rearm()
}

// guarded reports whether the guard has a deadline of the session that has not passed.
func (n *node) guarded(session uint64) bool {
	return n.leased && n.session == session && clock.Left(n.Now(), n.deadline) > 0
}

// ends is the true time at which the deadline passes or passed, as the clocks go now.
func (n *node) ends() time.Duration {
	now := n.Now()
	return n.w.now + min(unscaled(n.deadline.Boot-now.Boot, n.slewBoot), unscaled(n.deadline.Raw-now.Raw, n.drift))
}

// rearm makes what runs end at the deadline, up to κ late, mostly as late as that.
func (n *node) rearm() {
	n.enforce++
	if !n.leased || len(n.running) == 0 || n.suspended {
		return
	}
	token := n.enforce
	late := n.w.timing.kappa - us
	if n.w.chance(3) {
		late = n.w.upTo(late)
	}
	n.w.after(n.ends()-n.w.now+late, func() {
		if n.enforce == token && n.on {
			n.endAll("the guard ends it")
		}
	})
}

// endAll ends everything that runs.
func (n *node) endAll(why string) {
	for _, name := range services {
		if n.running[name] != nil {
			n.ended(name, why)
		}
	}
}

func (n *node) ended(service, why string) {
	s := n.running[service]
	if s == nil {
		return
	}
	n.w.say("%s: %s %d does not run any more: %s", n.name, service, s.epoch, why)
	delete(n.running, service)
	n.w.check.stopped(n, service, s)
}

// started notes that a service may serve from now on.
func (n *node) started(service string, epoch, session uint64) {
	s := &serving{epoch: epoch, session: session, since: n.w.now}
	n.w.say("%s: %s %d runs", n.name, service, epoch)
	n.w.check.started(n, service, s)
	n.running[service] = s
	n.rearm()
}

// power turns the machine off or on again; nothing of a boot outlives it.
func (n *node) powerOff() {
	if !n.on {
		return
	}
	n.kill()
	n.endAll("the machine is off")
	n.on, n.suspended, n.frozen, n.leased = false, false, false, false
	n.w.saw("off")
	n.w.say("%s is off", n.name)
}

func (n *node) powerOn() {
	if n.on || n.w.gone[n] && !n.w.maimed {
		return
	}
	n.on = true
	n.boot++
	n.diskHung, n.unstop = false, map[string]bool{}
	n.read, n.since = clock.Reading{Boot: n.w.upTo(time.Hour), Raw: n.w.upTo(time.Hour)}, n.w.now
	n.slewBoot, n.drift = n.crystal, n.crystal
	n.w.say("%s is on, boot %d", n.name, n.boot)
	n.start()
}

// suspend stops the whole machine; CLOCK_BOOTTIME goes on, the other stands still.
func (n *node) suspend(d time.Duration) {
	if !n.on || n.suspended || !n.suspends {
		return
	}
	n.setRates(n.crystal, -million)
	n.suspended = true
	n.w.saw("suspended")
	n.enforce++
	n.w.say("%s is suspended for %s", n.name, d)
	boot := n.boot
	n.w.after(d, func() {
		if !n.on || n.boot != boot || !n.suspended {
			return
		}
		n.wake()
	})
}

// wake lets a suspended machine go on. What has no lease any more is taken to be
// ended before any of it can serve again.
func (n *node) wake() {
	n.w.say("%s wakes", n.name)
	if n.leased && clock.Left(n.Now(), n.deadline) <= 0 {
		n.endAll("its lease ran out while the machine slept")
	}
	n.suspended = false
	n.setRates(n.crystal, n.crystal)
	n.w.check.woke(n)
	n.thawed()
}

// freeze stops the daemon alone; what runs goes on under its lease.
func (n *node) freeze(d time.Duration) {
	if !n.on || n.d == nil || n.frozen {
		return
	}
	n.frozen = true
	n.w.saw("frozen")
	n.w.say("%s: the daemon is frozen for %s", n.name, d)
	life := n.d
	n.w.after(d, func() {
		if n.d != life || !n.frozen {
			return
		}
		n.frozen = false
		n.w.say("%s: the daemon goes on", n.name)
		n.thawed()
	})
}

// thawed lets everything happen that waited, in any order.
func (n *node) thawed() {
	list := n.deferred
	n.deferred = nil
	n.w.rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, do := range list {
		n.w.after(n.w.upTo(2*ms), do)
	}
}

// kill ends the daemon at once. What it was writing may be on the disk or not.
func (n *node) kill() {
	if n.d == nil {
		return
	}
	n.w.stats.Crashes++
	n.d = nil
	n.frozen, n.deferred = false, nil
	n.disk.crash(n.w)
	n.w.say("%s: the daemon is dead", n.name)
}

// crash kills the daemon and starts it again after a while.
func (n *node) crash(d time.Duration) {
	if n.d == nil {
		return
	}
	n.kill()
	n.startAfter(d)
}

func (n *node) startAfter(d time.Duration) {
	boot := n.boot
	n.w.after(d, func() {
		if n.on && n.boot == boot && n.d == nil {
			n.start()
		}
	})
}
