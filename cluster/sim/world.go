package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/lease"
)

// us and ms are the units of this package; all times are true time unless a
// clock was asked.
const (
	us = time.Microsecond
	ms = time.Millisecond
)

// timing is what a profile sets.
type timing struct {
	ttl, kappa, renew time.Duration
	election, beat    time.Duration
}

var profiles = []timing{
	{ttl: 2 * time.Second, kappa: 50 * ms, renew: 200 * ms, election: 500 * ms, beat: 160 * ms},
	{ttl: 600 * ms, kappa: 50 * ms, renew: 70 * ms, election: 200 * ms, beat: 65 * ms},
	// Elections slower than leases, and leases slower than elections.
	{ttl: time.Second, kappa: 20 * ms, renew: 150 * ms, election: 1500 * ms, beat: 400 * ms},
	{ttl: 4 * time.Second, kappa: 400 * ms, renew: 400 * ms, election: 300 * ms, beat: 100 * ms},
}

// world is one run.
type world struct {
	rnd    *rand.Rand
	timing timing
	now    time.Duration
	queue  queue
	seq    uint64
	nonces uint64

	nodes   []*node
	byName  map[string]*node
	links   [][]link
	plan    []item
	end     ending
	fencing fencing
	seen    map[string]int
	traits  traits
	gone    map[*node]bool // dead or half deaf for good: the others must do without
	maimed  bool           // it is half deaf
	check   *checker
	sights  map[string]decide.Sight // used again for every look

	tracing bool
	trace   []string
	bad     string
	stats   Stats
}

// Stats are what a run came to.
type Stats struct {
	Simulated time.Duration
	Events    int
	Faults    int // what the plan made happen, orders included
	Crashes   int // deaths of a daemon
	Terms     int
	Changes   int // of the voters
	Grants    int // epochs given
	Handovers int // of those, planned
	Told      int // of those, begun on the giver's word
	Adopted   int // services that a restarted daemon found running
	Closed    int // sessions closed
	Expired   int // sessions ended by expiry
	Vouched   int // sessions ended on an operator's word
	Hasty     int // sessions closed as silent though their lease was good
	Repeated  int // entries that say again what is known
}

func (s *Stats) add(o Stats) {
	s.Simulated += o.Simulated
	for _, p := range []struct{ to, from *int }{
		{&s.Events, &o.Events}, {&s.Faults, &o.Faults}, {&s.Crashes, &o.Crashes}, {&s.Terms, &o.Terms},
		{&s.Changes, &o.Changes}, {&s.Grants, &o.Grants}, {&s.Handovers, &o.Handovers}, {&s.Told, &o.Told},
		{&s.Adopted, &o.Adopted}, {&s.Closed, &o.Closed}, {&s.Expired, &o.Expired}, {&s.Vouched, &o.Vouched},
		{&s.Hasty, &o.Hasty}, {&s.Repeated, &o.Repeated},
	} {
		*p.to += *p.from
	}
}

// Result is the outcome of a run.
type Result struct {
	Stats Stats
	// Seen counts what happened, by name.
	Seen map[string]int
	// Bad says which invariant was broken, when and how; empty: none.
	Bad   string
	Trace []string
}

// Run runs a script to its end or to the first broken invariant. Traced, it keeps
// the story of the run.
func Run(s Script, traced bool) Result {
	w := newWorld(s, traced)
	w.run()
	return w.result()
}

func (w *world) result() Result {
	w.stats.Simulated = w.now
	for name, n := range w.traits.named() {
		w.seen[name] += n
	}
	s := w.stats
	for name, n := range map[string]int{
		"hand-over": s.Handovers, "hand-over told": s.Told, "adopted": s.Adopted,
		"session expired": s.Expired, "session vouched": s.Vouched,
	} {
		w.seen[name] += n
	}
	return Result{Stats: w.stats, Seen: w.seen, Bad: w.bad, Trace: w.trace}
}

