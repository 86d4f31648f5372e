package lease

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/state"
)

// The world is a small model of everything around a lease: true time, clocks
// that are wrong in every way that is allowed for, a Raft reduced to its rules,
// and a network that delays, repeats, reorders and loses. Voter, Holder, Closing
// and MayChange are the real ones. One random source decides all.
const (
	worldTTL   = time.Second
	worldKappa = 50 * ms

	// Rates are in thousandths, and time passes in microseconds, so that no reading
	// is ever rounded.
	rate = 1000
	rho  = 1  // ρ
	slew = 80 // chrony's worst
	us   = time.Microsecond
)

type entry struct {
	term uint64
	cmd  state.Command  // nil for a change of the voters
	conf *Configuration // nil for a command
}

type kept struct { // a snapshot
	at int // how many entries it covers
	st *state.State
}

type host struct {
	name string

	// Its clocks, and how they go wrong: a host is suspended at times or slewed at
	// times. A host that is both at once is outside of what LEASE.md covers.
	clk      clock.Reading
	drift    int64 // thousandths, of the crystal: within ρ
	suspends bool

	// On its disk.
	term uint64
	log  []entry

	// Of its daemon's present life.
	nonce     uint64
	voter     *Voter
	committed int // entries
	applied   int

	leads        bool
	match        map[string]int
	firstApplied *clock.Reading
	lastChange   *clock.Reading
	closings     map[uint64]*Closing
	fenceAlone   map[uint64]bool
}

func (h *host) Now() clock.Reading { return h.clk }

// latest is the newest configuration in the log, committed or not, and its place.
func (h *host) latest() (Configuration, int) {
	for i := len(h.log) - 1; i >= 0; i-- {
		if h.log[i].conf != nil {
			return *h.log[i].conf, i
		}
	}
	return Configuration{}, -1
}

func (h *host) config() Configuration { c, _ := h.latest(); return c }

// lease is a holder's belief. It outlives the daemon that renewed it: the guard
// and the kernel go by its deadline.
type lease struct {
	on       *host
	h        *Holder
	believed time.Duration // true time up to which it was believed in
}

type world struct {
	rnd      *rand.Rand
	now      time.Duration // true
	hosts    map[string]*host
	names    []string
	term     uint64
	nonces   uint64
	leases   []*lease
	renewing *lease // of the daemon that renews now
	msgs     []letter
	kept     []kept
	over     map[uint64]bool // sessions whose end is committed by expiry
	dark     map[string]bool // hosts that Raft reaches seldom; datagrams do
	slow     map[string]bool // hosts that seldom apply what is committed
	weights  []int           // of the actions
	ends     int
	changes  int
	trace    []string
	bad      string
}

func (w *world) say(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%12v ", w.now)+fmt.Sprintf(format, args...))
}

func newWorld(seed uint64, voters int) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 7)), hosts: map[string]*host{}, over: map[uint64]bool{}, dark: map[string]bool{}, slow: map[string]bool{}}
	all := []string{"a", "b", "c", "d", "e", "f", "g"}[:voters+2] // two more than vote
	conf := NewConfiguration(all[:voters])
	log := []entry{{conf: &conf}, {cmd: state.Found{ID: "cluster", Key: make([]byte, 32)}}}
	for i, n := range all {
		log = append(log, entry{cmd: state.SetNode{Node: n, Role: state.RoleVoter, Address: fmt.Sprintf("192.0.2.%d:7100", i+1)}})
	}
	for _, n := range all {
		h := &host{name: n, suspends: w.chance(3), drift: int64(w.rnd.IntN(3)-1) * rho}
		h.clk = clock.Reading{Boot: time.Duration(w.rnd.IntN(1e9)) + time.Hour, Raw: time.Duration(w.rnd.IntN(1e9)) + time.Minute}
		h.log = slices.Clone(log)
		w.hosts[n] = h
		w.names = append(w.names, n)
		w.start(h)
	}
	w.elect(w.hosts["a"], all)
	l := w.hosts["a"]
	for _, n := range all {
		w.propose(l, w.started(w.hosts[n]))
	}
	w.propose(l, w.openSession(l))
	w.settle(l, all)
	for _, n := range all {
		w.apply(w.hosts[n], 1000)
	}
	w.resume()
	// Each world does some things often and others never: a mixture of all at even
	// rates seldom gets anywhere.
	members := w.chance(2) // a world about changes of the voters
	for _, a := range actions {
		switch {
		case !members:
			w.weights = append(w.weights, []int{0, 1, 1, 3, 10}[w.rnd.IntN(5)])
		case a.member > 0:
			w.weights = append(w.weights, a.member*(1+w.rnd.IntN(3)))
		default:
			w.weights = append(w.weights, w.rnd.IntN(2))
		}
	}
	switch {
	case members && w.chance(2):
		w.dark[holderName] = true
	case members && w.chance(2):
		for _, n := range append(all[voters:], holderName) {
			w.slow[n] = !w.chance(4)
		}
	}
	return w
}

