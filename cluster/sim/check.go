package sim

import (
	"bytes"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// checker knows the truth, which no node does, and holds what happens against
// LEASE.md's invariants.
type checker struct {
	w *world

	log     []entry      // what is committed, by index-1
	ref     *state.State // with all of that applied
	samples map[uint64][]byte

	given   map[epochOf]string // who was granted it (I2)
	spent   map[epochOf]bool   // its holder has journaled that it gives it up
	newest  map[string]uint64  // the newest epoch that was ever started, by service
	closed  map[uint64]uint64  // the index of each session's close
	ready   map[uint64]uint64  // the index that recorded each start, by nonce
	over    map[uint64]bool    // sessions that have ended
	ended   map[uint64]bool    // of these, by expiry
	pressed map[string]int     // epochs given, by service
	falsely map[uint64]bool    // sessions that ended on the word of devices that lied
	strict  bool               // a lie excuses nothing
	lastBad time.Duration      // when something was last not well, in the end
}

type epochOf struct {
	service string
	epoch   uint64
}

func newChecker(w *world) *checker {
	return &checker{
		w: w, ref: state.New(), samples: map[uint64][]byte{},
		given: map[epochOf]string{}, spent: map[epochOf]bool{}, newest: map[string]uint64{},
		closed: map[uint64]uint64{}, ready: map[uint64]uint64{}, over: map[uint64]bool{}, ended: map[uint64]bool{},
		pressed: map[string]int{}, falsely: map[uint64]bool{},
	}
}

// started is called before a service may serve on a node.
func (c *checker) started(n *node, service string, s *serving) {
	e := epochOf{service, s.epoch}
	for _, o := range c.w.nodes {
		if r := o.running[service]; o != n && r != nil && !o.suspended && !c.excused(r.session, s.session) {
			c.w.fail("I1: %s starts %s under epoch %d while %s serves it under epoch %d", n.name, service, s.epoch, o.name, r.epoch)
			return
		}
	}
	switch {
	case c.given[e] != n.name:
		c.w.fail("I2: %s starts epoch %d of %s, which was granted to %q", n.name, s.epoch, service, c.given[e])
	case s.epoch < c.newest[service] && !c.excused(s.session):
		c.w.fail("I2: %s starts epoch %d of %s after epoch %d was started", n.name, s.epoch, service, c.newest[service])
	case c.spent[e]:
		c.w.fail("R1: %s starts epoch %d of %s again, which it was giving up", n.name, s.epoch, service)
	case !n.leased || clock.Left(n.Now(), n.deadline) <= 0:
		c.w.fail("I3: %s starts %s under epoch %d with no lease left", n.name, service, s.epoch)
	case n.session != s.session:
		c.w.fail("I3: %s starts %s under session %d with a lease of session %d", n.name, service, s.session, n.session)
	}
	if svc := c.ref.Services[service]; svc != nil {
		if g := svc.Grant(s.epoch); g != nil && g.Kind == state.KindHandOver {
			if from := svc.Grant(g.From); from != nil && from.Over == "" {
				c.w.stats.Told++
			}
		}
	}
	c.newest[service] = max(c.newest[service], s.epoch)
}

// excused reports whether one of the sessions has ended on the word of devices
// that lied, as many as were asked for: two nodes may then serve, and nothing
// else is the reason for it. A cluster that asks one device more is not deceived.
func (c *checker) excused(sessions ...uint64) bool {
	for _, s := range sessions {
		if c.falsely[s] && !c.strict {
			c.w.saw("lie alone")
			return true
		}
	}
	return false
}

// stopped is called when a service has ended on a node.
func (c *checker) stopped(n *node, service string, s *serving) {
	if n.leased && n.on && !n.suspended {
		if late := clock.Longer(n.deadline, n.Now()); clock.Left(n.Now(), n.deadline) < 0 && late > 2*c.w.timing.kappa {
			c.w.fail("I3: %s served %s until %s after its lease", n.name, service, late)
		}
	}
}

// woke is called when a machine was suspended and goes on.
func (c *checker) woke(n *node) {
	for _, name := range services {
		if r := n.running[name]; r != nil {
			for _, o := range c.w.nodes {
				if s := o.running[name]; o != n && s != nil && !o.suspended && !c.excused(r.session, s.session) {
					c.w.fail("I1: %s wakes with %s under epoch %d while %s serves it under epoch %d", n.name, name, r.epoch, o.name, s.epoch)
				}
			}
		}
	}
}

// given is called when a node's journal holds that an epoch is given up.
func (c *checker) givenUp(n *node, service string, epoch uint64) {
	c.spent[epochOf{service, epoch}] = true
	if r := n.running[service]; r != nil && r.epoch == epoch {
		c.w.fail("rule 9: %s journals that %s %d is stopped while it serves", n.name, service, epoch)
	}
}

// renewed is called when a voter says OK.
func (c *checker) renewed(v *daemon, session uint64) {
	if at, ok := c.closed[session]; ok && v.raft.applied >= at {
		c.w.fail("I5: %s says OK to session %d, whose close at %d it has applied", v.n.name, session, at)
	}
	c.counts(v)
}

// answered is called when a voter tells a session's age.
func (c *checker) answered(v *daemon, session uint64) { c.counts(v) }

func (c *checker) counts(v *daemon) {
	if at, ok := c.ready[v.nonce]; !ok || v.raft.applied < at {
		c.w.fail("I7: %s counts as a voter and is not ready", v.n.name)
	}
}

// extends is called when a majority has renewed a session.
func (c *checker) extends(n *node, session uint64, until clock.Reading) {
	if c.ended[session] {
		c.w.fail("D: %s renews session %d after its end by expiry", n.name, session)
	}
}

// committed is called when a leader commits everything up to an index.
func (c *checker) committed(leader *node, log []entry, to uint64) {
	for i := uint64(len(c.log)) + 1; i <= to; i++ {
		e := log[i-1]
		c.log = append(c.log, e)
		if e.cmd != nil {
			c.decided(i, e)
		} else if i > 1 {
			c.w.stats.Changes++
			c.voters(*e.conf)
		}
		if c.w.bad != "" {
			return
		}
	}
}

// decided applies a committed entry to the reference and checks what it does.
func (c *checker) decided(i uint64, e entry) {
	c.repeated(e.cmd)
	res := c.ref.Apply(i, e.term, e.cmd)
	c.w.say("committed %d: %s%s", i, commandText(e.cmd), refusedText(res))
	if err := c.ref.Check(); err != nil {
		c.w.fail("entry %d makes a state that cannot be: %v", i, err)
		return
	}
	if res.Refused != nil {
		return
	}
	switch cmd := e.cmd.(type) {
	case state.Started:
		if c.ref.Nodes[cmd.Node].Started == cmd.Nonce {
			if _, ok := c.ready[cmd.Nonce]; !ok {
				c.ready[cmd.Nonce] = i
			}
		}
	case state.CloseSession, state.OpenSession:
		c.sessions(i)
	case state.SetPause:
		switch {
		case cmd.On:
			c.w.saw("paused")
		case cmd.By == "ann":
			c.w.saw("resumed")
		}
	case state.EndSession:
		c.end(cmd)
	case state.GrantService:
		c.grant(cmd.Service, cmd.Epoch, cmd.Node)
	case state.HandOver:
		c.w.stats.Handovers++
		c.grant(cmd.Service, cmd.Epoch, cmd.ToNode)
	case state.Released:
		c.w.saw("epoch released")
		c.released(cmd)
	}
}

// voters counts what a change of the voters was.
func (c *checker) voters(next lease.Configuration) {
	for i := len(c.log) - 2; i >= 0; i-- {
		if before := c.log[i].conf; before != nil {
			if len(next.Voters) > len(before.Voters) {
				c.w.saw("voter added")
			} else {
				c.w.saw("voter removed")
			}
			return
		}
	}
}

// repeated counts what a node says once more though it is known already.
func (c *checker) repeated(cmd state.Command) {
	known := false
	switch cmd := cmd.(type) {
	case state.Released:
		if svc := c.ref.Services[cmd.Service]; svc != nil {
			g := svc.Grant(cmd.Epoch)
			known = g == nil || g.Over != ""
		}
	case state.OpenSession:
		s := c.ref.OpenSession(cmd.Node)
		known = s != nil && s.BootID == cmd.BootID
	case state.Started:
		known = c.ready[cmd.Nonce] != 0
	}
	if known {
		c.w.stats.Repeated++
	}
}

func refusedText(res state.Result) string {
	if res.Refused != nil {
		return " REFUSED: " + res.Refused.Why
	}
	return ""
}

// sessions notes which sessions the entry has closed, and how hastily.
func (c *checker) sessions(i uint64) {
	for _, id := range c.ref.SessionIDs() {
		s := c.ref.Sessions[id]
		if _, noted := c.closed[id]; s.Status == state.SessionOpen || noted {
			continue
		}
		c.closed[id] = i
		c.w.stats.Closed++
		n := c.w.byName[s.Node]
		if !strings.Contains(s.Closing, "has not renewed") {
			continue
		}
		if d := n.d; d != nil && d.session == id && !d.leaving && !n.frozen && !n.suspended && d.left() > s.TTL/2 && s.BootID == n.bootID() {
			c.w.stats.Hasty++
			c.w.say("hasty: session %d of %s is closed with %s of its lease left", id, s.Node, d.left())
		}
	}
}

// end checks that nothing of a session can be left when it is proven over (D, and vouched).
func (c *checker) end(cmd state.EndSession) {
	s := c.ref.Sessions[cmd.Session]
	if s == nil || s.Status != state.SessionEnded {
		return
	}
	n := c.w.byName[s.Node]
	c.over[s.ID] = true
	switch cmd.Proof {
	case state.ProofExpired:
		c.w.stats.Expired++
		c.ended[s.ID] = true
		c.expired(n, s)
	case state.ProofFenced:
		c.w.saw("session fenced")
		c.fenced(n, s)
	case state.ProofVouched:
		c.w.stats.Vouched++
		if n.on && n.bootID() == s.BootID {
			c.w.fail("an operator vouched falsely for %s: the simulation is wrong", n.name)
		}
	}
}

// fenced checks that a machine that is called fenced was off, or that as many of
// its devices lie as were asked for.
func (c *checker) fenced(n *node, s *state.Session) {
	if !n.on || n.bootID() != s.BootID {
		return
	}
	if n.liars() < c.w.fencing.confirmations {
		c.w.fail("rule 8: session %d of %s ends as fenced, and the machine was never off (devices: %v)", s.ID, n.name, n.devices)
		return
	}
	c.w.saw("lied to")
	c.falsely[s.ID] = true
}

func (c *checker) expired(n *node, s *state.Session) {
	if n.bootID() != s.BootID || !n.on {
		return
	}
	if n.leased && n.session == s.ID && !n.suspended {
		if left := n.ends() + s.Kappa - c.w.now; left > 0 {
			c.w.fail("D: session %d of %s ends by expiry %s before its lease and κ are over", s.ID, n.name, left)
		}
	}
	if d := n.d; d != nil && d.holder != nil && d.holder.Session() == s.ID && d.left() > 0 && !n.suspended {
		c.w.fail("D: session %d of %s ends by expiry and %s of its lease are left", s.ID, n.name, d.left())
	}
	for _, name := range services {
		if r := n.running[name]; r != nil && r.session == s.ID && !n.suspended {
			c.w.fail("D: session %d of %s ends by expiry and it serves %s", s.ID, n.name, name)
		}
	}
}

// storm is how many epochs a service may be given in one run before something
// must be going round in circles.
const storm = 40

// grant checks that every epoch before is over in the reference, and that it is
// the next one (I2, I4).
func (c *checker) grant(service string, epoch uint64, node string) {
	e := epochOf{service, epoch}
	if who, ok := c.given[e]; ok {
		if who != node {
			c.w.fail("I2: epoch %d of %s belongs to %s and to %s", epoch, service, who, node)
		}
		return
	}
	if epoch > 1 {
		if _, ok := c.given[epochOf{service, epoch - 1}]; !ok {
			c.w.fail("I2: epoch %d of %s follows none", epoch, service)
		}
	}
	c.given[e] = node
	c.w.stats.Grants++
	c.pressed[service]++
	if c.pressed[service] > storm {
		c.w.fail("%s was given %d epochs", service, storm)
	}
	open := c.ref.Services[service].Unfinished()
	if g := open[len(open)-1]; g.Kind == state.KindGrant && len(open) > 1 {
		c.w.fail("I4: epoch %d of %s is granted while epoch %d is not over", epoch, service, open[0].Epoch)
	}
}

// released checks that the word of a release is true, and will stay so.
func (c *checker) released(cmd state.Released) {
	n := c.w.byName[cmd.Node]
	e := epochOf{cmd.Service, cmd.Epoch}
	if r := n.running[cmd.Service]; r != nil && r.epoch == cmd.Epoch {
		c.w.fail("I4: %s %d is released while %s serves it", cmd.Service, cmd.Epoch, n.name)
	}
	if !c.spent[e] {
		c.w.fail("rule 9: %s %d is released and %s has no journal of that", cmd.Service, cmd.Epoch, n.name)
	}
}

// applies is called when a node applies an entry: all apply the same.
func (c *checker) applies(n *node, i uint64, e entry) {
	if i > uint64(len(c.log)) {
		c.w.fail("%s applies entry %d, which is not committed", n.name, i)
		return
	}
	if was := c.log[i-1]; was.term != e.term {
		c.w.fail("%s applies entry %d of term %d, which was committed as one of term %d", n.name, i, e.term, was.term)
	}
	if i%64 == 1 {
		c.sample(n)
	}
}

// sample compares a node's state with that of every other at the same index (I6).
func (c *checker) sample(n *node) {
	st := n.d.voter.View()
	got, err := st.Encode()
	if err != nil {
		c.w.fail("I6: %v", err)
		return
	}
	if was, ok := c.samples[st.Index]; !ok {
		c.samples[st.Index] = got
	} else if !bytes.Equal(was, got) {
		c.w.fail("I6: the state of %s at index %d differs from another's", n.name, st.Index)
	}
}

// acts checks what the member's decision must never be.
func (c *checker) acts(d *daemon, a decide.Act) {
	if a.Why == "" {
		c.w.fail("%s: %s %s %d without a reason", d.n.name, a.Kind, a.Service, a.Epoch)
	}
}

// plans checks that every step and every service has its reason.
func (c *checker) plans(d *daemon, st *state.State, p decide.Plan) {
	for _, s := range p.Steps {
		if s.Why == "" {
			c.w.fail("%s: a step without a reason: %+v", d.n.name, s)
		}
	}
	for name := range st.Services {
		if p.Notes[name] == "" {
			c.w.fail("%s: the plan says nothing of %s", d.n.name, name)
		}
	}
}

// same compares all nodes in the end (I6).
func (c *checker) same() {
	for _, n := range c.w.nodes {
		if n.d != nil && n.d.raft.applied == uint64(len(c.log)) {
			c.sample(n)
		}
	}
}
