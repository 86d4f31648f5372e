package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/journal"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// world is three or more nodes in one process: real nodes, voters, leases and
// journals; a log that replicates at once to whoever is reachable; datagrams
// that are calls; resources that note in one book who serves.
type world struct {
	t     *testing.T
	mu    sync.Mutex
	log   []entry
	term  uint64
	lead  string
	nodes map[string]*host
	book  *book
}

type entry struct {
	term uint64
	cmd  state.Command
}

// host is one node of the world and what is true of its machine.
type host struct {
	w       *world
	name    string
	dir     string
	boot    string
	nonce   uint64
	cut     bool // reaches nobody, nobody reaches it
	deaf    bool // its renewals arrive, and the voters' OKs do not
	dead    bool
	applied int

	voter    *lease.Voter
	journal  *journal.Journal
	renewals *fakeRenewals
	node     *Node
	stop     context.CancelFunc
	done     chan struct{}
	leads    chan Leadership
	endLead  context.CancelFunc
	restarts int
	ttl      time.Duration // 0: testTTL
	kappa    time.Duration // 0: testKappa
}

const (
	testTTL   = 400 * time.Millisecond
	testKappa = 20 * time.Millisecond
)

func newWorld(t *testing.T, names ...string) *world {
	w := &world{t: t, nodes: map[string]*host{}, book: newBook()}
	for i, name := range names {
		h := &host{w: w, name: name, dir: t.TempDir(), boot: name + "-boot-1", nonce: uint64(100 * (i + 1))}
		w.nodes[name] = h
	}
	for _, name := range names {
		w.nodes[name].start()
	}
	t.Cleanup(func() {
		for _, h := range w.nodes {
			if !h.dead {
				h.kill()
			}
		}
		w.book.check(t)
	})
	w.elect(names[len(names)-1])
	return w
}

func (w *world) configuration() lease.Configuration {
	names := make([]string, 0, len(w.nodes))
	for name := range w.nodes {
		names = append(names, name)
	}
	return lease.NewConfiguration(names)
}

// reaches reports whether a message gets from one host to another.
func (w *world) reaches(from, to string) bool {
	a, b := w.nodes[from], w.nodes[to]
	if from == to {
		return !a.dead
	}
	return !a.dead && !b.dead && !a.cut && !b.cut
}

// commit appends and applies everywhere that can be reached; without a
// majority nothing is committed.
func (w *world) commit(from string, cmd state.Command) (state.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lead != from {
		return state.Result{}, ErrNotLeader
	}
	reached := 0
	for name := range w.nodes {
		if w.reaches(from, name) {
			reached++
		}
	}
	if reached <= len(w.nodes)/2 {
		return state.Result{}, ErrUnknown
	}
	w.log = append(w.log, entry{w.term, cmd})
	var res state.Result
	for name, h := range w.nodes {
		if !w.reaches(from, name) {
			continue
		}
		r := h.catchUp()
		if name == from {
			res = r
		}
	}
	return res, nil
}

// catchUp applies what the host has missed; the world's lock is held.
func (h *host) catchUp() state.Result {
	var res state.Result
	for h.applied < len(h.w.log) {
		e := h.w.log[h.applied]
		h.applied++
		res = h.voter.Apply(uint64(h.applied), e.term, e.cmd)
	}
	return res
}

// elect makes a node the leader of a new term.
func (w *world) elect(name string) {
	w.mu.Lock()
	if old := w.nodes[w.lead]; old != nil && old.endLead != nil {
		old.endLead()
	}
	w.term++
	w.lead = name
	h := w.nodes[name]
	ctx, cancel := context.WithCancel(context.Background())
	h.endLead = cancel
	l := Leadership{Term: w.term, Ctx: ctx}
	w.mu.Unlock()
	if _, err := w.commit(name, state.LeaderStart{Node: name}); err != nil {
		w.t.Errorf("elect %s: %v", name, err)
	}
	h.leads <- l
}

// start boots the host's daemon on the data that it has.
func (h *host) start() {
	w := h.w
	j, err := journal.Open(h.dir, h.boot)
	if err != nil {
		w.t.Fatal(err)
	}
	h.nonce++
	w.mu.Lock()
	h.journal, h.dead = j, false
	h.voter = lease.NewVoter(h.name, h.nonce, clock.System(), w.configuration)
	h.applied = 0
	h.leads = make(chan Leadership, 4)
	w.mu.Unlock()
	h.renewals = &fakeRenewals{h: h, nonce: h.nonce, stop: make(chan struct{})}
	node := NewNode(Options{
		Self: h.name, Role: state.RoleVoter, Address: h.name + ":1", Birth: "birth-" + h.name, BootID: h.boot, Nonce: h.nonce,
		ClusterID: "world", Founders: w.founders(), TTL: cmp.Or(h.ttl, testTTL), Kappa: cmp.Or(h.kappa, testKappa),
		Clock: clock.System(), Voter: h.voter, Journal: j, Renewals: h.renewals,
		Gossip: noGossip{}, Guard: deafGuard{h}, Builder: &fakeBuilder{h: h}, Peers: fakePeers{h},
		VoterAddr: func(a string) string { return a }, Log: testLog(h.name),
		OnRestart: func() { h.restarts++ },
	})
	w.mu.Lock()
	h.node = node
	w.mu.Unlock()
	go h.renewals.run(w)
	ctx, cancel := context.WithCancel(context.Background())
	h.stop, h.done = cancel, make(chan struct{})
	if err := h.node.Resume(ctx); err != nil {
		w.t.Errorf("resume %s: %v", h.name, err)
	}
	w.mu.Lock()
	if w.lead != "" && w.reaches(w.lead, h.name) {
		h.catchUp()
	}
	w.mu.Unlock()
	go func() {
		defer close(h.done)
		h.node.Run(ctx, fakeConsensus{h}, h.leads)
	}()
}