func (w *world) chance(n int) bool { return w.rnd.IntN(n) == 0 }

func (w *world) any() *host { return w.hosts[w.names[w.rnd.IntN(len(w.names))]] }

// some returns a random set of hosts, more often large than small, in any order.
func (w *world) some() []string {
	var out []string
	for _, i := range w.rnd.Perm(len(w.names)) {
		n := w.names[i]
		if w.dark[n] && !w.chance(20) || w.chance(5) {
			continue
		}
		out = append(out, n)
	}
	return out
}

// leader returns some host that thinks it leads; often the newest.
func (w *world) leader() *host {
	var all []*host
	for _, n := range w.names {
		if w.hosts[n].leads {
			all = append(all, w.hosts[n])
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *host) int { return int(b.term) - int(a.term) })
	if w.chance(4) {
		return all[w.rnd.IntN(len(all))]
	}
	return all[0]
}

// start begins a life of a host's daemon.
func (w *world) start(h *host) {
	w.nonces++
	h.nonce = w.nonces
	h.voter = NewVoter(h.name, h.nonce, h, h.config)
	// What it knew to be committed it learns again, bit by bit.
	h.committed, h.applied = w.rnd.IntN(h.committed+1), 0
	h.leads, h.match, h.closings = false, nil, nil
}

// advance lets true time pass. Every host's clocks go at rates of their own, as
// wrong as they may be.
func (w *world) advance(dt time.Duration) {
	for _, n := range w.names {
		h := w.hosts[n]
		raw, boot := rate+h.drift, rate+h.drift
		switch {
		case h.suspends && w.chance(6):
			raw = 0
		case !h.suspends:
			boot += int64(w.rnd.IntN(3)-1) * slew
		}
		for _, l := range w.leases {
			if l.on != h {
				continue
			}
			until, ok := l.h.Until()
			if ok && l.h.Left(h.clk) > 0 {
				lapse := min(reach(until.Boot-h.clk.Boot, boot), reach(until.Raw-h.clk.Raw, raw))
				l.believed = w.now + min(lapse, dt)
			}
		}
		h.clk.Boot += scale(dt, boot)
		h.clk.Raw += scale(dt, raw)
	}
	w.now += dt
	w.say("+%v", dt)
}

func scale(d time.Duration, r int64) time.Duration { return d / rate * time.Duration(r) }

// reach is how long a clock of a rate takes to go on by d.
func reach(d time.Duration, r int64) time.Duration {
	if r == 0 {
		return 1 << 60
	}
	return (d*rate + time.Duration(r) - 1) / time.Duration(r)
}

// ---- Raft

