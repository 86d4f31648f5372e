package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
)

// brisk is a timing for tests: quick, and yet good for a busy host.
var brisk = Timing{Probe: 100 * time.Millisecond, Timeout: 50 * time.Millisecond, Interval: 20 * time.Millisecond, Suspicion: 3}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

func options(name string, incarnation uint64, peers ...*Gossip) Options {
	o := Options{
		Meta:    Meta{Name: name, Incarnation: incarnation, Address: "127.0.0.1:7400", Version: "1.0", ConfigHash: "abcd", Role: "voter"},
		Address: "127.0.0.1:0", Label: "test", Key: []byte("0123456789abcdef"), Timing: brisk,
	}
	for _, p := range peers {
		o.Peers = append(o.Peers, p.Address())
	}
	return o
}

func start(t *testing.T, o Options) *Gossip {
	t.Helper()
	var g *Gossip
	var err error
	for range 20 { // a free TCP port may be taken as UDP port
		if g, err = Start(o); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// freeAddress is one that nobody listens on just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		c, err := net.ListenPacket("udp", address)
		l.Close()
		if err == nil {
			c.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

func waitFor(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		<-tick.C
		if time.Since(begin) > patience {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
	return time.Since(begin)
}

func sees(g *Gossip, name string, want decide.Sight) func() bool {
	return func() bool { return g.Sights()[name] == want }
}

// trio starts three nodes that know each other's address from the beginning,
// as the nodes of a cluster do.
func trio(t *testing.T) (a, b, c *Gossip) {
	t.Helper()
	addresses := []string{freeAddress(t), freeAddress(t), freeAddress(t)}
	var nodes []*Gossip
	for i, name := range []string{"a", "b", "c"} {
		o := options(name, 1)
		o.Address, o.Peers = addresses[i], addresses
		nodes = append(nodes, start(t, o))
	}
	for i, g := range nodes {
		for j, other := range []string{"a", "b", "c"} {
			if i != j {
				waitFor(t, "to meet "+other, sees(g, other, decide.SightAlive))
			}
		}
	}
	return nodes[0], nodes[1], nodes[2]
}

func TestNodesMeetAndTellOfThemselves(t *testing.T) {
	a, b, _ := trio(t)
	got := a.Members()["b"]
	if want := (Meta{Name: "b", Incarnation: 1, Address: "127.0.0.1:7400", Version: "1.0", ConfigHash: "abcd", Role: "voter"}); got.Meta != want {
		t.Errorf("got %+v", got.Meta)
	}
	if _, self := a.Members()["a"]; self {
		t.Error("a node sees itself")
	}
	if a.Sights()["stranger"] != decide.SightUnknown {
		t.Error("a name that was never seen is not unknown")
	}
	m := got.Meta
	m.Version, m.ConfigHash = "1.1", "ef01"
	if err := b.UpdateMeta(m); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "news of b", func() bool { return a.Members()["b"].Meta == m })
	if since := a.Members()["b"].Since; !since.Equal(got.Since) {
		t.Error("other metadata count as another state")
	}
	m.Incarnation++
	if err := b.UpdateMeta(m); !errors.Is(err, ErrMeta) {
		t.Errorf("another incarnation: %v", err)
	}
}

func TestDeathIsSuspectedThenSeen(t *testing.T) {
	a, b, c := trio(t)
	var suspected atomic.Int64
	begin := time.Now()
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	took := waitFor(t, "c dead", func() bool {
		if a.Sights()["c"] == decide.SightSuspect {
			suspected.CompareAndSwap(0, int64(time.Since(begin)))
		}
		return a.Sights()["c"] == decide.SightDead
	})
	waitFor(t, "c dead to b", sees(b, "c", decide.SightDead))
	t.Logf("suspect after %v, dead after %v", time.Duration(suspected.Load()), took)
	if suspected.Load() == 0 && b.Members()["c"].State != decide.SightDead {
		t.Error("nobody suspected c before it was dead")
	}
	// 3 probe intervals of suspicion, 2 to the first lost probe, one for the
	// probe itself; the rest is for a busy host.
	if took > 5*time.Second {
		t.Errorf("dead after %v", took)
	}
	if a.Members()["c"].Since.Before(begin) {
		t.Error("since is before the death")
	}
}

func TestSuspicionShowsBeforeDeath(t *testing.T) {
	o := options("a", 1)
	o.Timing.Suspicion = 100 // death would take 10 s
	a := start(t, o)
	b := start(t, options("b", 1, a))
	waitFor(t, "b", sees(a, "b", decide.SightAlive))
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	took := waitFor(t, "suspicion of b", sees(a, "b", decide.SightSuspect))
	t.Logf("suspect after %v", took)
	again := options("b", 1)
	again.Address = b.Address()
	start(t, again)
	waitFor(t, "b again", sees(a, "b", decide.SightAlive))
}

func TestGoodbyeIsNoDeath(t *testing.T) {
	a, b, c := trio(t)
	begin := time.Now()
	if err := c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "c left", sees(a, "c", decide.SightLeft))
	waitFor(t, "c left to b", sees(b, "c", decide.SightLeft))
	t.Logf("left after %v", time.Since(begin))
	if err := c.Leave(t.Context()); err != nil {
		t.Errorf("a second goodbye: %v", err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Leave(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("a goodbye after the stop: %v", err)
	}
	if err := c.UpdateMeta(c.meta); !errors.Is(err, ErrStopped) {
		t.Errorf("news after the stop: %v", err)
	}
	// It comes back in another life.
	o := options("c", 2, a, b)
	o.Address = c.Address()
	start(t, o)
	waitFor(t, "c back", sees(a, "c", decide.SightAlive))
	waitFor(t, "c back to b", sees(b, "c", decide.SightAlive))
}

func TestLeaveHasAnEnd(t *testing.T) {
	a, _, _ := trio(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Leave(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	lonely := start(t, options("lonely", 1))
	if err := lonely.Leave(t.Context()); err != nil {
		t.Errorf("nobody to say goodbye to: %v", err)
	}
}

// A daemon that is back before anybody noticed, and one that is back later.
func TestRestartIsAnotherLife(t *testing.T) {
	a, b, c := trio(t)
	for life := uint64(2); life <= 4; life++ {
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if life == 4 {
			waitFor(t, "c dead", sees(a, "c", decide.SightDead))
		}
		o := options("c", life, a, b)
		o.Address = c.Address()
		c = start(t, o)
		for _, g := range []*Gossip{a, b} {
			waitFor(t, fmt.Sprintf("life %d of c", life), func() bool {
				m := g.Members()["c"]
				return m.Meta.Incarnation == life && m.State == decide.SightAlive
			})
		}
	}
}

// outsiders are kept apart although they know the addresses.
func TestOtherKeysAndLabelsAreKeptOut(t *testing.T) {
	a, b, _ := trio(t)
	for name, spoil := range map[string]func(*Options){
		"key":   func(o *Options) { o.Key = []byte("fedcba9876543210") },
		"plain": func(o *Options) { o.Key = nil },
		"label": func(o *Options) { o.Label = "other" },
		"none":  func(o *Options) { o.Label = "" },
	} {
		o := options(name, 1, a, b)
		spoil(&o)
		x := start(t, o)
		b.SetPeers([]string{x.Address(), a.Address()})
		// The counter-check: with the right key and label this very wait ends.
		good := start(t, options("good-"+name, 1, a, b))
		waitFor(t, "the one that belongs here", sees(a, "good-"+name, decide.SightAlive))
		if n := called(x); n < 2 {
			waitFor(t, "the outsider to call", func() bool { return called(x) >= 2 })
		}
		if s, seen := a.Members()[name]; seen {
			t.Errorf("%s: seen as %+v", name, s)
		}
		if m := x.Members(); len(m) > 0 {
			t.Errorf("%s: it sees %v", name, m)
		}
		if err := errors.Join(x.Stop(), good.Stop()); err != nil {
			t.Fatal(err)
		}
	}
}

// called is how often a node has called its peers in vain, as its back-off tells.
func called(g *Gossip) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, c := range g.peers {
		if c.wait >= 4*firstRetry {
			n++
		}
	}
	return n
}

func TestSecondNodeOfOneNameIsReported(t *testing.T) {
	a, b, _ := trio(t)
	conflicts := make(chan Conflict, 10)
	o := options("d", 1, a, b)
	o.OnConflict = func(c Conflict) { conflicts <- c }
	watcher := start(t, o)
	waitFor(t, "b", sees(watcher, "b", decide.SightAlive))
	intruder := start(t, options("b", 7, a, b, watcher))
	select {
	case c := <-conflicts:
		if c.Name != "b" || c.Known != b.Address() || c.Intruder != intruder.Address() || c.Count < 1 {
			t.Errorf("got %+v", c)
		}
	case <-time.After(patience):
		t.Fatal("no conflict reported")
	}
	if m := watcher.Members()["b"]; m.Meta.Incarnation != 1 {
		t.Errorf("the intruder took the name: %+v", m)
	}
	// Both hear of their double when one calls the other.
	for name, g := range map[string]*Gossip{"b": b, "the intruder": intruder} {
		waitFor(t, name+"'s own report", func() bool {
			g.book.mu.Lock()
			defer g.book.mu.Unlock()
			return len(g.book.conflicts) > 0
		})
	}
}

func TestOnChangeFollowsEveryChange(t *testing.T) {
	var calls atomic.Int64
	o := options("a", 1)
	o.OnChange = func() { calls.Add(1) }
	a := start(t, o)
	b := start(t, options("b", 1, a))
	waitFor(t, "a call", func() bool { return calls.Load() > 0 })
	waitFor(t, "b", sees(a, "b", decide.SightAlive))
	before := calls.Load()
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "another call", func() bool { return calls.Load() > before })
}

func TestOptionsThatCannotWork(t *testing.T) {
	for name, spoil := range map[string]func(*Options){
		"address":  func(o *Options) { o.Address = "localhost:1" },
		"any":      func(o *Options) { o.Address = "0.0.0.0:7402" },
		"key":      func(o *Options) { o.Key = []byte("short") },
		"label":    func(o *Options) { o.Label = strings.Repeat("x", 256) },
		"timing":   func(o *Options) { o.Timing.Timeout = o.Timing.Probe },
		"name":     func(o *Options) { o.Meta.Name = "a b" },
		"base":     func(o *Options) { o.Meta.Address = "" },
		"version":  func(o *Options) { o.Meta.Version = strings.Repeat("x", 65) },
		"no speed": func(o *Options) { o.Timing = Timing{} },
	} {
		o := options("a", 1)
		spoil(&o)
		if g, err := Start(o); !errors.Is(err, ErrOptions) && !errors.Is(err, ErrMeta) {
			t.Errorf("%s: %v", name, err)
			if g != nil {
				_ = g.Stop()
			}
		}
	}
	taken := start(t, options("a", 1))
	o := options("b", 1)
	o.Address = taken.Address()
	if g, err := Start(o); err == nil || !strings.Contains(err.Error(), "address already in use") {
		if g != nil {
			_ = g.Stop()
		}
		t.Errorf("a port in use: %v", err)
	}
}

func TestStopFreesThePort(t *testing.T) {
	a := start(t, options("a", 1))
	for range 3 {
		if err := errors.Join(a.Stop(), a.Stop()); err != nil {
			t.Fatal(err)
		}
		o := options("a", 1)
		o.Address = a.Address()
		var err error
		if a, err = Start(o); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
}

func TestFiveNodesOutliveTwo(t *testing.T) {
	var addresses, names []string
	for i := range 5 {
		addresses = append(addresses, freeAddress(t))
		names = append(names, fmt.Sprintf("n%d", i))
	}
	var nodes []*Gossip
	for i := range names {
		o := options(names[i], 1)
		o.Address, o.Peers = addresses[i], addresses
		nodes = append(nodes, start(t, o))
	}
	all := func(want map[string]decide.Sight) func() bool {
		return func() bool {
			for i, g := range nodes {
				for name, s := range want {
					if slices.Contains(names[3:], names[i]) && s == decide.SightDead {
						continue
					}
					if name != names[i] && want[names[i]] != decide.SightDead && g.Sights()[name] != s {
						return false
					}
				}
			}
			return true
		}
	}
	alive := map[string]decide.Sight{}
	for _, n := range names {
		alive[n] = decide.SightAlive
	}
	waitFor(t, "all to meet", all(alive))
	for _, g := range nodes[3:] {
		if err := g.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	alive["n3"], alive["n4"] = decide.SightDead, decide.SightDead
	took := waitFor(t, "two dead, three alive", all(alive))
	t.Logf("after %v", took)
}
