package renew

import (
	"net/netip"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/clock/clocktest"
	"github.com/failoverd/failoverd/cluster/lease"
)

// yes is a voter side that says OK to everything and knows a fixed age.
type yes struct {
	age      time.Duration
	standing lease.Standing
	called   func()
}

func (y *yes) Renew(uint64, uint64) (bool, lease.Reason) { return true, lease.ReasonNone }
func (y *yes) Age(uint64) (time.Duration, lease.Standing) {
	if y.called != nil {
		y.called()
	}
	return y.age, y.standing
}

var (
	elsewhere = netip.MustParseAddrPort("192.0.2.7:7102") // b
	farther   = netip.MustParseAddrPort("192.0.2.8:7102") // c
	secret    = []byte("0123456789abcdef0123456789abcdef")
)

// alone starts a Conn named a, of voters a, b and c, on a pipe and a clock that
// the test moves.
func alone(t testing.TB, voter VoterSide, wraps ...func(socket) socket) (*Conn, *pipe, *clocktest.Manual) {
	t.Helper()
	clk, p := clocktest.New(clock.Reading{Boot: time.Hour, Raw: time.Minute}), newPipe()
	wrap := func(s socket) socket {
		for _, w := range wraps {
			s = w(s)
		}
		return s
	}
	conf := lease.NewConfiguration(abc)
	targets := []Target{{ID: "a"}, {ID: "b", Addr: elsewhere}, {ID: "c", Addr: farther}}
	c := newConn(Options{
		wrap: wrap, Self: "a", Key: func() []byte { return secret }, Voter: voter, Clock: clk, Interval: time.Hour,
		Targets: func() (lease.Configuration, []Target) { return conf, targets },
	}, p)
	c.wg.Add(3)
	go c.receive()
	go c.extend()
	go c.tell()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, p, clk
}

// sent takes the next message of a kind that a Conn has sent to b.
func sent(t *testing.T, p *pipe, k kind) message {
	t.Helper()
	var s sealer
	s.use(secret)
	for {
		d := take(t, "datagram", p.out)
		body, ok := s.open(d.b)
		var m message
		if !ok || m.decode(body) != nil {
			t.Fatalf("sent %x", d.b)
		}
		if m.kind == k && d.to == elsewhere {
			return m
		}
	}
}

// give lets a Conn receive a message, as from a node of that name.
func give(p *pipe, from string, m message) {
	var s sealer
	s.use(secret)
	m.name = []byte(from)
	p.in <- packet{s.seal(m.encode(nil)), elsewhere}
}

// no is a voter side that refuses everything.
type no struct{ yes }

func (*no) Renew(uint64, uint64) (bool, lease.Reason) { return false, lease.ReasonNotReady }

// A process that was frozen, or a machine that was suspended, between sending and
// hearing gains nothing from what it then hears.
func TestAFrozenProcessExtendsNothing(t *testing.T) {
	for name, freeze := range map[string]func(*clocktest.Manual){
		"frozen":    func(clk *clocktest.Manual) { clk.Advance(10 * time.Second) },
		"suspended": func(clk *clocktest.Manual) { clk.Suspend(10 * time.Second) },
		"slewed":    func(clk *clocktest.Manual) { clk.Move(900*ms, time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			c, p, clk := alone(t, &no{})
			told := make(chan time.Duration, 10)
			c.OnExtend(func(_ clock.Reading, left time.Duration) { told <- left })
			began := clk.Now()
			c.Hold(7, time.Second, 9)
			m := sent(t, p, kindRenew)
			freeze(clk)
			ok := message{kind: kindOK, session: m.session, nonce: m.nonce, seq: m.seq}
			give(p, "b", ok)
			give(p, "c", ok)
			give(p, "b", message{kind: kindAsk, session: 1, question: 99}) // the answers before it were taken
			if at, held := c.Until(); !held || at != began.Add(time.Second) {
				t.Errorf("until %v, %v; want the sending and a second", at, held)
			}
			if left := c.Left(); left > 0 {
				t.Errorf("%v left after the freeze", left)
			}
			c.Drop() // what was to be told is told or never will be
			select {
			case left := <-told:
				t.Errorf("told of an extension with %v left", left)
			default:
			}
		})
	}
}