func (w *world) elect(c *host, by []string) {
	conf := c.config()
	if !conf.Has(c.name) {
		return
	}
	term, votes := w.term+1, 0
	var granted []*host
	for _, n := range conf.Voters {
		v := w.hosts[n]
		if !slices.Contains(by, n) && v != c || newer(v.log, c.log) {
			continue
		}
		votes++
		granted = append(granted, v)
	}
	if votes < conf.Majority() {
		return
	}
	w.term = term
	for _, v := range granted {
		v.term, v.leads = term, false
	}
	c.leads, c.match = true, map[string]int{}
	c.firstApplied, c.lastChange = nil, nil
	c.closings, c.fenceAlone = map[uint64]*Closing{}, map[uint64]bool{}
	w.say("%s leads term %d", c.name, term)
	w.propose(c, state.LeaderStart{Node: c.name})
}

func newer(a, b []entry) bool {
	ta, tb := lastTerm(a), lastTerm(b)
	return ta > tb || ta == tb && len(a) > len(b)
}

func lastTerm(l []entry) uint64 {
	if len(l) == 0 {
		return 0
	}
	return l[len(l)-1].term
}

func (w *world) propose(l *host, cmd state.Command) {
	if cmd == nil {
		return
	}
	l.log = append(l.log, entry{term: l.term, cmd: cmd})
	w.say("%s appends %d %s %+v", l.name, len(l.log), cmd.Kind(), cmd)
}

// replicate makes a host's log like the leader's up to n entries, or ends the
// leadership.
func (w *world) replicate(l, f *host, n int) {
	if f == l || !l.leads {
		return
	}
	if f.term > l.term {
		l.term, l.leads = f.term, false
		return
	}
	if f.term < l.term || f.leads {
		f.term, f.leads = l.term, false
	}
	n = min(n, len(l.log))
	same := 0
	for same < n && same < len(f.log) && f.log[same].term == l.log[same].term {
		same++
	}
	if same < n {
		f.log = append(f.log[:same:same], l.log[same:n]...)
	}
	l.match[f.name] = max(l.match[f.name], n)
	f.committed = max(f.committed, min(l.committed, n))
}

// commit moves the leader's commit to the last entry of its own term that a
// majority of its latest configuration has.
func (w *world) commit(l *host) {
	conf, place := l.latest()
	for i := len(l.log); i > l.committed; i-- {
		if l.log[i-1].term != l.term {
			return
		}
		n := 0
		for _, v := range conf.Voters {
			if v == l.name || l.match[v] >= i {
				n++
			}
		}
		if n < conf.Majority() {
			continue
		}
		if place < i && place >= l.committed {
			now := l.Now()
			l.lastChange = &now
		}
		for _, e := range l.log[l.committed:i] {
			if end, ok := e.cmd.(state.EndSession); ok && end.Term == e.term {
				w.ended(end.Session)
			}
		}
		l.committed = i
		w.say("%s commits %d", l.name, i)
		return
	}
}

// settle replicates to some hosts and commits.
func (w *world) settle(l *host, to []string) {
	for range 2 { // the second round carries the new commit
		for _, n := range to {
			w.replicate(l, w.hosts[n], len(l.log))
		}
		if l.leads {
			w.commit(l)
		}
	}
}

// apply applies up to n committed entries on a host.
func (w *world) apply(h *host, n int) {
	for ; n > 0 && h.applied < h.committed; n-- {
		e := h.log[h.applied]
		h.applied++
		if e.cmd == nil {
			continue
		}
		h.voter.Apply(uint64(h.applied), e.term, e.cmd)
		if _, first := e.cmd.(state.LeaderStart); first && h.leads && e.term == h.term {
			now := h.Now()
			h.firstApplied = &now
		}
	}
}

// fail ends the run with what led to it.
func (w *world) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
		w.say("%s", w.bad)
	}
}

func (w *world) story() string {
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(w.hosts)) {
		h := w.hosts[n]
		fmt.Fprintf(&b, "%s: drift %d/1000, suspends %v\n", n, h.drift, h.suspends)
	}
	return b.String() + strings.Join(w.trace[max(0, len(w.trace)-120):], "\n")
}
