package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// item is one thing that the plan makes happen: an operator's order or a fault.
// It draws from a source of its own, so that others can be left out without
// changing it.
type item struct {
	place int
	at    time.Duration
	lasts time.Duration
	what  string
	node  int
	arg   int
	word  string
	rnd   *rand.Rand
}

func (it item) String() string {
	s := fmt.Sprintf("%3d %8.3f s %s on %s", it.place, it.at.Seconds(), it.what, names[it.node])
	if it.lasts > 0 {
		s += fmt.Sprintf(" for %s", it.lasts.Round(ms))
	}
	return s + strings.TrimRight(" "+it.word, " ")
}

func (it item) do(w *world) { actions[it.what].do(w, it) }

// action is a kind of item.
type action struct {
	weight int
	fault  bool
	do     func(w *world, it item)
}

var actions = map[string]action{}

func init() {
	for _, list := range []map[string]action{faults, orders} {
		for name, a := range list {
			actions[name] = a
		}
	}
}

// names are the nodes' names; the last one may be a witness.
var names = []string{"a", "b", "c", "d", "e"}

// makePlan draws the cluster and what befalls it.
func (w *world) makePlan(rnd *rand.Rand, skip map[int]bool) {
	size := 3 + pick(rnd, 5, 2, 3)
	for i := range size {
		n := &node{
			w: w, i: i, name: names[i], on: true, boot: 1, running: map[string]*serving{},
			broken: map[string]bool{}, unstop: map[string]bool{},
			crystal: int64(pick(rnd, 1, 1, 1)-1) * 1000, suspends: pick(rnd, 2, 1) == 1,
			read: clock.Reading{Boot: time.Duration(rnd.Int64N(int64(time.Hour))), Raw: time.Duration(rnd.Int64N(int64(time.Hour)))},
		}
		n.slewBoot, n.drift = n.crystal, n.crystal
		w.nodes = append(w.nodes, n)
		w.byName[n.name] = n
		w.links = append(w.links, make([]link, size))
	}
	// Each world does some things often and others never: a mixture of all at
	// even rates seldom gets anywhere.
	var kinds []string
	for name := range actions {
		kinds = append(kinds, name)
	}
	slices.Sort(kinds)
	weights := make([]int, len(kinds))
	for i, name := range kinds {
		weights[i] = actions[name].weight * []int{0, 1, 1, 3, 8}[rnd.IntN(5)]
	}
	weights[rnd.IntN(len(weights))]++ // all zero is no plan
	gap := []time.Duration{300 * ms, time.Second, 3 * time.Second}[rnd.IntN(3)]
	at := 4 * time.Second
	for place := range 12 + rnd.IntN(14) {
		at += time.Duration(rnd.ExpFloat64() * float64(gap))
		it := item{
			place: place, at: at, what: kinds[pick(rnd, weights...)], node: rnd.IntN(size), arg: rnd.IntN(1 << 30),
			rnd: rand.New(rand.NewPCG(rnd.Uint64(), 3)),
		}
		it.lasts = w.length(rnd)
		it.word = services[rnd.IntN(len(services))]
		if !skip[place] {
			w.plan = append(w.plan, it)
		}
	}
}

// length draws how long something lasts: around the times that matter.
func (w *world) length(rnd *rand.Rand) time.Duration {
	ttl := w.timing.ttl
	d := []time.Duration{ttl / 10, ttl / 2, ttl, ttl + ttl/4, 3 * ttl, w.timing.election}[rnd.IntN(6)]
	return time.Duration(float64(d) * (0.5 + rnd.Float64()))
}

// populate founds the cluster: its first entries are everywhere, as after a
// founding, and the daemons start.
func (w *world) populate() {
	voters := len(w.nodes)
	if voters > 3 && w.chance(3) {
		voters-- // the last holds without a vote, for now
	}
	var list []string
	for _, n := range w.nodes[:voters] {
		list = append(list, n.name)
	}
	conf := lease.NewConfiguration(list)
	log := []entry{
		{term: 1, conf: &conf},
		{term: 1, cmd: state.LeaderStart{Node: "a"}},
		{term: 1, cmd: state.Found{ID: "sim", Key: make([]byte, 32)}},
	}
	witness := voters == len(w.nodes) && w.chance(4)
	for i, n := range w.nodes {
		role := state.RoleVoter
		switch {
		case i >= voters:
			role = state.RoleMember
		case witness && i == voters-1:
			role = state.RoleWitness
		}
		log = append(log, entry{term: 1, cmd: state.SetNode{Node: n.name, Role: role, Address: fmt.Sprintf("192.0.2.%d:7400", i+1), Birth: "data-" + n.name}})
	}
	set := state.SetServices{Stamp: state.Stamp{By: "ann", Why: "first"}}
	for _, name := range services[:1+w.rnd.IntN(len(services))] {
		set.Services = append(set.Services, w.spec(w.rnd, name))
	}
	log = append(log, entry{term: 1, cmd: set})
	for _, n := range w.nodes {
		n.raft = raftDisk{term: 1, log: slices.Clone(log)}
	}
	w.check.committed(w.nodes[0], log, uint64(len(log)))
	for _, n := range w.nodes {
		n.start()
	}
}
