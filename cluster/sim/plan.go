package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// item is one thing that the plan makes happen: an operator's order or a fault.
// It draws from a source of its own, so that others can be left out without
// changing it.
type item struct {
	at    time.Duration
	lasts time.Duration
	what  string
	node  int
	arg   int
	word  string // a service
	step  string // where a daemon dies
	draw  uint64 // the seed of what else it draws
	rnd   *rand.Rand
}

func (it item) do(w *world) {
	it.rnd = rand.New(rand.NewPCG(it.draw, 3))
	actions[it.what].do(w, it)
}

// action is a kind of item.
type action struct {
	weight int
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

// names are the nodes' names; the last voter may be a witness.
var names = []string{"a", "b", "c", "d", "e", "f", "g"}

// Draw makes the script of a seed.
func Draw(seed uint64) Script {
	rnd := rand.New(rand.NewPCG(seed, 2))
	s := Script{Seed: seed, timing: profiles[pick(rnd, 6, 2, 1, 1)]}
	s.drawMachines(rnd)
	s.drawItems(rnd)
	s.end = endings[pick(rnd, 1, 2, 1)]
	return s
}

// Quiet is a world in which nothing happens for a time, but for the loss of so
// many of a hundred messages.
func Quiet(seed uint64, lasts time.Duration, loss int) Script {
	rnd := rand.New(rand.NewPCG(seed, 2))
	s := Script{Seed: seed, timing: profiles[pick(rnd, 6, 2, 1, 1)], end: endWhole}
	s.drawMachines(rnd)
	s.items = []item{{what: "quiet", lasts: lasts, arg: loss}}
	return s
}

// drawMachines draws the cluster.
func (s *Script) drawMachines(rnd *rand.Rand) {
	size := 3 + pick(rnd, 10, 4, 6, 1, 1)
	s.drawFencing(rnd)
	for i := range size {
		m := machine{
			name: names[i], crystal: int64(pick(rnd, 1, 1, 1)-1) * 1000, suspends: pick(rnd, 2, 1) == 1,
			read: clock.Reading{Boot: time.Duration(rnd.Int64N(int64(time.Hour))), Raw: time.Duration(rnd.Int64N(int64(time.Hour)))},
		}
		if s.fencing.on {
			m.devices = s.fencing.draw(rnd)
		}
		s.machines = append(s.machines, m)
	}
	s.voters = size
	if size > 3 && rnd.IntN(3) == 0 {
		s.voters-- // the last holds without a vote, for now
	}
	s.witness = s.voters == size && rnd.IntN(4) == 0
	for _, name := range services[:1+rnd.IntN(len(services))] {
		s.services = append(s.services, drawSpec(rnd, names[:size], name))
	}
}

// drawItems draws what befalls the cluster.
func (s *Script) drawItems(rnd *rand.Rand) {
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
	weights[slices.Index(kinds, "crash")]++ // all zero is no plan
	gap := []time.Duration{300 * ms, time.Second, 3 * time.Second}[rnd.IntN(3)]
	at := 4 * time.Second
	for range 12 + rnd.IntN(14) {
		at += time.Duration(rnd.ExpFloat64() * float64(gap))
		it := item{
			at: at, what: kinds[pick(rnd, weights...)], node: rnd.IntN(len(s.machines)), arg: rnd.IntN(1 << 30), draw: rnd.Uint64(),
			lasts: s.timing.length(rnd), word: services[rnd.IntN(len(services))],
		}
		if step := steps[rnd.IntN(len(steps))]; it.what == "crash at a step" {
			it.step = step
		}
		s.items = append(s.items, it)
	}
}

// length draws how long something lasts: around the times that matter.
func (t timing) length(rnd *rand.Rand) time.Duration {
	d := []time.Duration{t.ttl / 10, t.ttl / 2, t.ttl, t.ttl + t.ttl/4, 3 * t.ttl, t.election}[rnd.IntN(6)]
	return time.Duration(float64(d) * (0.5 + rnd.Float64()))
}

// drawSpec is a service as an operator writes it.
func drawSpec(rnd *rand.Rand, nodes []string, name string) state.Spec {
	s := state.Spec{Name: name, Takeover: state.TakeoverLease}
	if pick(rnd, 3, 1) == 1 {
		s.Takeover = state.TakeoverFence
	}
	switch pick(rnd, 4, 1, 1) {
	case 1:
		s.Nodes = []string{nodes[0], nodes[rnd.IntN(len(nodes)-1)+1]}
	case 2:
		s.Priorities = map[string]int{nodes[rnd.IntN(len(nodes))]: 5}
		s.Failback = pick(rnd, 1, 1) == 1
	}
	return s
}

// populate founds the cluster: its first entries are everywhere, as after a
// founding, and the daemons start.
func (w *world) populate(s Script) {
	var list []string
	for i, m := range s.machines {
		n := &node{
			w: w, i: i, name: m.name, on: true, boot: 1, running: map[string]*serving{},
			broken: map[string]bool{}, unstop: map[string]bool{},
			crystal: m.crystal, suspends: m.suspends, read: m.read, devices: m.devices,
		}
		n.slewBoot, n.drift = n.crystal, n.crystal
		if n.crystal != 0 {
			w.saw("clock rate error")
		}
		w.nodes = append(w.nodes, n)
		w.byName[n.name] = n
		w.links = append(w.links, make([]link, len(s.machines)))
		if i < s.voters {
			list = append(list, n.name)
		}
	}
	w.saw(fmt.Sprintf("%d nodes", len(w.nodes)))
	conf := lease.NewConfiguration(list)
	log := []entry{
		{term: 1, conf: &conf},
		{term: 1, cmd: state.LeaderStart{Node: "a"}},
		{term: 1, cmd: state.Found{ID: "sim", Key: make([]byte, 32)}},
	}
	for i, n := range w.nodes {
		role := state.RoleVoter
		switch {
		case i >= s.voters:
			role = state.RoleMember
		case s.witness && i == s.voters-1:
			role = state.RoleWitness
			w.saw("witness")
		}
		log = append(log, entry{term: 1, cmd: state.SetNode{Node: n.name, Role: role, Address: fmt.Sprintf("192.0.2.%d:7400", i+1), Birth: "data-" + n.name}})
	}
	log = append(log, entry{term: 1, cmd: state.SetServices{Services: s.services, Stamp: state.Stamp{By: "ann", Why: "first"}}})
	for _, n := range w.nodes {
		n.raft = raftDisk{term: 1, log: slices.Clone(log)}
	}
	w.check.committed(w.nodes[0], log, uint64(len(log)))
	for _, n := range w.nodes {
		n.start()
	}
}
