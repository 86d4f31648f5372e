package guard

import (
	"time"
)

// defaultIdle is how long a guard that a daemon has started stays with nothing
// to guard and nobody to tell it anything: the next daemon starts another.
const defaultIdle = time.Minute

// idleFor closes the channel when the guard was idle for so long; 0 is never.
func (g *Guard) idleFor(limit time.Duration) (<-chan struct{}, func()) {
	idle, end, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		if limit <= 0 {
			return
		}
		t := time.NewTicker(max(limit/10, time.Millisecond))
		defer t.Stop()
		for since := time.Now(); ; {
			select {
			case <-end:
				return
			case <-t.C:
			}
			if !g.idle() {
				since = time.Now()
			} else if time.Since(since) >= limit {
				close(idle)
				return
			}
		}
	}()
	return idle, func() { close(end); <-done }
}

// idle reports whether there is neither a client nor anything to guard.
func (g *Guard) idle() bool {
	g.mu.Lock()
	srv := g.srv
	g.mu.Unlock()
	if srv != nil && srv.clients() > 0 {
		return false
	}
	now, err := Now()
	if err != nil {
		return false
	}
	if _, d, _ := g.lease.status(); !d.IsZero() && d.Left(now) > 0 {
		return false
	}
	for _, r := range g.List() {
		if !r.State.Gone() {
			return false
		}
	}
	return true
}
