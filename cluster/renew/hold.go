package renew

import (
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Hold begins to renew a session, at once and then at every interval, instead of
// the one that was held before. The caller has synced the session to its journal
// first. Nonce was drawn at this start of the daemon and is not zero. The lease
// of a session that was not held before is empty until a majority has said OK.
func (c *Conn) Hold(session uint64, ttl time.Duration, nonce uint64) {
	c.changing.Lock()
	defer c.changing.Unlock()
	select {
	case <-c.done:
		return
	default:
	}
	c.stopSender()

	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.holder
	if h == nil || h.Session() != session || h.Nonce() != nonce || h.TTL() != ttl {
		if h != nil {
			c.lastSeq = h.Seq()
		}
		h = lease.NewHolder(session, ttl, nonce)
		h.After(c.lastSeq)
		c.holder = h
	}
	c.held = true
	c.stop, c.stopped = make(chan struct{}), make(chan struct{})
	go c.send(h, c.stop, c.stopped)
}

// Drop stops renewing. An OK that is still under way extends nothing any more;
// what was granted before runs out by itself, and Left goes on counting it.
func (c *Conn) Drop() {
	c.changing.Lock()
	defer c.changing.Unlock()
	c.stopSender()
}

// stopSender ends the sender, if there is one, and waits for it.
func (c *Conn) stopSender() {
	c.mu.Lock()
	stop, stopped := c.stop, c.stopped
	c.held, c.stop, c.stopped = false, nil, nil
	c.mu.Unlock()
	if stop != nil {
		close(stop)
		<-stopped
	}
}

// Until returns the absolute deadline of the session that is or was last held;
// ok is false as long as no majority has said OK to it.
func (c *Conn) Until() (until clock.Reading, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holder == nil {
		return clock.Reading{}, false
	}
	return c.holder.Until()
}

// Left returns what is left of that lease now; zero or less: none.
func (c *Conn) Left() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holder == nil {
		return 0
	}
	return c.holder.Left(c.opt.Clock.Now())
}

// Answered reports whether a voter has said OK to one of the latest n renewals
// of the session that is held.
func (c *Conn) Answered(voter string, n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holder != nil && c.holder.Answered(voter, n)
}

// send renews until it is stopped.
func (c *Conn) send(h *lease.Holder, stop, stopped chan struct{}) {
	defer close(stopped)
	tick := time.NewTicker(c.opt.Interval)
	defer tick.Stop()
	for {
		c.round(h)
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// round asks every voter once. The clock is read before anything is sent.
func (c *Conn) round(h *lease.Holder) {
	c.seals.Lock()
	defer c.seals.Unlock()
	if !c.seals.use(c.opt.Key()) {
		return
	}
	conf, targets := c.opt.Targets()
	now := c.opt.Clock.Now()

	c.mu.Lock()
	c.targets = targets
	seq := h.Begin(now, conf)
	c.stats.Rounds++
	c.mu.Unlock()

	m := message{kind: kindRenew, session: h.Session(), nonce: h.Nonce(), seq: seq, config: conf.ID}
	failpoint.Here("renew.send.before")
	if own := c.broadcast(&m, targets); own {
		failpoint.Here("renew.sent")
		// This node's own vote needs no datagram, but the same check.
		if ok, why := c.opt.Voter.Renew(m.session, m.config); ok {
			c.gotOK(c.opt.Self, m.session, m.nonce, m.seq)
		} else {
			c.gotNo(m.session, m.nonce, m.seq, why)
		}
	}
}

// broadcast sends a message to every target but this node, under the lock of
// c.seals, and reports whether this node is a target too.
func (c *Conn) broadcast(m *message, targets []Target) (own bool) {
	m.name = c.self
	b := c.seals.seal(m.encode(c.seals.buf[:0]))
	for _, t := range targets {
		switch {
		case t.ID == c.opt.Self:
			own = true
		case t.Addr.IsValid():
			c.sendTo(b, t.Addr)
		}
	}
	return own
}

// gotOK takes an OK, of another node or of this one.
func (c *Conn) gotOK(voter string, session, nonce, seq uint64) {
	c.mu.Lock()
	extended := c.held && c.holder.OK(voter, session, nonce, seq, c.opt.Clock.Now())
	c.mu.Unlock()
	failpoint.Here("renew.ok.heard")
	if extended {
		select {
		case c.extended <- struct{}{}:
		default: // the newest deadline will be told when the running call returns
		}
	}
}

// gotNo takes a refusal.
func (c *Conn) gotNo(session, nonce, seq uint64, why lease.Reason) {
	c.mu.Lock()
	mine := c.held && c.holder.Session() == session && c.holder.Nonce() == nonce && seq <= c.holder.Seq()
	c.mu.Unlock()
	if mine {
		c.publish(event{kind: kindNo, session: session, reason: why})
	}
}

// extend tells of extensions.
func (c *Conn) extend() {
	defer c.wg.Done()
	var told clock.Reading
	for {
		select {
		case <-c.done:
			return
		case <-c.extended:
		}
		c.mu.Lock()
		f := c.onExtend
		var until clock.Reading
		var ok bool
		if c.held {
			until, ok = c.holder.Until()
		}
		c.mu.Unlock()
		// A deadline that has passed since would arm nothing; one that was told may
		// have been extended by two requests at once.
		if left := clock.Left(c.opt.Clock.Now(), until); ok && left > 0 && until != told && f != nil {
			failpoint.Here("renew.extend.before")
			told = until
			f(until, left)
		}
	}
}