// newWorld founds the cluster and starts its daemons.
func newWorld(s Script, traced bool) *world {
	w := &world{
		rnd: rand.New(rand.NewPCG(s.Seed, 1)), timing: s.timing, plan: s.items, end: s.end, fencing: s.fencing,
		byName: map[string]*node{}, gone: map[*node]bool{}, seen: map[string]int{}, sights: map[string]decide.Sight{}, tracing: traced,
	}
	w.check = newChecker(w)
	w.populate(s)
	return w
}

// saw counts that something happened.
func (w *world) saw(what string) { w.seen[what]++ }

// pick draws an index by weight.
func pick(rnd *rand.Rand, weights ...int) int {
	total := 0
	for _, n := range weights {
		total += n
	}
	n := rnd.IntN(total)
	for i, weight := range weights {
		if n -= weight; n < 0 {
			return i
		}
	}
	return 0
}

// chance is true one time in n.
func (w *world) chance(n int) bool { return w.rnd.IntN(n) == 0 }

// upTo draws a time from 0 to d.
func (w *world) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.rnd.Int64N(int64(d)))
}

// between draws a time from a to b.
func (w *world) between(a, b time.Duration) time.Duration { return a + w.upTo(b-a) }

// say adds a line to the story.
func (w *world) say(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%11.3f ", w.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

// fail ends the run.
func (w *world) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf("at %.3f s: ", w.now.Seconds()) + fmt.Sprintf(format, args...)
		w.say("BROKEN %s", w.bad)
	}
}

// event is something that happens at a time.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

// queue is a heap of events, the earliest first; of two at a time, the older.
type queue []event

func (q queue) before(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}

func (q *queue) push(e event) {
	*q = append(*q, e)
	h := *q
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.before(i, up) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

func (q *queue) pop() event {
	h := *q
	e := h[0]
	last := len(h) - 1
	h[0] = h[last]
	h[last] = event{}
	*q = h[:last]
	h = h[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			break
		}
		if down+1 < last && h.before(down+1, down) {
			down++
		}
		if !h.before(down, i) {
			break
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
	return e
}

// after makes something happen after d of true time.
func (w *world) after(d time.Duration, do func()) {
	w.seq++
	w.queue.push(event{at: w.now + max(d, 0), seq: w.seq, do: do})
}

// step lets the next event happen; false when there is none before the end.
func (w *world) step(end time.Duration) bool {
	if w.bad != "" || len(w.queue) == 0 || w.queue[0].at > end {
		return false
	}
	e := w.queue.pop()
	w.now = e.at
	w.stats.Events++
	e.do()
	return true
}

// run lets the plan happen, and then waits for all to be well.
func (w *world) run() {
	last := time.Duration(0)
	for _, it := range w.plan {
		last = max(last, it.at+it.lasts)
		w.after(it.at, func() {
			w.stats.Faults++
			w.saw(it.what)
			w.say("--- %s", it)
			it.do(w)
		})
	}
	end := last + 2*time.Second
	for w.step(end) {
	}
	if w.bad != "" {
		return
	}
	w.now = max(w.now, end)
	w.heal()
	limit := w.now + w.bound()
	for next := w.now; w.bad == ""; {
		next += 250 * ms
		for w.step(next) {
		}
		if w.bad != "" {
			return
		}
		w.now = max(w.now, next)
		well := w.check.well()
		if well == "" {
			break
		}
		if w.now > limit {
			w.fail("I8: %s, %s after the faults stopped", well, w.bound())
		}
	}
	if w.bad == "" {
		w.check.same()
	}
}

// bound is how long after the last fault every service must run: a daemon that
// has just died is missed and its lease waited for, elections and restarts included.
func (w *world) bound() time.Duration {
	return 2*lease.Wait(w.timing.ttl, w.timing.kappa) + 12*w.timing.election + 20*time.Second
}

// services are the names that may be in force, and how many there are.
var services = []string{"db", "erp", "web"}
