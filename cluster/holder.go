package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/journal"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Extended is called after each renewal that moved the lease, in order: the
// guard is told the deadline first, then the kernel's gates are armed, then the
// clock is read again and everything is cut if the deadline has passed.
func (n *Node) Extended(until clock.Reading) {
	n.heardVoter()
	n.extending.Lock()
	defer n.extending.Unlock()
	// A call that was held up may carry the deadline of a session that has been
	// replaced: what the guard is told belongs to the session it was told of.
	latest, ok := n.Renewals.Until()
	if !ok || clock.Left(until, latest) < 0 {
		return
	}
	until = latest
	failpoint.Here("lease.guard.before")
	if err := n.Guard.Extend(until); err != nil {
		// Without the guard's word its processes die at the old deadline, and so
		// do the gates: nothing may outlive what the guard knows of.
		n.notice("guard", "the guard does not answer: "+err.Error())
		n.unguarded(n.Clock.Now())
		return
	}
	failpoint.Here("lease.guard.told")
	n.guardless = nil
	n.notice("guard", "")
	for _, u := range n.allUnits() {
		if !u.holding() {
			continue
		}
		if err := u.arm(); err != nil {
			n.notice("arm "+u.name, "cannot arm: "+err.Error())
			continue
		}
		n.notice("arm "+u.name, "")
	}
	failpoint.Here("lease.armed")
	if clock.Left(n.Clock.Now(), until) <= 0 {
		n.lapsed()
	}
}

// unguarded lets the lease run out when the guard has taken no deadline for two
// leases: by then nothing runs here any more, and renewals would only keep the
// services from others. The caller holds extending.
func (n *Node) unguarded(now clock.Reading) {
	if n.guardless == nil {
		n.guardless = &now
	}
	if lost := clock.Shorter(*n.guardless, now); lost > 2*n.TTL {
		n.guardless = nil
		n.drop(fmt.Sprintf("the guard has taken no deadline for %s, so nothing can run here", lost.Round(time.Millisecond)))
	}
}

// RefusedBy is called when a voter would not renew.
func (n *Node) RefusedBy(session uint64, why lease.Reason) {
	n.heardVoter()
	if why != lease.ReasonClosing && why != lease.ReasonEnded {
		return
	}
	n.mu.Lock()
	news := session == n.session && !n.refused
	if news {
		n.refused = true
	}
	n.mu.Unlock()
	if news {
		n.Log.Warn("the voters have taken this node's session", "session", session, "why", why.String())
		n.Poke()
	}
}

// lapsed ends what is only starting and makes the member's loop stop the rest.
// The kernel has shut the gates and the guard has killed by then.
func (n *Node) lapsed() {
	for _, u := range n.allUnits() {
		if u.starting() {
			u.cut()
		}
	}
	n.Poke()
}

