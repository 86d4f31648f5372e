package lease

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/state"
)

// letter is a datagram under way. It may arrive never, late, or many times.
type letter struct {
	kind                string // renew, ok, ask, age
	from, to            string
	session, nonce, seq uint64
	config              uint64
	age                 time.Duration
}

// holderName is who holds: always the same node, it may be leader, voter or neither.
const holderName = "b"

// openSession is the command that opens the holder's next session as a leader sees it.
func (w *world) openSession(l *host) state.Command {
	n := l.voter.View().Nodes[holderName]
	var replaces uint64
	if n != nil {
		replaces = n.Session
	}
	return state.OpenSession{Node: holderName, BootID: "boot", TTL: worldTTL, Kappa: worldKappa, Replaces: replaces}
}

func (w *world) started(h *host) state.Command {
	return state.Started{Node: h.name, Nonce: h.nonce, Birth: "birth-" + h.name, BootID: "boot"}
}

// resume makes the holder's daemon renew: the session it renewed before its
// restart, or a newer one that it has seen opened.
func (w *world) resume() {
	h := w.hosts[holderName]
	var id uint64
	if w.renewing != nil {
		id = w.renewing.h.Session()
	}
	if n := h.voter.View().Nodes[holderName]; n != nil {
		id = max(id, n.Session)
	}
	if id == 0 || w.renewing != nil && w.renewing.h.Session() == id && w.renewing.h.Nonce() == h.nonce {
		return
	}
	holder := NewHolder(id, worldTTL, h.nonce)
	if w.renewing != nil && w.renewing.h.Nonce() == h.nonce {
		holder.After(w.renewing.h.Seq())
	}
	w.renewing = &lease{on: h, h: holder}
	w.leases = append(w.leases, w.renewing)
	w.say("holder renews session %d with nonce %d", id, h.nonce)
}

func (w *world) round() {
	l := w.renewing
	conf := l.on.config()
	now := l.on.Now()
	seq := l.h.Begin(now, conf)
	for _, v := range conf.Voters {
		w.post(letter{kind: "renew", from: holderName, to: v, session: l.h.Session(), nonce: l.h.Nonce(), seq: seq, config: conf.ID})
	}
	w.say("round %d of session %d under %v", seq, l.h.Session(), conf.Voters)
}

func (w *world) post(m letter) {
	w.msgs = append(w.msgs, m)
	if len(w.msgs) > 60 {
		w.msgs = slices.Delete(w.msgs, 0, 1+w.rnd.IntN(20))
	}
}

// deliver hands over a random letter, more often a fresh one, and mostly takes
// it out of the network.
func (w *world) deliver() {
	if len(w.msgs) == 0 {
		return
	}
	i := w.rnd.IntN(len(w.msgs))
	if w.chance(2) {
		i = len(w.msgs) - 1 - w.rnd.IntN(min(6, len(w.msgs)))
	}
	w.hand(i)
}

// deliverAll hands over the letters of a kind that are under way, most of them.
func (w *world) deliverAll(kind string) {
	for i := len(w.msgs) - 1; i >= 0; i-- {
		if i < len(w.msgs) && w.msgs[i].kind == kind && !w.chance(6) {
			w.hand(i)
		}
	}
}

func (w *world) hand(i int) {
	m := w.msgs[i]
	if !w.chance(5) {
		w.msgs = slices.Delete(w.msgs, i, i+1)
	}
	to := w.hosts[m.to]
	switch m.kind {
	case "renew":
		if ok, _ := to.voter.Renew(m.session, m.config); ok {
			w.say("%s says OK to round %d", m.to, m.seq)
			w.post(letter{kind: "ok", from: m.to, to: m.from, session: m.session, nonce: m.nonce, seq: m.seq})
		}
	case "ok":
		l := w.renewing
		if l.h.OK(m.from, m.session, m.nonce, m.seq, to.Now()) {
			w.say("lease of %d extended by round %d", l.h.Session(), m.seq)
		}
		if l.h.Left(to.Now()) > 0 {
			l.believed = max(l.believed, w.now)
			if w.over[l.h.Session()] {
				w.fail("the holder believes in session %d after its end", l.h.Session())
			}
		}
	case "ask":
		if age, a := to.voter.Age(m.session); a == StandingClosed {
			w.say("%s answers age %v", m.to, age)
			w.post(letter{kind: "age", from: m.to, to: m.from, session: m.session, age: age})
		}
	case "age":
		if c := to.closings[m.session]; to.leads && c != nil {
			c.Answer(m.from, m.age, to.Now())
			w.say("%s takes age %v of %s", m.to, m.age, m.from)
		}
	}
}

