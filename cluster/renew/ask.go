package renew

import (
	"fmt"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// Question is what a leader asks of the voters.
type Question uint8

// The questions of LEASE.md. Only a voter that is ready and in its own latest
// configuration answers; the others are silent.
const (
	// Ages asks how long ago a session was renewed, open or closing.
	Ages Question = 1
	// ConfirmClosed asks the same of voters that have applied the close.
	ConfirmClosed Question = 2
)

// String names the question.
func (q Question) String() string {
	switch q {
	case Ages:
		return "ages"
	case ConfirmClosed:
		return "confirm closed"
	}
	return fmt.Sprintf("question %d", uint8(q))
}

// fits reports whether an answer of this standing may be given to the question.
func (q Question) fits(a lease.Standing) bool {
	switch q {
	case Ages:
		return a == lease.StandingOpen || a == lease.StandingClosed
	case ConfirmClosed:
		return a == lease.StandingClosed
	}
	return false
}

const (
	// maxAsks is how many of the latest questions may still be answered.
	maxAsks = 256
	// maxNews is how many answers wait for a callback that is slow. More are
	// dropped: whoever asked will ask again.
	maxNews = 256
)

// ask is a question that was sent. An answer to any other is dropped, so that a
// recorded one cannot be played again for long.
type ask struct {
	seq      uint64
	question Question
	session  uint64
	sent     clock.Reading
}

// event is news for a callback.
type event struct {
	kind     kind // kindNo or kindAge
	session  uint64
	reason   lease.Reason
	voter    string
	question Question
	age      time.Duration
	standing lease.Standing
	asked    clock.Reading
	at       clock.Reading
}

// Ask sends a question about a session to every voter, this node included.
// Answers arrive through OnAge; there may be none.
func (c *Conn) Ask(q Question, session uint64) {
	c.seals.Lock()
	defer c.seals.Unlock()
	if !c.seals.use(c.opt.Key()) {
		return
	}
	_, targets := c.opt.Targets()

	c.mu.Lock()
	c.targets = targets
	c.askSeq++
	seq := c.askSeq
	sent := c.opt.Clock.Now()
	c.asks[seq%maxAsks] = ask{seq: seq, question: q, session: session, sent: sent}
	c.mu.Unlock()

	m := message{kind: kindAsk, session: session, nonce: c.askNonce, seq: seq, question: q}
	failpoint.Here("renew.ask.before")
	if own := c.broadcast(&m, targets); own {
		if age, a := c.opt.Voter.Age(session); q.fits(a) {
			c.publish(event{
				kind: kindAge, session: session, voter: c.opt.Self, question: q,
				age: age, standing: a, asked: sent, at: c.opt.Clock.Now(),
			})
		}
	}
}

// gotAge takes an answer that was received when the clock showed at.
func (c *Conn) gotAge(m *message, at clock.Reading) {
	if m.nonce != c.askNonce || m.age < 0 || !m.question.fits(m.standing) {
		return
	}
	c.mu.Lock()
	asked := c.asks[m.seq%maxAsks]
	voter := c.voter(m.name)
	c.mu.Unlock()
	failpoint.Here("renew.age.heard")
	if voter != "" && asked.seq == m.seq && asked.question == m.question && asked.session == m.session {
		c.publish(event{
			kind: kindAge, session: m.session, voter: voter, question: m.question,
			age: m.age, standing: m.standing, asked: asked.sent, at: at,
		})
	}
}

// publish queues news for a callback, or drops it.
func (c *Conn) publish(e event) {
	select {
	case c.news <- e:
	default:
		c.count(&c.stats.Lost)
	}
}

// tell hands news to the callbacks.
func (c *Conn) tell() {
	defer c.wg.Done()
	for {
		var e event
		select {
		case <-c.done:
			return
		case e = <-c.news:
		}
		c.mu.Lock()
		onRefused, onAge := c.onRefused, c.onAge
		c.mu.Unlock()
		switch {
		case e.kind == kindNo && onRefused != nil:
			onRefused(e.session, e.reason)
		case e.kind == kindAge && onAge != nil:
			onAge(e.voter, e.question, e.session, e.age, e.standing, e.asked, e.at)
		}
	}
}
