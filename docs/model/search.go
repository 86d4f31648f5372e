package main

import (
	"fmt"
	"math/bits"
	"strings"
	"time"
	"unsafe"
)

// act is an action with its arguments, as small as can be: millions are made
// and only those of a counterexample are ever put into words.
type act struct{ kind, a, b, c uint8 }

// system is something to search. S is a flat struct of integers without
// padding, so that its memory is its identity.
type system[S any] struct {
	init S
	// next emits every successor, always in the same order.
	next func(s *S, emit func(act, *S))
	// check says which invariant a state breaks, or nothing.
	check func(s *S) string
	// canon maps a state to a state that differs in names alone, the same for as
	// many as possible. variants are all states that differ in names alone.
	canon    func(s *S)
	variants func(s *S) []S
	tell     func(a act, before, after *S) string
}

// bounds ends a search that would not end.
type bounds struct {
	states int
	time   time.Duration
}

// outcome is what a search found.
type outcome struct {
	States   int
	Depth    int
	Peak     int // largest number of states that waited at once
	Complete bool
	Broken   string   // the invariant, if one broke
	Trace    []string // a shortest way there, one line an action
	Seconds  float64
	Bytes    int // of the tables
}

// search goes through every state that can be reached, nearest first, so that
// what it finds is as short as can be. A state is known by 64 bits of a hash: of
// a hundred million states one is mistaken for another once in four thousand runs.
func search[S any](sys system[S], lim bounds) outcome {
	began := time.Now()
	var o outcome
	seen := newSeen()
	var came origins
	var level, next pile[S]

	first := sys.init
	sys.canon(&first)
	seen.add(fingerprint(&first))
	came.add(0, 0)
	level.add(&first)
	if o.Broken = sys.check(&first); o.Broken != "" {
		return o
	}

	base := 0 // number of the level's first state
	var parent, choice int
	emit := func(_ act, t *S) {
		c := *t
		at := choice
		choice++
		sys.canon(&c)
		if o.Broken != "" || !seen.add(fingerprint(&c)) {
			return
		}
		came.add(uint32(parent), uint16(at))
		if why := sys.check(&c); why != "" {
			o.Broken = why
		}
		next.add(&c)
	}
	for level.len() > 0 && o.Broken == "" {
		for i := 0; i < level.len() && o.Broken == ""; i++ {
			parent, choice = base+i, 0
			sys.next(level.at(i), emit)
			if i%4096 == 0 {
				if seen.n > lim.states || lim.time > 0 && time.Since(began) > lim.time {
					o.finish(seen, &came, began)
					return o
				}
			}
		}
		base += level.len()
		o.Peak = max(o.Peak, next.len())
		level, next = next, pile[S]{}
		if level.len() > 0 {
			o.Depth++
		}
	}
	o.Complete = o.Broken == ""
	o.finish(seen, &came, began)
	if o.Broken != "" {
		o.Trace = retrace(sys, &came)
	}
	return o
}

func (o *outcome) finish(seen *seen, came *origins, began time.Time) {
	o.States = seen.n
	o.Seconds = time.Since(began).Seconds()
	o.Bytes = 8*len(seen.table) + 6*came.n
}

// retrace puts the way to the last state into words. The search renames voters
// as it goes; the trace keeps every name, so it walks along and takes at each
// step the action that leads to the same state but for names.
func retrace[S any](sys system[S], came *origins) []string {
	var choices []uint16
	for i := came.n - 1; i > 0; {
		from, choice := came.at(i)
		choices = append(choices, choice)
		i = int(from)
	}
	canonical, real := sys.init, sys.init
	sys.canon(&canonical)
	var lines []string
	for i := len(choices) - 1; i >= 0; i-- {
		at := uint16(0)
		want := canonical
		sys.next(&canonical, func(_ act, t *S) {
			if at == choices[i] {
				want = *t
			}
			at++
		})
		sys.canon(&want)
		canonical = want
		goal := fingerprint(&want)
		found := false
		before := real
		sys.next(&before, func(a act, t *S) {
			if found {
				return
			}
			for _, v := range sys.variants(t) {
				sys.canon(&v)
				if fingerprint(&v) == goal {
					found = true
					real = *t
					lines = append(lines, sys.tell(a, &before, t))
					return
				}
			}
		})
		if !found {
			return append(lines, "(the rest cannot be put into words: the renaming of voters is wrong)")
		}
	}
	return lines
}