// ended is called when an EndSession by expiry is committed: from here on the
// service may run elsewhere.
func (w *world) ended(session uint64) {
	w.say("session %d has ended", session)
	w.over[session] = true
	w.ends++
	for _, l := range w.leases {
		if l.h.Session() != session {
			continue
		}
		if left := l.h.Left(l.on.Now()); left > 0 {
			w.fail("session %d has ended and its holder has %v left", session, left)
		}
		if l.believed > 0 && l.believed+worldKappa > w.now {
			w.fail("session %d has ended at %v and may be served until %v", session, w.now, l.believed+worldKappa)
		}
	}
}

// decided returns a leader and its state, if it has applied its own first entry.
func (w *world) decided() (*host, *state.State) {
	l := w.leader()
	if l == nil {
		return nil, nil
	}
	w.apply(l, 1000)
	st := l.voter.View()
	if !l.leads || st.LeaderTerm != l.term {
		return nil, nil
	}
	return l, st
}

func (w *world) closeSession() {
	if l, st := w.decided(); l != nil {
		if s := w.unended(st); s != nil && s.Status == state.SessionOpen {
			w.propose(l, state.CloseSession{Session: s.ID})
		}
	}
}

func (w *world) confirm() {
	l, st := w.decided()
	if l == nil {
		return
	}
	if s := w.unended(st); s != nil && s.Status == state.SessionClosing {
		if l.closings[s.ID] == nil {
			l.closings[s.ID] = NewClosing(s.ID, s.TTL, s.Kappa, l.term)
		}
		for _, v := range l.config().Voters {
			w.post(letter{kind: "ask", from: l.name, to: v, session: s.ID})
		}
	}
}

func (w *world) end() {
	l, st := w.decided()
	if l == nil {
		return
	}
	for id, c := range l.closings {
		if s := st.Sessions[id]; s == nil || s.Status != state.SessionClosing {
			continue
		}
		if left, known := c.Due(l.config(), l.Now()); known && left <= 0 {
			w.propose(l, state.EndSession{Session: id, Proof: state.ProofExpired, Term: c.Term()})
		}
	}
}

func (w *world) recordStarts() {
	l, st := w.decided()
	if l == nil {
		return
	}
	for _, n := range w.names {
		if h := w.hosts[n]; st.Nodes[n] != nil && st.Nodes[n].Started != h.nonce && !w.chance(3) {
			w.propose(l, w.started(h))
		}
	}
}

func (w *world) open() {
	l, st := w.decided()
	if l == nil {
		return
	}
	if n := st.Nodes[holderName]; n != nil {
		if s := st.Sessions[n.Session]; s == nil || s.Status == state.SessionEnded {
			w.propose(l, w.openSession(l))
		}
	}
}

func (w *world) unended(st *state.State) *state.Session {
	if n := st.Nodes[holderName]; n != nil {
		if s := st.Sessions[n.Session]; s != nil && s.Status != state.SessionEnded {
			return s
		}
	}
	return nil
}

