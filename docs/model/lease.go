package main

import (
	"bytes"
	"math/bits"
	"unsafe"
)

// The first model: renewals, the taking away, voters that restart, terms and
// membership. Node a holds service S under session 1 and renews it; whoever
// leads may close the session at any time; when its end is committed b serves.
// Raft is modelled as it is: every voter has a log of its own.
//
// Time is counted in ticks and only as ages, which stop growing where they no
// longer matter, so that there are finitely many states. Everything happens
// between two ticks in any order and any number of times.

const (
	maxNodes = 4
	maxLog   = 8
	removal  = 1 << maxNodes // a voter's bit with this: take its vote
)

// The entries of the log. 0 is no entry.
const (
	eStart   = iota + 1 // LeaderStart
	eStarted            // a voter's own start; arg: node | nonce << 2
	eClose              // CloseSession(1)
	eEnd                // EndSession(1, expired, term)
	eOpen2              // OpenSession(a) again, in place of session 1, which it closes
	eConfig             // a configuration; arg: its voters, a bit each
)

// entry is kind, term and argument.
type entry uint16

func entryOf(kind, term, arg uint8) entry {
	return entry(kind)<<12 | entry(term)<<8 | entry(arg)
}
func (e entry) kind() uint8 { return uint8(e >> 12) }
func (e entry) term() uint8 { return uint8(e>>8) & 15 }
func (e entry) arg() uint8  { return uint8(e) }

// voter is a node with a vote or one that is to get it, and what it knows as a leader.
type voter struct {
	log     [maxLog]entry
	length  uint8
	applied uint8
	term    uint8
	note    uint8 // age of renewed[1]; after a restart the age of the start
	nonce   uint8 // its start; 0 is registered from the beginning
	lead    uint8 // believes that it leads
	own     uint8 // has applied its own LeaderStart
	quiet   uint8 // age of that, or of its last committed change of voters
	chk     uint8 // change that it has checked and not appended yet: the voter's bit, and removal
	due     uint8 // it has found that D has passed
	pend    uint8 // renewal that was checked and is not noted yet (a fault)
	//lint:ignore U1000 fills the struct up to the words that are hashed
	spare uint8
	bound [maxNodes]uint8 // 1 + age of what each voter answered about the close
	asked [maxNodes]uint8 // 1 + age of the question to it
}

// request is a Renew under way, with the OKs to it.
type request struct {
	used  uint8 // 1 + session
	conf  uint8 // voters of the configuration that it carries
	index uint8 // where that stands in the log (a fault: configuration by index)
	age   uint8 // since the sending
	got   uint8 // voters that said OK
	recv  uint8 // OKs that arrived
}

type leaseState struct {
	v    [maxNodes]voter
	r    [2]request
	com  [maxLog]entry // what is committed
	in   [maxLog]uint8 // and in the term of which leader
	ncom uint8
	left uint8 // ticks until a has certainly stopped serving under session 1, κ included
	// ended: the end is committed and b serves.
	ended     uint8
	elections uint8 // still allowed
	restarts  uint8
	changes   uint8
	goings    uint8 // state machines that go back (a fault)
	bad       uint8 // invariants other than I1 that broke
	first     uint8 // the first configuration: its voters, a bit each
	//lint:ignore U1000 fills the struct up to the words that are hashed
	spare uint8
}

const (
	badNotReady = 1 << iota // I7
	badClosed               // I5
	badOldTerm              // R11
	badRaft                 // the model of raft itself
)

// leaseScope bounds a search.
type leaseScope struct {
	nodes     int
	voters    uint8 // at first
	h, k      uint8
	requests  int
	elections uint8
	restarts  uint8
	changes   uint8
	goings    uint8
	slowOK    bool // OKs travel; otherwise they arrive at once, which is the worst
	slowAsk   bool // questions travel
	session2  bool
	gap       gapKind
	// prompt: entries travel together and are applied at once, except by who
	// has none of them. For what has nothing to do with lag.
	prompt bool
}

// gapKind is what may happen between the check of a change and its append.
type gapKind uint8

const (
	gapNone gapKind = iota // nothing: they are one
	gapTerm                // anything, but in the term of the check
)

type leaseModel struct {
	leaseScope
	f faults
}

func (m *leaseModel) wait() uint8 {
	switch {
	case m.f["kappa-left-out"]:
		return m.h
	case m.f["h-left-out"]:
		return m.k
	}
	return m.h + m.k
}

// most is the age from which on nothing changes.
func (m *leaseModel) most() uint8 { return m.h + m.k }

func (m *leaseModel) system() system[leaseState] {
	var s leaseState
	for i := range m.nodes {
		s.v[i] = voter{note: m.most(), quiet: m.most()}
	}
	// v1 leads already, in the first term, and waited long ago.
	s.v[0].lead, s.v[0].own = 1, 1
	s.first = m.voters
	s.elections, s.restarts, s.changes = m.elections, m.restarts, m.changes
	if m.f["late-snapshot"] {
		s.goings = m.goings
	}
	return system[leaseState]{init: s, next: m.next, check: m.check, canon: m.canon, variants: m.variants, tell: m.tell}
}

