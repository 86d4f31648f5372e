package guard

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// Whatever the clock that timers run on is slewed by, the kernel's timer ends
// a dead guard within Kappa after the deadline, and not before nine tenths of
// the time left when it was armed.
func TestKernelTimerUnderSlew(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		left := time.Duration(rapid.Int64Range(0, int64(maxLease)).Draw(t, "left"))
		slew := rapid.Float64Range(-0.1, 0.1).Draw(t, "slew") // of CLOCK_BOOTTIME
		now := Deadline{Boot: time.Duration(rapid.Int64Range(1, 1<<60).Draw(t, "boot")), Raw: time.Duration(rapid.Int64Range(1, 1<<60).Draw(t, "raw"))}
		d := now.Add(left)
		at := kernelAt(now, d)
		// CLOCK_BOOTTIME gains (1 + slew) per true second; the lease ends when either clock is there.
		fires := time.Duration(float64(at-now.Boot) / (1 + slew))
		ends := min(left, time.Duration(float64(left)/(1+slew)))
		if late := fires - ends; late > 17*time.Millisecond {
			t.Fatalf("fires %v after a lease of %v at slew %v", late, left, slew)
		}
		if early := ends - fires; early > time.Duration(0.1001*float64(left)) {
			t.Fatalf("fires %v before the end of a lease of %v at slew %v", early, left, slew)
		}
	})
}

// A living guard looks again well before the kernel's timer would end it.
func TestGuardWakesBeforeTheKernelsTimer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		left := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(maxLease)).Draw(t, "left"))
		now := Deadline{Boot: time.Hour, Raw: 2 * time.Hour}
		d := now.Add(left)
		slack := kernelAt(now, d) - wakeAt(now, d)
		if slack < kernelMargin-2*time.Millisecond {
			t.Fatalf("with %v left only %v between the two", left, slack)
		}
		if w := wakeAt(now, d); w <= now.Boot || w > d.Boot {
			t.Fatalf("wakes at %v, deadline %v", w, d.Boot)
		}
	})
}

func TestDeadlineLeftIsTheShorter(t *testing.T) {
	now := Deadline{Boot: 100, Raw: 200}
	for _, c := range []struct {
		d    Deadline
		want time.Duration
	}{
		{Deadline{110, 230}, 10}, {Deadline{130, 210}, 10}, {Deadline{100, 300}, 0}, {Deadline{300, 190}, -10},
	} {
		if got := c.d.Left(now); got != c.want {
			t.Errorf("%v: %d, want %d", c.d, got, c.want)
		}
	}
}

func newTestLease(t *testing.T) (*lease, chan []*birth) {
	t.Helper()
	fired := make(chan []*birth, 10)
	l, err := newLease(false, func(v []*birth) { fired <- v })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l, fired
}

func (l *lease) extendBy(t *testing.T, session uint64, left time.Duration) error {
	t.Helper()
	return l.extend(session, now(t).Add(left))
}

func TestLeaseRules(t *testing.T) {
	l, fired := newTestLease(t)
	b := &birth{}
	defer func() { _ = l.doom(b) }() // disarms the timer that would end this test
	steps := []struct {
		what string
		do   func() error
		want error
	}{
		{"enter without a deadline", func() error { return l.enter(b, 1) }, ErrNoLease},
		{"extend without a session", func() error { return l.extendBy(t, 0, time.Hour) }, ErrRefused},
		{"extend by too much", func() error { return l.extendBy(t, 1, time.Hour) }, ErrRefused},
		{"extend into the past", func() error { return l.extendBy(t, 1, -time.Second) }, ErrNoLease},
		{"one clock alone", func() error { return l.extend(1, Deadline{Boot: now(t).Boot + time.Minute}) }, ErrRefused},
		{"extend", func() error { return l.extendBy(t, 1, time.Minute) }, nil},
		{"enter under another session", func() error { return l.enter(b, 2) }, ErrSession},
		{"enter", func() error { return l.enter(b, 1) }, nil},
		{"another session beside it", func() error { return l.extendBy(t, 2, time.Minute) }, ErrSession},
		{"release beside it", l.release, ErrConflict},
		{"never backwards", func() error { return l.extendBy(t, 1, time.Second) }, nil},
		{"it ends", func() error { return l.doom(b) }, nil},
		{"another session now", func() error { return l.extendBy(t, 2, 50*time.Millisecond) }, nil},
		{"the old one comes late", func() error { return l.extendBy(t, 1, time.Minute) }, nil},
		{"release", l.release, nil},
		{"nothing left to enter", func() error { return l.enter(b, 1) }, ErrNoLease},
	}
	for _, s := range steps {
		if err := s.do(); !errors.Is(err, s.want) || (s.want == nil) != (err == nil) {
			t.Fatalf("%s: %v, want %v", s.what, err, s.want)
		}
		if s.what == "never backwards" {
			if _, d, _ := l.status(); d.Left(now(t)) < 30*time.Second {
				t.Fatalf("moved backwards: %v left", d.Left(now(t)))
			}
		}
	}
	select {
	case v := <-fired:
		t.Errorf("a deadline was reached with %d victims", len(v))
	default:
	}
}

// An Extend that comes after the deadline, before anybody acted on it, does
// not save what should have ended.
func TestLateExtendActsOnTheOldDeadline(t *testing.T) {
	l, fired := newTestLease(t)
	b := &birth{}
	defer func() { _ = l.doom(b) }()
	if err := l.extendBy(t, 1, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := l.enter(b, 1); err != nil {
		t.Fatal(err)
	}
	// As if the deadline thread had not run for a while: it has passed unseen.
	l.mu.Lock()
	l.deadline = now(t).Add(-time.Millisecond)
	l.mu.Unlock()
	if err := l.extendBy(t, 1, time.Minute); err != nil {
		t.Fatal(err)
	}
	select {
	case v := <-fired:
		if len(v) != 1 || v[0] != b {
			t.Errorf("victims %v", v)
		}
	default:
		t.Error("nothing was ended")
	}
	if _, d, lapses := l.status(); lapses != 1 || d.Left(now(t)) <= 0 {
		t.Errorf("lapses %d, left %v", lapses, d.Left(now(t)))
	}
}

// The deadline is acted upon when either clock is there, though timers run on one.
func TestEitherClockEndsTheLease(t *testing.T) {
	for name, d := range map[string]Deadline{
		"boot": {Boot: 60 * time.Millisecond, Raw: time.Minute},
		"raw":  {Boot: time.Minute, Raw: 60 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			l, fired := newTestLease(t)
			n := now(t)
			at := Deadline{Boot: n.Boot + d.Boot, Raw: n.Raw + d.Raw}
			if err := l.extend(1, at); err != nil {
				t.Fatal(err)
			}
			select {
			case <-fired:
			case <-time.After(long):
				t.Fatal("not acted upon")
			}
			if left := at.Left(now(t)); left > 0 {
				t.Errorf("acted upon %v too early", left)
			}
		})
	}
}

func TestKernelTimerCanBeMadeAndDisarmed(t *testing.T) {
	k, err := newKernelTimer()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.arm(now(t).Boot + time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := k.arm(0); err != nil {
		t.Fatal(err)
	}
	k.close()
	if err := k.arm(0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("armed after its end: %v", err)
	}
}
