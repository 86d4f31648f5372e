package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// stopLimit bounds one attempt to stop all resources of a service; each
// resource has a shorter limit of its own.
const stopLimit = 2 * time.Minute

// retryStop is the pause between two stops that could not be proven, and
// stuckAfter how many of them make the node let its lease run out instead.
const (
	retryStop  = time.Second
	stuckAfter = 3
)

// retryStart is the pause after a start that came too late for its lease: the
// guard and the gate learn of the renewal that followed within that time.
const retryStart = 100 * time.Millisecond

// unit is one service on this node: what of it runs, and the one operation
// that is under way. Operations never overlap; a stop cancels a start.
type unit struct {
	name string
	host *unitHost
	log  *slog.Logger

	mu          sync.Mutex
	phase       decide.Phase
	epoch       uint64
	gen         uint64
	spec        state.Spec
	since       time.Time
	resources   []Resource
	states      map[string]ResourceStatus
	failed      string
	reported    uint64 // applied index from which the state shows the reported failure; 0: not reported
	busy        bool
	interrupt   context.CancelFunc // ends the start or the watch under way
	watched     chan struct{}      // closed when the watch has ended; nil: none
	retry       time.Time          // not before this is tried again what could not be done
	interrupted int                // starts in a row that were
	unproven    int                // stops in a row that could not be proven
	wg          tasks

	unbuilt bool   // what kept describes may run here, and its resources could not be made yet
	kept    []byte // the journal's note of it
}

// unitHost is what a unit needs of its node.
type unitHost struct {
	ctx     context.Context // ends when the node stops for good
	builder Builder
	records records
	left    func() time.Duration // of the lease
	until   func() (clock.Reading, bool)
	wake    func()
	now     func() time.Time
}

// records is the part of the journal that a unit writes.
type records interface {
	Active(service string, epoch, generation uint64, note []byte) error
	Releasing(service string, epoch uint64) error
}

// note is what the journal keeps of an active epoch: enough to stop it after
// its specification has changed or the state is not loaded yet.
type note struct {
	Spec   state.Spec `json:"spec"`
	Origin Origin     `json:"origin"`
}

func newUnit(name string, host *unitHost, log *slog.Logger) *unit {
	return &unit{name: name, host: host, log: log.With("service", name), phase: decide.PhaseStopped, states: map[string]ResourceStatus{}}
}

// local is the unit as decide sees it.
func (u *unit) local(applied uint64, failedInState bool) decide.Local {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.reported != 0 && applied >= u.reported && !failedInState {
		// An operator has forgotten the failure: it may be tried again.
		u.failed, u.reported, u.interrupted = "", 0, 0
	}
	return decide.Local{Epoch: u.epoch, Phase: u.phase, Generation: u.gen, Failed: u.failed, Reported: u.reported != 0}
}

// begin claims the unit for one operation; false while another is under way,
// or so soon after a stop that could not be proven.
func (u *unit) begin(phase decide.Phase) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.busy || u.host.now().Before(u.retry) {
		return false
	}
	u.busy = true
	u.setPhase(phase)
	return true
}

func (u *unit) setPhase(p decide.Phase) {
	if u.phase != p {
		u.phase, u.since = p, u.host.now()
	}
}

func (u *unit) end(phase decide.Phase) {
	u.mu.Lock()
	u.busy = false
	u.setPhase(phase)
	if phase == decide.PhaseUnknown {
		u.unproven++
		u.retry = u.host.now().Add(retryStop)
	} else {
		u.unproven = 0
	}
	u.mu.Unlock()
	u.host.wake()
}

// delay keeps what has just failed from being tried again for that long.
func (u *unit) delay(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.retry = u.host.now().Add(d)
}

// stuck reports whether stops have failed so often that only the end of the
// lease, which the guard and the kernel enforce, can still prove it.
func (u *unit) stuck() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.unproven >= stuckAfter
}

// cut ends a start or a monitor that is under way, so that a stop can begin.
func (u *unit) cut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.interrupt != nil {
		u.interrupt()
	}
}

// activate journals the epoch as active and starts it. It returns at once.
func (u *unit) activate(epoch, gen uint64, spec state.Spec, origin Origin) {
	if !u.begin(decide.PhaseStarting) {
		return
	}
	ctx, cancel := context.WithCancel(u.host.ctx)
	u.mu.Lock()
	u.interrupt = cancel
	u.epoch, u.gen, u.spec, u.failed, u.reported = epoch, gen, spec, "", 0
	u.mu.Unlock()
	u.wg.Go(func() {
		err := u.start(ctx, spec, origin)
		if err == nil {
			failpoint.Here("unit.runs")
			u.mu.Lock()
			u.interrupted = 0
			u.mu.Unlock()
			u.log.Info("service runs", "epoch", epoch)
			u.watch(ctx)
			u.end(decide.PhaseRunning)
			return
		}
		cut := ctx.Err() != nil
		cancel()
		u.log.Error("service did not start", "epoch", epoch, "err", err)
		u.stopAfterFailure(err, cut)
	})
}

