package guard

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// kernelMargin is how long after the deadline the kernel's timer kills a guard
// that has not acted. It leaves a living guard the time to do it in order, and
// with the time that dying takes (some 10 ms) it stays well below Kappa.
const kernelMargin = 15 * time.Millisecond

// slewFactor: CLOCK_BOOTTIME, the only one of the two clocks that timers can
// be set on, may be slewed by up to 10 %. A timer set to 0.9 of the time left
// is never late by CLOCK_MONOTONIC_RAW, which is not slewed. What that gives
// away a living guard takes back, by setting it anew as the deadline comes near.
const slewFactor = 0.9

// kernelAt is when, by CLOCK_BOOTTIME, the kernel has to kill the guard. Run
// with a clock slewed by ten percent it is at most left + 17 ms of true time away.
func kernelAt(now, deadline Deadline) time.Duration {
	left := max(deadline.Left(now), 0)
	return min(deadline.Boot, now.Boot+time.Duration(slewFactor*float64(left))) + kernelMargin
}

// wakeAt is when the deadline thread looks again: at half of the time left,
// so that neither slew nor the caution of kernelAt matters at the end.
func wakeAt(now, deadline Deadline) time.Duration {
	left := deadline.Left(now)
	if left > 20*time.Millisecond {
		left /= 2
	}
	return now.Boot + max(left, 1)
}

// lease keeps the deadline: on a thread of its own and, for the case that this
// thread does not run, in the kernel. Nothing here waits for anything slow, so
// that Extend is answered in microseconds.
type lease struct {
	fd    int          // timerfd on CLOCK_BOOTTIME
	timer *kernelTimer // nil: the kernel refused, timerErr says why

	timerErr error
	// expired is called when the deadline is reached, with what has to be
	// killed. It runs on the deadline thread, or on that of an Extend that came late.
	expired func(victims []*birth)

	mu       sync.Mutex
	session  uint64
	deadline Deadline
	over     bool // the deadline was reached and acted upon
	lapses   uint64
	live     map[*birth]struct{} // leased, and not sure to die yet
	closing  bool
	done     chan struct{}

	realtime chan error // what became of the wish for SCHED_FIFO
}

// newLease starts the deadline thread. It has no deadline yet: nothing may be started.
func newLease(realtime bool, expired func([]*birth)) (*lease, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the deadline's timer: %w", err)
	}
	l := &lease{fd: fd, expired: expired, live: map[*birth]struct{}{}, done: make(chan struct{}), realtime: make(chan error, 1)}
	l.timer, l.timerErr = newKernelTimer()
	go l.watch(realtime)
	return l, nil
}

// watch is the deadline thread.
func (l *lease) watch(realtime bool) {
	defer close(l.done)
	runtime.LockOSThread() // never unlocked: the thread has a priority of its own
	if realtime {
		l.realtime <- setRealtime()
	} else {
		l.realtime <- errNotAsked
	}
	buf := make([]byte, 8)
	for {
		if _, err := unix.Read(l.fd, buf); err != nil && !errors.Is(err, unix.EINTR) {
			// A timer that cannot be read leaves the deadline to the kernel's; what
			// is supervised must not outlive it, so end it now.
			l.expireNow()
			return
		}
		if l.look() {
			return
		}
	}
}

// look acts on the deadline if it is reached. It reports whether to end.
func (l *lease) look() (end bool) {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return true
	}
	now, err := Now()
	if err == nil && (l.deadline.IsZero() || l.over) {
		l.mu.Unlock()
		return false
	}
	if err == nil && l.deadline.Left(now) > 0 {
		err = l.armLocked(now)
		if err == nil {
			l.mu.Unlock()
			return false
		}
	}
	// Reached, or the clocks or timers fail: without them there is no lease.
	victims := l.expireLocked()
	l.mu.Unlock()
	l.expired(victims)
	return false
}

func (l *lease) expireNow() {
	l.mu.Lock()
	victims := l.expireLocked()
	l.mu.Unlock()
	l.expired(victims)
}

// expireLocked marks the deadline as reached. The victims stay counted, and so
// the kernel's timer armed, until doom says that their end is certain.
func (l *lease) expireLocked() []*birth {
	l.over = true
	l.lapses++
	victims := make([]*birth, 0, len(l.live))
	for b := range l.live {
		victims = append(victims, b)
	}
	return victims
}

