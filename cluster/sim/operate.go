package sim

import (
	"slices"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// orders are what operators do, through whoever leads.
var orders = map[string]action{
	"switch over": {weight: 8, do: func(w *world, it item) {
		to := ""
		if it.arg%2 == 0 {
			to = names[it.node]
		}
		w.order(state.RequestMove{Service: it.word, To: to, Stamp: ann("patch day")})
	}},
	"withdraw": {weight: 1, do: func(w *world, it item) {
		w.order(state.RequestMove{Service: it.word, Cancel: true, Stamp: ann("never mind")})
	}},
	"pause": {weight: 3, do: func(w *world, it item) {
		cmd := state.SetPause{On: true, Stamp: ann("kernel patch"), Until: 1 + it.lasts.Milliseconds()}
		cmd.At = 1
		if it.arg%2 == 0 {
			cmd.Service = it.word
		}
		w.order(cmd)
	}},
	"resume": {weight: 1, do: func(w *world, it item) {
		w.order(state.SetPause{Stamp: ann("done")})
		w.order(state.SetPause{Service: it.word, Stamp: ann("done")})
	}},
	"standby": {weight: 4, do: func(w *world, it item) {
		w.order(state.SetStandby{Node: names[it.node], On: true, Stamp: ann("disk swap")})
		w.after(2*it.lasts, func() { w.order(state.SetStandby{Node: names[it.node], Stamp: ann("done")}) })
	}},
	"apply": {weight: 4, do: func(w *world, it item) {
		spec := drawSpec(it.rnd, names[:len(w.nodes)], it.word)
		if it.arg%2 == 0 {
			spec.Resources = []state.Resource{{Kind: state.ResourceProcess, Name: "p", Process: &state.Process{
				Command: []string{"/bin/true"}, StopTimeout: time.Duration(1+it.arg/2%20) * time.Second, StartTimeout: time.Second,
			}}}
		}
		w.order(state.SetServices{Services: []state.Spec{spec}, Stamp: ann("changed")})
	}},
	"remove": {weight: 2, do: func(w *world, it item) {
		w.order(state.SetServices{Remove: []string{it.word}, Stamp: ann("not needed")})
		spec := drawSpec(it.rnd, names[:len(w.nodes)], it.word)
		w.after(it.lasts, func() {
			w.order(state.SetServices{Services: []state.Spec{spec}, Stamp: ann("needed after all")})
		})
	}},
	// A node is to be removed: its session is closed while it serves and renews.
	"take away": {weight: 5, do: func(w *world, it item) {
		if d := w.leader(); d != nil {
			if s := d.voter.View().OpenSession(names[it.node]); s != nil {
				w.order(state.CloseSession{Session: s.ID, Stamp: ann("to be removed")})
			}
		}
	}},
	// The same while the others learn of it late, and their words travel slowly.
	"take away unheard": {weight: 3, do: func(w *world, it item) {
		d := w.leader()
		if d == nil {
			return
		}
		for i, n := range w.nodes {
			if n != d.n {
				n.lag = 2 * it.lasts
				w.links[i][d.n.i] = link{only: ofLease, slow: it.lasts / 2}
			}
		}
		w.after(it.lasts/2, func() { actions["take away"].do(w, it) })
		w.after(2*it.lasts, func() {
			for _, n := range w.nodes {
				n.lag = 0
			}
			w.mend()
		})
	}},
	"clean up": {weight: 2, do: func(w *world, it item) { w.order(state.ClearFailures{Service: it.word, Stamp: ann("repaired")}) }},
	"stop the daemon": {weight: 4, do: func(w *world, it item) {
		if n := w.nodes[it.node]; n.d != nil && n.d.begun && !n.frozen && !n.suspended && !n.d.leaving {
			n.d.leave(it.lasts)
		}
	}},
	"vouch": {weight: 6, do: func(w *world, it item) { w.vouch(it.node, it.lasts, it.arg%2 == 0) }},
	"change the voters": {weight: 4, do: func(w *world, it item) {
		if d := w.leader(); d != nil {
			d.changeVoters(names[it.node], w.now+10*time.Second)
		}
	}},
}

func ann(why string) state.Stamp { return state.Stamp{At: 1, By: "ann", Why: why} }

// leader is whoever leads and can be reached, if anybody.
func (w *world) leader() *daemon {
	for _, n := range w.nodes {
		if n.d != nil && n.d.led != nil && !n.frozen && !n.suspended {
			return n.d
		}
	}
	return nil
}

func (w *world) order(cmd state.Command) {
	if d := w.leader(); d != nil {
		d.propose(cmd, func(state.Result, failure) {})
	}
}

// vouch turns a machine off and lets an operator say so, when the leader finds
// that it may be true. The machine is off until the word is committed.
func (w *world) vouch(node int, d time.Duration, fromOff bool) {
	n := w.nodes[node]
	if fromOff {
		n.powerOff()
		w.after(3*d, n.powerOn)
	}
	w.after(d/2, func() {
		l := w.leader()
		if l == nil || n.on || l.n == n {
			return
		}
		st := l.voter.View()
		for _, s := range st.UnendedSessions(n.name) {
			for _, h := range st.HeldUnder(s.ID) {
				if decide.Paused(st, h.Service) != "" {
					return
				}
			}
			id, boot := s.ID, s.BootID
			end := func() {
				if !n.on || n.bootID() != boot {
					l.propose(state.EndSession{Session: id, Proof: state.ProofVouched, Stamp: ann("I see that it is off")}, func(state.Result, failure) {})
				}
			}
			if s.Status == state.SessionOpen {
				w.saw("forced")
				l.propose(state.CloseSession{Session: id, Stamp: ann("it is off")}, func(res state.Result, f failure) {
					if f == "" {
						end()
					}
				})
				continue
			}
			end()
		}
	})
}

// forget clears all failures and pauses, again and again until a leader has done it.
func (w *world) forget() {
	d := w.leader()
	again := func() { w.after(200*ms, w.forget) }
	if d == nil {
		again()
		return
	}
	st := d.voter.View()
	for _, name := range services {
		if svc := st.Services[name]; svc != nil && len(svc.Failures) > 0 {
			d.propose(state.ClearFailures{Service: name, Stamp: ann("repaired")}, func(state.Result, failure) {})
		}
	}
	again()
}

// changeVoters gives a node a vote or takes it, by the rules of LEASE.md 14.
func (d *daemon) changeVoters(name string, limit time.Duration) {
	led := d.led
	if led == nil || led.changing || name == d.n.name {
		return
	}
	led.changing = true
	d.tryChange(led, name, limit)
}

func (d *daemon) tryChange(led *leadership, name string, limit time.Duration) {
	if d.led != led {
		return
	}
	if d.w.now > limit {
		led.changing = false
		return
	}
	current := d.raft.conf
	var next lease.Configuration
	if current.Has(name) {
		if len(current.Voters) <= 3 {
			led.changing = false
			return
		}
		next = lease.NewConfiguration(slices.DeleteFunc(slices.Clone(current.Voters), func(v string) bool { return v == name }))
	} else {
		next = lease.NewConfiguration(append(slices.Clone(current.Voters), name))
	}
	st := d.voter.View()
	committed := st.Index
	if d.raft.committed > d.raft.applied {
		d.after(20*ms, func() { d.tryChange(led, name, limit) }) // no Barrier yet
		return
	}
	applied := map[string]uint64{d.n.name: st.Index}
	for _, n := range d.w.nodes {
		if n == d.n {
			continue
		}
		d.call(n, 500*ms, func(other *daemon, reply func(func())) {
			index, ready := other.voter.View().Index, other.voter.Ready()
			reply(func() {
				if ready {
					applied[n.name] = index
				}
			})
		}, func() {})
	}
	d.after(500*ms, func() {
		if d.led != led {
			return
		}
		ok, wait, _ := lease.MayChange(lease.MembershipView{
			Now: d.n.Now(), Term: led.term, State: d.voter.View(), FirstApplied: led.first, LastCommitted: led.changed,
			Pending: d.raft.confAt > d.raft.committed, Current: current, Next: next, Committed: committed, Applied: applied,
		})
		if ok && current.ID == d.raft.conf.ID {
			led.changing = false
			d.appendEntry(entry{term: led.term, conf: &next})
			return
		}
		if wait <= 0 || wait > time.Second {
			wait = 50 * ms
		}
		d.after(wait, func() { d.tryChange(led, name, limit) })
	})
}

// confCommitted notes when a change of the voters was committed and applied here.
func (d *daemon) confCommitted() {
	if d.led != nil {
		at := d.n.Now()
		d.led.changed = &at
	}
}