func (u *unit) start(ctx context.Context, spec state.Spec, origin Origin) error {
	kept, err := json.Marshal(note{Spec: spec, Origin: origin})
	if err != nil {
		return fmt.Errorf("note service: %w", err)
	}
	failpoint.Here("unit.active.before")
	if err := u.host.records.Active(u.name, origin.Epoch, u.gen, kept); err != nil {
		return fmt.Errorf("%w: journal epoch %d: %w", errNotRecorded, origin.Epoch, err)
	}
	failpoint.Here("unit.active.journaled")
	list, err := u.host.builder.Build(spec, origin)
	if err != nil {
		return fmt.Errorf("build resources: %w", err)
	}
	u.mu.Lock()
	u.resources = list
	u.mu.Unlock()
	if err := u.arm(); err != nil {
		return err
	}
	failpoint.Here("unit.armed")
	for _, r := range list {
		if err := u.startOne(ctx, r, origin.Epoch); err != nil {
			return err
		}
	}
	return nil
}

// startOne starts a resource, unless the lease ran out meanwhile.
func (u *unit) startOne(ctx context.Context, r Resource, epoch uint64) error {
	if u.host.left() <= 0 {
		return ErrLapsed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	u.setState(r, "starting", "")
	failpoint.Here("unit.start.before")
	if err := r.Start(ctx, epoch); err != nil {
		u.setState(r, "failed", err.Error())
		return fmt.Errorf("start %s: %w", r.Name(), err)
	}
	failpoint.Here("unit.started")
	u.setState(r, "running", "")
	return nil
}

// ErrLapsed is what a Resource's Start and Arm fail with, wrapped, when the
// lease that they were given was over: that says nothing against the service.
var ErrLapsed = errors.New("the lease ran out")

// errNotRecorded means that a start could not be written down, for want of room:
// nothing of the service was begun, and nothing is said against it.
var errNotRecorded = errors.New("not begun")

// retryRecord is the pause after a start that could not be written down.
const retryRecord = time.Second

// ErrInterrupted is what a Resource's Start fails with, wrapped, when something
// of this node's own broke off under it, the guard above all: that says nothing
// against the service.
var ErrInterrupted = errors.New("interrupted")

// maxInterrupted is how many starts in a row may be interrupted before that
// counts as a failure: the service may be what kills the guard, or another node
// the better place.
const maxInterrupted = 3

// arm gives the time that is left to every resource that the kernel bounds.
func (u *unit) arm() error {
	u.mu.Lock()
	list := u.resources
	u.mu.Unlock()
	for _, r := range list {
		a, ok := r.(Armed)
		if !ok {
			continue
		}
		until, held := u.host.until()
		if !held || u.host.left() <= 0 {
			return ErrLapsed
		}
		if err := a.Arm(until); err != nil {
			return fmt.Errorf("arm %s: %w", r.Name(), err)
		}
	}
	return nil
}

// holding reports whether something may be active, so that renewals must arm it.
func (u *unit) holding() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.phase == decide.PhaseStarting || u.phase == decide.PhaseRunning
}

// stopAfterFailure proves that nothing of a failed start is left. A start that
// was cut short is no failure of the service.
func (u *unit) stopAfterFailure(cause error, cut bool) {
	u.mu.Lock()
	u.setPhase(decide.PhaseStopping)
	u.mu.Unlock()
	failpoint.Here("unit.failed")
	// Whoever finds the lease gone first says so, the guard or the gate: the
	// service is not broken by that, though the lease may have been renewed since.
	late := errors.Is(cause, ErrLapsed)
	lapsed := late || u.host.left() <= 0
	err := u.stopAll()
	u.mu.Lock()
	again := late
	switch {
	case errors.Is(cause, errNotRecorded):
		// The leader takes the epoch away if this goes on, as from any holder that
		// does not begin; when the disk has room again this node may hold again.
		u.epoch = 0
	case cut || lapsed:
	case errors.Is(cause, ErrInterrupted) && u.interrupted < maxInterrupted:
		u.interrupted++
		again = true
	default:
		u.failed = cause.Error()
	}
	u.mu.Unlock()
	switch {
	case errors.Is(cause, errNotRecorded):
		u.delay(retryRecord)
	case again:
		u.delay(retryStart)
	}
	if err != nil {
		u.log.Error("cannot prove that the service stopped", "err", err)
		u.end(decide.PhaseUnknown)
		return
	}
	u.end(decide.PhaseStopped)
}

