package renew

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/clock/clocktest"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

var abc = []string{"a", "b", "c"}

func TestALeaseIsHeldByAMajority(t *testing.T) {
	c := newCluster(t, abc, nil)
	a := c.members["a"]
	if a.Left() > 0 {
		t.Error("a lease before anything was asked")
	}
	if _, ok := a.Until(); ok {
		t.Error("a deadline before anything was asked")
	}
	a.Hold(c.session, time.Second, nonce)
	last := take(t, "extension", a.extends)
	for range 20 {
		e := take(t, "extension", a.extends)
		if e.until.Boot <= last.until.Boot || e.until.Raw <= last.until.Raw {
			t.Fatalf("deadline %v after %v", e.until, last.until)
		}
		if e.left <= 0 || e.left > time.Second {
			t.Fatalf("left %v of a second", e.left)
		}
		last = e
	}
	if got, ok := a.Until(); !ok || got.Boot < last.until.Boot || a.Left() <= 0 {
		t.Errorf("until %v, %v, left %v after %v was told", got, ok, a.Left(), last.until)
	}
	// The two others and its own vote without the network.
	until(t, "all voters have answered", func() bool {
		return a.Answered("a", 3) && a.Answered("b", 3) && a.Answered("c", 3)
	})
	if a.Answered("d", 3) {
		t.Error("somebody unknown has answered")
	}

	// One voter less is still a majority, two less are none.
	if err := c.members["c"].Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "c no longer answers", func() bool { return !a.Answered("c", 3) })
	drain(a.extends)
	take(t, "extension", a.extends)
	if err := c.members["b"].Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the lease lapses", func() bool { return a.Left() <= 0 })
}

func drain[T any](ch chan T) {
	for {
		select {
		case <-ch:
		default:
			return
		}
	}
}

func TestANodeThatDoesNotVoteHolds(t *testing.T) {
	c := newCluster(t, []string{"a", "b", "c", "m"}, nil)
	c.mu.Lock()
	c.conf = lease.NewConfiguration(abc)
	c.targets = c.targets[:3]
	c.mu.Unlock()
	m := c.members["m"]
	m.Hold(c.session, time.Second, nonce)
	take(t, "extension", m.extends)
	if m.Answered("m", 10) {
		t.Error("a node that is no voter has voted")
	}
}

func TestOneVoterAlone(t *testing.T) {
	c := newCluster(t, []string{"a"}, nil)
	a := c.members["a"]
	a.Hold(c.session, time.Second, nonce)
	take(t, "extension", a.extends)
}

func TestRefusalsAreTold(t *testing.T) {
	c := newCluster(t, abc, nil)
	a := c.members["a"]
	a.Hold(c.session, time.Second, nonce)
	take(t, "extension", a.extends)

	c.commit(state.CloseSession{Session: c.session})
	drain(a.refused)
	if why := take(t, "refusal", a.refused); why != lease.ReasonClosing {
		t.Errorf("refused as %v", why)
	}
	until(t, "the lease lapses", func() bool { return a.Left() <= 0 })
	c.commit(state.EndSession{Session: c.session, Proof: state.ProofExpired, Term: 1})
	wantRefusal(t, a, lease.ReasonEnded)
	a.Hold(c.session+1000, time.Second, nonce)
	wantRefusal(t, a, lease.ReasonUnknown)
	if a.Left() > 0 {
		t.Error("a lease of a session that nobody knows")
	}
}

// wantRefusal waits for a refusal of a kind among others.
func wantRefusal(t *testing.T, m *member, want lease.Reason) {
	t.Helper()
	var got lease.Reason
	for end := time.Now().Add(patient); got != want; got = take(t, "refusal", m.refused) {
		if time.Now().After(end) {
			t.Fatalf("still refused as %q, want %q", got, want)
		}
	}
}

func TestAnotherConfigurationIsRefused(t *testing.T) {
	c := newCluster(t, abc, nil)
	a := c.members["a"]
	stale := lease.NewConfiguration([]string{"a", "b", "x"})
	a.Conn.opt.Targets = func() (lease.Configuration, []Target) { _, targets := c.where(); return stale, targets }
	a.Hold(c.session, time.Second, nonce)
	for range 10 {
		if why := take(t, "refusal", a.refused); why != lease.ReasonConfiguration {
			t.Errorf("refused as %v", why)
		}
	}
	if len(a.extends) > 0 || a.Left() > 0 {
		t.Error("extended under another configuration")
	}
}

func TestDropStopsRenewing(t *testing.T) {
	c := newCluster(t, abc, nil)
	a := c.members["a"]
	a.Hold(c.session, 500*ms, nonce)
	take(t, "extension", a.extends)
	a.Drop()
	at, ok := a.Until()
	rounds := a.Stats().Rounds
	if !ok || a.Left() <= 0 {
		t.Error("what was granted is gone with the drop")
	}
	until(t, "it runs out", func() bool { return a.Left() <= 0 })
	if got, _ := a.Until(); got != at || a.Stats().Rounds != rounds {
		t.Errorf("renewed after the drop: until %v, then %v", at, got)
	}
	a.Drop() // again, of nothing
	drain(a.extends)
	a.Hold(c.session, 500*ms, nonce)
	take(t, "extension after the drop", a.extends)
}

