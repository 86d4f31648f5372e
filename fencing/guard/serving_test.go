package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serving is a service whose processes have left their parents and sessions,
// and each write down when they ran last.
type serving struct {
	t      *testing.T
	beats  []string
	deaths *obituary
	stalls *stalls
}

// serve starts services and returns them when all of their processes serve.
func (r *rig) serve(names ...string) *serving {
	r.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	s := &serving{t: r.t, stalls: watchStalls(r.t)}
	var pids []int
	for _, name := range names {
		var b []string
		for i := range 3 {
			b = append(b, filepath.Join(r.dir, fmt.Sprintf("beat-%s-%d", name, i)))
			_ = os.Remove(b[i])
		}
		r.start(Spec{Name: name, Command: append(sh(`trap '' TERM HUP INT
setsid "$1" beat "$2" &
setsid sh -c 'setsid "$1" beat "$2" & exit' sh "$1" "$3" &
exec "$1" beat "$4"`), "sh", exe, b[0], b[1], b[2])})
		s.beats = append(s.beats, b...)
		u := r.await(name, UnitRunning)
		for _, path := range b {
			eventually(r.t, "beats of "+path, func() bool { _, ok := lastBeat(r.t, path); return ok })
		}
		pids = append(pids, tree(u.Pid)...)
	}
	s.deaths = watchDeaths(r.t, pids)
	return s
}

// serveUnder starts services under a lease that is extended until all serve,
// and for the last time then.
func (r *rig) serveUnder(left time.Duration, names ...string) (*serving, Deadline) {
	r.t.Helper()
	r.lease(left)
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			case <-time.After(left / 5):
				if d, err := Now(); err == nil {
					d = d.Add(left)
					_ = r.Extend(d.Boot, d.Raw)
				}
			}
		}
	}()
	s := r.serve(names...)
	close(end)
	<-done
	return s, r.lease(left)
}

// check waits for the end of all and asserts that it came no earlier than
// early before the deadline, and that none served later than Kappa after it,
// but for the time during which the machine itself stood still.
func (s *serving) check(what string, d Deadline, early time.Duration) {
	s.t.Helper()
	gone := s.deaths.last(s.t)
	stood := s.stalls.since(d)
	first, last := time.Hour, -time.Hour
	for _, path := range s.beats {
		b, ok := lastBeat(s.t, path)
		if !ok {
			s.t.Fatalf("no beat in %s", path)
		}
		first, last = min(first, -d.Left(b)), max(last, -d.Left(b))
	}
	s.t.Logf("%s: last served %.1f to %.1f ms, all %d processes reaped %.1f ms after the deadline; the machine stood still for %.1f ms",
		what, ms(first), ms(last), len(s.deaths.fds), ms(-d.Left(gone)), ms(stood))
	if last > Kappa+stood {
		s.t.Errorf("served %v after the deadline, bound %v", last, Kappa)
	}
	if by := -d.Left(gone); by < -early {
		s.t.Errorf("ended %v before the deadline", -by)
	}
}

// stalls watches for times during which even a thread of real-time priority
// did not get to run: the machine is a virtual one whose host was busy.
type stalls struct {
	mu    sync.Mutex
	times []struct{ from, to time.Duration } // CLOCK_BOOTTIME
	end   chan struct{}
	done  chan struct{}
}

func watchStalls(t *testing.T) *stalls {
	t.Helper()
	s := &stalls{end: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread ends with its priority
		_ = setRealtime()      // without it a wait for the processor counts as well
		last, err := Now()
		for err == nil {
			select {
			case <-s.end:
				return
			default:
			}
			_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(time.Millisecond)}, nil)
			var n Deadline
			if n, err = Now(); n.Boot-last.Boot > 5*time.Millisecond {
				s.mu.Lock()
				s.times = append(s.times, struct{ from, to time.Duration }{last.Boot, n.Boot})
				s.mu.Unlock()
			}
			last = n
		}
	}()
	t.Cleanup(func() { close(s.end); <-s.done })
	return s
}

// since adds up the stalls that ended after a deadline.
func (s *stalls) since(d Deadline) (sum time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.times {
		if x.to > d.Boot {
			sum += x.to - x.from
		}
	}
	return sum
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
