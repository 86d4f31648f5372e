package consensus

import (
	"sync"
	"time"
)

// watch knows how long each access to the disk has been under way. A disk that
// hangs gives no error: the call just does not return, raft's main loop waits
// in it, and a leader's heartbeats go on from goroutines of their own.
type watch struct {
	limit time.Duration // an access older than this counts as stalled

	mu    sync.Mutex
	next  uint64
	under map[uint64]access

	roomless int   // accesses that wait for room
	why      error // what refused the last one
	// tell, when set, hears of the first access that waits, with the reason, and
	// with nil when no more does.
	tell func(why error)

	// changed has something in it when an access has just passed the limit or
	// when one that had passed it returned.
	changed chan struct{}
}

type access struct {
	began time.Time
	alarm *time.Timer
}

func newWatch(limit time.Duration) *watch {
	return &watch{limit: limit, under: map[uint64]access{}, changed: make(chan struct{}, 1)}
}

// begin notes an access; the returned function notes its end.
func (w *watch) begin() (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	id := w.next
	w.under[id] = access{began: time.Now(), alarm: time.AfterFunc(w.limit, w.signal)}
	return func() { w.end(id) }
}

func (w *watch) end(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	entry := w.under[id]
	delete(w.under, id)
	if !entry.alarm.Stop() {
		w.signal()
	}
}

func (w *watch) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// stalled is the age of the oldest access under way and whether it is past the limit.
func (w *watch) stalled() (since time.Duration, stalled bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, entry := range w.under {
		since = max(since, time.Since(entry.began))
	}
	return since, since >= w.limit
}