// Each session begins without a lease, and answers for another count for nothing.
func TestSessionsShareNoLease(t *testing.T) {
	c := newCluster(t, abc, nil)
	a := c.members["a"]
	a.Hold(c.session, time.Hour, nonce)
	take(t, "extension", a.extends)
	a.Hold(c.session+1000, time.Hour, nonce)
	if left := a.Left(); left > 0 {
		t.Errorf("the next session begins with %v left", left)
	}
	for range 10 {
		take(t, "refusal", a.refused)
	}
	if a.Left() > 0 {
		t.Error("the next session has a lease that nobody granted")
	}
}

func TestAsking(t *testing.T) {
	c := newCluster(t, abc, nil)
	a, b := c.members["a"], c.members["b"]
	a.Hold(c.session, time.Second, nonce)
	take(t, "extension", a.extends)

	got := collect(t, b, Ages, c.session, 3)
	for _, n := range abc {
		if g := got[n]; g.standing != lease.StandingOpen || g.age < 0 || g.age > patient {
			t.Errorf("%s answers %+v", n, g)
		}
	}
	// Only who has applied the close confirms it.
	b.Ask(ConfirmClosed, c.session)
	c.commitOn("a", state.CloseSession{Session: c.session})
	c.commitOn("b", state.CloseSession{Session: c.session})
	got = collect(t, b, ConfirmClosed, c.session, 2)
	if got["a"].standing != lease.StandingClosed || got["b"].standing != lease.StandingClosed {
		t.Errorf("answers %+v", got)
	}
	c.commitOn("c", state.CloseSession{Session: c.session})
	collect(t, b, ConfirmClosed, c.session, 3)
	collect(t, b, Ages, c.session, 3) // of a closed session too

	drain(b.ages)
	b.Ask(Ages, c.session+1000)
	b.Ask(Question(9), c.session)
	b.Ask(Ages, c.session)
	if g := take(t, "answer", b.ages); g.session != c.session || g.question != Ages {
		t.Errorf("an answer to what nobody knows: %+v", g)
	}
}

// collect asks until so many voters have answered.
func collect(t *testing.T, m *member, q Question, session uint64, n int) map[string]told {
	t.Helper()
	drain(m.ages)
	got := map[string]told{}
	for len(got) < n {
		before := m.clk.Now()
		m.Ask(q, session)
		wait := time.After(200 * ms)
		for more := true; more; {
			select {
			case g := <-m.ages:
				if g.question != q || g.session != session {
					continue // to what was asked before
				}
				if g.at.Boot < before.Boot && len(got) == 0 {
					t.Fatalf("answer received at %v, asked at %v", g.at, before)
				}
				got[g.voter] = g
				more = len(got) < n
			case <-wait:
				more = false
			}
		}
	}
	return got
}

func TestABadNetwork(t *testing.T) {
	var seed atomic.Uint64
	c := newCluster(t, abc, func(_ string, o *Options) {
		o.wrap = func(s socket) socket {
			return &bad{socket: s, rnd: rand.New(rand.NewPCG(seed.Add(1), 1)), lose: 30, twice: 20, keep: 20}
		}
	})
	a := c.members["a"]
	a.Hold(c.session, 2*time.Second, nonce)
	var last extension
	for range 40 {
		e := take(t, "extension", a.extends)
		// Whatever comes late, a lease never reaches further than H from now.
		if e.until.Boot <= last.until.Boot || e.left > 2*time.Second {
			t.Fatalf("extension %+v after %+v", e, last)
		}
		last = e
	}
	if a.Stats().Forged != 0 {
		t.Error("datagrams were taken for forged")
	}
}

