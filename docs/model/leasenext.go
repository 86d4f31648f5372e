package main

import (
	"fmt"
	"math/bits"
)

// The actions of the first model.
const (
	aTick = iota
	aSend
	aOK
	aCheckOK
	aNoteOK
	aReceive
	aElect
	aClose
	aStarted
	aOpen2
	aCheckDue
	aEnd
	aCheckChange
	aChange
	aReplicate
	aHeartbeat
	aApply
	aRestart
	aAsk
	aAnswer
	aGoBack
)

func (m *leaseModel) next(s *leaseState, emit func(act, *leaseState)) {
	do := func(a act, t leaseState) {
		m.settle(&t)
		emit(a, &t)
	}
	do(act{kind: aTick}, m.tick(s))
	m.renewals(s, do)
	for i := range m.nodes {
		m.elections1(s, i, do)
		if s.v[i].lead != 0 {
			m.leads(s, i, do)
		}
		m.alone(s, i, do)
	}
}

type emitter func(act, leaseState)

func older(age *uint8, most uint8) {
	if *age < most {
		*age++
	}
}

func (m *leaseModel) tick(s *leaseState) leaseState {
	t := *s
	for i := range m.nodes {
		v := &t.v[i]
		if v.lead != 0 {
			if v.own != 0 || m.f["wait-from-leaderch"] {
				older(&v.quiet, m.most())
			}
			for j := range v.bound {
				if v.bound[j] != 0 {
					older(&v.bound[j], m.most()+1)
				}
				if v.asked[j] != 0 {
					older(&v.asked[j], m.most()+1)
				}
			}
		}
		older(&v.note, m.most())
	}
	for i := range t.r {
		r := &t.r[i]
		if r.used == 0 {
			continue
		}
		r.age++
		if r.age >= m.h && !m.f["lease-from-receipt"] || r.age > 2*m.h {
			*r = request{} // whatever it brings has passed
		}
	}
	if t.left > 0 {
		t.left--
	}
	return t
}

// renewals: the requests of a, which may be sent under any configuration that
// anybody has, are lost by being replaced, and reach voters in any order.
func (m *leaseModel) renewals(s *leaseState, do emitter) {
	var confs [16]bool
	for i := range m.nodes {
		v := &s.v[i]
		c, index := s.configOf(v, v.length)
		if confs[c] && !m.f["configuration-by-index"] {
			continue
		}
		confs[c] = true
		if !m.f["configuration-by-index"] {
			index = 0
		}
		for sess := uint8(1); sess == 1 || sess == 2 && m.session2; sess++ {
			r := request{used: 1 + sess, conf: c, index: index}
			for j := range m.requests {
				if s.r[j] == r {
					break
				}
				if s.r[j].used != 0 && j < m.requests-1 && s.r[j+1].used == 0 {
					continue // a free place is as good
				}
				t := *s
				t.r[j] = r
				if m.slowOK || m.f["check-and-note-apart"] {
					do(act{aSend, uint8(j), c, sess}, t)
					continue
				}
				// Whoever sends best does so right before the first OK.
				for k := range m.nodes {
					if c&bit(k) != 0 && m.saysOK(s, &r, k) {
						u := t
						m.ok(&u, j, k)
						do(act{aSend, uint8(k) + 1, c, sess}, u)
					}
				}
			}
		}
	}
	for j := range m.requests {
		r := &s.r[j]
		if r.used == 0 {
			continue
		}
		for i := range m.nodes {
			b := bit(i)
			if r.conf&b == 0 {
				continue
			}
			if r.got&b == 0 && m.saysOK(s, r, i) {
				if m.f["check-and-note-apart"] {
					if s.v[i].pend == 0 {
						t := *s
						t.v[i].pend = 1
						do(act{aCheckOK, uint8(i), uint8(j), 0}, t)
					}
				} else {
					t := *s
					m.ok(&t, j, i)
					do(act{aOK, uint8(i), uint8(j), r.used - 1}, t)
				}
			}
			if m.f["check-and-note-apart"] && s.v[i].pend != 0 && r.got&b == 0 && r.used == 2 {
				t := *s
				t.v[i].pend = 0
				m.ok(&t, j, i)
				do(act{aNoteOK, uint8(i), uint8(j), 0}, t)
			}
			if r.got&b != 0 && r.recv&b == 0 {
				t := *s
				m.receive(&t, j, b)
				do(act{aReceive, uint8(i), uint8(j), r.used - 1}, t)
			}
		}
	}
}

