package lease

import (
	"math"
	"slices"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
)

// Rho is ρ: by how much a clock's rate may be wrong, to either side.
const Rho = 0.001

// rhoParts is 1/ρ, for arithmetic without rounding errors.
const rhoParts = 1000

// Wait returns W: how long after a renewal, counted by a clock that may be fast
// by ρ, a holder whose clock may be slow by ρ has certainly stopped.
//
// LEASE.md has W = H(1+ρ)/(1-ρ) + κ. κ is stretched by 1+ρ here as well, since
// the leader's fast clock counts it too; the result, rounded up, is never less
// than the page's. A sum that does not fit counts as the longest duration.
func Wait(ttl, kappa time.Duration) time.Duration {
	ttl, kappa = max(ttl, 0), max(kappa, 0)
	// (1+ρ)/(1-ρ) = 1 + 2/(1/ρ - 1)
	stretch := 2*(ttl/(rhoParts-1)) + ceil(2*(ttl%(rhoParts-1)), rhoParts-1)
	return saturate(saturate(ttl, stretch), saturate(kappa, ceil(kappa, rhoParts)))
}

func ceil(d, by time.Duration) time.Duration {
	q := d / by
	if d%by > 0 {
		q++
	}
	return q
}

// saturate adds two durations that are not negative.
func saturate(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// Closing gathers, at the leader, what is known of a closing session's last
// renewal. It belongs to one term of one leader and is thrown away with its
// leadership; a new leader asks every voter again. It is not safe for
// concurrent use.
type Closing struct {
	session uint64
	term    uint64
	wait    time.Duration
	bounds  map[string]bound
}

// bound is a voter's answer: when it was received, the session had been renewed
// at that voter age before, or longer ago.
type bound struct {
	at  clock.Reading
	age time.Duration
}

// NewClosing begins to gather for a session, closed by a committed entry, with
// the TTL and κ of that session. Term is the leader's own: the EndSession that
// comes of this carries it (R11).
func NewClosing(session uint64, ttl, kappa time.Duration, term uint64) *Closing {
	return &Closing{session: session, term: term, wait: Wait(ttl, kappa), bounds: make(map[string]bound)}
}

// Session returns the session that is closing.
func (c *Closing) Session() uint64 { return c.session }

// Term returns the term in which the answers were gathered.
func (c *Closing) Term() uint64 { return c.term }

// Answer takes a voter's answer to ConfirmClosed: one whose state machine has
// applied the close, and who is ready and a voter in its own latest
// configuration. Age is the answer's; at is the leader's clock when it received
// the answer, never when it asked. Of several answers of a voter the best
// counts: each is true by itself, since none can renew after the first.
func (c *Closing) Answer(voter string, age time.Duration, at clock.Reading) {
	if age < 0 {
		return // no voter says this
	}
	b := bound{at: at, age: min(age, c.wait)} // more than W says no more than W
	if old, ok := c.bounds[voter]; ok && c.left(old, at) <= c.left(b, at) {
		return
	}
	c.bounds[voter] = b
}

// left is W minus what has passed since the bound r - age, counted shorter.
func (c *Closing) left(b bound, now clock.Reading) time.Duration {
	return c.wait - b.age - clock.Shorter(b.at, now)
}

// Due returns how long it is until D, after which no lease under the session
// exists anywhere: zero or less means that D has passed. D is the largest bound
// of a majority plus W, for the majority of conf where that is smallest. Conf is
// the leader's latest configuration at the time when it appends the end. known is
// false, and left all of W, while less than a majority of conf has answered.
func (c *Closing) Due(conf Configuration, now clock.Reading) (left time.Duration, known bool) {
	all := make([]time.Duration, 0, len(conf.Voters))
	for _, v := range conf.Voters {
		if b, ok := c.bounds[v]; ok {
			all = append(all, c.left(b, now))
		}
	}
	m := conf.Majority()
	if len(all) < m {
		return c.wait, false // nothing that reads as passed
	}
	// The majority with the smallest maximum is the m that have the least left.
	slices.Sort(all)
	return all[m-1], true
}

// Missing returns the voters of conf that have not answered yet: whom to ask again.
func (c *Closing) Missing(conf Configuration) []string {
	var out []string
	for _, v := range conf.Voters {
		if _, ok := c.bounds[v]; !ok {
			out = append(out, v)
		}
	}
	return out
}