func TestRecordedDatagramsAreOfNoUse(t *testing.T) {
	taps := map[string]*tap{}
	var mu sync.Mutex
	clk := clocktest.New(clock.Reading{Boot: time.Hour, Raw: time.Hour})
	c := newCluster(t, abc, func(n string, o *Options) {
		o.Clock = clk
		o.wrap = func(s socket) socket {
			mu.Lock()
			defer mu.Unlock()
			taps[n] = &tap{socket: s}
			return taps[n]
		}
	})
	a, b := c.members["a"], c.members["b"]
	a.Hold(c.session, time.Second, nonce)
	take(t, "extension", a.extends)
	until(t, "b was asked", func() bool { return len(taps["b"].ofKind(kindRenew)) > 3 })
	until(t, "b's answers arrived", func() bool { return len(taps["a"].ofKind(kindOK)) > 6 })
	c.members["a"].Drop()
	before, _ := a.Until()

	send := func(to *member, ps []packet) {
		for _, p := range ps {
			if _, err := c.members["c"].sock.WriteToUDPAddrPort(p.b, to.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
	}
	// An hour later all that was recorded is sent again.
	clk.Advance(time.Hour)
	age1, _ := b.voter.Age(c.session)
	renewals, oks := taps["b"].ofKind(kindRenew), taps["a"].ofKind(kindOK)
	granted, replayed := b.Stats().Granted, b.Stats().Replayed
	send(b, renewals)
	until(t, "the replays have arrived", func() bool { return b.Stats().Replayed >= replayed+uint64(len(renewals)) })
	if age2, _ := b.voter.Age(c.session); age2 < age1 || b.Stats().Granted != granted {
		t.Errorf("a replay has renewed the session: age %v, then %v", age1, age2)
	}
	a.Hold(c.session, time.Second, nonce+1) // another start: none of its own answers yet
	a.Drop()
	send(a, oks)
	a.Hold(c.session, time.Second, nonce)
	send(a, oks)
	n := len(oks)
	until(t, "the replays have arrived", func() bool { return len(taps["a"].ofKind(kindOK)) >= 3*n })
	if got, ok := a.Until(); ok && got.Boot < before.Boot+time.Hour-time.Second {
		t.Errorf("until %v after replays, %v before", got, before)
	}
}

func TestNothingIsSaidWithoutTheKey(t *testing.T) {
	c := newCluster(t, abc, nil)
	a := c.members["a"]
	a.Hold(c.session, time.Second, nonce)
	take(t, "extension", a.extends)
	c.mu.Lock()
	c.key = nil
	c.mu.Unlock()
	until(t, "the lease lapses", func() bool { return a.Left() <= 0 })
	c.members["b"].Ask(Ages, c.session)
	c.mu.Lock()
	c.key = []byte("another key")
	c.mu.Unlock()
	drain(a.extends)
	take(t, "extension with the new key", a.extends)
}

func TestForgeriesAreCounted(t *testing.T) {
	c := newCluster(t, abc, nil)
	a, b := c.members["a"], c.members["b"]
	var s sealer
	s.use([]byte("guessed"))
	m := message{kind: kindRenew, session: c.session, nonce: 1, seq: 1, config: c.conf.ID, name: []byte("a")}
	forged := s.seal(m.encode(nil))
	plain := m.encode(nil)
	for _, d := range [][]byte{forged, plain, {}, {1}, make([]byte, 2000)} {
		if _, err := a.sock.WriteToUDPAddrPort(d, b.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all are counted", func() bool { return b.Stats().Forged == 5 })
	if n := b.Stats().Granted; n != 0 {
		t.Errorf("%d were granted", n)
	}
	// What a member sends that is of no known kind or version does no harm.
	s.use(c.secret())
	odd := [][]byte{{9, 1, 2}, {1}, {version, 77}, append([]byte{version, byte(kindOK)}, make([]byte, 24)...)}
	for _, d := range odd {
		if _, err := a.sock.WriteToUDPAddrPort(s.seal(d), b.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	a.Hold(c.session, time.Second, nonce)
	take(t, "extension", a.extends)
}

func TestBadOptions(t *testing.T) {
	good := Options{
		Address: netip.MustParseAddrPort("127.0.0.1:0"), Self: "a", Interval: ms, Clock: clock.System(),
		Key: func() []byte { return nil }, Voter: lease.NewVoter("a", 1, clock.System(), nil),
		Targets: func() (lease.Configuration, []Target) { return lease.Configuration{}, nil },
	}
	taken, err := Listen(good)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Options){
		"name":        func(o *Options) { o.Self = "" },
		"256":         func(o *Options) { o.Self = strings.Repeat("n", 256) },
		"needed":      func(o *Options) { o.Key = nil },
		"interval":    func(o *Options) { o.Interval = 0 },
		"port taken":  func(o *Options) { o.Address = taken.LocalAddr() },
		"host's?":     func(o *Options) { o.Address = netip.MustParseAddrPort("192.0.2.1:1") },
		"all needed":  func(o *Options) { o.Targets = nil },
		"are all nee": func(o *Options) { o.Voter = nil },
	} {
		o := good
		change(&o)
		if c, err := Listen(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, have %v", want, err)
			if c != nil {
				_ = c.Close()
			}
		}
	}
	if err := taken.Close(); err != nil {
		t.Error(err)
	}
	if err := taken.Close(); err != nil {
		t.Error("closed twice:", err)
	}
	taken.Hold(1, time.Second, 1) // of a closed one: nothing
	taken.Ask(Ages, 1)
}

func TestIPv6(t *testing.T) {
	c := newCluster(t, abc, func(_ string, o *Options) { o.Address = netip.MustParseAddrPort("[::1]:0") })
	c.members["a"].Hold(c.session, time.Second, nonce)
	take(t, "extension", c.members["a"].extends)
}
