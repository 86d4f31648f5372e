// Package exec runs hooks of the user's own as a resource of a service: start,
// stop and status.
//
// # Where hooks run, and what becomes of what they leave behind
//
// All hooks of one resource run, one at a time, in one unit of the guard: a PID
// namespace with a long-lived init of its own and, where there is one, a
// cgroup. What the start hook leaves behind (it may start a daemon and return)
// lives on in the unit and belongs to the service: it survives the failover
// daemon's crash and upgrade, it is killed at the lease's deadline by the
// guard, also when failoverd is frozen, or by the kernel if the guard is too,
// and it is gone for certain when the unit is. What stop and status hooks leave
// behind is killed when they end. After its timeout a hook and all that it
// started are killed, and whether it did its work is unknown.
//
// When there is no unit, since the lease is gone or the service never ran here,
// stop and status hooks run in one of their own for as long as they take.
//
// Hooks see the host's file systems, and mounts they make reach the host where
// its mounts are shared, as systemd makes them; where they are not, such a
// mount is seen inside the unit alone and goes with it. They see a /proc of
// their own: IDs of processes outside mean nothing to them.
//
// # What is not covered
//
// What hooks have others do: a systemd unit started with systemctl, a
// container, a promoted database on another host, a mount on the host. At the
// lease's deadline nobody but a stop hook run by a living daemon ends these. A
// stop of them is proven by the status hook alone. Where two at once would do
// harm, let the thing itself check the epoch (FAILOVER_EPOCH), or let takeover
// wait for fencing (takeover = "fence").
package exec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/failoverd/failoverd/fencing/guard"
	"github.com/failoverd/failoverd/internal/failpoint"
	"github.com/failoverd/failoverd/service"
)

// GuardPort is what hooks need of the guard; *guard.Client has it.
type GuardPort interface {
	Start(ctx context.Context, s guard.Spec) error
	Stop(ctx context.Context, name string) error
	Run(ctx context.Context, h guard.Hook) (guard.HookResult, error)
	List(ctx context.Context) ([]guard.Running, error)
	Info() guard.Info
}

// Options of a resource of hooks.
type Options struct {
	Name   string // of the resource, unique within the service
	Origin service.Origin
	Guard  GuardPort
	Log    *slog.Logger // nil: none

	// Allowed lists the directories of this node from which hooks may be run.
	Allowed []string

	Start  []string // absolute path and arguments
	Stop   []string // may be empty: then what the start left behind is stopped by signal
	Status []string // exit 0: runs; 3 or 7: does not; anything else: unknown. May be empty: see Running

	StartTimeout  time.Duration // each default 30 s
	StopTimeout   time.Duration
	StatusTimeout time.Duration
}

const (
	defaultTimeout = 30 * time.Second
	// hookMargin is what a hook may take beyond its timeout, until all of it is killed.
	hookMargin = 5 * time.Second
	// leaveTimeout is what leftovers get to end after a TERM, once the stop hook has done its work.
	leaveTimeout = 5 * time.Second
)

var (
	// ErrNotAllowed: this node does not allow the command.
	ErrNotAllowed = errors.New("command not allowed")
	// ErrHook: a hook ended and said no.
	ErrHook = errors.New("hook failed")
	// ErrUnknown: nobody can tell whether a hook did its work, or whether the resource runs.
	ErrUnknown = errors.New("unknown")
	// ErrStillRuns: after a stop the status hook says that it runs.
	ErrStillRuns = errors.New("still runs")
	// ErrOtherEpoch: it runs under another epoch and has to be stopped first.
	ErrOtherEpoch = errors.New("runs under another epoch")
)

// Hooks is the resource.
type Hooks struct {
	o    Options
	unit string
	log  *slog.Logger
	mu   sync.Mutex // hooks of one resource run one at a time, in order

	epochMu sync.Mutex
	epoch   uint64 // of the last start or adoption, else of the origin: stop and status hooks get it
}