func (w *world) founders() []Founder {
	var out []Founder
	for _, name := range sortedNames(w.nodes) {
		out = append(out, Founder{Node: name, Role: state.RoleVoter, Address: name + ":1", Birth: "birth-" + name})
	}
	return out
}

// kill ends the host's daemon at once; what it ran goes on.
func (h *host) kill() {
	h.w.mu.Lock()
	h.dead = true
	if h.endLead != nil {
		h.endLead()
	}
	h.w.mu.Unlock()
	h.stop()
	h.node.Close()
	<-h.done
	close(h.renewals.stop)
	if err := h.journal.Close(); err != nil && !errors.Is(err, journal.ErrClosed) {
		h.w.t.Errorf("close journal: %v", err)
	}
}

func (w *world) setCut(name string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[name].cut = cut
	if !cut {
		for n, h := range w.nodes {
			if w.reaches(w.lead, n) {
				h.catchUp()
			}
		}
	}
}

// until waits for a condition of the world.
func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			for _, h := range w.nodes {
				if !h.dead {
					w.t.Logf("%s: %+v", h.name, h.node.memberView(h.voter.View()))
				}
			}
			w.t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// holder is who serves now, if exactly one does.
func (w *world) holder(service string) string { return w.book.holder(service) }

type fakeConsensus struct{ h *host }

func (c fakeConsensus) Propose(_ context.Context, cmd state.Command) (state.Result, error) {
	return c.h.w.commit(c.h.name, cmd)
}
func (c fakeConsensus) Barrier(context.Context) error { return nil }
func (c fakeConsensus) Leader() (string, string) {
	c.h.w.mu.Lock()
	defer c.h.w.mu.Unlock()
	if c.h.w.lead == "" || !c.h.w.reaches(c.h.name, c.h.w.lead) {
		return "", ""
	}
	return c.h.w.lead, c.h.w.lead + ":1"
}
func (c fakeConsensus) Servers() []Server {
	var out []Server
	for _, name := range sortedNames(c.h.w.nodes) {
		out = append(out, Server{Name: name, Address: name + ":1", Votes: true})
	}
	return out
}
func (c fakeConsensus) DiskStalled() (time.Duration, bool)                    { return 0, false }
func (c fakeConsensus) Hesitate(bool) error                                   { return nil }
func (c fakeConsensus) AddNonvoter(context.Context, string, string) error     { return nil }
func (c fakeConsensus) Promote(context.Context, uint64, string, string) error { return nil }
func (c fakeConsensus) Demote(context.Context, uint64, string) error          { return nil }
func (c fakeConsensus) Remove(context.Context, uint64, string) error          { return nil }
func (c fakeConsensus) Transfer(context.Context) error                        { return nil }

// fakeRenewals renews by calls, with the real holder's side of the lease.
type fakeRenewals struct {
	h     *host
	nonce uint64
	mu    sync.Mutex
	held  *lease.Holder
	stop  chan struct{}
}

func (r *fakeRenewals) Hold(session uint64, ttl time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = lease.NewHolder(session, ttl, r.nonce)
}
func (r *fakeRenewals) Drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = nil
}
func (r *fakeRenewals) Until() (clock.Reading, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		return clock.Reading{}, false
	}
	return r.held.Until()
}
func (r *fakeRenewals) Left() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		return 0
	}
	return r.held.Left(clock.System().Now())
}
func (r *fakeRenewals) run(w *world) {
	tick := time.NewTicker(testTTL / 10)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
			r.round(w)
		}
	}
}
func (r *fakeRenewals) round(w *world) {
	r.mu.Lock()
	held := r.held
	r.mu.Unlock()
	if held == nil {
		return
	}
	c := w.configuration()
	now := clock.System().Now()
	r.mu.Lock()
	seq := held.Begin(now, c)
	r.mu.Unlock()
	for _, v := range c.Voters {
		w.mu.Lock()
		reached := w.reaches(r.h.name, v)
		voter, node := w.nodes[v].voter, r.h.node
		w.mu.Unlock()
		if !reached {
			continue
		}
		ok, why := voter.Renew(held.Session(), c.ID)
		w.mu.Lock()
		deaf := r.h.deaf
		w.mu.Unlock()
		if deaf {
			continue
		}
		if !ok {
			node.RefusedBy(held.Session(), why)
			continue
		}
		r.mu.Lock()
		extended := held.OK(v, held.Session(), r.nonce, seq, clock.System().Now())
		until, _ := held.Until()
		r.mu.Unlock()
		if extended {
			node.Extended(until)
		}
	}
}
func (r *fakeRenewals) AskAges(session uint64)       { r.ask(session) }
func (r *fakeRenewals) ConfirmClosed(session uint64) { r.ask(session) }
func (r *fakeRenewals) ask(session uint64) {
	w := r.h.w
	for _, v := range w.configuration().Voters {
		w.mu.Lock()
		reached := w.reaches(r.h.name, v)
		voter, node := w.nodes[v].voter, r.h.node
		w.mu.Unlock()
		if reached {
			asked := clock.System().Now()
			age, standing := voter.Age(session)
			node.HeardAge(v, session, age, standing, asked, clock.System().Now())
		}
	}
}