// stopAll stops every resource, last first, and goes on after an error: what
// can be stopped is stopped. A watch that is under way has ended before.
func (u *unit) stopAll() error {
	u.mu.Lock()
	watched := u.watched
	u.mu.Unlock()
	if watched != nil {
		<-watched
	}
	if err := u.build(); err != nil {
		return err // an empty list would prove nothing
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.host.ctx), stopLimit)
	defer cancel()
	u.mu.Lock()
	list := u.resources
	u.mu.Unlock()
	var errs []error
	for i := len(list) - 1; i >= 0; i-- {
		r := list[i]
		u.setState(r, "stopping", "")
		failpoint.Here("unit.stop.before")
		if err := r.Stop(ctx); err != nil {
			u.setState(r, "unknown", err.Error())
			errs = append(errs, fmt.Errorf("stop %s: %w", r.Name(), err))
			continue
		}
		failpoint.Here("unit.stop.done")
		u.setState(r, "stopped", "")
	}
	return errors.Join(errs...)
}

// stop stops without giving up; then runs when everything is proven stopped.
func (u *unit) stop(why string, then func() error) {
	if !u.begin(decide.PhaseStopping) {
		if u.starting() {
			u.cut()
		}
		return
	}
	u.cut()
	u.log.Info("service stops", "epoch", u.epoch, "why", why)
	u.wg.Go(func() {
		if err := u.stopAll(); err != nil {
			u.log.Error("cannot prove that the service stopped", "err", err)
			u.end(decide.PhaseUnknown)
			return
		}
		u.mu.Lock()
		u.resources = nil
		u.mu.Unlock()
		failpoint.Here("unit.stopped")
		if then != nil {
			if err := then(); err != nil {
				u.delay(retryStop)
			}
		}
		u.end(decide.PhaseStopped)
	})
}

// releasing journals that an epoch was never started or is proven stopped. It
// takes its turn with the unit's operations, so that no start of that epoch
// can be under way.
func (u *unit) releasing(epoch uint64) error {
	u.mu.Lock()
	if u.busy || u.epoch == epoch && u.phase != decide.PhaseStopped {
		u.mu.Unlock()
		return errBusy
	}
	u.busy = true
	u.mu.Unlock()
	failpoint.Here("unit.release.before")
	err := u.host.records.Releasing(u.name, epoch)
	u.mu.Lock()
	u.busy = false
	u.mu.Unlock()
	return err
}

var errBusy = errors.New("an operation on the service is under way")

// prepare makes everything ready that a start can do in advance.
func (u *unit) prepare(ctx context.Context, spec state.Spec, ignore []net.HardwareAddr) error {
	if u.holding() {
		return nil
	}
	failpoint.Here("unit.prepare.before")
	list, err := u.host.builder.Build(spec, Origin{Service: u.name})
	if err != nil {
		return fmt.Errorf("build resources: %w", err)
	}
	for _, r := range list {
		if p, ok := r.(Preparer); ok {
			if err := p.Prepare(ctx, ignore); err != nil {
				return fmt.Errorf("prepare %s: %w", r.Name(), err)
			}
		}
	}
	return nil
}

// announce tells the neighbours again where the service is.
func (u *unit) announce(ctx context.Context) {
	u.mu.Lock()
	list := u.resources
	running := u.phase == decide.PhaseRunning
	u.mu.Unlock()
	if !running {
		return
	}
	for _, r := range list {
		if a, ok := r.(Announcer); ok {
			if err := a.Announce(ctx); err != nil {
				u.log.Warn("cannot announce", "resource", r.Name(), "err", err)
			}
		}
	}
}

func (u *unit) starting() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.phase == decide.PhaseStarting
}

func (u *unit) markReported(index uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reported = index
}

func (u *unit) setState(r Resource, s, text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	kind := ""
	for _, rs := range u.spec.Resources {
		if rs.Name == r.Name() {
			kind = rs.Kind
		}
	}
	u.states[r.Name()] = ResourceStatus{Name: r.Name(), Kind: kind, State: s, Text: text}
}

// report is the unit in words, for status.
func (u *unit) report() ServiceReport {
	u.mu.Lock()
	defer u.mu.Unlock()
	rep := ServiceReport{Name: u.name, Epoch: u.epoch, State: string(u.phase), Since: u.since}
	if u.failed != "" {
		rep.State = "failed"
	}
	seen := map[string]bool{}
	for _, r := range u.resources {
		if s, ok := u.states[r.Name()]; ok {
			rep.Resources = append(rep.Resources, s)
		}
		g, ok := r.(Guaranteed)
		if !ok {
			continue
		}
		for _, words := range g.Guarantee() {
			if !seen[words] {
				seen[words] = true
				rep.Guarantee = append(rep.Guarantee, words)
			}
		}
	}
	return rep
}
