package main

import "fmt"

// The second model: grants, hand-overs, journals, sessions and restarts of two
// nodes that can hold. The log is one list, since the first model shows what a
// log and a lease do; here a lease is a fact: it lasts as long as its session is
// not closed, and runs out some time after. Every state machine lags as it likes.

const (
	maxEntries = 14
	maxEpochs  = 6
	maxSess    = 4
)

// The entries.
const (
	gGrant    = iota + 1 // the next epoch to a session
	gHand                // the same, while the epoch before is not over
	gReleased            // an epoch is over
	gClose               // a session
	gExpired             // EndSession(session, expired)
	gFenced              // EndSession(session, fenced)
	gOpen                // a node's next session
	gStarted             // a node's start
	gGaveUp              // an epoch is called over without its holder's word (a fault)
)

// holder is a node that can hold.
type holder struct {
	applied    uint8
	running    uint8 // epoch that really runs, 0 for none
	nonce      uint8 // of the daemon's start
	sess       uint8 // in its journal; 0 after a reboot
	active     uint8 // journal: epochs, a bit each
	releasing  uint8 // journal
	elsewhere  uint8 // journal: records of another boot or session
	messages   uint8 // epochs for which the message came
	registered uint8 // a Started of this nonce is in the log
	//lint:ignore U1000 fills the struct up to the words that are hashed
	spare uint8
}

type grantState struct {
	h        [2]holder
	log      [maxEntries]uint8 // kind << 4 | arg
	more     [maxEntries]uint8
	n        uint8
	leases   uint8 // sessions whose lease has not run out, a bit each
	sent     uint8 // epochs for which the message is under way, for ever
	grants   uint8 // still allowed
	hands    uint8
	closes   uint8
	restarts uint8
	reboots  uint8
	fences   uint8
	//lint:ignore U1000 fills the struct up to the words that are hashed
	spare uint8
}

type grantScope struct {
	grants, hands, closes, restarts, reboots, fences uint8
	// fencedOnly: nothing ends the service when its lease runs out, and its policy
	// takes no expiry for a proof.
	fencedOnly bool
}

type grantModel struct {
	grantScope
	f faults
}

// epoch and session are parts of a replicated state.
type epoch struct{ node, sess, from, over uint8 }
type session struct{ node, closed, ended uint8 }

type view struct {
	last    uint8
	epochs  [maxEpochs]epoch
	nsess   uint8
	sess    [maxSess]session
	current [2]uint8
	nonce   [2]uint8
}

// at replays the first k entries.
func (m *grantModel) at(s *grantState, k uint8) view {
	v := view{nsess: 2, current: [2]uint8{1, 2}}
	v.sess[1], v.sess[2] = session{node: 0}, session{node: 1}
	for i := range k {
		arg, more := s.log[i]&15, s.more[i]
		switch s.log[i] >> 4 {
		case gGrant, gHand:
			v.last++
			v.epochs[v.last] = epoch{node: v.sess[arg].node, sess: arg, from: more}
		case gReleased, gGaveUp:
			v.epochs[arg].over = 1
		case gClose:
			v.sess[arg].closed = 1
		case gExpired, gFenced:
			v.sess[arg].ended = 1
			if s.log[i]>>4 == gFenced || !m.fencedOnly || m.f["proof-not-accepted"] {
				v.end(arg)
			}
		case gOpen:
			old := v.current[arg]
			v.sess[old].closed = 1
			v.nsess++
			v.sess[v.nsess].node = arg
			v.current[arg] = v.nsess
			if m.f["session-ends-grants"] {
				v.end(old)
			}
		case gStarted:
			v.nonce[arg] = more
		}
	}
	return v
}

func (v *view) end(sess uint8) {
	for e := uint8(1); e <= v.last; e++ {
		if v.epochs[e].sess == sess {
			v.epochs[e].over = 1
		}
	}
}

func (v *view) unfinished() (count int, newest uint8) {
	for e := uint8(1); e <= v.last; e++ {
		if v.epochs[e].over == 0 {
			count, newest = count+1, e
		}
	}
	return count, newest
}

func (m *grantModel) system() system[grantState] {
	s := grantState{grants: m.grants, hands: m.hands, closes: m.closes, restarts: m.restarts, reboots: m.reboots, fences: m.fences}
	s.h[0] = holder{applied: 1, running: 1, sess: 1, active: 1 << 1, registered: 1}
	s.h[1] = holder{applied: 1, sess: 2, registered: 1}
	s.log[0], s.n = gGrant<<4|1, 1
	s.leases = 1<<1 | 1<<2
	return system[grantState]{
		init: s, next: m.next, tell: m.tell,
		check: func(s *grantState) string {
			if s.h[0].running != 0 && s.h[1].running != 0 {
				return fmt.Sprintf("I1: two holders. a serves under epoch %d and b under epoch %d", s.h[0].running, s.h[1].running)
			}
			return ""
		},
		canon:    func(*grantState) {},
		variants: func(s *grantState) []grantState { return []grantState{*s} },
	}
}

