package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// The back-off of restarts, and how long something has to run well for its
// crashes to be forgotten.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
	stableAfter  = time.Minute
)

// stopGrace is what an init gets beyond the stop timeout before it is killed itself.
const stopGrace = 500 * time.Millisecond

// unit is one name under supervision. Its goroutine (run) takes it from start
// to the proof that nothing of it is left.
type unit struct {
	g    *Guard
	spec Spec
	prog *program // nil for hooks
	sig  int
	out  *outputLog
	// leased units end with the deadline. One without is for hooks that stop
	// or ask, which must work also when the lease is gone.
	leased bool

	started chan struct{} // closed when the first start has succeeded or failed
	stopped chan struct{} // closed when it is proven that nothing of it lives, nor will
	stop    chan struct{} // closed when it is asked to stop
	hooks   chan struct{} // one token: hooks of a unit run one at a time

	mu       sync.Mutex
	state    UnitState
	text     string
	since    time.Time
	startErr error
	cur      *birth
	asked    bool // stop is closed
	timeout  time.Duration
	restarts int
	inARow   int // crashes without a stable minute between them
	lastExit string
	hook     string
	hookSeq  uint64
	hookUp   bool // a start hook has ended well
}

func newUnit(g *Guard, spec Spec, prog *program, sig int, out *outputLog, leased bool) *unit {
	u := &unit{
		g: g, spec: spec, prog: prog, sig: sig, out: out, leased: leased,
		started: make(chan struct{}), stopped: make(chan struct{}), stop: make(chan struct{}), hooks: make(chan struct{}, 1),
		state: UnitStarting, since: time.Now(), timeout: spec.StopTimeout,
	}
	u.hooks <- struct{}{}
	return u
}

// run is the life of the unit.
func (u *unit) run() {
	defer close(u.stopped)
	backoff := firstBackoff
	for first := true; ; first = false {
		began := time.Now()
		b, err := u.bear()
		if first {
			u.mu.Lock()
			u.startErr = err
			u.mu.Unlock()
		}
		if err == nil {
			u.become(b, first)
		}
		if first {
			close(u.started)
		}
		if err == nil {
			u.await(b)
		}
		if b.gone != nil {
			<-b.gone
		}
		u.g.lease.doom(b)
		u.g.records.remove(u.spec.Name)
		if time.Since(began) >= u.g.stable {
			backoff = firstBackoff
			u.mu.Lock()
			u.inARow = 0
			u.mu.Unlock()
		}
		if u.finish(b, err, first) {
			return
		}
		select {
		case <-u.stop:
			u.set(UnitStopped, "stopped while it waited to be restarted")
			return
		case <-u.g.closing:
			u.set(UnitStopped, "the guard is ending")
			return
		case <-time.After(backoff):
			backoff = min(2*backoff, maxBackoff)
		}
		if err := u.g.lease.check(u.spec.Session); err != nil {
			u.set(UnitKilled, "not restarted: "+err.Error())
			return
		}
	}
}

// bear starts a life of the unit.
func (u *unit) bear() (*birth, error) {
	b := &birth{}
	if u.leased {
		if err := u.g.lease.enter(b, u.spec.Session); err != nil {
			return b, err
		}
	}
	failpoint.Here("guard.unit.entered")
	group, err := u.g.makeGroup(u.spec)
	if err != nil {
		return b, fmt.Errorf("%w: %w", ErrStart, err)
	}
	failpoint.Here("guard.unit.grouped")
	err = u.g.nursery.bear(b, birthOptions{
		unit: u.spec.Name, leased: u.leased, group: group,
		output: func(p []byte) { u.out.Write(p) },
		record: func(b *birth) error { return u.g.records.add(u.spec, b) },
		order: order{
			Op: "setup", Kind: u.spec.Kind, Program: u.prog, StopSignal: u.sig,
			Tasks: u.spec.Tasks, ShareMounts: u.spec.ShareMounts,
		},
	})
	return b, err
}

func (u *unit) become(b *birth, first bool) {
	u.mu.Lock()
	u.cur, u.state, u.text, u.since = b, UnitRunning, b.text, time.Now()
	kind := EventStarted
	if !first {
		u.restarts++
		kind = EventRestarted
	}
	u.mu.Unlock()
	failpoint.Here("guard.unit.runs")
	u.event(kind, fmt.Sprintf("init %d", b.pid))
}

// await waits until the life ends, by itself or because it is asked to.
func (u *unit) await(b *birth) {
	select {
	case <-b.gone:
		return
	case <-u.stop:
	}
	u.mu.Lock()
	timeout := u.timeout
	u.mu.Unlock()
	failpoint.Here("guard.stop.before")
	if err := b.tell(order{Op: "stop", Timeout: timeout}); err != nil {
		b.kill("stop: no link to its init")
	}
	select {
	case <-b.gone:
	case <-time.After(timeout + stopGrace):
		b.kill("did not stop in time")
	}
}

