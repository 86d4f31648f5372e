package sim

import (
	"time"

	"github.com/failoverd/failoverd/cluster/state"
)

// faults are what befalls the machines, the disks and the network.
var faults = map[string]action{
	"partition": {weight: 4, do: func(w *world, it item) {
		side := 1 + it.arg%(1<<len(w.nodes)-2)
		for i := range w.nodes {
			for j := range w.nodes {
				if side>>i&1 != side>>j&1 {
					w.links[i][j].cut = true
				}
			}
		}
		w.after(it.lasts, w.mend)
	}},
	"one way": {weight: 3, do: func(w *world, it item) {
		to := it.arg % len(w.nodes)
		w.links[it.node][to].cut = true
		if it.rnd.IntN(2) == 0 {
			for j := range w.nodes {
				w.links[it.node][j].cut = true
			}
		}
		w.after(it.lasts, w.mend)
	}},
	"loss": {weight: 3, do: func(w *world, it item) {
		for i := range w.nodes {
			for j := range w.nodes {
				w.links[i][j].loss = it.arg % 50
			}
		}
		w.after(it.lasts, w.mend)
	}},
	"slow": {weight: 3, do: func(w *world, it item) {
		for i := range w.nodes {
			w.links[i][it.node].slow = it.lasts / 3
			w.links[it.node][i].slow = it.lasts / 4
		}
		w.after(it.lasts, w.mend)
	}},
	"quiet": {do: func(w *world, it item) {
		for i := range w.nodes {
			for j := range w.nodes {
				w.links[i][j].loss = it.arg
			}
		}
	}},
	"one kind": {weight: 5, do: func(w *world, it item) {
		l := link{only: []traffic{ofLog, ofLease, ofOthers}[it.arg%3]}
		switch it.arg / 3 % 3 {
		case 0:
			l.cut = true
		case 1:
			l.slow = it.lasts / 2
		default:
			l.loss = 30
		}
		for i := range w.nodes {
			for j := range w.nodes {
				if it.arg/9%2 == 0 || i == it.node || j == it.node {
					w.links[i][j] = l
				}
			}
		}
		w.after(it.lasts, w.mend)
	}},
	"freeze":  {weight: 5, do: func(w *world, it item) { w.nodes[it.node].freeze(it.lasts) }},
	"suspend": {weight: 3, do: func(w *world, it item) { w.nodes[it.node].suspend(it.lasts) }},
	"slew": {weight: 2, do: func(w *world, it item) {
		n := w.nodes[it.node]
		if n.suspends || !n.on {
			return
		}
		w.saw("slewed")
		n.setRates(n.crystal+int64(it.arg%160001)-80000, n.crystal)
		w.after(it.lasts, func() { n.setRates(n.crystal, n.crystal) })
	}},
	"crash": {weight: 6, do: func(w *world, it item) {
		away := it.lasts
		if it.rnd.IntN(2) == 0 {
			away = time.Duration(it.rnd.Int64N(int64(w.timing.ttl / 2)))
		}
		w.nodes[it.node].crash(away)
	}},
	"crash at a step": {weight: 8, do: func(w *world, it item) {
		w.nodes[it.node].crashAt = it.step
	}},
	"power": {weight: 3, do: func(w *world, it item) {
		n := w.nodes[it.node]
		n.powerOff()
		w.after(it.lasts, n.powerOn)
	}},
	"whole site": {weight: 1, do: func(w *world, it item) {
		for _, n := range w.nodes {
			n.powerOff()
			w.after(time.Duration(it.rnd.Int64N(int64(it.lasts))), n.powerOn)
		}
	}},
	"disk hangs": {weight: 3, do: func(w *world, it item) {
		n := w.nodes[it.node]
		n.diskHung = true
		if n.d != nil {
			n.d.raft.hungSince = w.now
		}
		long := it.lasts
		if it.rnd.IntN(3) == 0 {
			long += hungAfter
		}
		w.after(long, func() { n.diskHung = false })
	}},
	"sync fails": {weight: 2, do: func(w *world, it item) {
		n := w.nodes[it.node]
		n.diskBad = true
		// The daemon notices and exits; it comes back when the disk is well.
		w.after(it.lasts, func() {
			n.diskBad = false
			if n.disk.failed {
				n.crash(it.lasts)
			}
		})
	}},
	"depose": {weight: 5, do: func(w *world, it item) {
		for _, n := range w.nodes {
			if n.d != nil && n.d.raft.leads && !n.frozen && !n.suspended {
				n.d.stepDown()
			}
		}
		if n := w.nodes[it.node]; n.d != nil && !n.frozen && !n.suspended {
			n.d.campaign(true)
		}
	}},
	"lag": {weight: 4, do: func(w *world, it item) {
		n := w.nodes[it.node]
		n.lag = it.lasts
		w.after(2*it.lasts, func() { n.lag = 0 })
	}},
	"broken": {weight: 3, do: func(w *world, it item) {
		n := w.nodes[it.node]
		n.broken[it.word] = true
		w.after(2*it.lasts, func() { delete(n.broken, it.word) })
	}},
	// Whoever serves cannot prove that it stops, and is cut off.
	"stuck": {weight: 3, do: func(w *world, it item) {
		for i, n := range w.nodes {
			if n.running[it.word] == nil {
				continue
			}
			n.unstop[it.word] = true
			w.after(6*it.lasts, func() { delete(n.unstop, it.word) })
			for j := range w.nodes {
				w.links[i][j].cut, w.links[j][i].cut = true, true
			}
		}
		w.after(it.lasts, w.mend)
	}},
	// A snapshot of another node, taken at any time, arrives.
	"snapshot": {weight: 3, do: func(w *world, it item) {
		kept := w.nodes[it.arg%len(w.nodes)].raft.kept
		w.nodes[it.node].receive(func(d *daemon) { d.restore(kept) })
	}},
	// A proposer that does not know whether its entry was committed asks again.
	"echo": {weight: 5, do: func(w *world, it item) {
		log := w.check.log
		for range 8 {
			at := len(log) - 1 - it.rnd.IntN(min(len(log), 60))
			switch c := log[at].cmd.(type) {
			case nil, state.Found, state.LeaderStart:
			case state.EndSession:
				if c.Proof != state.ProofVouched {
					w.order(c)
				}
			default:
				w.order(c)
			}
		}
	}},
	// A leader of another mind: what it proposes may be unwise, never unsafe.
	"strange leader": {weight: 3, do: func(w *world, it item) {
		d := w.leader()
		if d == nil {
			return
		}
		st := d.voter.View()
		svc, to := st.Services[it.word], st.Nodes[names[it.node]]
		if svc == nil || to == nil {
			return
		}
		w.order(state.GrantService{Service: svc.Name, Epoch: svc.LastEpoch + 1, Node: to.Name, Session: to.Session, Stamp: ann("strange")})
		for i, g := range svc.Unfinished() {
			w.order(state.HandOver{
				Service: svc.Name, From: g.Epoch, FromNode: g.Node, Epoch: svc.LastEpoch + 1 + uint64(i),
				ToNode: to.Name, ToSession: to.Session, Stamp: ann("strange"),
			})
		}
	}},
	"dies": {weight: 3, do: func(w *world, it item) {
		for _, n := range w.nodes {
			n.ended(it.word, "it died by itself")
		}
	}},
	"cannot stop": {weight: 2, do: func(w *world, it item) {
		n := w.nodes[it.node]
		n.unstop[it.word] = true
		w.after(2*it.lasts, func() { delete(n.unstop, it.word) })
	}},
}