// fingerprint hashes a state's memory.
func fingerprint[S any](s *S) uint64 {
	b := unsafe.Slice((*byte)(unsafe.Pointer(s)), unsafe.Sizeof(*s))
	const k0, k1 = 0xa0761d6478bd642f, 0xe7037ed1a0b428db
	h := uint64(len(b)) * k1
	for ; len(b) >= 8; b = b[8:] {
		w := *(*uint64)(unsafe.Pointer(&b[0]))
		hi, lo := bits.Mul64(h^w^k0, k1^bits.RotateLeft64(w, 23))
		h = hi ^ lo ^ bits.RotateLeft64(h, 7)
	}
	var w uint64
	for i, c := range b {
		w |= uint64(c) << (8 * i)
	}
	hi, lo := bits.Mul64(h^w^k1, k0)
	h = hi ^ lo
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	return h ^ h>>32
}

// seen is a set of fingerprints.
type seen struct {
	table []uint64
	n     int
}

func newSeen() *seen { return &seen{table: make([]uint64, 1<<16)} }

// add reports whether f was not in it.
func (s *seen) add(f uint64) bool {
	if f == 0 {
		f = 1 // an empty place is zero
	}
	if !s.place(f) {
		return false
	}
	s.n++
	if s.n*4 > len(s.table)*3 {
		old := s.table
		s.table = make([]uint64, 2*len(old))
		for _, g := range old {
			if g != 0 {
				s.place(g)
			}
		}
	}
	return true
}

func (s *seen) place(f uint64) bool {
	mask := uint64(len(s.table) - 1)
	for i := f & mask; ; i = (i + 1) & mask {
		switch s.table[i] {
		case 0:
			s.table[i] = f
			return true
		case f:
			return false
		}
	}
}

const chunk = 1 << 16

// origins holds for each state, by number, whose successor it is and which.
type origins struct {
	from   []*[chunk]uint32
	choice []*[chunk]uint16
	n      int
}

func (o *origins) add(from uint32, choice uint16) {
	if o.n%chunk == 0 {
		o.from = append(o.from, new([chunk]uint32))
		o.choice = append(o.choice, new([chunk]uint16))
	}
	o.from[o.n/chunk][o.n%chunk] = from
	o.choice[o.n/chunk][o.n%chunk] = choice
	o.n++
}

func (o *origins) at(i int) (uint32, uint16) {
	return o.from[i/chunk][i%chunk], o.choice[i/chunk][i%chunk]
}

// pile is a list that grows without being copied.
type pile[S any] struct {
	parts [][]S
	n     int
}

const part = 1 << 12

func (p *pile[S]) add(s *S) {
	if p.n%part == 0 {
		p.parts = append(p.parts, make([]S, 0, part))
	}
	last := &p.parts[len(p.parts)-1]
	*last = append(*last, *s)
	p.n++
}

func (p *pile[S]) at(i int) *S { return &p.parts[i/part][i%part] }
func (p *pile[S]) len() int    { return p.n }

// String says the outcome in one line.
func (o outcome) String() string {
	verdict := "holds, every state searched"
	switch {
	case o.Broken != "":
		verdict = fmt.Sprintf("BROKEN after %d steps: %s", len(o.Trace), o.Broken)
	case !o.Complete:
		verdict = "holds as far as it was searched: NOT COMPLETE"
	}
	return fmt.Sprintf("%11d states  depth %3d  %7.1f s  %6.0f MiB  %s", o.States, o.Depth, o.Seconds, float64(o.Bytes)/(1<<20), verdict)
}

// numbered puts a trace on numbered lines.
func numbered(trace []string) string {
	var b strings.Builder
	for i, line := range trace {
		fmt.Fprintf(&b, "%4d  %s\n", i+1, line)
	}
	return b.String()
}
