package renew

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/clock/clocktest"
	"github.com/failoverd/failoverd/cluster/lease"
)

// fuzzed is a Conn named a, of voters a, b and c, none of whose goroutines run:
// the test calls what they would call.
type fuzzed struct {
	*Conn
	pipe  *pipe
	clk   *clocktest.Manual
	voter *fussy
}

// fussy says OK to even sessions, and tells ages of sessions below 4.
type fussy struct{ oks map[uint64]int }

func (f *fussy) Renew(session, config uint64) (bool, lease.Reason) {
	if session%2 == 0 {
		f.oks[session]++
		return true, lease.ReasonNone
	}
	return false, lease.ReasonEnded
}

func (f *fussy) Age(session uint64) (time.Duration, lease.Standing) {
	return time.Second, lease.Standing(min(session, 3)) // 3: of a newer version
}

func newFuzzed() *fuzzed {
	f := &fuzzed{pipe: newPipe(), clk: clocktest.New(clock.Reading{Boot: time.Hour, Raw: time.Minute}), voter: &fussy{oks: map[uint64]int{}}}
	conf := lease.NewConfiguration(abc)
	targets := []Target{{ID: "a"}, {ID: "b", Addr: elsewhere}, {ID: "c", Addr: farther}}
	f.Conn = newConn(Options{
		Self: "a", Key: func() []byte { return secret }, Voter: f.voter, Clock: f.clk, Interval: time.Hour,
		Targets: func() (lease.Configuration, []Target) { return conf, targets },
	}, f.pipe)
	return f
}

// deliver gives the Conn a datagram and returns what it sent for it.
func (f *fuzzed) deliver(b []byte) (answers []packet) {
	copy(f.in[:], b)
	f.handle(f.in[:min(len(b), len(f.in))], stranger, f.clk.Now())
	for {
		select {
		case p := <-f.pipe.out:
			answers = append(answers, p)
		default:
			return answers
		}
	}
}

var stranger = netip.MustParseAddrPort("198.51.100.1:1")

// sealed is a datagram of the cluster with this body.
func sealed(body []byte) []byte {
	var s sealer
	s.use(secret)
	return s.seal(append([]byte(nil), body...))
}

// authentic is the authentication of a datagram's body, by a second route: what
// is being tested must not say what is forged.
func authentic(body []byte) []byte {
	key := hmac.New(sha256.New, secret)
	key.Write([]byte("failoverd renewals 1"))
	sum := hmac.New(sha256.New, key.Sum(nil))
	sum.Write(body)
	return sum.Sum(nil)[:16]
}

// Whoever does not have the key changes nothing and hears nothing, whatever he sends.
func FuzzForged(f *testing.F) {
	m := message{kind: kindRenew, session: 2, nonce: 3, seq: 4, config: 5, name: []byte("b")}
	good := sealed(m.encode(nil))
	f.Add(good[:len(good)-1])
	f.Add(append(good, 0))
	f.Add([]byte{})
	f.Add(make([]byte, sealSize))
	f.Add(make([]byte, maxDatagram))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := len(b) - sealSize; n > 0 && hmac.Equal(b[n:], authentic(b[:n])) {
			return // it has the key
		}
		c := newFuzzed()
		if answers := c.deliver(b); len(answers) > 0 || len(c.voter.oks) > 0 {
			t.Fatalf("%x was answered with %d datagrams", b, len(answers))
		}
		if got := c.Stats(); got.Forged != 1 || got.Granted+got.Refused+got.Replayed != 0 || len(c.news) > 0 {
			t.Fatalf("%x: %+v", b, got)
		}
	})
}