// saysOK is rule 2.
func (m *leaseModel) saysOK(s *leaseState, r *request, i int) bool {
	v := &s.v[i]
	if !v.ready(i) && !m.f["not-ready-counts"] {
		return false
	}
	if r.used == 2 {
		switch {
		case m.f["ok-while-closing"]:
			if v.ended(v.applied) {
				return false
			}
		case v.closed(v.applied):
			return false
		}
	} else if !v.has(eOpen2, v.applied) {
		return false
	}
	upTo := v.length
	if m.f["applied-configuration"] {
		upTo = v.applied
	}
	c, index := s.configOf(v, upTo)
	switch {
	case m.f["no-configuration-check"]:
		return true
	case m.f["configuration-by-index"]:
		return index == r.index && c&bit(i) != 0
	}
	return c == r.conf && c&bit(i) != 0
}

func (m *leaseModel) ok(s *leaseState, j, i int) {
	v, r := &s.v[i], &s.r[j]
	if !v.ready(i) {
		s.bad |= badNotReady
	}
	if r.used == 2 {
		if v.closed(v.applied) {
			s.bad |= badClosed
		}
		v.note = 0
	}
	r.got |= bit(i)
	if !m.slowOK {
		m.receive(s, j, bit(i))
	}
}

// receive is rule 3.
func (m *leaseModel) receive(s *leaseState, j int, b uint8) {
	r := &s.r[j]
	r.recv |= b
	oks, age := r.recv, r.age
	if m.f["requests-mixed"] {
		for k := range m.requests {
			if s.r[k].used == r.used {
				oks |= s.r[k].recv
				age = min(age, s.r[k].age)
			}
		}
	}
	if bits.OnesCount8(oks&r.conf) < majority(r.conf) || r.used != 2 && !m.f["until-shared"] {
		return
	}
	if m.f["lease-from-receipt"] {
		age = 0
	}
	if age < m.h {
		s.left = max(s.left, m.h-age+m.k)
	}
	if !m.slowOK {
		*r = request{} // more OKs would make notes younger and nothing else
	}
}

// elections1 makes node i leader by the votes of every smallest majority of its
// own latest configuration.
func (m *leaseModel) elections1(s *leaseState, i int, do emitter) {
	v := &s.v[i]
	conf := s.config(v)
	if s.elections == 0 || conf&bit(i) == 0 || v.length == maxLog {
		return
	}
	for q := uint8(0); q < 1<<m.nodes; q++ {
		if q&^conf != 0 || q&bit(i) == 0 || bits.OnesCount8(q) != majority(conf) {
			continue
		}
		term := uint8(0)
		grants := true
		for j := range m.nodes {
			if q&bit(j) == 0 {
				continue
			}
			w := &s.v[j]
			term = max(term, w.term)
			grants = grants && !w.ahead(v)
		}
		if !grants {
			continue
		}
		term++
		t := *s
		for j := range m.nodes {
			if w := &t.v[j]; q&bit(j) != 0 {
				m.follow(w)
				w.term = term
			} else if w.lead != 0 && w.term == term {
				t.bad |= badRaft
			}
		}
		w := &t.v[i]
		w.lead = 1
		w.log[w.length] = entryOf(eStart, term, 0)
		w.length++
		t.elections--
		do(act{aElect, uint8(i), q, term}, t)
	}
}

// ahead reports whether a log is newer than another's, so that no vote is given.
func (v *voter) ahead(o *voter) bool {
	a, b := v.last(), o.last()
	return a > b || a == b && v.length > o.length
}

func (v *voter) last() uint8 {
	if v.length == 0 {
		return 0
	}
	return v.log[v.length-1].term()
}