type noGossip struct{}

func (noGossip) Sights() map[string]decide.Sight { return nil }

type deafGuard struct{ h *host }

func (g deafGuard) Extend(clock.Reading) error {
	if g.h.w.book.isBroken("guard@" + g.h.name) {
		return errors.New("no guard, for the test")
	}
	return nil
}
func (deafGuard) Use(uint64) error { return nil }
func (deafGuard) Alive() bool      { return true }

type fakePeers struct{ h *host }

func (p fakePeers) Peer(address string) (Peer, error) {
	address = strings.TrimSuffix(address, ":1")
	p.h.w.mu.Lock()
	defer p.h.w.mu.Unlock()
	if !p.h.w.reaches(p.h.name, address) {
		return nil, fmt.Errorf("%s does not reach %s", p.h.name, address)
	}
	return p.h.w.nodes[address].node, nil
}
func (p fakePeers) Operator(address string) (Operator, error) {
	peer, err := p.Peer(address)
	if err != nil {
		return nil, err
	}
	return peer.(*Node), nil
}

// fakeBuilder makes resources that write in the world's book.
type fakeBuilder struct {
	h *host
}

func (b *fakeBuilder) Build(spec state.Spec, _ Origin) ([]Resource, error) {
	if b.h.w.book.isBroken("build " + spec.Name + "@" + b.h.name) {
		return nil, errors.New("unbuildable for the test")
	}
	var out []Resource
	for _, r := range spec.Resources {
		out = append(out, &fakeResource{h: b.h, service: spec.Name, name: r.Name})
	}
	return out, nil
}

func (b *fakeBuilder) Able(state.Spec) error { return nil }

type fakeResource struct {
	h             *host
	service, name string
}

func (r *fakeResource) Name() string { return r.name }
func (r *fakeResource) Start(_ context.Context, epoch uint64) error {
	return r.h.w.book.start(r.service, r.name, r.h.name, epoch, r.h.renewals.Left)
}
func (r *fakeResource) Stop(context.Context) error {
	r.h.w.book.stop(r.service, r.name, r.h.name)
	return nil
}
func (r *fakeResource) Running(context.Context) (bool, error) {
	return r.h.w.book.runs(r.service, r.name, r.h.name), nil
}

// book notes which node serves what. A resource serves while it is started
// and the lease that its node had is not over: the kernel's part.
type book struct {
	mu       sync.Mutex
	active   map[string]map[string]func() time.Duration // service/resource -> node -> lease left
	epochs   map[string]uint64
	broken   map[string]bool // service@node: cannot be started there
	failures []string
	starts   int
}

func newBook() *book {
	return &book{active: map[string]map[string]func() time.Duration{}, epochs: map[string]uint64{}, broken: map[string]bool{}}
}

func (b *book) start(service, name, node string, epoch uint64, left func() time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken[service+"@"+node] {
		return errors.New("broken for the test")
	}
	key := service + "/" + name
	for other, l := range b.active[key] {
		if other != node && l() > 0 {
			b.failures = append(b.failures, fmt.Sprintf("%s started on %s under epoch %d while %s serves it with %s left", key, node, epoch, other, l()))
		}
	}
	if epoch < b.epochs[key] {
		b.failures = append(b.failures, fmt.Sprintf("%s started under epoch %d after %d", key, epoch, b.epochs[key]))
	}
	b.epochs[key] = epoch
	b.starts++
	if b.active[key] == nil {
		b.active[key] = map[string]func() time.Duration{}
	}
	b.active[key][node] = left
	return nil
}

func (b *book) isBroken(what string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken[what]
}

func (b *book) breakIt(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken[what] = true
}

func (b *book) stop(service, name, node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.active[service+"/"+name], node)
}

func (b *book) runs(service, name, node string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.active[service+"/"+name][node]
	return ok && l() > 0
}

func (b *book) holder(service string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := ""
	for node, l := range b.active[service+"/fake"] {
		if l() > 0 {
			if found != "" {
				return found + "+" + node
			}
			found = node
		}
	}
	return found
}

func (b *book) check(t *testing.T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.failures {
		t.Error(f)
	}
}

// testLog is silent unless FAILOVERD_TEST_LOG is set.
func testLog(name string) *slog.Logger {
	if os.Getenv("FAILOVERD_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", name)
}
