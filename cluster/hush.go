package cluster

import (
	"context"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// hush is a holder that is heard and hears nobody: the voters say OK, the OKs
// are lost, and as long as it asks no voter's note grows old, so that nobody
// would ever take over. A node whose lease has been gone for a whole lease
// falls silent for two, long enough for a leader to close its session, and
// then tries again: a session that was not closed is resumed.
type hush struct {
	session uint64
	lapsed  *clock.Reading // since when there is no lease
	silent  *clock.Reading // since when it is silent
}

// hushed is called often; left is what is left of the lease.
func (n *Node) hushed(h *hush, left time.Duration) {
	s, ok := n.Journal.Session()
	n.mu.Lock()
	session, idle := n.session, n.refused || n.dropped != ""
	n.mu.Unlock()
	if !ok || session == 0 || s.ID != session || idle || h.session != session || left > 0 && h.silent == nil {
		*h = hush{session: session}
		return
	}
	now := n.Clock.Now()
	switch {
	case h.silent != nil:
		if clock.Shorter(*h.silent, now) > 2*s.TTL {
			n.speak(session, s.TTL)
			*h = hush{session: session}
		}
	case h.lapsed == nil:
		h.lapsed = &now
	case clock.Longer(*h.lapsed, now) > s.TTL:
		n.Log.Warn("no majority has answered for a whole lease; falling silent, so that another may take over", "session", session)
		n.Renewals.Drop()
		h.silent = &now
	}
}

// speak renews the same session again, if it still is this node's.
func (n *Node) speak(session uint64, ttl time.Duration) {
	n.extending.Lock()
	defer n.extending.Unlock()
	n.mu.Lock()
	same := n.session == session && !n.refused && n.dropped == ""
	n.mu.Unlock()
	if same {
		n.Renewals.Hold(session, ttl)
	}
}

// heardVoter notes that a voter has answered a renewal.
func (n *Node) heardVoter() {
	now := n.Clock.Now()
	n.heard.Store(&now)
}

// isDeaf reports whether no voter has answered for a whole lease: to open
// another session would get this node services that it can never start.
func (n *Node) isDeaf(session uint64, ttl time.Duration) bool {
	last := n.heard.Load()
	return session != 0 && last != nil && clock.Longer(*last, n.Clock.Now()) > ttl
}

// deaf gives the leadership away when the log's connections work and the
// voters' answers do not arrive: such a leader can judge nobody, itself included.
func (n *Node) deaf(led *leadership, st *state.State, c lease.Configuration) {
	if !led.ev.Deaf(st, c, n.Self, n.TTL, n.Clock.Now()) {
		return
	}
	n.Log.Warn("no majority of the voters answers this leader's questions; giving the leadership away")
	n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(led.Ctx, proposeLimit)
		defer cancel()
		if err := n.consensus().Transfer(ctx); err != nil {
			n.Log.Warn("could not give the leadership away", "err", err)
		}
	})
}