// An OK that arrives before the deadline gives what is left from the sending.
func TestTheLeaseBeginsWithTheSending(t *testing.T) {
	c, p, clk := alone(t, &no{})
	told := make(chan extension, 10)
	c.OnExtend(func(until clock.Reading, left time.Duration) { told <- extension{until, left} })
	began := clk.Now()
	c.Hold(7, time.Second, 9)
	m := sent(t, p, kindRenew)
	clk.Move(300*ms, 400*ms)
	for _, n := range []string{"b", "x", "", "b"} { // b alone is no majority, the others are nobody
		give(p, n, message{kind: kindOK, session: 7, nonce: 9, seq: m.seq})
	}
	give(p, "c", message{kind: kindOK, session: 7, nonce: 8, seq: m.seq})
	give(p, "c", message{kind: kindOK, session: 6, nonce: 9, seq: m.seq})
	give(p, "c", message{kind: kindOK, session: 7, nonce: 9, seq: m.seq + 1})
	give(p, "c", message{kind: kindNo, session: 7, nonce: 9, seq: m.seq})
	if c.Left() > 0 {
		t.Fatal("a lease without a majority")
	}
	give(p, "c", message{kind: kindOK, session: 7, nonce: 9, seq: m.seq})
	e := take(t, "extension", told)
	if e.until != began.Add(time.Second) || e.left != 600*ms {
		t.Errorf("extension %+v, want until %v and 600ms left", e, began.Add(time.Second))
	}
}

// An OK that was under way when renewals were dropped extends nothing.
func TestNothingIsExtendedAfterADrop(t *testing.T) {
	c, p, _ := alone(t, &yes{})
	c.Hold(7, time.Second, 9)
	m := sent(t, p, kindRenew)
	c.Drop()
	give(p, "b", message{kind: kindOK, session: 7, nonce: 9, seq: m.seq})
	give(p, "b", message{kind: kindAsk, session: 1, question: 99}) // the OK was taken
	if _, held := c.Until(); held {
		t.Error("extended after the drop")
	}
}

// Requests of one session and nonce never have the same number, however often
// renewals are dropped and begun again, and whatever is held in between.
func TestNumbersAreNotUsedAgain(t *testing.T) {
	c, p, _ := alone(t, &yes{})
	seen := map[uint64]bool{}
	for _, session := range []uint64{7, 7, 8, 7, 8, 8} {
		c.Hold(session, time.Second, 9)
		m := sent(t, p, kindRenew)
		if seen[m.seq] {
			t.Errorf("number %d is used again", m.seq)
		}
		seen[m.seq] = true
		c.Drop()
	}
}

// An age is counted from when the answer was received: not from when it was
// asked for, nor from when the socket began to wait.
func TestAnAgeIsCountedFromItsReceipt(t *testing.T) {
	voter := &yes{age: 5 * time.Second, standing: lease.StandingClosed}
	c, p, clk := alone(t, voter)
	// The node's own answer: its clock is read after its age was computed.
	voter.called = func() { clk.Advance(ms) }
	got := make(chan told, 10)
	asked := clk.Now()
	c.OnAge(func(voter string, q Question, session uint64, age time.Duration, a lease.Standing, sent, at clock.Reading) {
		if want := asked; sent != want {
			t.Errorf("an answer to the question of %v names the one of %v", want, sent)
		}
		got <- told{voter, q, session, age, a, at}
	})
	c.Ask(ConfirmClosed, 7)
	if own := take(t, "own answer", got); own.voter != "a" || own.at != asked.Add(ms) {
		t.Errorf("own answer %+v, want it received at %v", own, asked.Add(ms))
	}
	m := sent(t, p, kindAsk)
	until(t, "the receiver waits", func() bool { return p.reads.Load() == 1 })
	clk.Advance(3 * time.Second)
	answer := message{kind: kindAge, session: 7, nonce: m.nonce, seq: m.seq, question: ConfirmClosed, standing: lease.StandingClosed, age: time.Second}
	give(p, "b", answer)
	want := told{"b", ConfirmClosed, 7, time.Second, lease.StandingClosed, clk.Now()}
	if g := take(t, "answer", got); g != want {
		t.Errorf("answer %+v, want %+v", g, want)
	}
	// What does not answer a question that was asked is dropped.
	for _, change := range []func(*message){
		func(m *message) { m.nonce++ },
		func(m *message) { m.seq++ },
		func(m *message) { m.session++ },
		func(m *message) { m.question = Ages },
		func(m *message) { m.standing = lease.StandingOpen },
		func(m *message) { m.standing = lease.StandingNone },
		func(m *message) { m.standing = 77 },
		func(m *message) { m.age = -1 },
		func(m *message) { m.seq = 0 },
	} {
		wrong := answer
		change(&wrong)
		give(p, "b", wrong)
	}
	give(p, "x", answer)
	give(p, "c", answer)
	if g := take(t, "answer", got); g.voter != "c" {
		t.Errorf("answer %+v to no question", g)
	}
}