// finish decides what the end of a life means. It reports whether that was the last.
func (u *unit) finish(b *birth, err error, first bool) bool {
	why := ""
	if b.gone != nil {
		why = b.doomedBy()
		u.mu.Lock()
		u.cur, u.hook, u.hookUp = nil, "", false
		if s := b.exit(); s != "" {
			u.lastExit = s
		}
		u.mu.Unlock()
	}
	u.mu.Lock()
	asked, last := u.asked, u.lastExit
	u.mu.Unlock()
	switch {
	case why == atDeadline || errors.Is(err, ErrNoLease):
		u.set(UnitKilled, "the deadline of its lease was reached")
		u.event(EventKilled, "the deadline of its lease was reached")
	case asked:
		text := "stopped"
		if last != "" {
			text = "stopped: " + last
		}
		if why != "" {
			text += ", killed: " + why
		}
		u.set(UnitStopped, text)
		u.event(EventStopped, text)
	case err != nil && first:
		u.set(UnitFailed, err.Error())
		u.event(EventFailed, err.Error())
	case u.spec.Kind == KindHooks:
		text := "its init ended"
		if why != "" {
			text = why
		}
		u.set(UnitFailed, text)
		u.event(EventFailed, text)
	default:
		return u.crashed(err, last)
	}
	return true
}

// crashed answers a crash by a restart, or gives up.
func (u *unit) crashed(err error, how string) bool {
	if err != nil {
		how = err.Error()
	}
	u.event(EventExited, how)
	u.mu.Lock()
	u.inARow++
	n := u.inARow
	u.mu.Unlock()
	if n > u.spec.Restarts {
		text := fmt.Sprintf("%s; crashes in a row: %d, restarts allowed: %d", how, n, u.spec.Restarts)
		u.set(UnitFailed, text)
		u.event(EventFailed, text)
		return true
	}
	u.set(UnitBackoff, how)
	return false
}

// ask makes the unit stop; a shorter timeout than the first is not taken.
func (u *unit) ask(timeout time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.asked {
		return
	}
	u.asked = true
	if timeout > 0 {
		u.timeout = timeout
	}
	if !u.state.Gone() {
		u.state, u.text, u.since = UnitStopping, "asked to stop", time.Now()
	}
	close(u.stop)
}

// proven waits for the proof that nothing of the unit lives.
func (u *unit) proven(ctx context.Context) error {
	select {
	case <-u.stopped:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-u.stopped:
		return nil
	default:
	}
	u.mu.Lock()
	b := u.cur
	u.mu.Unlock()
	what := "its init has not ended"
	if b != nil && b.group != nil {
		if empty, err := b.group.Empty(); err == nil && !empty {
			what = "its cgroup " + b.group.Path() + " is not empty"
		}
	}
	return fmt.Errorf("%w: %s: %s (a process in state D waits for a disk)", ErrNotProven, u.spec.Name, what)
}

func (u *unit) set(s UnitState, text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state, u.text, u.since = s, text, time.Now()
}

func (u *unit) event(kind EventKind, text string) {
	if !u.leased {
		return // a hook that asks every few seconds is no news
	}
	u.g.events.add(Event{Kind: kind, Unit: u.spec.Name, Session: u.spec.Session, Epoch: u.spec.Epoch, Text: text})
}

// same reports whether the unit is what the spec asks for.
func (u *unit) same(s Spec) bool {
	return u.spec.Session == s.Session && u.spec.Epoch == s.Epoch && u.spec.Kind == s.Kind && u.leased
}

func (u *unit) gone() bool {
	select {
	case <-u.stopped:
		return true
	default:
		return false
	}
}

func (u *unit) show() Running {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := Running{
		Name: u.spec.Name, Kind: u.spec.Kind, Session: u.spec.Session, Epoch: u.spec.Epoch,
		State: u.state, Text: u.text, Since: u.since, Restarts: u.restarts, LastExit: u.lastExit,
		Leased: u.leased, Dropped: u.out.droppedBytes(), Hook: u.hook, HookStarted: u.hookUp,
	}
	if b := u.cur; b != nil {
		r.Pid, r.Proc, r.UserNS = b.pid, b.proc, b.userNS
		if b.group != nil {
			r.Cgroup = b.group.Path()
		}
		if b.doomedBy() != "" && !r.State.Gone() {
			r.State = UnitStopping
		}
	}
	return r
}