// extend moves the deadline of a session, never backwards. Another session's
// is taken only when nothing is supervised under the old one.
func (l *lease) extend(session uint64, d Deadline) error {
	if session == 0 || d.Boot <= 0 || d.Raw <= 0 {
		return fmt.Errorf("%w: a deadline needs a session and both clocks", ErrRefused)
	}
	now, err := Now()
	if err != nil {
		return err
	}
	if left := d.Left(now); left <= 0 {
		return fmt.Errorf("%w: the deadline passed %v ago", ErrNoLease, -left)
	} else if left > maxLease {
		return fmt.Errorf("%w: a deadline %v ahead; the longest lease is %v", ErrRefused, left, maxLease)
	}
	l.mu.Lock()
	if l.session != session {
		if len(l.live) > 0 {
			err := fmt.Errorf("%w: services of session %d are still supervised; stop them before session %d begins", ErrSession, l.session, session)
			l.mu.Unlock()
			return err
		}
		l.session, l.deadline, l.over = session, Deadline{}, false
	}
	// A deadline that passed unseen is acted upon before a new one counts:
	// nobody serves past it, whoever was late.
	var victims []*birth
	late := !l.deadline.IsZero() && !l.over && l.deadline.Left(now) <= 0
	if late {
		victims = l.expireLocked()
	}
	failpoint.Here("guard.extend.before")
	l.deadline, l.over = l.deadline.later(d), false
	err = l.armLocked(now)
	failpoint.Here("guard.extended")
	l.mu.Unlock()
	if late {
		l.expired(victims)
	}
	return err
}

// maxLease bounds what Extend accepts: a value beyond it is a mistake of units or clocks.
const maxLease = 10 * time.Minute

// armLocked sets both timers for the present deadline.
func (l *lease) armLocked(now Deadline) error {
	set := func(at time.Duration) error {
		spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
		if err := unix.TimerfdSettime(l.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
			return fmt.Errorf("arm the deadline's timer: %w", err)
		}
		return nil
	}
	if l.deadline.IsZero() || l.over {
		if err := set(0); err != nil {
			return err
		}
	} else if err := set(wakeAt(now, l.deadline)); err != nil {
		return err
	}
	return l.armKernelLocked(now)
}

// armKernelLocked arms the kernel's timer while something is supervised.
func (l *lease) armKernelLocked(now Deadline) error {
	if l.timer == nil {
		return nil // the guard says so in Info, and the daemon in its guarantee
	}
	if len(l.live) == 0 {
		return l.timer.arm(0)
	}
	failpoint.Here("guard.timer.before")
	return l.timer.arm(kernelAt(now, l.deadline))
}

// enter counts something that is about to be born under the lease, before it
// exists: from here on the deadline, and the kernel, will end it.
func (l *lease) enter(b *birth, session uint64) error {
	now, err := Now()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.checkLocked(session, now); err != nil {
		return err
	}
	failpoint.Here("guard.unit.enter")
	l.live[b] = struct{}{}
	if err := l.armKernelLocked(now); err != nil {
		delete(l.live, b)
		return err
	}
	return nil
}

// check says whether something may be started under the session now.
func (l *lease) check(session uint64) error {
	now, err := Now()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.checkLocked(session, now)
}

func (l *lease) checkLocked(session uint64, now Deadline) error {
	switch {
	case l.closing:
		return fmt.Errorf("%w: the guard is ending", ErrRefused)
	case l.deadline.IsZero():
		return fmt.Errorf("%w: no deadline was set yet", ErrNoLease)
	case session != l.session:
		return fmt.Errorf("%w: the deadline is that of session %d, not of %d", ErrSession, l.session, session)
	case l.over || l.deadline.Left(now) <= 0:
		return fmt.Errorf("%w: the deadline passed %v ago", ErrNoLease, -l.deadline.Left(now))
	}
	return nil
}

// doom takes out of the count what is gone, or what SIGKILL has been sent to:
// it will run no further instruction of its own, so the kernel's timer has
// nothing to add, and a guard that waits for a slow death is not killed for it.
func (l *lease) doom(bs ...*birth) error {
	now, err := Now()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range bs {
		delete(l.live, b)
	}
	if len(l.live) > 0 {
		return nil // armed already, for the same deadline
	}
	return l.armKernelLocked(now)
}

// release forgets session and deadline; refused while anything is supervised.
func (l *lease) release() error {
	now, err := Now()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.live) > 0 {
		return fmt.Errorf("%w: %d services are supervised", ErrConflict, len(l.live))
	}
	l.session, l.deadline, l.over = 0, Deadline{}, false
	return l.armLocked(now)
}

// status is what Info shows.
func (l *lease) status() (session uint64, d Deadline, lapses uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session, l.deadline, l.lapses
}

// close ends the deadline thread. Nothing may be supervised any more.
func (l *lease) close() {
	l.mu.Lock()
	l.closing = true
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(1)}
	err := unix.TimerfdSettime(l.fd, 0, &spec, nil)
	l.mu.Unlock()
	if err == nil {
		<-l.done
		unix.Close(l.fd)
	}
	if l.timer != nil {
		l.timer.close()
	}
}