// mend makes the network whole.
func (w *world) mend() {
	for i := range w.links {
		for j := range w.links[i] {
			w.links[i][j] = link{}
		}
	}
}

// heal ends all faults, and lets an operator forget what failed meanwhile. In
// some worlds a minority is dead for good, and the others must do without.
func (w *world) heal() {
	w.say("--- all faults are over")
	w.saw("end " + string(w.end))
	w.mend()
	switch w.end {
	case endBury:
		w.bury()
	case endMaim:
		w.maim()
	}
	for _, n := range w.nodes {
		if w.gone[n] && !w.maimed {
			continue
		}
		n.powerOn()
		n.broken, n.unstop = map[string]bool{}, map[string]bool{}
		n.diskHung, n.diskBad, n.lag, n.crashAt = false, false, 0, ""
		n.frozen = false
		n.wake()
		if n.disk.failed {
			n.crash(0)
		}
		if n.d == nil {
			n.start()
		}
	}
	w.forget()
}

// bury turns nodes off for good, as many as every configuration that a node has
// can do without.
func (w *world) bury() {
	for _, i := range w.rnd.Perm(len(w.nodes)) {
		n := w.nodes[i]
		w.gone[n] = true
		for _, o := range w.nodes {
			conf, _ := o.raft.config()
			left := 0
			for _, v := range conf.Voters {
				if !w.gone[w.byName[v]] {
					left++
				}
			}
			if left < conf.Majority() {
				delete(w.gone, n)
			}
		}
		if w.gone[n] {
			n.powerOff()
			w.say("%s is dead for good", n.name)
			if w.chance(2) {
				return
			}
		}
	}
}

// maim leaves one node half connected for good: it hears nobody, or nobody hears
// it, in all traffic, the log or renewals. The others must do without it. (Calls
// are left out: a leader that cannot be called stays leader, and then nobody can
// propose anything.)
func (w *world) maim() {
	n := w.nodes[w.rnd.IntN(len(w.nodes))]
	w.gone[n], w.maimed = true, true
	l := link{cut: true, only: []traffic{"", ofLog, ofLease}[w.rnd.IntN(3)]}
	hears := w.chance(2)
	for i := range w.nodes {
		if hears {
			w.links[n.i][i] = l
		} else {
			w.links[i][n.i] = l
		}
	}
	w.say("for good %s does not hear, or is not heard (%v), in traffic %q", n.name, hears, l.only)
}