func (m *leaseModel) check(s *leaseState) string {
	switch {
	case s.ended != 0 && s.left > 0:
		return "I1: two holders. b serves, since session 1 has ended, and a may serve under it for another tick"
	case s.bad&badRaft != 0:
		return "the model of raft is wrong: two committed logs, or two leaders of a term"
	case s.bad&badClosed != 0 && m.f.strict():
		return "I5: OK after an applied close"
	case s.bad&badNotReady != 0 && m.f.strict():
		return "I7: a voter that is not ready counted"
	case s.bad&badOldTerm != 0:
		return "R11: an end is appended on what was heard in an older term"
	}
	return ""
}

// configOf is the latest configuration in a node's log and where it stands.
func (s *leaseState) configOf(v *voter, upTo uint8) (voters, index uint8) {
	for i := int(upTo) - 1; i >= 0; i-- {
		if v.log[i].kind() == eConfig {
			return v.log[i].arg(), uint8(i) + 1
		}
	}
	return s.first, 0
}

func (s *leaseState) config(v *voter) uint8 {
	c, _ := s.configOf(v, v.length)
	return c
}

// has reports whether one of the first n entries is of a kind.
func (v *voter) has(kind, n uint8) bool {
	for _, e := range v.log[:n] {
		if e.kind() == kind {
			return true
		}
	}
	return false
}

// closed and ended are session 1 in a node's state after its first n entries.
func (v *voter) closed(n uint8) bool { return v.has(eClose, n) || v.has(eOpen2, n) }
func (v *voter) ended(n uint8) bool  { return v.has(eEnd, n) }

func (v *voter) registered(i int, n uint8) bool {
	if v.nonce == 0 {
		return true
	}
	want := uint8(i) | v.nonce<<2
	for _, e := range v.log[:n] {
		if e.kind() == eStarted && e.arg() == want {
			return true
		}
	}
	return false
}

// ready: the applied state holds the nonce of this very start.
func (v *voter) ready(i int) bool { return v.registered(i, v.applied) }

func majority(c uint8) int { return bits.OnesCount8(c)/2 + 1 }

func bit(i int) uint8 { return 1 << i }

// settle does what needs no decision. Of all entries only a close is worth
// being late with; applying the others at once allows most. An answer is best
// given at once: a note grows younger later, if it changes at all.
func (m *leaseModel) settle(s *leaseState) {
	for i := range m.nodes {
		if s.v[i].lead != 0 {
			m.commit(s, i)
		}
	}
	for i := range m.nodes {
		m.applyEasy(s, i)
	}
	if m.slowAsk {
		return
	}
	for l := range m.nodes {
		v := &s.v[l]
		if v.lead == 0 || !m.mayAsk(v) {
			continue
		}
		for i := range m.nodes {
			if m.mayAnswer(&s.v[i]) {
				v.bound[i] = max(v.bound[i], s.v[i].note+1)
			}
		}
	}
}

// mayAsk: the leader has applied the close, and not appended the end yet.
func (m *leaseModel) mayAsk(v *voter) bool {
	return !v.ended(v.length) && (v.closed(v.applied) || m.f["close-not-committed"] && v.closed(v.length))
}

// mayAnswer: the voter has applied the close.
func (m *leaseModel) mayAnswer(v *voter) bool {
	switch {
	case m.f["close-not-applied"]:
		return true
	case m.f["close-not-committed"]:
		return v.closed(v.length)
	}
	return v.closed(v.applied)
}

// commit moves the commit index as a leader does: by an entry of its own term
// that a majority of its latest configuration has.
func (m *leaseModel) commit(s *leaseState, l int) {
	v := &s.v[l]
	conf := s.config(v)
	for n := v.length; n > s.ncom; n-- {
		if v.log[n-1].term() != v.term {
			return
		}
		have := 0
		for i := range m.nodes {
			w := &s.v[i]
			if conf&bit(i) != 0 && w.length >= n && w.log[n-1] == v.log[n-1] {
				have++
			}
		}
		if have < majority(conf) {
			continue
		}
		for i := range n {
			if i < s.ncom && s.com[i] != v.log[i] {
				s.bad |= badRaft
			}
			if i >= s.ncom {
				s.com[i], s.in[i] = v.log[i], v.term
			}
			if k := v.log[i].kind(); i >= s.ncom && (k == eEnd || k == eOpen2 && m.f["new-session-ends-grants"]) {
				s.ended = 1
			}
		}
		s.ncom = n
		return
	}
}

// canApply: whoever has heard of that term may have heard of the commit.
func (m *leaseModel) canApply(s *leaseState, v *voter) bool {
	n := v.applied
	return n < v.length && n < s.ncom && v.log[n] == s.com[n] && v.term >= s.in[n]
}

