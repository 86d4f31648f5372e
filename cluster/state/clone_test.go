package state

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
)

// TestHistoryIsBounded keeps the newest events, and clones keep theirs.
func TestHistoryIsBounded(t *testing.T) {
	s := New()
	var early *State
	for i := uint64(1); i <= 3*MaxHistory; i++ {
		if i == 100 {
			early = s.Clone()
		}
		if res := s.Apply(i, i, LeaderStart{Node: "a", Stamp: Stamp{Why: fmt.Sprintf("entry %d", i)}}); res.Refused != nil {
			t.Fatal(res.Refused)
		}
	}
	if n := len(s.History); n != MaxHistory || s.History[0].Why != "entry 2001" || s.History[n-1].Why != "entry 3000" {
		t.Errorf("%d events from %q to %q", n, s.History[0].Why, s.History[n-1].Why)
	}
	if c := cap(s.History); c > 3*MaxHistory {
		t.Errorf("room for %d events is held for %d", c, MaxHistory)
	}
	if n := len(early.History); n != 99 || early.History[98].Why != "entry 99" {
		t.Errorf("the clone has %d events, the last %q", n, early.History[n-1].Why)
	}
}

// TestCloneSharesNothing changes everything that a clone can reach and looks
// whether the state noticed; the history alone is shared, and never written.
func TestCloneSharesNothing(t *testing.T) {
	s := rich(t)
	before, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c := s.Clone()
	if !reflect.DeepEqual(c, s) {
		t.Fatal("a clone differs")
	}
	c.History = nil
	scribble(reflect.ValueOf(c))
	if after, err := s.Encode(); err != nil || string(after) != string(before) {
		t.Errorf("the clone's changes reached the state: %v\n%s\n%s", err, before, after)
	}
}

// scribble overwrites every number and string that can be reached.
func scribble(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			scribble(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			scribble(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			scribble(v.Index(i))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			if e := v.MapIndex(k); e.Kind() == reflect.Pointer {
				scribble(e)
			} else {
				v.SetMapIndex(k, reflect.Zero(e.Type()))
			}
		}
	case reflect.String:
		v.SetString("scribbled")
	case reflect.Uint64, reflect.Uint8:
		v.SetUint(77)
	case reflect.Int64, reflect.Int:
		v.SetInt(77)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	default:
		panic("no scribbling on " + v.Kind().String())
	}
}

// TestApplyKeepsNothing changes a command after it was applied.
func TestApplyKeepsNothing(t *testing.T) {
	s := New()
	key := make([]byte, 32)
	spec := Spec{
		Name: "erp", Takeover: TakeoverLease, Nodes: []string{"a"}, Priorities: map[string]int{"a": 1},
		Resources: []Resource{
			{Kind: ResourceVIP, Name: "v", VIP: &VIP{Address: "192.0.2.9/24", Interface: "eth0"}},
			{Kind: ResourceProcess, Name: "p", Process: &Process{Command: []string{"/p"}, Environment: map[string]string{"A": "b"}, StartTimeout: 1, StopTimeout: 1}},
			{Kind: ResourceExec, Name: "e", Exec: &Exec{Start: []string{"/s"}, Stop: []string{"/t"}, Status: []string{"/u"}, StartTimeout: 1, StopTimeout: 1, StatusTimeout: 1, Interval: 1}},
		},
	}
	for i, cmd := range []Command{Found{ID: "x", Key: key}, SetServices{Services: []Spec{spec}}} {
		if res := s.Apply(uint64(i)+1, 1, cmd); res.Refused != nil {
			t.Fatal(res.Refused)
		}
	}
	before := s.Hash()
	scribble(reflect.ValueOf(&spec))
	scribble(reflect.ValueOf(&key))
	if s.Hash() != before {
		t.Error("the state changed with the command's memory")
	}
}

// TestReadersBesideApply reads clones while the state goes on; the race detector judges.
func TestReadersBesideApply(t *testing.T) {
	s := rich(t)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				mu.Lock()
				c := s.Clone()
				mu.Unlock()
				n := len(c.History)
				if _, err := c.Encode(); err != nil {
					t.Error(err)
				}
				c.Apply(c.Index+1, c.Term, LeaderStart{Node: "c"})
				if len(c.History) < n {
					t.Error("the clone lost events")
				}
			}
		})
	}
	for i := uint64(2); i < 500; i++ {
		mu.Lock()
		s.Apply(s.Index+1, i, LeaderStart{Node: "a"})
		mu.Unlock()
	}
	wg.Wait()
}

func BenchmarkClone(b *testing.B) {
	s := rich(b)
	for i := range uint64(2 * MaxHistory) {
		s.Apply(s.Index+1, i+2, LeaderStart{Node: "a"})
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Clone()
	}
}

func BenchmarkEncode(b *testing.B) {
	s := rich(b)
	for i := range uint64(2 * MaxHistory) {
		s.Apply(s.Index+1, i+2, LeaderStart{Node: "a"})
	}
	for b.Loop() {
		if _, err := s.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}
