package main

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// testLimit is generous: these searches take seconds on an idle machine.
var testLimit = bounds{states: 20e6, time: 10 * time.Minute}

// TestProtocolHolds goes through every state of the quick scopes.
func TestProtocolHolds(t *testing.T) {
	total := 0
	for i := range scopes {
		s := &scopes[i]
		if s.long {
			continue
		}
		o := s.run(faults{}, testLimit)
		t.Logf("%-18s %v", s.name, o)
		total += o.States
		if o.Broken != "" || !o.Complete {
			t.Errorf("%s: %v\n%s", s.name, o, numbered(o.Trace))
		}
		if o.States < 100 {
			t.Errorf("%s has %d states: it searches nothing", s.name, o.States)
		}
	}
	t.Logf("%d states", total)
}

// TestEveryFaultIsFound leaves out one rule after another: each costs two
// holders, or the breach that its line names, and a trace says how.
func TestEveryFaultIsFound(t *testing.T) {
	for _, f := range allFaults {
		if f.elsewhere != "" {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			s := scopeOf(f.scope)
			if s == nil {
				t.Fatalf("no scope %q", f.scope)
			}
			if f.slow && testing.Short() {
				t.Skip("short: found in the long run only")
			}
			o := s.run(faults{f.name: true}, testLimit)
			if o.Broken == "" {
				t.Fatalf("%s is not found in %s: %v", f.words, f.scope, o)
			}
			if len(o.Trace) == 0 || len(o.Trace) != o.Depth && len(o.Trace) != o.Depth+1 {
				t.Errorf("a trace of %d steps at depth %d:\n%s", len(o.Trace), o.Depth, numbered(o.Trace))
			}
			if slices.ContainsFunc(o.Trace, func(l string) bool { return l == "" || l[0] == '(' }) {
				t.Errorf("the trace is not in words:\n%s", numbered(o.Trace))
			}
			want := "I1"
			if f.breach != "" {
				want = f.breach
			}
			if got := o.Broken[:len(want)]; got != want {
				t.Errorf("found as %q, expected %s", o.Broken, want)
			}
			t.Logf("%s: %d steps, %d states, %.1f s", f.words, len(o.Trace), o.States, o.Seconds)
		})
	}
}

// TestRenamingKeepsStates searches one scope with and without giving equal
// states one name: both must find the same, and the first fewer states.
func TestRenamingKeepsStates(t *testing.T) {
	scope := leaseScope{nodes: 3, voters: 7, h: 1, k: 1, requests: 1, changes: 1, elections: 1, prompt: true}
	for _, f := range []string{"", "no-wait-at-all", "one-answer", "h-left-out"} {
		m := &leaseModel{leaseScope: scope, f: faults{}}
		if f != "" {
			m.f[f] = true
		}
		with := search(m.system(), testLimit)
		plain := m.system()
		plain.canon = func(*leaseState) {}
		without := search(plain, testLimit)
		if with.Broken != without.Broken || len(with.Trace) != len(without.Trace) {
			t.Errorf("%q: %q in %d steps, without renaming %q in %d", f, with.Broken, len(with.Trace), without.Broken, len(without.Trace))
		}
		if f == "" && with.States*2 > without.States {
			t.Errorf("%d states with renaming, %d without", with.States, without.States)
		}
	}
}

// TestSearchFindsTheNearest runs the machine itself on a clock that counts.
func TestSearchFindsTheNearest(t *testing.T) {
	sys := system[[8]uint8]{
		next: func(s *[8]uint8, emit func(act, *[8]uint8)) {
			for i := range s {
				n := *s
				n[i] = (n[i] + 1) % 3
				emit(act{kind: uint8(i)}, &n)
			}
		},
		check: func(s *[8]uint8) string {
			if s[0] == 2 && s[3] == 1 {
				return "there"
			}
			return ""
		},
		canon:    func(*[8]uint8) {},
		variants: func(s *[8]uint8) [][8]uint8 { return [][8]uint8{*s} },
		tell:     func(a act, _, _ *[8]uint8) string { return fmt.Sprint("turn ", a.kind) },
	}
	if o := search(sys, testLimit); o.Broken != "there" || len(o.Trace) != 3 {
		t.Errorf("%v %q", o, o.Trace)
	}
	sys.check = func(*[8]uint8) string { return "" }
	if o := search(sys, testLimit); !o.Complete || o.States != 6561 || o.Depth != 16 {
		t.Errorf("%+v", o)
	}
	if o := search(sys, bounds{states: 100}); o.Complete {
		t.Errorf("a search that was cut short says that it is complete: %v", o)
	}
}