// change adds or removes a random voter, when that may be done.
func (w *world) change() {
	l, st := w.decided()
	if l == nil || l.firstApplied == nil || l.applied < l.committed {
		return // no Barrier
	}
	conf, place := l.latest()
	name := w.any().name
	var next Configuration
	if conf.Has(name) {
		next = NewConfiguration(slices.DeleteFunc(slices.Clone(conf.Voters), func(v string) bool { return v == name }))
	} else {
		next = NewConfiguration(append(slices.Clone(conf.Voters), name))
	}
	if w.chance(12) {
		next = NewConfiguration(w.some()) // never allowed, but by chance
	}
	if len(next.Voters) < 2 {
		return
	}
	heard := map[string]uint64{l.name: st.Index}
	for _, n := range w.some() {
		heard[n] = w.hosts[n].voter.View().Index
	}
	for range 2 {
		ok, wait, _ := MayChange(MembershipView{
			Now: l.Now(), Term: l.term, State: st,
			FirstApplied: *l.firstApplied, LastCommitted: l.lastChange, Pending: place >= l.committed,
			Current: conf, Next: next, Committed: st.Index, Applied: heard, FenceAlone: l.fenceAlone,
		})
		if ok {
			l.log = append(l.log, entry{term: l.term, conf: &next})
			w.changes++
			w.say("%s appends %d voters %v", l.name, len(l.log), next.Voters)
			return
		}
		if wait > 0 {
			w.passOn(l, wait)
		}
	}
}

// passOn lets about as much time pass as a host's clock needs to go on by d.
func (w *world) passOn(h *host, d time.Duration) {
	w.advance((reach(d, rate+h.drift) + us - 1).Truncate(us))
}

// pass lets an amount of time pass that is likely to matter.
func (w *world) pass() {
	l := w.renewing
	if w.chance(2) {
		if h := w.leader(); h != nil {
			// Until the leader's clock says that the session is over.
			for _, c := range h.closings {
				if left, known := c.Due(h.config(), h.Now()); known && left > 0 {
					w.passOn(h, left)
					return
				}
			}
		}
	}
	if left := l.h.Left(l.on.Now()); left > 0 && w.chance(3) {
		w.advance(max(left.Truncate(us)-us, us)) // the holder is about to lapse
		return
	}
	w.advance([]time.Duration{ms, 10 * ms, 100 * ms, 300 * ms, 800 * ms, 1000 * ms, 1100 * ms}[w.rnd.IntN(7)])
}

// late gives a host a snapshot, whatever it has applied.
func (w *world) late() {
	h := w.any()
	if w.chance(2) || len(w.kept) == 0 {
		w.kept = append(w.kept, kept{h.applied, h.voter.Snapshot()})
		return
	}
	k := w.kept[w.rnd.IntN(len(w.kept))]
	if k.at > h.committed {
		return // the leader would have sent the entries with it
	}
	if h.voter.Restore(k.st) == nil {
		h.applied = k.at
		w.say("%s restores %d", h.name, k.at)
	}
}

var (
	worlds    = flag.Int("worlds", 2000, "how many worlds TestNoLeaseOutlastsItsEnd tries, of each size")
	firstSeed = flag.Uint64("seed", 1, "of the first world")
)

// No holder believes in its lease, nor may what it runs still be running κ
// later, when the end of its session by expiry is committed; whatever the
// clocks, the network, restarts, elections, late snapshots and changes of the
// voters do.
func TestNoLeaseOutlastsItsEnd(t *testing.T) {
	worlds, steps := *worlds, 200
	for _, voters := range []int{3, 5} {
		t.Run(string(rune('0'+voters))+" voters", func(t *testing.T) {
			t.Parallel()
			ends, changes := 0, 0
			for i := range uint64(worlds) {
				seed := *firstSeed + i
				w := newWorld(seed, voters)
				for range steps {
					w.step()
					if w.bad != "" {
						t.Fatalf("seed %d: %s\n%s", seed, w.bad, w.story())
					}
				}
				ends += w.ends
				changes += w.changes
			}
			t.Logf("%d sessions ended, %d changes of the voters in %d worlds", ends, changes, worlds)
			if ends < worlds/10 || changes < worlds/10 {
				t.Errorf("only %d ends and %d changes: the model has lost its bite", ends, changes)
			}
		})
	}
}

var _ clock.Clock = (*host)(nil)
