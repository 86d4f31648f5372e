package main

import "math/bits"

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