// FuzzDatagrams is both sides under authenticated nonsense: a holder that has
// asked and a leader that has asked, and messages with whatever in them. The
// lease is extended by two different voters' OKs to this very request alone,
// never beyond its sending; an age is told only of what was asked; an answer is
// never longer than twice what asked for it, and goes nowhere else.
func FuzzDatagrams(f *testing.F) {
	add := func(ms ...message) {
		var b []byte
		for _, m := range ms {
			body := m.encode(nil)
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
		}
		f.Add(b)
	}
	b, c := []byte("b"), []byte("c")
	add(message{kind: kindOK, session: 6, nonce: 9, seq: 1, name: b})
	add(message{kind: kindOK, session: 6, nonce: 9, seq: 1, name: b}, message{kind: kindOK, session: 6, nonce: 9, seq: 1, name: c})
	add(message{kind: kindOK, session: 6, nonce: 9, seq: 1, name: b}, message{kind: kindOK, session: 6, nonce: 9, seq: 1, name: []byte("a")})
	add(message{kind: kindNo, session: 6, nonce: 9, seq: 1, reason: lease.ReasonClosing, name: b})
	add(message{kind: kindRenew, session: 2, nonce: 1, seq: 1, name: b}, message{kind: kindRenew, session: 2, nonce: 1, seq: 1, name: b})
	add(message{kind: kindRenew, session: 3, nonce: 1, seq: 1, name: b}, message{kind: kindAsk, session: 2, question: ConfirmClosed, name: b})
	add(message{kind: kindAge, session: 2, nonce: 77, seq: 1, question: Ages, age: time.Second, standing: lease.StandingOpen, name: b})
	add(message{kind: kindAge, session: 2, nonce: 77, seq: 1, question: Ages, age: -1, standing: lease.StandingOpen, name: b})
	add(message{kind: kindAge, session: 2, nonce: 77, seq: 1, question: ConfirmClosed, standing: lease.StandingClosed, name: b})
	add(message{kind: kindAge, session: 3, nonce: 77, seq: 1, question: Ages, age: time.Second, standing: lease.StandingOpen, name: b})
	add(message{kind: kindAge, session: 2, nonce: 77, seq: 5, question: Ages, age: time.Second, standing: lease.StandingOpen, name: b})
	f.Fuzz(func(t *testing.T, data []byte) {
		const ttl = 2 * time.Second
		conn := newFuzzed()
		conn.askNonce = 77
		sent := conn.clk.Now()
		h := lease.NewHolder(6, ttl, 9)
		conn.holder, conn.held = h, true
		conf, targets := conn.opt.Targets()
		conn.targets = targets
		h.Begin(sent, conf)
		conn.Ask(Ages, 2)
		for len(conn.pipe.out) > 0 {
			<-conn.pipe.out
		}
		for len(conn.news) > 0 {
			<-conn.news // this node's own answer
		}
		conn.clk.Advance(time.Second)

		oks := map[string]bool{}
		ages, nos := 0, 0
		var before []byte // the renewal that was granted last, if nothing came since
		for len(data) >= 2 && ages+nos < maxNews {
			n := int(binary.BigEndian.Uint16(data))
			data = data[2:]
			n = min(n, len(data), maxDatagram-sealSize)
			body := data[:n]
			data = data[n:]
			datagram := sealed(body)

			var m message
			if m.decode(body) != nil {
				m = message{}
			}
			known := string(m.name) == "a" || string(m.name) == "b" || string(m.name) == "c"
			mine := m.session == 6 && m.nonce == 9
			switch {
			case m.kind == kindOK && known && mine && m.seq == 1:
				oks[string(m.name)] = true
			case m.kind == kindNo && mine && m.seq <= 1:
				nos++
			case m.kind == kindAge && known && m.session == 2 && m.nonce == 77 && m.seq == 1 && m.question == Ages && m.age >= 0 && Ages.fits(m.standing):
				ages++
			}
			granted := conn.Stats().Granted
			answers := conn.deliver(datagram)
			switch now := conn.Stats().Granted; {
			case now > granted && bytes.Equal(body, before):
				t.Fatalf("a recorded renewal renews again: %x", body)
			case now > granted:
				before = body
			}
			if len(answers) > 1 || len(answers) == 1 && (answers[0].to != stranger || len(answers[0].b) > 2*len(datagram)) {
				t.Fatalf("%d answers to %x: %+v", len(answers), body, answers)
			}
			if len(answers) > 0 && m.kind != kindRenew && m.kind != kindAsk {
				t.Fatalf("an answer to an answer: %x", body)
			}
			until, held := conn.Until()
			if held != (len(oks) >= 2) || held && until != sent.Add(ttl) {
				t.Fatalf("after OKs of %v: until %v, %v; it was sent at %v", oks, until, held, sent)
			}
		}
		for len(conn.news) > 0 {
			switch e := <-conn.news; e.kind {
			case kindAge:
				ages--
			case kindNo:
				nos--
			}
		}
		if ages != 0 || nos != 0 {
			t.Fatalf("%d ages and %d refusals more or less were told than came", ages, nos)
		}
		if len(conn.replay.bySession) > maxReplays {
			t.Fatalf("%d sessions are remembered", len(conn.replay.bySession))
		}
	})
}