// A voter answers each question only as it may.
func TestWhatMayNotBeAnsweredIsNot(t *testing.T) {
	for _, x := range []struct {
		standing lease.Standing
		q        Question
		answers  bool
	}{
		{lease.StandingNone, Ages, false}, {lease.StandingNone, ConfirmClosed, false},
		{lease.StandingOpen, Ages, true}, {lease.StandingOpen, ConfirmClosed, false},
		{lease.StandingClosed, Ages, true}, {lease.StandingClosed, ConfirmClosed, true},
		{lease.StandingClosed, 9, false},
	} {
		voter := &yes{age: time.Second, standing: x.standing}
		_, p, _ := alone(t, voter)
		give(p, "b", message{kind: kindAsk, session: 7, nonce: 1, seq: 2, question: x.q})
		give(p, "b", message{kind: kindRenew, session: 7, nonce: 1, seq: 2}) // the question was taken
		var s sealer
		s.use(secret)
		body, _ := s.open(take(t, "datagram", p.out).b)
		var m message
		if err := m.decode(body); err != nil {
			t.Fatal(err)
		}
		if answered := m.kind == kindAge; answered != x.answers {
			t.Errorf("%v with standing %v: answered %v", x.q, x.standing, answered)
		} else if answered && (m.age != time.Second || m.standing != x.standing || m.nonce != 1 || m.seq != 2 || string(m.name) != "a") {
			t.Errorf("%v with standing %v: %+v", x.q, x.standing, m)
		}
	}
}

// A callback that hangs holds up neither this node's vote for others nor what it
// knows of its own lease, and is told of the newest deadline when it returns.
func TestASlowCallbackHoldsUpNothing(t *testing.T) {
	c, p, clk := alone(t, &yes{})
	entered, release := make(chan clock.Reading, 10), make(chan struct{})
	c.OnExtend(func(until clock.Reading, _ time.Duration) {
		entered <- until
		<-release
	})
	c.Hold(7, time.Minute, 9)
	m := sent(t, p, kindRenew)
	give(p, "b", message{kind: kindOK, session: 7, nonce: 9, seq: m.seq})
	take(t, "extension", entered)

	give(p, "b", message{kind: kindRenew, session: 8, nonce: 1, seq: 1})
	if ok := sent(t, p, kindOK); ok.session != 8 {
		t.Errorf("answer %+v", ok)
	}
	for range 3 {
		clk.Advance(time.Second)
		c.round(c.holder)
		m = sent(t, p, kindRenew)
		give(p, "b", message{kind: kindOK, session: 7, nonce: 9, seq: m.seq})
	}
	give(p, "b", message{kind: kindAsk, session: 1, question: 99}) // the OKs were taken
	want := clk.Now().Add(time.Minute)
	if got, _ := c.Until(); got != want {
		t.Errorf("until %v, want %v", got, want)
	}
	release <- struct{}{}
	if got := take(t, "extension", entered); got != want {
		t.Errorf("told %v after the callback returned, want the newest, %v", got, want)
	}

	// An extension that was over before it could be told is not told.
	clk.Advance(time.Second)
	extend := func() {
		c.round(c.holder)
		m = sent(t, p, kindRenew)
		give(p, "b", message{kind: kindOK, session: 7, nonce: 9, seq: m.seq})
		give(p, "b", message{kind: kindAsk, session: 1, question: 99}) // the OK was taken
	}
	extend()
	clk.Advance(time.Hour)
	release <- struct{}{}
	until(t, "the news was taken", func() bool { return len(c.extended) == 0 })
	extend()
	want = clk.Now().Add(time.Minute)
	if got := take(t, "extension", entered); got != want {
		t.Errorf("told %v, want %v alone", got, want)
	}
	close(release)
}

// Reading goes on after an error of the socket.
func TestReadErrorsPass(t *testing.T) {
	c := newCluster(t, abc, func(_ string, o *Options) {
		o.wrap = func(s socket) socket { return &flaky{socket: s} }
	})
	c.members["a"].Hold(c.session, time.Second, nonce)
	take(t, "extension", c.members["a"].extends)
}

type flaky struct {
	socket
	n int
}