// leads are the actions of a node that believes that it leads.
func (m *leaseModel) leads(s *leaseState, l int, do emitter) {
	v := &s.v[l]
	for i := range m.nodes {
		if i != l {
			m.replicate(s, l, i, do)
		}
	}
	if v.own == 0 && !m.f["wait-from-leaderch"] {
		return
	}
	if v.length < maxLog {
		put := func(kind, what, arg uint8, then func(*voter)) {
			t := *s
			w := &t.v[l]
			w.log[w.length] = entryOf(kind, w.term, arg)
			w.length++
			if then != nil {
				then(w)
			}
			do(act{what, uint8(l), arg, 0}, t)
		}
		free := m.gap != gapAlone || v.chk == 0
		if !v.closed(v.length) && free {
			put(eClose, aClose, 0, nil)
			if m.session2 {
				put(eOpen2, aOpen2, 0, nil)
			}
		}
		for i := range m.nodes {
			if !s.v[i].registered(i, v.length) {
				put(eStarted, aStarted, uint8(i)|s.v[i].nonce<<2, nil)
			}
		}
		m.ends(s, l, put, do)
		m.changesVoters(s, l, put, do)
	}
	m.asks(s, l, do)
}

// replicate brings the next entry to a node, or takes away what contradicts it.
func (m *leaseModel) replicate(s *leaseState, l, i int, do emitter) {
	v, w := &s.v[l], &s.v[i]
	if w.term > v.term {
		return
	}
	n := uint8(0)
	for n < v.length && n < w.length && v.log[n] == w.log[n] {
		n++
	}
	t := *s
	x := &t.v[i]
	if n == v.length {
		if x.term < v.term {
			m.follow(x)
			x.term = v.term
			do(act{aHeartbeat, uint8(l), uint8(i), 0}, t)
		}
		return
	}
	if n < w.length {
		for j := n; j < x.length; j++ {
			x.log[j] = 0
		}
		if x.applied > n {
			t.bad |= badRaft
		}
	}
	x.log[n] = v.log[n]
	x.length = n + 1
	if m.prompt {
		x.log, x.length = v.log, v.length
	}
	if x.term < v.term {
		m.follow(x)
		x.term = v.term
	}
	do(act{aReplicate, uint8(l), uint8(i), n}, t)
}

// ends is rule 7.
func (m *leaseModel) ends(s *leaseState, l int, put func(kind, what, arg uint8, then func(*voter)), do emitter) {
	v := &s.v[l]
	if v.ended(v.length) || !v.closed(v.length) {
		return
	}
	known := v.closed(v.applied)
	if m.f["close-not-committed"] {
		known = true
	}
	conf := s.config(v)
	answered, passed := 0, 0
	for i := range m.nodes {
		if conf&bit(i) == 0 || v.bound[i] == 0 {
			continue
		}
		answered++
		if v.bound[i]-1 >= m.wait() {
			passed++
		}
	}
	need := majority(conf)
	switch {
	case m.f["one-answer"]:
		need = 1
	case m.f["min-for-max"] && answered >= need && passed > 0:
		need = 1
	}
	due := known && passed >= need
	if m.gap == gapNone && !m.f["end-of-older-term"] {
		if due {
			put(eEnd, aEnd, 0, nil)
		}
		return
	}
	if due && v.due == 0 {
		t := *s
		t.v[l].due = v.term + 1
		do(act{aCheckDue, uint8(l), 0, 0}, t)
	}
	if v.due != 0 && (m.gap != gapAlone || v.chk == 0) {
		put(eEnd, aEnd, 0, func(w *voter) { w.due = 0 })
	}
}

