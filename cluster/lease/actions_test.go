package lease

import (
	"slices"

	"github.com/failoverd/failoverd/cluster/state"
)

// action is something that may happen next: a step, or a few that usually
// follow one another, so that a world gets somewhere.
type action struct {
	do     func(*world)
	member int // weight in worlds about changes of the voters
}

var actions = []action{
	{do: (*world).deliver},
	{do: (*world).pass, member: 1},
	{do: func(w *world) { w.resume(); w.round() }},
	{do: (*world).renewal, member: 3},
	{do: func(w *world) { w.elect(w.any(), w.some()) }, member: 1},
	{do: func(w *world) {
		if l := w.leader(); l != nil {
			w.replicate(l, w.any(), w.rnd.IntN(len(l.log)+1))
		}
	}},
	{do: (*world).settleSome, member: 3},
	{do: func(w *world) {
		h := w.any()
		w.apply(h, 1+w.rnd.IntN(1+h.committed-min(h.applied, h.committed)))
	}},
	{do: (*world).applySome, member: 2},
	{do: (*world).closeSession},
	{do: (*world).confirm},
	{do: (*world).end},
	{do: (*world).recordStarts},
	{do: (*world).open},
	{do: (*world).change, member: 3},
	{do: (*world).late},
	{do: func(w *world) {
		h := w.any()
		w.say("%s restarts", h.name)
		w.start(h)
		w.apply(h, w.rnd.IntN(h.committed+1))
	}},
	{do: func(w *world) {
		h := w.any()
		what := w.dark
		if w.chance(2) {
			what = w.slow
		}
		what[h.name] = !what[h.name]
	}},
	{do: func(w *world) {
		if l, st := w.decided(); l != nil {
			if s := w.unended(st); s != nil && s.Status == state.SessionClosing {
				l.fenceAlone[s.ID] = true
			}
		}
	}},
}

// Here and not above, since they do any of the others in between.
func init() {
	simple := slices.Clone(actions)
	actions = append(actions,
		action{do: func(w *world) { w.takeover(simple) }, member: 2},
		action{do: func(w *world) { w.changeVoters(simple) }, member: 4})
}

// step does one of the actions, by the world's weights, or one of any kind.
func (w *world) step() {
	total := 0
	for _, n := range w.weights {
		total += n
	}
	if total == 0 || w.chance(12) {
		actions[w.rnd.IntN(len(actions))].do(w)
		return
	}
	n := w.rnd.IntN(total)
	for i, weight := range w.weights {
		if n -= weight; n < 0 {
			actions[i].do(w)
			return
		}
	}
}

func (w *world) renewal() {
	w.resume()
	w.round()
	w.deliverAll("renew")
	w.deliverAll("ok")
}

func (w *world) settleSome() {
	if l := w.leader(); l != nil {
		w.settle(l, w.some())
	}
}

func (w *world) applySome() {
	for _, n := range w.some() {
		if !w.slow[n] || w.chance(20) {
			w.apply(w.hosts[n], 1000)
		}
	}
}

// takeover is what a leader does to a session that it takes away.
func (w *world) takeover(between []action) {
	w.sequence(between, w.recordStarts, w.settleSome, w.applySome, w.closeSession, w.settleSome, w.applySome, w.confirm,
		func() { w.deliverAll("ask") }, func() { w.deliverAll("age") }, w.pass, w.end, w.settleSome, w.open, w.settleSome, w.applySome)
}

// changeVoters is a change of the voters while renewals go on.
func (w *world) changeVoters(between []action) {
	w.sequence(between, w.settleSome, w.applySome, w.renewal, w.change, w.settleSome, w.applySome, w.renewal)
	if w.chance(3) {
		w.elect(w.any(), w.some())
	}
}

// sequence does one thing after the other, with lapses, and with anything in between.
func (w *world) sequence(between []action, steps ...func()) {
	for _, do := range steps {
		if w.chance(4) {
			between[w.rnd.IntN(len(between))].do(w)
		}
		if !w.chance(12) {
			do()
		}
	}
}
