package main

import "math/bits"

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
		put := func(kind, what, arg uint8, then func(*leaseState, *voter)) {
			t := *s
			w := &t.v[l]
			w.log[w.length] = entryOf(kind, w.term, arg)
			w.length++
			if then != nil {
				then(&t, w)
			}
			do(act{what, uint8(l), arg, 0}, t)
		}
		if !v.closed(v.length) {
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
func (m *leaseModel) ends(s *leaseState, l int, put func(kind, what, arg uint8, then func(*leaseState, *voter)), do emitter) {
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
	if v.due != 0 {
		older := v.due != v.term+1
		put(eEnd, aEnd, 0, func(t *leaseState, w *voter) {
			w.due = 0
			if older {
				t.bad |= badOldTerm
			}
		})
	}
}

// changesVoters is rule 14, and what raft asks besides: the last change is
// committed, and so is an entry of the leader's own term.
func (m *leaseModel) changesVoters(s *leaseState, l int, put func(kind, what, arg uint8, then func(*leaseState, *voter)), do emitter) {
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