// changesVoters is rule 14, and what raft asks besides: the last change is
// committed, and so is an entry of the leader's own term.
func (m *leaseModel) changesVoters(s *leaseState, l int, put func(kind, what, arg uint8, then func(*voter)), do emitter) {
	v := &s.v[l]
	if s.changes == 0 {
		return
	}
	conf, index := s.configOf(v, v.length)
	raft := index <= s.ncom && s.ncom > 0 && s.com[s.ncom-1].term() == v.term || v.term == 0 && index <= s.ncom
	append1 := func(c uint8) {
		t := *s
		w := &t.v[l]
		w.log[w.length] = entryOf(eConfig, w.term, c)
		w.length++
		w.chk = 0
		t.changes--
		do(act{aChange, uint8(l), conf, c}, t)
	}
	if b := v.chk & 15; b != 0 && raft && (conf&b != 0) == (v.chk&removal != 0) && conf != b {
		// raft is told of one voter to add or to remove, whatever the others are by now.
		append1(conf ^ b)
	}
	if !raft || v.quiet < m.quietFor() || v.applied < s.ncom && !m.f["lag-ignored"] {
		return
	}
	if v.closed(v.applied) && !v.ended(v.applied) && !m.f["change-while-closing"] {
		return
	}
	for i := range m.nodes {
		c := conf ^ bit(i)
		if c == 0 || v.chk != 0 {
			continue
		}
		heard := 0
		for j := range m.nodes {
			if c&bit(j) != 0 && s.v[j].applied >= v.applied {
				heard++
			}
		}
		if heard < majority(c) && !m.f["lag-ignored"] {
			continue
		}
		if m.gap == gapNone {
			append1(c)
			continue
		}
		t := *s
		t.v[l].chk = bit(i)
		if conf&bit(i) != 0 {
			t.v[l].chk |= removal
		}
		do(act{aCheckChange, uint8(l), conf, c}, t)
	}
}

func (m *leaseModel) quietFor() uint8 {
	if m.f["no-wait-at-all"] {
		return 0
	}
	return m.h + m.k
}

// asks is rule 6: questions, answers and their ages.
func (m *leaseModel) asks(s *leaseState, l int, do emitter) {
	v := &s.v[l]
	if !m.slowAsk || !m.mayAsk(v) {
		return
	}
	for i := range m.nodes {
		w := &s.v[i]
		if v.asked[i] == 0 {
			t := *s
			t.v[l].asked[i] = 1
			do(act{aAsk, uint8(l), uint8(i), 0}, t)
			continue
		}
		if !m.mayAnswer(w) {
			continue
		}
		age := w.note
		if m.f["bound-at-sending"] {
			age = min(m.most(), age+v.asked[i]-1)
		}
		if v.bound[i] >= age+1 {
			continue
		}
		t := *s
		t.v[l].bound[i], t.v[l].asked[i] = age+1, 0
		do(act{aAnswer, uint8(i), uint8(l), age}, t)
	}
}

// alone are the actions that a node does by itself.
func (m *leaseModel) alone(s *leaseState, i int, do emitter) {
	v := &s.v[i]
	if m.canApply(s, v) {
		t := *s
		m.apply(&t.v[i])
		do(act{aApply, uint8(i), uint8(v.log[v.applied].kind()), 0}, t)
	}
	if s.restarts > 0 {
		t := *s
		t.restarts--
		w := &t.v[i]
		m.follow(w)
		w.chk, w.due, w.pend = 0, 0, 0
		w.applied, w.note = 0, 0
		w.nonce++
		if m.f["renewed-never-at-restart"] {
			w.note = m.most()
		}
		do(act{aRestart, uint8(i), 0, 0}, t)
	}
	if s.goings > 0 && v.closed(v.applied) {
		// A snapshot from before the close: what comes after is applied anew.
		t := *s
		t.goings--
		t.v[i].applied = 0
		do(act{aGoBack, uint8(i), 0, 0}, t)
	}
}

func nodes(c uint8) string {
	out := "{"
	for i := range maxNodes {
		if c&bit(i) != 0 {
			if len(out) > 1 {
				out += " "
			}
			out += fmt.Sprintf("v%d", i+1)
		}
	}
	return out + "}"
}

