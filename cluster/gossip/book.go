package gossip

import (
	"fmt"
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
)

// Limits of what hostile or broken gossip can make this node remember.
const (
	maxNodes     = 128 // names, the dead among them
	maxConflicts = 16
	// keepDead is how long the dead are kept when names run short. It is longer
	// than memberlist keeps them, so that its own list is bounded by maxNodes too.
	keepDead = 3 * gossipToTheDead
	// conflictAgain is how often one and the same conflict is reported.
	conflictAgain = time.Minute
)

// Sight is what this node sees of one other node.
type Sight struct {
	Meta  Meta
	State decide.Sight
	Since time.Time // when this node noticed; local clock
}

// Conflict is a second node under a name that is taken.
type Conflict struct {
	Name     string
	Known    string // gossip address of the node that has the name, host:port
	Intruder string // gossip address of the other one
	Since    time.Time
	Count    int // messages about it
}

// entry is a sight with what leads to it.
type entry struct {
	meta    Meta
	address string // where it gossips
	alive   bool   // memberlist's word: neither dead nor left
	doubted bool   // an own probe was lost and none answered since
	left    bool   // it said goodbye in this incarnation
	since   time.Time
}

func (e *entry) state() decide.Sight {
	switch {
	case e.left:
		return decide.SightLeft
	case !e.alive:
		return decide.SightDead
	case e.doubted:
		return decide.SightSuspect
	}
	return decide.SightAlive
}

// book is what was noticed. Its lock is the last one taken: nothing is called
// while it is held, since memberlist calls in with its own lock held.
type book struct {
	self string
	now  func() time.Time

	mu        sync.Mutex
	nodes     map[string]*entry
	conflicts map[string]*conflict
	changed   chan struct{} // holds one token when something changed
}

type conflict struct {
	Conflict
	reported time.Time
}

func newBook(self string) *book {
	return &book{
		self: self, now: time.Now,
		nodes: map[string]*entry{}, conflicts: map[string]*conflict{}, changed: make(chan struct{}, 1),
	}
}

// admit decides whether memberlist may take a name into its list, and makes
// room by forgetting who is long dead.
func (b *book) admit(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.nodes[name]; known || name == b.self || len(b.nodes) < maxNodes {
		return nil
	}
	for other, e := range b.nodes {
		if !e.alive && b.now().Sub(e.since) > keepDead {
			delete(b.nodes, other)
			return nil
		}
	}
	return fmt.Errorf("%d names are known already; the new one is ignored", maxNodes)
}

// seen notes a node that memberlist holds to be alive, as new or anew, or with
// other metadata.
func (b *book) seen(meta Meta, address string) {
	b.change(meta.Name, true, func(e *entry) {
		if e.meta.Incarnation != meta.Incarnation {
			e.left = false // another life
			e.since = b.now()
		}
		e.meta, e.address = meta, address
		if !e.alive {
			e.alive, e.doubted = true, false
		}
	})
}

// gone notes a node that memberlist holds to be dead or to have left.
func (b *book) gone(name string) {
	b.change(name, false, func(e *entry) { e.alive = false })
}

// doubt notes that an own probe of the node was lost.
func (b *book) doubt(name string) {
	b.change(name, false, func(e *entry) { e.doubted = true })
}

// answered notes that an own probe of the node was answered.
func (b *book) answered(name string) {
	b.change(name, false, func(e *entry) { e.doubted = false })
}

// farewell notes that a node said goodbye. That of an earlier life is ignored.
func (b *book) farewell(g goodbye) {
	b.change(g.Name, false, func(e *entry) {
		if e.meta.Incarnation == g.Incarnation {
			e.left = true
		}
	})
}

// change alters an entry and notes when what is seen of the node has changed.
func (b *book) change(name string, create bool, alter func(*entry)) {
	if name == b.self {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e, known := b.nodes[name]
	if !known {
		if !create {
			return
		}
		e = &entry{}
		b.nodes[name] = e
	}
	state, meta := e.state(), e.meta
	alter(e)
	if known && state == e.state() && meta == e.meta {
		return
	}
	if !known || state != e.state() {
		e.since = b.now()
	}
	b.signal()
}

// clash notes two nodes of one name.
func (b *book) clash(name, known, intruder string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := name + " " + intruder
	c := b.conflicts[key]
	if c == nil {
		if len(b.conflicts) >= maxConflicts {
			return // the first ones say enough
		}
		c = &conflict{Conflict: Conflict{Name: name, Intruder: intruder, Since: b.now()}}
		b.conflicts[key] = c
	}
	c.Known = known
	c.Count++
	b.signal()
}

// due returns the conflicts that are to be reported, once a minute each.
func (b *book) due() []Conflict {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Conflict
	for _, c := range b.conflicts {
		if c.reported.IsZero() || b.now().Sub(c.reported) > conflictAgain {
			c.reported = b.now()
			out = append(out, c.Conflict)
		}
	}
	return out
}

// signal leaves a token; the lock is held.
func (b *book) signal() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

func (b *book) members() map[string]Sight {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]Sight, len(b.nodes))
	for name, e := range b.nodes {
		out[name] = Sight{Meta: e.meta, State: e.state(), Since: e.since}
	}
	return out
}

// living is the set of addresses at which somebody is alive.
func (b *book) living() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]bool{}
	for _, e := range b.nodes {
		if e.alive {
			out[e.address] = true
		}
	}
	return out
}