// The actions of the second model.
const (
	hApply = iota
	hActivate
	hStop
	hJournal
	hReleased
	hErase
	hSend
	hReceive
	hOthersReleased
	hRestart
	hReboot
	hOpen
	hTake
	hClose
	hRunsOut
	hExpired
	hFenced
	hGrant
	hHand
	hStarted
	hGaveUp
)

func (m *grantModel) next(s *grantState, emit func(act, *grantState)) {
	now := m.at(s, s.n)
	for i := range s.h {
		m.node(s, i, &now, emit)
	}
	if s.n < maxEntries {
		m.leader(s, &now, emit)
	}
	for g := uint8(1); g <= now.nsess; g++ {
		if now.sess[g].closed != 0 && s.leases&(1<<g) != 0 {
			t := *s
			t.leases &^= 1 << g
			for i := range t.h {
				if r := t.h[i].running; r != 0 && now.epochs[r].sess == g && !m.fencedOnly {
					t.h[i].running = 0
				}
			}
			emit(act{kind: hRunsOut, a: g}, &t)
		}
	}
}

func (t *grantState) put(kind, arg, more uint8) {
	t.log[t.n], t.more[t.n] = kind<<4|arg, more
	t.n++
}

// leader are the entries that a leader decides on; the state machine refuses
// the others. Any time is right for a decision.
func (m *grantModel) leader(s *grantState, now *view, emit func(act, *grantState)) {
	count, newest := now.unfinished()
	counted := count
	if m.f["receiver-not-counted"] {
		counted = 0
		for e := uint8(1); e <= now.last; e++ {
			if now.epochs[e].over == 0 && now.epochs[e].from == 0 {
				counted++
			}
		}
	}
	for g := uint8(1); g <= now.nsess; g++ {
		sess := now.sess[g]
		if sess.closed == 0 && now.last < maxEpochs-1 {
			if counted == 0 && s.grants > 0 {
				t := *s
				t.grants--
				t.put(gGrant, g, 0)
				emit(act{hGrant, g, now.last + 1, sess.node}, &t)
			}
			if (count == 1 || count > 1 && m.f["chained-handover"]) && s.hands > 0 && now.epochs[newest].node != sess.node {
				t := *s
				t.hands--
				t.put(gHand, g, newest)
				emit(act{hHand, g, now.last + 1, newest<<1 | sess.node}, &t)
			}
		}
		if sess.closed == 0 && s.closes > 0 {
			t := *s
			t.closes--
			t.put(gClose, g, 0)
			emit(act{kind: hClose, a: g}, &t)
		}
		if sess.closed != 0 && sess.ended == 0 && s.leases&(1<<g) == 0 {
			t := *s
			t.put(gExpired, g, 0)
			emit(act{kind: hExpired, a: g}, &t)
		}
		if sess.closed != 0 && s.fences > 0 {
			t := *s
			t.fences--
			t.h[sess.node].off()
			t.leases &^= 1 << g
			t.put(gFenced, g, 0)
			emit(act{hFenced, g, sess.node, 0}, &t)
		}
	}
	if e := newest; m.f["give-up-without-release"] && e != 0 && now.epochs[e].from != 0 && s.grants > 0 {
		t := *s
		t.put(gGaveUp, e, 0)
		emit(act{kind: hGaveUp, a: e}, &t)
	}
	for i := range s.h {
		if s.h[i].registered == 0 {
			t := *s
			t.h[i].registered = 1
			t.put(gStarted, uint8(i), s.h[i].nonce)
			emit(act{kind: hStarted, a: uint8(i)}, &t)
		}
	}
}

// fresh is a new start of the daemon: its memory is gone, its state begins anew.
func (h *holder) fresh() {
	h.nonce++
	h.registered, h.messages, h.applied = 0, 0, 0
}

// off is a machine that loses power and comes back.
func (h *holder) off() {
	h.fresh()
	h.running, h.sess = 0, 0
	h.elsewhere |= h.active | h.releasing
	h.active, h.releasing = 0, 0
}