func entryWords(e entry) string {
	switch e.kind() {
	case eStart:
		return fmt.Sprintf("LeaderStart of term %d", e.term())
	case eStarted:
		return fmt.Sprintf("Started(v%d, start %d)", e.arg()&3+1, e.arg()>>2)
	case eClose:
		return "CloseSession(1)"
	case eEnd:
		return "EndSession(1, expired)"
	case eOpen2:
		return "OpenSession(a), which is session 2 and closes 1"
	case eConfig:
		return "configuration " + nodes(e.arg())
	}
	return "nothing"
}

// tell puts an action into words, with what followed from it.
func (m *leaseModel) tell(a act, before, after *leaseState) string {
	var line string
	switch a.kind {
	case aTick:
		line = "a tick passes"
	case aSend:
		line = fmt.Sprintf("a sends Renew(%d) under %s", a.c, nodes(a.b))
		if !m.slowOK && !m.f["check-and-note-apart"] {
			line += fmt.Sprintf(", v%d says OK", a.a)
		}
	case aOK:
		line = fmt.Sprintf("v%d says OK to session %d, sent %d ticks ago", a.a+1, a.c, before.r[a.b].age)
	case aCheckOK:
		line = fmt.Sprintf("v%d checks a renewal and finds it good, but has not noted it yet", a.a+1)
	case aNoteOK:
		line = fmt.Sprintf("v%d notes the renewal that it has checked and says OK", a.a+1)
	case aReceive:
		line = fmt.Sprintf("a receives v%d's OK to session %d", a.a+1, a.c)
	case aElect:
		line = fmt.Sprintf("v%d is elected in term %d by %s", a.a+1, a.c, nodes(a.b))
	case aClose, aOpen2, aEnd, aStarted:
		line = fmt.Sprintf("v%d, leading in term %d, appends %s", a.a+1, before.v[a.a].term, entryWords(after.v[a.a].log[before.v[a.a].length]))
	case aCheckDue:
		line = fmt.Sprintf("v%d finds that D has passed", a.a+1)
	case aCheckChange:
		line = fmt.Sprintf("v%d, leading in term %d, finds that it may change %s to %s", a.a+1, before.v[a.a].term, nodes(a.b), nodes(a.c))
	case aChange:
		line = fmt.Sprintf("v%d, leading in term %d, appends configuration %s in place of %s", a.a+1, before.v[a.a].term, nodes(a.c), nodes(a.b))
	case aReplicate:
		line = fmt.Sprintf("v%d takes entry %d from v%d: %s", a.b+1, a.c+1, a.a+1, entryWords(before.v[a.a].log[a.c]))
		if a.c < before.v[a.b].length {
			line += fmt.Sprintf(", and drops %s", entryWords(before.v[a.b].log[a.c]))
		}
	case aHeartbeat:
		line = fmt.Sprintf("v%d hears of term %d from v%d", a.b+1, after.v[a.b].term, a.a+1)
	case aApply:
		line = fmt.Sprintf("v%d applies %s", a.a+1, entryWords(before.v[a.a].log[before.v[a.a].applied]))
	case aRestart:
		line = fmt.Sprintf("v%d restarts", a.a+1)
	case aAsk:
		line = fmt.Sprintf("v%d asks v%d to confirm the close", a.a+1, a.b+1)
	case aAnswer:
		line = fmt.Sprintf("v%d answers v%d: closed, renewed %d ticks ago or more", a.a+1, a.b+1, before.v[a.a].note)
	case aGoBack:
		line = fmt.Sprintf("v%d restores a snapshot from before the close", a.a+1)
	}
	if after.left > before.left {
		line += fmt.Sprintf("; a may serve for another %d ticks", after.left)
	}
	for l := range m.nodes {
		for i := range m.nodes {
			if age := after.v[l].bound[i]; !m.slowAsk && age > 0 && age > before.v[l].bound[i] && a.kind != aTick {
				line += fmt.Sprintf("; v%d confirms the close to v%d, renewed %d ticks ago", i+1, l+1, age-1)
			}
		}
	}
	for n := before.ncom; n < after.ncom; n++ {
		line += "; committed: " + entryWords(after.com[n])
	}
	if after.ended > before.ended {
		line += "; b serves"
	}
	return line
}