func (m *leaseModel) applyEasy(s *leaseState, i int) {
	v := &s.v[i]
	for m.canApply(s, v) {
		switch k := v.log[v.applied].kind(); {
		case (k == eClose || k == eOpen2) && !m.prompt:
			return
		case k == eConfig && m.f["applied-configuration"]:
			return
		}
		m.apply(v)
	}
}

func (m *leaseModel) apply(v *voter) {
	e := v.log[v.applied]
	v.applied++
	if v.lead == 0 || e.term() != v.term {
		return
	}
	switch e.kind() {
	case eStart:
		v.own = 1
		if !m.f["wait-from-leaderch"] {
			v.quiet = 0
		}
	case eConfig:
		if !m.f["no-wait-between-changes"] {
			v.quiet = 0
		}
	}
}

// follow makes a node give up what it knew as a leader.
func (m *leaseModel) follow(v *voter) {
	v.lead, v.own, v.quiet = 0, 0, 0
	if !m.f["change-of-older-term"] {
		v.chk = 0
	}
	if !m.f["end-of-older-term"] {
		v.due = 0
	}
	v.bound, v.asked = [maxNodes]uint8{}, [maxNodes]uint8{}
}

// canon orders voters and requests; any renaming of nodes gives an equal state.
func (m *leaseModel) canon(s *leaseState) {
	if s.r[0].less(&s.r[1]) {
		s.r[0], s.r[1] = s.r[1], s.r[0]
	}
	order := [maxNodes]uint8{0, 1, 2, 3}
	for i := 1; i < m.nodes; i++ {
		for j := i; j > 0 && s.less(order[j], order[j-1]); j-- {
			order[j], order[j-1] = order[j-1], order[j]
		}
	}
	if order != [maxNodes]uint8{0, 1, 2, 3} {
		*s = m.renamed(s, order)
	}
}

func (r *request) less(o *request) bool {
	return bytes.Compare((*[6]byte)(unsafe.Pointer(r))[:], (*[6]byte)(unsafe.Pointer(o))[:]) < 0
}

// less compares two nodes by what does not name other nodes.
func (s *leaseState) less(a, b uint8) bool {
	x, y := &s.v[a], &s.v[b]
	for i := range x.log {
		if x.log[i]>>8 != y.log[i]>>8 {
			return x.log[i]>>8 > y.log[i]>>8
		}
	}
	p := (*[11]byte)(unsafe.Pointer(&x.length))
	q := (*[11]byte)(unsafe.Pointer(&y.length))
	if c := bytes.Compare(p[:], q[:]); c != 0 {
		return c > 0
	}
	for i := range s.r {
		k, l := s.r[i].got>>a&1|s.r[i].conf>>a&1<<1|s.r[i].recv>>a&1<<2, s.r[i].got>>b&1|s.r[i].conf>>b&1<<1|s.r[i].recv>>b&1<<2
		if k != l {
			return k > l
		}
	}
	return false
}

// renamed makes node order[i] node i.
func (m *leaseModel) renamed(s *leaseState, order [maxNodes]uint8) leaseState {
	t := *s
	var to [maxNodes]uint8
	for i, o := range order {
		to[o] = uint8(i)
	}
	mask := func(c uint8) uint8 {
		var out uint8
		for i := range maxNodes {
			out |= c >> i & 1 << to[i]
		}
		return out
	}
	rename := func(e entry) entry {
		switch e.kind() {
		case eConfig:
			return entryOf(eConfig, e.term(), mask(e.arg()))
		case eStarted:
			return entryOf(eStarted, e.term(), to[e.arg()&3]|e.arg()&^3)
		}
		return e
	}
	for i, o := range order {
		v := s.v[o]
		for j := range v.log {
			v.log[j] = rename(v.log[j])
		}
		for j := range maxNodes {
			v.bound[to[j]], v.asked[to[j]] = s.v[o].bound[j], s.v[o].asked[j]
		}
		v.chk = mask(v.chk&15) | v.chk&removal
		t.v[i] = v
	}
	t.first = mask(s.first)
	for j := range t.com {
		t.com[j] = rename(t.com[j])
	}
	for j := range t.r {
		t.r[j].conf, t.r[j].got, t.r[j].recv = mask(t.r[j].conf), mask(t.r[j].got), mask(t.r[j].recv)
	}
	return t
}

// variants are the state under every renaming of its nodes.
func (m *leaseModel) variants(s *leaseState) []leaseState {
	out := []leaseState{}
	var place func(order [maxNodes]uint8, used uint8, n int)
	place = func(order [maxNodes]uint8, used uint8, n int) {
		if n == m.nodes {
			out = append(out, m.renamed(s, order))
			return
		}
		for i := range m.nodes {
			if used&bit(i) == 0 {
				order[n] = uint8(i)
				place(order, used|bit(i), n+1)
			}
		}
	}
	place([maxNodes]uint8{0, 1, 2, 3}, 0, 0)
	return out
}