// node are the actions of a holder.
func (m *grantModel) node(s *grantState, i int, now *view, emit func(act, *grantState)) {
	h := &s.h[i]
	me := uint8(i)
	step := func(a act, change func(*grantState, *holder)) {
		t := *s
		change(&t, &t.h[i])
		emit(a, &t)
	}
	v := m.at(s, h.applied)
	ready := h.nonce == 0 || v.nonce[i] == h.nonce
	if h.applied < s.n {
		step(act{kind: hApply, a: me, b: h.applied}, func(_ *grantState, h *holder) { h.applied++ })
	}
	if h.running != 0 {
		step(act{kind: hStop, a: me, b: h.running}, func(_ *grantState, h *holder) { h.running = 0 })
	}
	records := h.active | h.releasing | h.elsewhere
	for e := uint8(1); e < maxEpochs; e++ {
		b := uint8(1) << e
		stopped := h.running != e || m.f["released-before-stopped"]
		mine := e <= v.last && v.epochs[e].node == me
		if mine && m.mayActivate(s, h, &v, e, ready) {
			step(act{kind: hActivate, a: me, b: e}, func(_ *grantState, h *holder) {
				h.running = e
				h.active |= b
			})
		}
		// Giving up: stop, journal, tell.
		if (h.active&b != 0 || mine && v.epochs[e].over == 0 && v.epochs[e].sess == h.sess) && ready && stopped && h.releasing&b == 0 && h.elsewhere&b == 0 {
			step(act{kind: hJournal, a: me, b: e}, func(_ *grantState, h *holder) {
				h.active &^= b
				h.releasing |= b
			})
		}
		if (h.releasing|h.elsewhere)&b != 0 && stopped && s.n < maxEntries && now.epochs[e].over == 0 {
			step(act{kind: hReleased, a: me, b: e}, func(t *grantState, h *holder) {
				t.put(gReleased, e, 0)
				if m.f["record-erased-early"] {
					h.releasing &^= b
					h.elsewhere &^= b
				}
			})
		}
		if records&b != 0 && h.running != e && e <= v.last && v.epochs[e].over != 0 {
			step(act{kind: hErase, a: me, b: e}, func(_ *grantState, h *holder) {
				h.active &^= b
				h.releasing &^= b
				h.elsewhere &^= b
			})
		}
		if e == maxEpochs-1 {
			continue
		}
		for to := e + 1; to < maxEpochs; to++ {
			next := uint8(1) << to
			journaled := h.releasing&b != 0 || m.f["message-before-journal"] && mine && v.epochs[e].over == 0
			if journaled && stopped && ready && to <= v.last && v.epochs[to].from == e && s.sent&next == 0 {
				step(act{hSend, me, e, to}, func(t *grantState, _ *holder) { t.sent |= next })
			}
			if s.sent&next != 0 && now.epochs[to].node == me && h.messages&next == 0 {
				step(act{hReceive, me, now.epochs[to].from, to}, func(_ *grantState, h *holder) { h.messages |= next })
			}
			if h.messages&next != 0 && now.epochs[to].from == e && now.epochs[e].over == 0 && s.n < maxEntries {
				step(act{kind: hOthersReleased, a: me, b: e}, func(t *grantState, _ *holder) { t.put(gReleased, e, 0) })
			}
		}
	}
	if s.restarts > 0 {
		step(act{kind: hRestart, a: me}, func(t *grantState, h *holder) {
			t.restarts--
			h.fresh()
			if h.running != 0 && h.active&(1<<h.running) == 0 {
				h.running = 0 // not what the journal calls active
			}
		})
	}
	if s.reboots > 0 {
		step(act{kind: hReboot, a: me}, func(t *grantState, h *holder) {
			t.reboots--
			h.off()
		})
	}
	m.sessions(s, h, me, &v, now, step)
}

// sessions: a node without a session, or whose session is over, opens one when
// everything is stopped, and takes it when it has applied that.
func (m *grantModel) sessions(s *grantState, h *holder, me uint8, v, now *view, step func(act, func(*grantState, *holder))) {
	cur := now.current[me]
	if h.running == 0 && cur == h.sess && now.sess[cur].closed != 0 || h.sess == 0 && cur == v.current[me] {
		if now.nsess < maxSess-1 && s.n < maxEntries && now.sess[cur].closed+h.nonce > 0 {
			step(act{kind: hOpen, a: me}, func(t *grantState, _ *holder) {
				t.put(gOpen, me, 0)
				t.leases |= 1 << (now.nsess + 1)
			})
		}
	}
	if mine := v.current[me]; mine > h.sess && mine > 2 && h.running == 0 {
		step(act{kind: hTake, a: me, b: mine}, func(_ *grantState, h *holder) {
			h.sess = mine
			h.elsewhere |= h.active | h.releasing
			h.active, h.releasing = 0, 0
		})
	}
}

// mayActivate is what rules 4, 9, 10, 11 and 12 ask before an epoch is begun.
func (m *grantModel) mayActivate(s *grantState, h *holder, v *view, e uint8, ready bool) bool {
	b := uint8(1) << e
	g := v.epochs[e]
	switch {
	case h.running != 0, g.over != 0, g.sess != h.sess, s.leases&(1<<g.sess) == 0 && !m.fencedOnly:
		return false
	case !ready && !m.f["activation-without-barrier"]:
		return false
	case h.releasing&b != 0 && !m.f["releasing-activated"], h.elsewhere&b != 0:
		return false
	}
	if g.from == 0 || v.epochs[g.from].over != 0 {
		return true
	}
	return h.messages&b != 0 || m.f["message-of-another"] && h.messages != 0
}