// New checks the options; it runs nothing. Whether commands are allowed is
// checked before each run, since files change.
func New(o Options) (*Hooks, error) {
	switch {
	case o.Name == "" || o.Origin.Service == "":
		return nil, errors.New("exec: no name or service")
	case o.Guard == nil:
		return nil, fmt.Errorf("exec %s: no guard", o.Name)
	case len(o.Start) == 0:
		return nil, fmt.Errorf("exec %s: no start hook", o.Name)
	case o.StartTimeout < 0 || o.StopTimeout < 0 || o.StatusTimeout < 0:
		return nil, fmt.Errorf("exec %s: a timeout is negative", o.Name)
	}
	for _, t := range []*time.Duration{&o.StartTimeout, &o.StopTimeout, &o.StatusTimeout} {
		if *t == 0 {
			*t = defaultTimeout
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hooks{o: o, unit: guard.UnitName(o.Origin.Service, o.Name), epoch: o.Origin.Epoch}
	h.log = o.Log.With("service", o.Origin.Service, "resource", o.Name)
	return h, nil
}

// Check says whether this node would run the hooks.
func (h *Hooks) Check() error {
	var errs []error
	for _, c := range [][]string{h.o.Start, h.o.Stop, h.o.Status} {
		if len(c) > 0 {
			if _, err := allowed(c[0], h.o.Allowed); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Name of the resource.
func (h *Hooks) Name() string { return h.o.Name }

// Unit is the name under which the guard knows it.
func (h *Hooks) Unit() string { return h.unit }

// Guarantee says what ends, when the daemon cannot, what hooks left running in
// their unit. It does not speak of what they had others do.
func (h *Hooks) Guarantee() []string {
	g := []string{"guard"}
	if h.o.Guard.Info().KernelTimer {
		g = append(g, "kernel timer")
	}
	return g
}

// Kappa is how long after the lease's end something may still run in the unit.
func (h *Hooks) Kappa() time.Duration { return guard.Kappa }

// Start runs the start hook, unless it has been run already under this epoch
// and the status hook says that the resource runs.
func (h *Hooks) Start(ctx context.Context, epoch uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.Check(); err != nil {
		return fmt.Errorf("start %s: %w", h.o.Name, err)
	}
	h.setEpoch(epoch)
	failpoint.Here("exec.unit.before")
	err := h.o.Guard.Start(ctx, guard.Spec{
		Name: h.unit, Kind: guard.KindHooks, Epoch: epoch, StopTimeout: leaveTimeout, ShareMounts: true,
	})
	if errors.Is(err, guard.ErrConflict) {
		return fmt.Errorf("start %s: %w: %w", h.o.Name, ErrOtherEpoch, err)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", h.o.Name, err)
	}
	u, ok, err := h.find(ctx)
	if err != nil {
		return fmt.Errorf("start %s: %w", h.o.Name, err)
	}
	if ok && u.HookStarted {
		running, err := h.status(ctx)
		if len(h.o.Status) == 0 || err == nil && running {
			return nil
		}
		h.log.Info("started under this epoch before, and does not run now: start again", "status", errText(err))
	}
	failpoint.Here("exec.start.before")
	res, err := h.run(ctx, "start", h.o.Start, h.o.StartTimeout, true)
	failpoint.Here("exec.start.done")
	if err == nil {
		err = verdict("start", res)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", h.o.Name, err)
	}
	return nil
}

// Adopt takes over what was started under this epoch before the daemon did.
func (h *Hooks) Adopt(ctx context.Context, epoch uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.setEpoch(epoch)
	u, ok, err := h.find(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("adopt %s: %w", h.o.Name, err)
	case !ok || u.State != guard.UnitRunning || !u.HookStarted:
		return fmt.Errorf("adopt %s: %w: the guard does not have it started", h.o.Name, ErrUnknown)
	case u.Epoch != epoch:
		return fmt.Errorf("adopt %s: %w: %d, not %d", h.o.Name, ErrOtherEpoch, u.Epoch, epoch)
	}
	if len(h.o.Status) == 0 {
		return nil
	}
	running, err := h.status(ctx)
	if err != nil {
		return fmt.Errorf("adopt %s: %w", h.o.Name, err)
	}
	if !running {
		return fmt.Errorf("adopt %s: its status hook says that it does not run", h.o.Name)
	}
	return nil
}

// Stop runs the stop hook, then ends what is left in the unit, then asks the
// status hook. nil: all three agree that nothing runs. When the stop hook fails
// what it left is not killed here: the lease's end does that.
func (h *Hooks) Stop(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.o.Stop) > 0 {
		failpoint.Here("exec.stop.before")
		res, err := h.run(ctx, "stop", h.o.Stop, h.o.StopTimeout, false)
		failpoint.Here("exec.stop.done")
		if err == nil {
			err = verdict("stop", res)
		}
		if err != nil {
			return fmt.Errorf("stop %s: %w", h.o.Name, err)
		}
	}
	uctx, cancel := context.WithTimeout(ctx, leaveTimeout+hookMargin)
	defer cancel()
	failpoint.Here("exec.unit.stop")
	if err := h.o.Guard.Stop(uctx, h.unit); err != nil {
		return fmt.Errorf("stop %s: %w", h.o.Name, err)
	}
	if len(h.o.Status) == 0 {
		return nil
	}
	running, err := h.status(ctx)
	if err != nil {
		return fmt.Errorf("stop %s: ask whether it has stopped: %w", h.o.Name, err)
	}
	if running {
		return fmt.Errorf("stop %s: %w, its status hook says", h.o.Name, ErrStillRuns)
	}
	return nil
}

// Running asks the status hook. Without one only what lives in the unit is
// known: no unit is "unknown", since what was started may run elsewhere.
func (h *Hooks) Running(ctx context.Context) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.o.Status) > 0 {
		return h.status(ctx)
	}
	u, ok, err := h.find(ctx)
	if err != nil {
		return false, err
	}
	if ok && u.State == guard.UnitRunning && u.HookStarted {
		return true, nil
	}
	return false, fmt.Errorf("%s has no status hook, and was not started by this guard: %w", h.o.Name, ErrUnknown)
}

// status runs the status hook.
func (h *Hooks) status(ctx context.Context) (bool, error) {
	if len(h.o.Status) == 0 {
		return false, ErrUnknown
	}
	failpoint.Here("exec.status.before")
	res, err := h.run(ctx, "status", h.o.Status, h.o.StatusTimeout, false)
	if err != nil {
		return false, fmt.Errorf("status of %s: %w: %w", h.o.Name, ErrUnknown, err)
	}
	if res.Known && res.Signal == "" {
		switch res.Exit {
		case 0:
			return true, nil
		case 3, 7: // LSB: not running; OCF: not running
			return false, nil
		}
	}
	return false, fmt.Errorf("status of %s: %w: %s", h.o.Name, ErrUnknown, outcome(res))
}

// run runs a hook under its timeout.
func (h *Hooks) run(ctx context.Context, label string, argv []string, timeout time.Duration, start bool) (guard.HookResult, error) {
	real, err := allowed(argv[0], h.o.Allowed)
	if err != nil {
		return guard.HookResult{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+hookMargin)
	defer cancel()
	res, err := h.o.Guard.Run(ctx, guard.Hook{
		Unit: h.unit, Start: start, Label: label, Timeout: timeout,
		Command:     append([]string{real}, argv[1:]...),
		Environment: append(h.o.Origin.Environment(h.lastEpoch()), "FAILOVER_ACTION="+label),
	})
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, guard.ErrGuardLost) {
		return res, fmt.Errorf("%s hook: %w: %w", label, ErrUnknown, err)
	}
	if err != nil {
		return res, fmt.Errorf("%s hook: %w", label, err)
	}
	if label != "status" {
		h.log.Info("hook ended", "hook", label, "outcome", outcome(res), "took", res.Took)
	}
	return res, nil
}

// verdict makes an error of a result that is not a plain success.
func verdict(label string, r guard.HookResult) error {
	switch {
	case !r.Known:
		return fmt.Errorf("%s hook: %w: %s%s", label, ErrUnknown, r.Text, service.Tail(r.Output))
	case r.Exit != 0 || r.Signal != "":
		return fmt.Errorf("%s hook: %w: %s%s", label, ErrHook, outcome(r), service.Tail(r.Output))
	}
	return nil
}

func outcome(r guard.HookResult) string {
	switch {
	case !r.Known:
		return r.Text
	case r.Signal != "":
		return "killed by " + r.Signal
	}
	return fmt.Sprintf("exit status %d", r.Exit)
}

func errText(err error) string {
	if err == nil {
		return "not running"
	}
	return err.Error()
}

func (h *Hooks) setEpoch(e uint64) {
	h.epochMu.Lock()
	h.epoch = e
	h.epochMu.Unlock()
}

func (h *Hooks) lastEpoch() uint64 {
	h.epochMu.Lock()
	defer h.epochMu.Unlock()
	return h.epoch
}

func (h *Hooks) find(ctx context.Context) (guard.Running, bool, error) {
	list, err := h.o.Guard.List(ctx)
	if err != nil {
		return guard.Running{}, false, fmt.Errorf("ask the guard for %s: %w", h.o.Name, err)
	}
	for _, u := range list {
		if u.Name == h.unit {
			return u, true, nil
		}
	}
	return guard.Running{}, false, nil
}
