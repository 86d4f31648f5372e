package consensus

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/failoverd/failoverd/cluster"
)

// The model: three nodes that found as RunFounding does, question by question,
// while processes crash and disks are wiped between any two of them. A world
// is a plain value, so that it can be looked up among those seen.

// births tells the disks that a cluster was founded with; zero is no cluster.
type births [3]uint8

func (b births) identities() []cluster.Identity {
	var out []cluster.Identity
	for i := range b {
		id := blank(i)
		id.Birth = fmt.Sprintf("%c%d", 'a'+i, b[i])
		out = append(out, id)
	}
	return out
}

// word is what one node said to another.
type word struct {
	asked, lost bool
	birth       uint8
	cluster     births
}

type intent struct {
	verb    Verb
	cluster births
	from    uint8
}

type modelNode struct {
	up      bool
	birth   uint8
	cluster births

	phase  uint8 // 0 idle, 1 asking, 2 confirming
	words  [3]word
	intent intent
	said   bool // somebody was told "no data" since the confirming began
}

type model struct {
	nodes                  [3]modelNode
	crashes, wipes, losses uint8 // still allowed
	mutant                 mutant
}

// mutant leaves out one rule.
type mutant uint8

const (
	_            mutant = iota
	careless            // what was said in between does not matter
	anyBirth            // a node joins whatever cluster knows its name
	notEverybody        // who does not answer counts as blank
)

func identity(i int, birth uint8, in births) cluster.Identity {
	id := blank(i)
	id.Birth = fmt.Sprintf("%c%d", 'a'+i, birth)
	if in != (births{}) {
		id = foundedBy(id, in.identities()...)
	}
	return id
}

// decide is NextFounding, or what a mutant makes of it.
func (m *model) decide(i int) intent {
	n := &m.nodes[i]
	answers := map[string]Answer{}
	for j, w := range n.words {
		if !w.asked {
			continue
		}
		a := Answer{Identity: identity(j, w.birth, w.cluster)}
		if w.lost {
			a = Answer{Err: errors.New("lost")}
		}
		if w.lost && m.mutant == notEverybody {
			a = Answer{Identity: blank(j)}
		}
		if m.mutant == anyBirth {
			for k := range a.Identity.Founders {
				if a.Identity.Founders[k].Address == threePeers[i] {
					a.Identity.Founders[k].Birth = identity(i, n.birth, births{}).Birth
				}
			}
		}
		answers[threePeers[j]] = a
	}
	d := NextFounding(identity(i, n.birth, n.cluster), answers)
	out := intent{verb: d.Verb, from: uint8(max(0, slices.Index(threePeers, d.From)))}
	switch d.Verb {
	case Found:
		for k, f := range d.Founders {
			out.cluster[k] = f.Birth[1] - '0'
		}
	case Join:
		out.cluster = n.words[out.from].cluster
	}
	return out
}

// asks reports whether a node still has to ask another in this phase.
func (n *modelNode) asks(i, j int) bool {
	return j != i && !n.words[j].asked && (n.phase == 1 || n.intent.verb == Found || int(n.intent.from) == j)
}

// steps calls do with every world that can come next.
func (m model) steps(do func(model)) {
	for i := range 3 {
		n := m.nodes[i]
		after := func(change func(m *model, n *modelNode)) {
			c := m
			change(&c, &c.nodes[i])
			do(c)
		}
		if !n.up {
			after(func(_ *model, n *modelNode) { n.up = true })
			if m.wipes > 0 {
				after(func(m *model, n *modelNode) { m.wipes--; *n = modelNode{birth: n.birth + 1} })
			}
			continue
		}
		if m.crashes > 0 {
			after(func(m *model, n *modelNode) {
				m.crashes--
				*n = modelNode{birth: n.birth, cluster: n.cluster}
			})
		}
		if n.cluster != (births{}) {
			continue
		}
		if n.phase == 0 {
			after(func(_ *model, n *modelNode) { n.phase = 1 })
			continue
		}
		asking := false
		for j := range 3 {
			if !n.asks(i, j) {
				continue
			}
			asking = true
			if m.nodes[j].up {
				after(func(m *model, n *modelNode) {
					other := &m.nodes[j]
					n.words[j] = word{asked: true, birth: other.birth, cluster: other.cluster}
					other.said = other.said || other.phase == 2
				})
			}
			if !m.nodes[j].up || m.losses > 0 {
				after(func(m *model, n *modelNode) {
					if m.nodes[j].up {
						m.losses--
					}
					n.words[j] = word{asked: true, lost: true}
				})
			}
		}
		if !asking {
			after(func(m *model, n *modelNode) { m.finish(i, n) })
		}
	}
}

// finish is the end of a round, or of its confirmation.
func (m *model) finish(i int, n *modelNode) {
	d, was, said := m.decide(i), n.intent, n.said && m.mutant != careless
	first := n.phase == 1
	n.phase, n.words, n.intent, n.said = 0, [3]word{}, intent{}, false
	switch {
	case d.verb != Found && d.verb != Join:
	case first:
		n.phase, n.intent = 2, d
	case d.verb == was.verb && d.cluster == was.cluster && !said:
		n.cluster = d.cluster
	}
}

// wrong says what must never be: two clusters on the disks, or a node in a
// cluster that does not count the birth of its present disk.
func (m *model) wrong() string {
	one := births{}
	for i := range m.nodes {
		n := &m.nodes[i]
		switch {
		case n.cluster == births{}:
			continue
		case one != births{} && one != n.cluster:
			return fmt.Sprintf("clusters %v and %v", one, n.cluster)
		case n.cluster[i] != n.birth:
			return fmt.Sprintf("node %d of birth %d in cluster %v", i, n.birth, n.cluster)
		}
		one = n.cluster
	}
	return ""
}

// explore walks through every world and returns how many there are, what is
// wrong in one, and whether some world has one cluster on all three nodes.
func explore(crashes, wipes, losses uint8, left mutant) (worlds int, wrong string, whole bool) {
	start := model{crashes: crashes, wipes: wipes, losses: losses, mutant: left}
	for i := range start.nodes {
		start.nodes[i] = modelNode{up: true, birth: 1}
	}
	seen := map[model]bool{start: true}
	queue := []model{start}
	for len(queue) > 0 {
		m := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if wrong = m.wrong(); wrong != "" {
			return len(seen), wrong, whole
		}
		none := births{}
		whole = whole || m.nodes[0].cluster != none && m.nodes[1].cluster != none && m.nodes[2].cluster != none
		m.steps(func(next model) {
			if !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		})
	}
	return len(seen), "", whole
}

func TestNeverTwoClusters(t *testing.T) {
	for _, faults := range [][3]uint8{{0, 0, 0}, {0, 0, 2}, {1, 1, 1}, {2, 2, 0}} {
		worlds, wrong, whole := explore(faults[0], faults[1], faults[2], 0)
		t.Logf("crashes, wipes, losses %v: %d worlds", faults, worlds)
		if wrong != "" {
			t.Errorf("%v: %s", faults, wrong)
		}
		if !whole {
			t.Errorf("%v: no way leads to a cluster of all three", faults)
		}
	}
}

// TestTheModelSeesWhatItShould: without a rule something goes wrong.
func TestTheModelSeesWhatItShould(t *testing.T) {
	for _, left := range []mutant{careless, anyBirth, notEverybody} {
		worlds, wrong, _ := explore(2, 1, 0, left)
		t.Logf("without rule %d: %s after %d worlds", left, wrong, worlds)
		if wrong == "" {
			t.Errorf("rule %d is not missed", left)
		}
	}
}