func (f *flaky) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	if f.n++; f.n%2 == 1 {
		return 0, netip.AddrPort{}, errMessage
	}
	return f.socket.ReadFromUDPAddrPort(b)
}

func TestReplays(t *testing.T) {
	r := replays{bySession: map[uint64]*granted{}}
	now := clock.Reading{}
	stale := func(want bool, session, nonce, seq uint64) {
		t.Helper()
		if got := r.stale(session, nonce, seq); got != want {
			t.Errorf("session %d, nonce %d, number %d: stale %v", session, nonce, seq, got)
		}
	}
	stale(false, 1, 10, 5)
	r.grant(1, 10, 5, now)
	stale(true, 1, 10, 5)
	stale(true, 1, 10, 4)
	stale(false, 1, 10, 6)
	stale(false, 2, 10, 5) // another session
	stale(false, 1, 11, 1) // another start
	r.grant(1, 11, 1, now)
	stale(true, 1, 10, 6) // the start before it is over
	stale(false, 1, 11, 2)
	for n := uint64(12); n < 12+maxRetired-1; n++ {
		r.grant(1, n, 1, now)
	}
	stale(true, 1, 10, 99)
	r.forget(1)
	stale(false, 1, 10, 1)
	for s := range uint64(2 * maxReplays) {
		r.grant(s, 1, 1, now.Add(time.Duration(s)))
	}
	if len(r.bySession) != maxReplays {
		t.Errorf("%d sessions are remembered", len(r.bySession))
	}
	stale(true, 2*maxReplays-1, 1, 1)
	stale(false, 0, 1, 1) // the oldest was forgotten
}

func TestRenewingAllocatesNothing(t *testing.T) {
	c, _, _ := alone(t, &yes{age: time.Second, standing: lease.StandingClosed},
		func(s socket) socket { return silent{s} }) // the pipe copies what it is given
	h := lease.NewHolder(7, time.Second, 9)
	c.mu.Lock()
	c.holder, c.held = h, true
	c.mu.Unlock()
	if n := testing.AllocsPerRun(200, func() { c.round(h) }); n != 0 {
		t.Errorf("the holder allocates %v times for a round", n)
	}
	var s sealer
	s.use(secret)
	var buf [maxDatagram]byte
	seq := uint64(0)
	handle := func(m message) {
		m.name = []byte("b")
		c.handle(s.seal(m.encode(buf[:0])), elsewhere, clock.Reading{})
	}
	// The receiver itself waits on the pipe, where nothing ever comes.
	if n := testing.AllocsPerRun(200, func() {
		seq++
		handle(message{kind: kindRenew, session: 3, nonce: 4, seq: seq})
	}); n != 0 {
		t.Errorf("the voter allocates %v times for a renewal", n)
	}
	if n := testing.AllocsPerRun(200, func() {
		c.round(h)
		handle(message{kind: kindOK, session: 7, nonce: 9, seq: h.Seq()})
	}); n != 0 {
		t.Errorf("the holder allocates %v times for a renewal with its answer", n)
	}
	if n := testing.AllocsPerRun(200, func() { handle(message{kind: kindAsk, session: 7, question: ConfirmClosed}) }); n != 0 {
		t.Errorf("the voter allocates %v times for a question", n)
	}
}

type silent struct{ socket }

func (silent) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) { return len(b), nil }

// BenchmarkRenewal is a renewal by three voters over loopback, from the sending
// to the majority.
func BenchmarkRenewal(b *testing.B) {
	conf := lease.NewConfiguration(abc)
	var targets []Target
	var conns []*Conn
	for _, n := range abc {
		c, err := Listen(Options{
			Address: netip.MustParseAddrPort("127.0.0.1:0"), Self: n, Key: func() []byte { return secret },
			Voter: &yes{}, Clock: clock.System(), Interval: time.Hour,
			Targets: func() (lease.Configuration, []Target) { return conf, targets },
		})
		if err != nil {
			b.Fatal(err)
		}
		defer func() {
			if err := c.Close(); err != nil {
				b.Error(err)
			}
		}()
		targets = append(targets, Target{ID: n, Addr: c.LocalAddr()})
		conns = append(conns, c)
	}
	got := make(chan struct{}, 1)
	conns[0].OnExtend(func(clock.Reading, time.Duration) { got <- struct{}{} })
	conns[0].Hold(7, time.Hour, 9)
	<-got
	b.ReportAllocs()
	for b.Loop() {
		conns[0].round(conns[0].holder)
		<-got
	}
}
