package cluster

import "sync"

// tasks counts goroutines that somebody waits for. Unlike a bare WaitGroup it
// takes no new ones once waiting has begun, so that the wait has an end.
type tasks struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// Go runs fn in a goroutine of its own; false after Wait, and fn does not run.
func (t *tasks) Go(fn func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(fn)
	return true
}

// Wait takes no more and waits for all that run.
func (t *tasks) Wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}
