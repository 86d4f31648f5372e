// Package process keeps one program alive as a resource of a service.
//
// The program runs in the foreground as a child of the guard (fencing/guard),
// in a PID namespace and, where there is one, a cgroup of its own. So it
// survives the daemon's crash, freeze and upgrade; it ends at the lease's
// deadline whatever the daemon does; and its stop is proven: its init was
// reaped, after the kernel had killed everything in the namespace.
//
// What that does not cover is what the program has others do for it: a unit of
// a service manager, a container started by a daemon, a mount on the host.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sort"
	"time"

	"github.com/failoverd/failoverd/fencing/guard"
	"github.com/failoverd/failoverd/internal/failpoint"
	"github.com/failoverd/failoverd/service"
)

// GuardPort is what a process needs of the guard; *guard.Client has it. The
// guard starts under the session that its client was told to use.
type GuardPort interface {
	// Start returns when the program has been started, or adopted.
	Start(ctx context.Context, s guard.Spec) error
	// Stop returns nil when nothing of the unit lives: proven.
	Stop(ctx context.Context, name string) error
	List(ctx context.Context) ([]guard.Running, error)
	Output(ctx context.Context, name string) ([]byte, error)
	Info() guard.Info
}

// Options of a process.
type Options struct {
	Name   string // of the resource, unique within the service
	Origin service.Origin
	Guard  GuardPort
	Log    *slog.Logger // nil: none

	Command     []string // absolute path and arguments
	Environment map[string]string
	Directory   string
	User        string
	StopSignal  string        // default TERM
	StopTimeout time.Duration // then KILL; default guard.DefaultStopTimeout
	// Ready, when set, is a TCP address that must accept before a start is done.
	Ready        string
	StartTimeout time.Duration // default 30 s
	Restarts     int           // crashes in a row that are answered by a restart
}

const (
	defaultStartTimeout = 30 * time.Second
	readyEvery          = 3 * time.Millisecond   // between tries of Ready
	lookEvery           = 100 * time.Millisecond // between looks whether the program still runs
	// stopMargin is what a stop may take beyond its timeout, for the proof.
	stopMargin = 5 * time.Second
)

var (
	// ErrNotReady: the program runs and Ready does not accept.
	ErrNotReady = errors.New("not ready")
	// ErrEnded: the program has ended by itself.
	ErrEnded = errors.New("ended")
	// ErrOtherEpoch: it runs under another epoch and has to be stopped first.
	ErrOtherEpoch = errors.New("runs under another epoch")
)

// Process is the resource.
type Process struct {
	o    Options
	unit string
	log  *slog.Logger
}

// New checks the options; it starts nothing.
func New(o Options) (*Process, error) {
	switch {
	case o.Name == "" || o.Origin.Service == "":
		return nil, errors.New("process: no name or service")
	case o.Guard == nil:
		return nil, fmt.Errorf("process %s: no guard", o.Name)
	case len(o.Command) == 0:
		return nil, fmt.Errorf("process %s: no command", o.Name)
	case o.Restarts < 0 || o.StopTimeout < 0 || o.StartTimeout < 0:
		return nil, fmt.Errorf("process %s: a number is negative", o.Name)
	}
	if _, err := guard.ParseSignal(o.StopSignal); err != nil {
		return nil, fmt.Errorf("process %s: stop signal: %w", o.Name, err)
	}
	if o.Ready != "" {
		if _, _, err := net.SplitHostPort(o.Ready); err != nil {
			return nil, fmt.Errorf("process %s: ready: %w", o.Name, err)
		}
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = defaultStartTimeout
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = guard.DefaultStopTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Process{o: o, unit: guard.UnitName(o.Origin.Service, o.Name)}
	p.log = o.Log.With("service", o.Origin.Service, "resource", o.Name)
	return p, nil
}

// Name of the resource.
func (p *Process) Name() string { return p.o.Name }

// Unit is the name under which the guard knows it.
func (p *Process) Unit() string { return p.unit }

// Guarantee says what ends the program when the daemon cannot.
func (p *Process) Guarantee() []string {
	g := []string{"guard"}
	if p.o.Guard.Info().KernelTimer {
		g = append(g, "kernel timer")
	}
	return g
}

// Kappa is how long after the lease's end the program may still run.
func (p *Process) Kappa() time.Duration { return guard.Kappa }

// Start starts the program, or adopts it if it runs already under this epoch,
// and returns when it is ready. When it does not become ready it is left
// running: the caller stops it.
func (p *Process) Start(ctx context.Context, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, p.o.StartTimeout)
	defer cancel()
	failpoint.Here("process.start.before")
	if err := p.o.Guard.Start(ctx, p.spec(epoch)); err != nil {
		if errors.Is(err, guard.ErrConflict) {
			return fmt.Errorf("start %s: %w: %w", p.o.Name, ErrOtherEpoch, err)
		}
		return fmt.Errorf("start %s: %w", p.o.Name, err)
	}
	failpoint.Here("process.started")
	if p.o.Ready == "" {
		return nil
	}
	began := time.Now()
	if err := p.awaitReady(ctx); err != nil {
		return fmt.Errorf("start %s: %w%s", p.o.Name, err, p.outputTail())
	}
	failpoint.Here("process.ready")
	p.log.Info("ready", "address", p.o.Ready, "took", time.Since(began))
	return nil
}

