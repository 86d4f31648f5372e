package guard

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"sync"
	"time"
)

// Start supervises what the spec says. What runs already under the same name,
// session and epoch is adopted; under another epoch it is refused.
func (g *Guard) Start(ctx context.Context, s Spec) (Running, bool, error) {
	if s.Kind == "" {
		s.Kind = KindProcess
	}
	if s.StopTimeout <= 0 {
		s.StopTimeout = DefaultStopTimeout
	}
	if s.Tasks <= 0 {
		s.Tasks = DefaultTasks
	}
	u, adopted, err := g.enlist(s, true)
	for err != nil && u != nil && !u.leased {
		// A hook that stops or asks has the name for as long as it runs.
		select {
		case <-u.stopped:
		case <-ctx.Done():
			return Running{}, false, err
		}
		u, adopted, err = g.enlist(s, true)
	}
	if err != nil {
		return Running{}, false, err
	}
	select {
	case <-u.started:
	case <-ctx.Done():
		return Running{}, false, fmt.Errorf("start %s: %w", s.Name, ctx.Err())
	}
	u.mu.Lock()
	err = u.startErr
	u.mu.Unlock()
	if err != nil {
		// Of what failed nothing may be left to stand in the way of a better try.
		return Running{}, false, fmt.Errorf("start %s: %w", s.Name, errors.Join(err, u.proven(ctx)))
	}
	return u.show(), adopted, nil
}

// enlist finds the unit that the spec describes, or makes it and sets it going.
// With ErrConflict comes the unit that stands in the way.
func (g *Guard) enlist(s Spec, leased bool) (u *unit, adopted bool, err error) {
	if err := checkUnitName(s.Name); err != nil {
		return nil, false, err
	}
	sig, err := ParseSignal(s.StopSignal)
	if err != nil {
		return nil, false, err
	}
	var prog *program
	switch s.Kind {
	case KindProcess:
		if prog, err = resolve(s.Command, s.Environment, s.Directory, s.User); err != nil {
			return nil, false, err
		}
	case KindHooks:
	default:
		return nil, false, fmt.Errorf("%w: no kind %q of unit", ErrUnsupported, s.Kind)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.closing:
		return nil, false, fmt.Errorf("%w: the guard is ending", ErrRefused)
	default:
	}
	if old := g.units[s.Name]; old != nil && !old.gone() {
		if leased && old.same(s) && !old.isStopping() {
			return old, true, nil
		}
		o := old.show()
		return old, false, fmt.Errorf("%w: %s is %s under session %d, epoch %d: stop it first", ErrConflict, s.Name, o.State, o.Session, o.Epoch)
	}
	if leased {
		if err := g.lease.check(s.Session); err != nil {
			return nil, false, err
		}
	}
	out := g.outs[s.Name]
	if out == nil {
		out = openOutput(s.Name, filepath.Join(g.opts.Dir, logDir, s.Name+".log"), s.LogBytes, g.events)
		g.outs[s.Name] = out
	}
	u = newUnit(g, s, prog, int(sig), out, leased)
	g.units[s.Name] = u
	g.wg.Go(u.run)
	return u, false, nil
}

func (u *unit) isStopping() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked || u.cur != nil && u.cur.doomedBy() != ""
}

// Stop ends a unit: its stop signal, and after the timeout SIGKILL. nil is the
// proof that nothing of it lives; a name that is not supervised is stopped.
// The timeout is the spec's if it is 0.
func (g *Guard) Stop(ctx context.Context, name string, timeout time.Duration) error {
	g.mu.Lock()
	u := g.units[name]
	g.mu.Unlock()
	if u == nil {
		return nil
	}
	u.ask(timeout)
	if err := u.proven(ctx); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.units[name] == u {
		delete(g.units, name)
	}
	return nil
}

// Signal sends a signal to a process unit's program.
func (g *Guard) Signal(name, signal string) error {
	sig, err := ParseSignal(signal)
	if err != nil {
		return err
	}
	g.mu.Lock()
	u := g.units[name]
	g.mu.Unlock()
	if u == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	u.mu.Lock()
	b := u.cur
	u.mu.Unlock()
	if b == nil {
		return fmt.Errorf("%w: %s does not run", ErrNotFound, name)
	}
	return b.tell(order{Op: "signal", Signal: int(sig)})
}

// List shows every unit, by name.
func (g *Guard) List() []Running {
	g.mu.Lock()
	units := make([]*unit, 0, len(g.units))
	for _, u := range g.units {
		units = append(units, u)
	}
	g.mu.Unlock()
	out := make([]Running, 0, len(units))
	for _, u := range units {
		out = append(out, u.show())
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Output returns the last of a unit's output, also when it has stopped.
func (g *Guard) Output(name string) ([]byte, error) {
	g.mu.Lock()
	o := g.outs[name]
	g.mu.Unlock()
	if o == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return o.bytes(), nil
}

// StopAll stops every unit by its own rules, at the same time.
func (g *Guard) StopAll(ctx context.Context) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, r := range g.List() {
		wg.Go(func() {
			if err := g.Stop(ctx, r.Name, 0); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
