package renew

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// readPause is how long the receiver waits after a read that failed, so that a
// broken socket does not keep a core busy.
const readPause = 10 * time.Millisecond

// receive answers and takes answers until the Conn is closed.
func (c *Conn) receive() {
	defer c.wg.Done()
	failing := false
	for {
		n, from, err := c.sock.ReadFromUDPAddrPort(c.in[:])
		at := c.opt.Clock.Now() // never earlier than the datagram was received
		switch {
		case err == nil:
			failing = false
			c.handle(c.in[:n], from, at)
			continue
		case errors.Is(err, net.ErrClosed):
			return
		case !failing:
			failing = true
			c.log.Warn("cannot read renewals", "err", err)
		}
		pause := time.NewTimer(readPause)
		select {
		case <-c.done:
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// handle takes one datagram. It allocates nothing in a steady state.
func (c *Conn) handle(b []byte, from netip.AddrPort, at clock.Reading) {
	if !c.seal.use(c.opt.Key()) {
		return
	}
	body, ok := c.seal.open(b)
	if !ok {
		c.count(&c.stats.Forged)
		return
	}
	var m message
	if m.decode(body) != nil {
		return // of another version; a member of the cluster made it
	}
	switch m.kind {
	case kindRenew:
		c.answerRenew(&m, from, at)
	case kindAsk:
		c.answerAsk(&m, from)
	case kindOK:
		c.mu.Lock()
		voter := c.voter(m.name)
		c.mu.Unlock()
		if voter != "" {
			c.gotOK(voter, m.session, m.nonce, m.seq)
		}
	case kindNo:
		c.gotNo(m.session, m.nonce, m.seq, m.reason)
	case kindAge:
		c.gotAge(&m, at)
	}
}

// answerRenew is the voter's side of a renewal.
func (c *Conn) answerRenew(m *message, from netip.AddrPort, at clock.Reading) {
	if c.replay.stale(m.session, m.nonce, m.seq) {
		c.count(&c.stats.Replayed)
		return
	}
	answer := message{kind: kindOK, session: m.session, nonce: m.nonce, seq: m.seq}
	failpoint.Here("renew.answer.before")
	ok, why := c.opt.Voter.Renew(m.session, m.config)
	if ok {
		c.replay.grant(m.session, m.nonce, m.seq, at)
		c.count(&c.stats.Granted)
	} else {
		answer.kind, answer.reason = kindNo, why
		c.count(&c.stats.Refused)
		if why == lease.ReasonEnded {
			c.replay.forget(m.session)
		}
	}
	c.reply(&answer, from)
	failpoint.Here("renew.answered")
}

// answerAsk is the voter's side of a question. One that may not be answered is not.
func (c *Conn) answerAsk(m *message, from netip.AddrPort) {
	age, standing := c.opt.Voter.Age(m.session)
	if !m.question.fits(standing) {
		return
	}
	failpoint.Here("renew.ask.heard")
	c.reply(&message{
		kind: kindAge, session: m.session, nonce: m.nonce, seq: m.seq,
		question: m.question, age: age, standing: standing,
	}, from)
}

func (c *Conn) reply(m *message, to netip.AddrPort) {
	m.name = c.self
	c.sendTo(c.seal.seal(m.encode(c.out[:0])), to)
}
