package lease

import (
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/state"
)

func TestMayChange(t *testing.T) {
	three := NewConfiguration([]string{"a", "b", "c"})
	four := NewConfiguration([]string{"a", "b", "c", "d"})
	w := Wait(time.Second, 50*ms)
	open := func(ttl time.Duration, status state.SessionStatus) *state.Session {
		return &state.Session{Node: "b", TTL: ttl, Kappa: 50 * ms, Status: status}
	}
	// good returns a view under which a fourth voter may be added.
	good := func() MembershipView {
		return MembershipView{
			Now:          at(time.Hour),
			Term:         3,
			State:        &state.State{LeaderTerm: 3, Sessions: map[uint64]*state.Session{7: open(time.Second, state.SessionOpen)}},
			FirstApplied: at(time.Hour - w),
			Current:      three, Next: four,
			Committed: 20,
			Applied:   map[string]uint64{"a": 20, "b": 21, "d": 20},
		}
	}
	reading := func(d time.Duration) *clock.Reading { r := at(d); return &r }
	for _, c := range []struct {
		name   string
		change func(*MembershipView)
		ok     bool
		wait   time.Duration
		why    string // contained
	}{
		{"all is well", func(*MembershipView) {}, true, 0, ""},
		{"a voter goes", func(v *MembershipView) { v.Current, v.Next = four, three }, true, 0, ""},
		{"no state", func(v *MembershipView) { v.State = nil }, false, 0, "own term"},
		{"first entry not applied", func(v *MembershipView) { v.State.LeaderTerm = 2 }, false, 0, "own term"},
		{"not committed", func(v *MembershipView) { v.Pending = true }, false, 0, "not committed"},
		{"no change", func(v *MembershipView) { v.Next = three }, false, 0, "present ones"},
		{"one for another", func(v *MembershipView) { v.Next = NewConfiguration([]string{"a", "b", "d"}) }, false, 0, "one voter at a time"},
		{"two more", func(v *MembershipView) { v.Next = NewConfiguration([]string{"a", "b", "c", "d", "e"}) }, false, 0, "one voter at a time"},
		{"the last voter", func(v *MembershipView) { v.Current, v.Next = NewConfiguration([]string{"a"}), NewConfiguration(nil) }, false, 0, "without voters"},
		{"leases of before the term", func(v *MembershipView) { v.FirstApplied = at(time.Hour - w + 30*ms) }, false, 30 * ms, "before this leader's term"},
		{"counted shorter", func(v *MembershipView) { v.FirstApplied.Boot -= time.Hour; v.FirstApplied.Raw += ms }, false, ms, "before this leader's term"},
		{"leases of before the last change", func(v *MembershipView) { v.LastCommitted = reading(time.Hour - w + 10*ms) }, false, 10 * ms, "last change"},
		{"the last change is long ago", func(v *MembershipView) { v.LastCommitted = reading(time.Hour - w) }, true, 0, ""},
		{"the longest lease counts", func(v *MembershipView) { v.State.Sessions[8] = open(2*time.Second, state.SessionOpen) }, false, Wait(2*time.Second, 50*ms) - w, "before this leader's term"},
		{"ended ones do not", func(v *MembershipView) { v.State.Sessions[8] = open(time.Hour, state.SessionEnded) }, true, 0, ""},
		{"no sessions, no wait", func(v *MembershipView) { v.State.Sessions = nil; v.FirstApplied = v.Now }, true, 0, ""},
		{"a session is closing", func(v *MembershipView) { v.State.Sessions[7].Status = state.SessionClosing }, false, 0, "7 of b"},
		{"it waits for a fence alone", func(v *MembershipView) {
			v.State.Sessions[7].Status = state.SessionClosing
			v.FenceAlone = map[uint64]bool{7: true}
		}, true, 0, ""},
		{"its lease is waited for all the same", func(v *MembershipView) {
			v.State.Sessions[7] = open(2*time.Second, state.SessionClosing)
			v.FenceAlone = map[uint64]bool{7: true}
		}, false, Wait(2*time.Second, 50*ms) - w, "before this leader's term"},
		{"too few have applied", func(v *MembershipView) { v.Applied["b"] = 19 }, false, 0, "b has applied 19 of 20"},
		{"too few have answered", func(v *MembershipView) { delete(v.Applied, "d") }, false, 0, "d has not answered"},
		{"of the new voters", func(v *MembershipView) {
			v.Current, v.Next = four, three
			v.Applied = map[string]uint64{"a": 20, "d": 20, "x": 20}
		}, false, 0, "b has not answered"},
	} {
		v := good()
		c.change(&v)
		ok, wait, why := MayChange(v)
		if ok != c.ok || wait != c.wait || !strings.Contains(why, c.why) || ok != (why == "") {
			t.Errorf("%s: %v, %v, %q; want %v, %v, %q", c.name, ok, wait, why, c.ok, c.wait, c.why)
		}
	}
}