// lapseLoop notices the end of the lease on time, for what only the daemon can stop.
func (n *Node) lapseLoop(ctx context.Context) {
	held := false
	var h hush
	for {
		left := n.Renewals.Left()
		n.checkLoop()
		n.hushed(&h, left)
		switch {
		case left <= 0 && held:
			held = false
			failpoint.Here("lease.lapsed")
			n.Log.Warn("the lease ran out")
			n.lapsed()
		case left > 0 && !held:
			held = true
			n.Poke()
		}
		wait := min(left, lookInterval)
		if wait <= 0 {
			wait = 20 * time.Millisecond
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// hungAfter is how long the member's loop may hang, in a write to a stuck disk
// for one, before the node lets its lease run out: it could not give anything
// up, and nobody could take over.
const hungAfter = 5 * time.Second

func (n *Node) checkLoop() {
	last := n.looked.Load()
	if last == nil {
		return
	}
	now := n.Clock.Now()
	hung := clock.Longer(*last, now)
	n.mu.Lock()
	for _, since := range n.writes {
		hung = max(hung, clock.Longer(since, now))
	}
	n.mu.Unlock()
	if hung > hungAfter {
		n.drop(fmt.Sprintf("this node's own work has hung for %s, its disk perhaps", hung.Round(time.Second)))
	}
}

// watchedRecords is the journal with a note of how long each write is under way:
// a service that waits for a disk that hangs can be neither started nor given up
// here, and the lease must not keep it from others (LEASE.md 9).
type watchedRecords struct{ n *Node }

func (r watchedRecords) Active(service string, epoch, generation uint64, note []byte) error {
	defer r.n.writing()()
	return r.n.Journal.Active(service, epoch, generation, note)
}

func (r watchedRecords) Releasing(service string, epoch uint64) error {
	defer r.n.writing()()
	return r.n.Journal.Releasing(service, epoch)
}

func (n *Node) writing() (end func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.written++
	id := n.written
	n.writes[id] = n.Clock.Now()
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.writes, id)
	}
}

// opened makes a committed session this node's: journal first, then renew.
func (n *Node) opened(id uint64) {
	n.mu.Lock()
	known := n.session == id && !n.refused && n.dropped == ""
	n.mu.Unlock()
	if known {
		return
	}
	st := n.Voter.View()
	opened := st.Sessions[id]
	if opened == nil {
		return // not applied here yet; to ask again gives the same session
	}
	if opened.Kappa < n.Kappa {
		// Given back with the promise of a daemon that could end things faster
		// than this one: it is left to lapse, and a new one is opened then.
		n.notice("session", fmt.Sprintf("session %d promises an end within %s, and this host needs %s: waiting until it is closed", id, opened.Kappa, n.Kappa))
		return
	}
	// The session's own TTL counts, not this daemon's setting: a session that was
	// given back is known to the voters with the TTL it was opened with.
	s := journal.Session{
		BootID: n.BootID, ID: id, TTL: opened.TTL, Kappa: opened.Kappa,
		Voters: n.voterAddresses(), Key: st.Cluster.Key,
	}
	failpoint.Here("session.journal.before")
	if err := n.Journal.SetSession(s); err != nil {
		n.notice("journal", "cannot journal the session, so nothing can be held here: "+err.Error())
		return
	}
	// The guard, the lease and this node's own view change session while no
	// extension is told. The lease changes before the view: else something of the
	// new session could start on what is left of the old one's lease.
	failpoint.Here("session.journaled")
	n.Renewals.Drop()
	n.extending.Lock()
	defer n.extending.Unlock()
	if err := n.Guard.Use(id); err != nil {
		n.notice("guard", "the guard does not take the session: "+err.Error())
		return
	}
	failpoint.Here("session.guard.used")
	n.Renewals.Hold(id, s.TTL)
	n.heardVoter() // it is given a lease's time to hear somebody
	n.guardless = nil
	n.mu.Lock()
	n.session, n.refused, n.dropped = id, false, ""
	n.mu.Unlock()
	failpoint.Here("session.held")
	n.notice("renewals", "")
	n.Log.Info("session opened", "session", id, "ttl", s.TTL)
	n.Poke()
}

// drop gives renewals up: what runs ends by its lease, enforced by the guard and the kernel.
func (n *Node) drop(why string) {
	n.mu.Lock()
	news := n.dropped == ""
	n.dropped = why
	n.mu.Unlock()
	if news {
		n.notice("renewals", "no longer renewing: "+why)
		n.Renewals.Drop()
	}
}

// voterAddresses is where each voter hears renewals, for a restart before Raft is loaded.
func (n *Node) voterAddresses() []journal.VoterAddr {
	var out []journal.VoterAddr
	for _, s := range n.consensus().Servers() {
		if s.Votes {
			out = append(out, journal.VoterAddr{ID: s.Name, Addr: n.VoterAddr(s.Address)})
		}
	}
	return out
}

// refreshJournal keeps the journal's voter list near the truth; a stale one is merely refused.
func (n *Node) refreshJournal(st *state.State) {
	s, ok := n.Journal.Session()
	if !ok || s.BootID != n.BootID {
		return
	}
	voters := n.voterAddresses()
	if len(voters) == 0 || sameVoters(voters, s.Voters) {
		return
	}
	s.Voters, s.Key = voters, st.Cluster.Key
	failpoint.Here("session.voters.before")
	if err := n.Journal.SetSession(s); err != nil {
		n.notice("journal", "cannot journal the voters: "+err.Error())
	}
}

func sameVoters(a, b []journal.VoterAddr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func (n *Node) allUnits() []*unit {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*unit, 0, len(n.units))
	for _, u := range n.units {
		out = append(out, u)
	}
	return out
}
