package renew

import (
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
)

const (
	// maxReplays bounds the sessions that are remembered; there is one for each node.
	maxReplays = 256
	// maxRetired is how many earlier starts of a session's daemon are remembered.
	maxRetired = 8
)

// replays remembers, for each session, the latest request that was granted, so
// that a recorded one cannot be played again. A replay could only make a voter
// believe in a later renewal than there was, and so hold up a takeover; it can
// never lengthen a lease. What is forgotten, by a restart or because a daemon
// restarted many times within one session, can therefore do bounded harm only.
type replays struct {
	bySession map[uint64]*granted
}

type granted struct {
	nonce, seq uint64
	retired    [maxRetired]uint64 // nonces of earlier starts; a ring
	next       int
	last       clock.Reading
}

// stale reports whether a request is not newer than what was granted.
func (r *replays) stale(session, nonce, seq uint64) bool {
	g := r.bySession[session]
	if g == nil {
		return false
	}
	if nonce == g.nonce {
		return seq <= g.seq
	}
	for _, old := range g.retired {
		if nonce == old && old != 0 {
			return true
		}
	}
	return false
}

// grant remembers a request that was granted.
func (r *replays) grant(session, nonce, seq uint64, now clock.Reading) {
	g := r.bySession[session]
	if g == nil {
		if len(r.bySession) >= maxReplays {
			r.forgetOldest(now)
		}
		g = &granted{nonce: nonce}
		r.bySession[session] = g
	}
	if nonce != g.nonce {
		g.retired[g.next] = g.nonce
		g.next = (g.next + 1) % maxRetired
		g.nonce = nonce
	}
	g.seq, g.last = seq, now
}

// forget drops a session that is over.
func (r *replays) forget(session uint64) { delete(r.bySession, session) }

func (r *replays) forgetOldest(now clock.Reading) {
	var oldest uint64
	var age time.Duration = -1
	for id, g := range r.bySession {
		if a := clock.Longer(g.last, now); a > age {
			oldest, age = id, a
		}
	}
	delete(r.bySession, oldest)
}