func (p *Process) spec(epoch uint64) guard.Spec {
	env := p.o.Origin.Environment(epoch)
	keys := make([]string, 0, len(p.o.Environment))
	for k := range p.o.Environment {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		env = append(env, k+"="+p.o.Environment[k])
	}
	return guard.Spec{
		Name: p.unit, Kind: guard.KindProcess, Epoch: epoch,
		Command: p.o.Command, Environment: env, Directory: p.o.Directory, User: p.o.User,
		StopSignal: p.o.StopSignal, StopTimeout: p.o.StopTimeout, Restarts: p.o.Restarts,
	}
}

// awaitReady tries the address every few milliseconds, and looks now and then
// whether there is still something to wait for.
func (p *Process) awaitReady(ctx context.Context) error {
	var last error
	looked := time.Now()
	for {
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(ctx, "tcp", p.o.Ready)
		if err == nil {
			// Who answers must be ours: a program that ended while something
			// else listens there is not ready.
			c.Close()
			return p.alive(ctx)
		}
		if ctx.Err() == nil {
			last = err
		}
		if time.Since(looked) > lookEvery {
			if err := p.alive(ctx); err != nil {
				return err
			}
			looked = time.Now()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s does not accept: %w (%w)", ErrNotReady, p.o.Ready, errors.Join(last), ctx.Err())
		case <-time.After(readyEvery):
		}
	}
}

// alive returns an error when the program has ended, or nobody can tell.
func (p *Process) alive(ctx context.Context) error {
	u, ok, err := p.find(ctx)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("%w: it was stopped", ErrEnded)
	case u.State.Gone():
		return fmt.Errorf("%w: %s", ErrEnded, u.Text)
	}
	return nil
}

// Adopt takes over what an earlier daemon has left running under the same
// epoch; an error says that it does not run as it should.
func (p *Process) Adopt(ctx context.Context, epoch uint64) error {
	u, ok, err := p.find(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("adopt %s: %w", p.o.Name, err)
	case !ok:
		return fmt.Errorf("adopt %s: %w: the guard does not have it", p.o.Name, ErrEnded)
	case u.Epoch != epoch:
		return fmt.Errorf("adopt %s: %w: %d, not %d", p.o.Name, ErrOtherEpoch, u.Epoch, epoch)
	case u.State.Gone() || u.State == guard.UnitStopping:
		return fmt.Errorf("adopt %s: %w: %s %s", p.o.Name, ErrEnded, u.State, u.Text)
	}
	return nil
}

// Stop stops the program. nil: proven, nothing of it lives.
func (p *Process) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.o.StopTimeout+stopMargin)
	defer cancel()
	failpoint.Here("process.stop.before")
	if err := p.o.Guard.Stop(ctx, p.unit); err != nil {
		return fmt.Errorf("stop %s: %w", p.o.Name, err)
	}
	failpoint.Here("process.stopped")
	return nil
}

// Running reports whether the guard keeps the program going: also while it is
// being restarted after a crash, or while its end is not proven yet. False
// says that nothing of it runs, nor will by itself. An error is "unknown".
func (p *Process) Running(ctx context.Context) (bool, error) {
	u, ok, err := p.find(ctx)
	if err != nil {
		return false, err
	}
	return ok && !u.State.Gone(), nil
}

// State is what the guard says of the program, for status.
func (p *Process) State(ctx context.Context) (state, text string, err error) {
	u, ok, err := p.find(ctx)
	if err != nil {
		return "", "", err
	}
	if !ok {
		return string(guard.UnitStopped), "", nil
	}
	return string(u.State), u.Text, nil
}

func (p *Process) find(ctx context.Context) (guard.Running, bool, error) {
	list, err := p.o.Guard.List(ctx)
	if err != nil {
		return guard.Running{}, false, fmt.Errorf("ask the guard for %s: %w", p.o.Name, err)
	}
	for _, u := range list {
		if u.Name == p.unit {
			return u, true, nil
		}
	}
	return guard.Running{}, false, nil
}

func (p *Process) outputTail() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	out, err := p.o.Guard.Output(ctx, p.unit)
	if err != nil {
		return ""
	}
	return service.Tail(out)
}
