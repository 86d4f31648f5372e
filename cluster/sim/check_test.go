package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/state"
)

// calm is a world of three in which db is held and nothing befalls anybody.
func calm() *world {
	s := Quiet(3, 30*time.Second, 0)
	s.machines, s.voters, s.witness, s.fencing.on = s.machines[:3], 3, false, false
	s.services = []state.Spec{{Name: "db", Takeover: state.TakeoverLease}}
	return newWorld(s, false)
}

// holder is who serves db, and another node.
func (w *world) holder() (holder, other *node) {
	for _, n := range w.nodes {
		if n.running["db"] != nil {
			holder = n
		} else {
			other = n
		}
	}
	return holder, other
}

// TestEachInvariantIsWatched breaks a calm world in one place for every invariant
// of LEASE.md, and expects the checker to say which.
func TestEachInvariantIsWatched(t *testing.T) {
	if w := calm(); true {
		if w.run(); w.bad != "" {
			t.Fatalf("the calm world is not calm: %s", w.bad)
		}
	}
	for _, c := range []struct {
		rule, name string
		do         func(w *world, holder, other *node)
	}{
		{"I1", "another node serves as well", func(w *world, holder, other *node) {
			r := holder.running["db"]
			other.started("db", r.epoch+1, other.session)
		}},
		{"I1", "a machine wakes with what another serves by now", func(w *world, holder, other *node) {
			r := *holder.running["db"]
			holder.suspended = true
			other.running["db"] = &serving{epoch: r.epoch + 1, session: other.session}
			holder.suspended = false
			w.check.woke(holder)
		}},
		{"I2", "an epoch that nobody was granted", func(w *world, holder, _ *node) {
			r := holder.running["db"]
			holder.ended("db", "a test")
			holder.started("db", r.epoch+7, r.session)
		}},
		{"I2", "an epoch that two were granted", func(w *world, holder, other *node) {
			w.check.grant("db", holder.running["db"].epoch, other.name)
		}},
		{"I3", "a start without a lease", func(w *world, holder, _ *node) {
			r := holder.running["db"]
			holder.ended("db", "a test")
			holder.leased = false
			holder.started("db", r.epoch, r.session)
		}},
		{"I3", "a service that outlives its lease", func(w *world, holder, _ *node) {
			holder.deadline = holder.Now().Add(-time.Second)
			holder.ended("db", "a test")
		}},
		{"I4", "a grant before the epoch before is over", func(w *world, holder, other *node) {
			svc := w.check.ref.Services["db"]
			e := svc.LastEpoch + 1
			svc.Grants = append(svc.Grants, state.Grant{Epoch: e, Node: other.name, Session: other.session, Kind: state.KindGrant})
			w.check.grant("db", e, other.name)
		}},
		{"I4", "a release of what still serves", func(w *world, holder, _ *node) {
			w.check.released(state.Released{Service: "db", Epoch: holder.running["db"].epoch, Node: holder.name})
		}},
		{"I5", "an OK after the close", func(w *world, holder, _ *node) { w.check.closed[holder.session] = 1 }},
		{"I6", "another state at the same index", func(w *world, holder, other *node) {
			w.check.sample(holder)
			other.d.voter.View().Services["db"].LastEpoch++
			w.check.sample(other)
		}},
		{"I7", "a voter that is not ready", func(w *world, _, other *node) { delete(w.check.ready, other.d.nonce) }},
		{"I8", "nobody can reach anybody for ever", func(w *world, _, _ *node) {
			var cut func()
			cut = func() {
				for i := range w.links {
					for j := range w.links[i] {
						w.links[i][j].cut = true
					}
				}
				w.after(ms, cut)
			}
			cut()
		}},
		{"D", "the end of a session whose lease is good", func(w *world, holder, _ *node) {
			w.check.expired(holder, w.check.ref.Sessions[holder.session])
		}},
		{"D", "a lease that is renewed after its end", func(w *world, holder, _ *node) { w.check.ended[holder.session] = true }},
		{"rule 8", "fenced, and never off", func(w *world, holder, _ *node) {
			w.fencing = fencing{on: true, confirmations: 1}
			holder.devices = []device{deviceWorks}
			w.check.fenced(holder, w.check.ref.Sessions[holder.session])
		}},
		{"rule 9", "given up while it serves", func(w *world, holder, _ *node) {
			w.check.givenUp(holder, "db", holder.running["db"].epoch)
		}},
	} {
		t.Run(c.rule+" "+c.name, func(t *testing.T) {
			w := calm()
			w.after(10*time.Second, func() {
				holder, other := w.holder()
				if holder == nil || other == nil || clock.Left(holder.Now(), holder.deadline) <= 0 {
					t.Error("nobody holds db")
					return
				}
				c.do(w, holder, other)
			})
			if w.run(); rule(w.bad) != c.rule {
				t.Errorf("the checker says %q", w.bad)
			}
		})
	}
}

// deceived is a script in which a machine whose only device lies is cut off and
// called fenced while it serves.
func deceived(second ...device) Script {
	s := Quiet(3, 30*time.Second, 0)
	s.timing = profiles[0]
	s.machines, s.voters, s.witness = s.machines[:3], 3, false
	s.services = []state.Spec{{Name: "db", Takeover: state.TakeoverLease}}
	s.fencing = fencing{on: true, confirmations: 1 + len(second)}
	for i := range s.machines {
		s.machines[i].devices = append([]device{deviceLies}, second...)
	}
	s.items = nil
	return s
}

// cutOff isolates whoever holds db, after a time, and closes its session.
func (w *world) cutOff(wait time.Duration) {
	w.after(wait, func() {
		holder, _ := w.holder()
		l := w.leader()
		if holder == nil || l == nil {
			w.fail("a test: nobody holds db, or leads")
			return
		}
		if holder == l.n {
			l.transfer()
			w.cutOff(2 * time.Second)
			return
		}
		session := holder.session
		for i := range w.links {
			w.links[i][holder.i].cut, w.links[holder.i][i].cut = true, true
		}
		w.order(state.CloseSession{Session: session, Stamp: ann("a test")})
	})
}

// TestLyingDevice: where one word is enough a device that lies makes two nodes
// serve, and nothing else does; where two are asked for it deceives nobody.
func TestLyingDevice(t *testing.T) {
	run := func(strict bool, second ...device) *world {
		s := deceived(second...)
		w := newWorld(s, false)
		w.check.strict = strict
		w.plan = []item{{what: "quiet", lasts: 14 * time.Second}}
		w.cutOff(8 * time.Second)
		w.run()
		return w
	}
	if w := run(false); w.bad != "" || w.seen["lied to"] == 0 || w.seen["lie alone"] == 0 {
		t.Errorf("one word is enough: %q, lied to %d times, two served %d times", w.bad, w.seen["lied to"], w.seen["lie alone"])
	}
	if w := run(true); !strings.Contains(w.bad, "I1: ") {
		t.Errorf("one word is enough and a lie excuses nothing: %q", w.bad)
	}
	if w := run(true, deviceWorks); w.bad != "" || w.seen["lied to"] > 0 || w.seen["session fenced"] == 0 {
		t.Errorf("two words are asked for: %q, lied to %d times, fenced %d times", w.bad, w.seen["lied to"], w.seen["session fenced"])
	}
	if w := run(true, deviceFails); w.bad != "" || w.seen["session fenced"] > 0 {
		t.Errorf("two words are asked for and one device fails: %q, fenced %d times", w.bad, w.seen["session fenced"])
	}
}
