package main

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// The shape of a schedule.
const (
	shortest    = 0.1 // of a fault, in leases
	longest     = 10.0
	widestGap   = 3.0 // in leases
	pairPercent = 35  // of the items have a second fault at the same time
	settleEvery = 10  // items
)

// generator makes a schedule out of a seed and nothing else.
type generator struct {
	random *rand.Rand
	kinds  []*kind
	total  int // of the weights
	nodes  int
	made   int // items since the last settling
}

// newGenerator begins the schedule of a seed for so many nodes.
func newGenerator(seed uint64, nodes int) *generator {
	g := &generator{random: rand.New(rand.NewPCG(seed, uint64(nodes))), nodes: nodes}
	for _, k := range kinds {
		if k.weight > 0 {
			g.kinds = append(g.kinds, k)
			g.total += k.weight
		}
	}
	return g
}

// next gives the next item.
func (g *generator) next() item {
	if g.made == settleEvery {
		g.made = 0
		return item{settle: true}
	}
	g.made++
	// Many follow each other closely, a few leave time to recover.
	u := g.random.Float64()
	i := item{gap: hundredths(widestGap * u * u), faults: []fault{g.fault()}}
	if g.random.IntN(100) < pairPercent {
		second := g.fault()
		for second.kind == i.faults[0].kind {
			second = g.fault()
		}
		i.faults = append(i.faults, second)
	}
	return i
}

func (g *generator) fault() fault {
	n := g.random.IntN(g.total)
	var k *kind
	for _, k = range g.kinds {
		if n < k.weight {
			break
		}
		n -= k.weight
	}
	f := fault{kind: k.name, target: g.target(k)}
	if k.high > 0 {
		f.arg = k.low + g.random.IntN(k.high-k.low+1)
	}
	if !k.instant {
		// As many between 0.1 and 1 lease as between 1 and 10.
		f.leases = hundredths(shortest * math.Pow(longest/shortest, g.random.Float64()))
	}
	return f
}

func (g *generator) target(k *kind) string {
	n := g.random.IntN(100)
	host := g.random.IntN(g.nodes)
	switch {
	case k.everybody:
		return "#0"
	case n < 45:
		return targetHolder
	case n < 70:
		return targetLeader
	case n < 85:
		return targetOther
	}
	return fmt.Sprintf("#%d", host)
}

// hundredths rounds to what a schedule's text can say, so that the text replays
// exactly what was generated.
func hundredths(x float64) float64 { return math.Round(x*100) / 100 }
