package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/fencing/guard"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// spawnLimit bounds one attempt to reach or start the guard.
const spawnLimit = 5 * time.Second

var errNoGuard = errors.New("the guard is being started anew")

// keeper watches the guard and starts it anew when it dies or freezes. What it
// supervised is gone with it; the services notice and are started again.
type keeper struct {
	spawn guard.SpawnOptions
	log   *slog.Logger
	lost  chan struct{} // asks run to replace the guard
	// ending is closed when no guard is wanted any more, ended when run has returned.
	ending, ended chan struct{}

	mu      sync.Mutex
	client  *guard.Client
	session uint64
	until   clock.Reading // the latest deadline told under session; zero: none
	table   string
	gated   []guard.Address
	frozen  time.Duration // for so long a guard may fail to take deadlines before it is replaced
	missed  time.Time     // since when it fails to; zero: it does not
	text    string        // why there is no guard now
}

// newKeeper connects to the living guard or starts one.
func newKeeper(ctx context.Context, o guard.SpawnOptions, table string, frozen time.Duration, log *slog.Logger) (*keeper, error) {
	k := &keeper{spawn: o, frozen: frozen, log: log, table: table,
		lost: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(ctx, spawnLimit)
	defer cancel()
	c, err := guard.Spawn(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start guard %s: %w", o.Binary, err)
	}
	k.client = c
	return k, nil
}

// run replaces the guard whenever it is lost, until ctx ends or end is called.
func (k *keeper) run(ctx context.Context) {
	defer close(k.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-k.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		k.mu.Lock()
		c := k.client
		k.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-c.Lost():
		case <-k.lost:
		}
		if !k.replace(ctx, c) {
			return
		}
	}
}

// replace starts a new guard, again and again until it is there.
func (k *keeper) replace(ctx context.Context, old *guard.Client) bool {
	if ctx.Err() != nil {
		return false
	}
	k.log.Error("the guard is lost; starting it anew", "err", old.Err())
	if err := old.Close(); err != nil {
		k.log.Debug("close the lost guard's connection", "err", err)
	}
	for {
		limited, cancel := context.WithTimeout(ctx, spawnLimit)
		c, err := guard.Spawn(limited, k.spawn)
		cancel()
		if err == nil {
			k.adopt(ctx, c)
			return true
		}
		k.mu.Lock()
		k.text = err.Error()
		k.mu.Unlock()
		k.log.Error("cannot start the guard", "err", err)
		t := time.NewTimer(200 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
	}
}

func (k *keeper) adopt(ctx context.Context, c *guard.Client) {
	k.mu.Lock()
	session, until := k.session, k.until
	k.mu.Unlock()
	if session != 0 {
		c.Use(session)
	}
	// The deadline that the lost guard had goes on: until the next renewal the new
	// one would refuse every start, and the services would be taken for broken.
	if until != (clock.Reading{}) {
		if err := c.Extend(until.Boot, until.Raw); err != nil {
			k.log.Warn("the new guard does not take the deadline of the one before; the next renewal tells it", "err", err)
		}
	}
	k.mu.Lock()
	k.client, k.missed, k.text = c, time.Time{}, ""
	if k.session != session {
		c.Use(k.session)
	}
	k.mu.Unlock()
	select {
	case <-k.lost:
	default:
	}
	failpoint.Here("guard.replaced")
	if err := k.setGates(ctx); err != nil {
		k.log.Error("cannot tell the guard which addresses to shut", "err", err)
	}
}

func (k *keeper) get() *guard.Client {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.client
}

// Extend tells the deadline; a guard that fails to take it is soon replaced.
func (k *keeper) Extend(until clock.Reading) error {
	err := k.get().Extend(until.Boot, until.Raw)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until = until // an answer that is late may be a deadline taken
	if err == nil {
		k.missed = time.Time{}
		return nil
	}
	if k.missed.IsZero() {
		k.missed = time.Now()
	}
	if time.Since(k.missed) >= k.frozen {
		select {
		case k.lost <- struct{}{}:
		default:
		}
		return fmt.Errorf("%w: %w", errNoGuard, err)
	}
	return err
}

// Alive reports whether the guard answered lately.
func (k *keeper) Alive() bool { return k.get().Alive() }

// Use makes the guard work for a session: everything of the one before has
// been stopped, and its deadline is forgotten.
func (k *keeper) Use(session uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c := k.get()
	now, err := c.Status(ctx)
	if err != nil {
		return fmt.Errorf("ask the guard for its session: %w", err)
	}
	if now.Session != 0 && now.Session != session {
		if err := c.Release(ctx); err != nil {
			return fmt.Errorf("make the guard forget session %d: %w", now.Session, err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.session != session {
		k.session, k.until = session, clock.Reading{}
	}
	c.Use(session)
	k.client.Use(session) // another guard, if this one was lost meanwhile
	return nil
}

// cover adds an address to what the guard shuts and deletes at the deadline.
func (k *keeper) cover(ctx context.Context, a guard.Address) error {
	k.mu.Lock()
	if slices.Contains(k.gated, a) {
		k.mu.Unlock()
		return nil
	}
	k.gated = append(k.gated, a)
	k.mu.Unlock()
	return k.setGates(ctx)
}

func (k *keeper) setGates(ctx context.Context) error {
	k.mu.Lock()
	g := guard.Gate{Table: k.table, Addresses: slices.Clone(k.gated)}
	c := k.client
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	failpoint.Here("guard.gates.before")
	return c.SetGates(ctx, []guard.Gate{g})
}

// alarms says what is wrong with the guard.
func (k *keeper) alarms() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	if k.text != "" {
		out = append(out, "there is no guard: "+k.text)
	}
	if i := k.client.Info(); !i.KernelTimer && i.KernelTimerText != "" {
		out = append(out, "a frozen guard is not covered by the kernel's timer: "+i.KernelTimerText)
	}
	return out
}

// end ends the guard for good. Nobody watches it by then: its end would be
// taken for a loss, and a new one started that outlives the daemon.
func (k *keeper) end(ctx context.Context) error {
	close(k.ending)
	select {
	case <-k.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return k.get().Shutdown(ctx)
}

// close ends the connection; the guard goes on.
func (k *keeper) close() error { return k.get().Close() }

// The guard's services for drivers, by whichever guard lives now.

// Start supervises what the spec says, or adopts what runs already.
func (k *keeper) Start(ctx context.Context, s guard.Spec) error {
	return lapsed(k.get().Start(ctx, s))
}

// Stop ends a unit; nil is the proof.
func (k *keeper) Stop(ctx context.Context, name string) error { return k.get().Stop(ctx, name) }

// Run runs a hook and waits for its end.
func (k *keeper) Run(ctx context.Context, h guard.Hook) (guard.HookResult, error) {
	result, err := k.get().Run(ctx, h)
	return result, lapsed(err)
}

// List shows what the guard supervises.
func (k *keeper) List(ctx context.Context) ([]guard.Running, error) { return k.get().List(ctx) }

// Output returns the last of a unit's output.
func (k *keeper) Output(ctx context.Context, name string) ([]byte, error) {
	return k.get().Output(ctx, name)
}

// Info is what the guard said of itself.
func (k *keeper) Info() guard.Info { return k.get().Info() }
