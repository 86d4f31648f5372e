package guard

import (
	"errors"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// left is how long the kernel waits yet before it kills this process; 0: it does not.
func (t *kernelTimer) left() time.Duration {
	var spec itimerspec
	unix.Syscall(unix.SYS_TIMER_GETTIME, uintptr(t.id), uintptr(unsafe.Pointer(&spec)), 0)
	return time.Duration(spec.value.Nano())
}

// The kernel's timer is armed from before something lives until its end is
// certain, and for no later than the deadline and the margin.
func TestKernelTimerIsArmedWhileSomethingLives(t *testing.T) {
	l, _ := newTestLease(t)
	if l.timer == nil {
		t.Skipf("no kernel timer here: %v; run below an init", l.timerErr)
	}
	b := &birth{}
	defer func() { _ = l.doom(b) }()
	if err := l.extendBy(t, 1, time.Minute); err != nil {
		t.Fatal(err)
	}
	if left := l.timer.left(); left != 0 {
		t.Errorf("armed for %v and nothing lives", left)
	}
	if err := l.enter(b, 1); err != nil {
		t.Fatal(err)
	}
	if left := l.timer.left(); left <= 0 || left > time.Minute+kernelMargin {
		t.Errorf("armed for %v while something lives for a minute", left)
	}
	if err := l.extendBy(t, 1, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	if left := l.timer.left(); left <= time.Minute || left > 2*time.Minute+kernelMargin {
		t.Errorf("armed for %v after an extension to two minutes", left)
	}
	if err := l.doom(b); err != nil {
		t.Fatal(err)
	}
	if left := l.timer.left(); left != 0 {
		t.Errorf("armed for %v after the end", left)
	}
}

// Nothing is started once the deadline has passed, whether somebody has acted on it or not.
func TestNothingStartsPastTheDeadline(t *testing.T) {
	l, _ := newTestLease(t)
	if err := l.extendBy(t, 1, time.Minute); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]func(){
		"passed unseen": func() { l.deadline, l.over = now(t).Add(-time.Second), false },
		"acted upon":    func() { l.deadline, l.over = now(t).Add(time.Minute), true },
	} {
		l.mu.Lock()
		set()
		l.mu.Unlock()
		if err := l.check(1); !errors.Is(err, ErrNoLease) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l.mu.Lock()
	l.deadline, l.over = Deadline{}, false
	l.mu.Unlock()
}

// CLOCK_BOOTTIME may lose a tenth: a timer on it is set to nine tenths.
func TestKernelTimerAllowsForSlew(t *testing.T) {
	from := Deadline{Boot: time.Hour, Raw: time.Hour}
	if at := kernelAt(from, from.Add(time.Minute)); at > from.Boot+54*time.Second+kernelMargin {
		t.Errorf("a deadline a minute away is enforced after %v", at-from.Boot)
	}
}
