package sim

import (
	"fmt"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/evidence"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
)

// leadership is what a node keeps while it leads.
type leadership struct {
	term  uint64
	ev    *evidence.Ledger
	since clock.Reading
	first clock.Reading // when its first entry was applied here

	looks   uint64 // counts planned looks: only the latest happens
	pending int    // proposals of the plan under way
	stirred bool   // there was news meanwhile
	keep    map[string]bool
	views   map[uint64]decide.SessionView // used again for every look
	plan    decide.Plan

	reports map[string]report // of the other nodes

	shots map[uint64]*shots // by session

	changing bool // a change of the voters is under way
	changed  *clock.Reading
}

// lead begins when the leader's first entry is applied here.
func (d *daemon) lead() {
	d.led = &leadership{
		term: d.n.raft.term, ev: evidence.New(d.n.raft.term, d.voter.View().Index, d.n.Now()),
		since: d.n.Now(), first: d.n.Now(),
		reports: map[string]report{}, views: map[uint64]decide.SessionView{}, shots: map[uint64]*shots{},
	}
	d.survey(d.led)
	d.lookLead(d.led, 0)
}

func (d *daemon) unlead() { d.led = nil }

// stir makes the leader look again: something has changed.
func (d *daemon) stir() {
	led := d.led
	if led == nil {
		return
	}
	if led.pending > 0 {
		led.stirred = true
		return
	}
	d.planLook(led, d.w.upTo(ms))
}

// planLook makes the next look happen after wait, and none that was planned before.
func (d *daemon) planLook(led *leadership, wait time.Duration) {
	led.looks++
	look := led.looks
	d.after(wait, func() { d.lookLead(led, look) })
}

func (d *daemon) lookLead(led *leadership, look uint64) {
	if d.led != led || led.looks != look || led.pending > 0 {
		return
	}
	st := d.voter.View()
	led.plan = decide.Leader(d.leaderView(led, st))
	d.w.check.plans(d, st, led.plan)
	led.keep, led.stirred = map[string]bool{}, false
	led.pending = 1
	for _, s := range led.plan.Steps {
		d.doStep(led, st, s)
	}
	d.fence(led, st)
	d.unanswered(led)
	d.stepDone(led, st)
}

// unanswered gives the leadership away when no majority of the voters answers the
// leader's questions.
func (d *daemon) unanswered(led *leadership) {
	if led.ev.Deaf(d.voter.View(), d.raft.conf, d.n.name, d.w.timing.ttl, d.n.Now()) {
		d.w.say("%s hears no answers and gives the leadership away", d.n.name)
		d.w.saw("deaf leader")
		d.transfer()
	}
}

// stepDone goes on when all proposals of a plan are answered.
func (d *daemon) stepDone(led *leadership, st *state.State) {
	led.pending--
	if led.pending > 0 || d.led != led {
		return
	}
	led.ev.Prune(st, led.keep)
	wait := lookInterval
	if led.plan.Wake > 0 && led.plan.Wake < wait {
		wait = led.plan.Wake
	}
	if led.stirred {
		wait = d.w.upTo(300 * us)
	}
	d.planLook(led, wait)
}

func (d *daemon) leaderView(led *leadership, st *state.State) decide.LeaderView {
	c := d.raft.conf
	now := d.n.Now()
	v := decide.LeaderView{
		State: st, Self: d.n.name, Term: led.term, Voters: c.Voters,
		Sessions: led.views, Sights: d.w.gossip(d),
		Moves: led.ev.Moves(now), Pauses: led.ev.Pauses(st, now),
		Unable: d.unable(led, st),
	}
	v.Unstarted, v.Unended = led.ev.Idle(st, now, d.begunWith(led))
	for _, id := range st.SessionIDs() {
		s := st.Sessions[id]
		if s.Status == state.SessionEnded {
			delete(led.views, id)
			continue
		}
		asked := d.n.Now()
		if age, standing := d.voter.Age(id); standing != lease.StandingNone {
			led.ev.HeardAge(s, d.n.name, age, standing == lease.StandingClosed, asked, d.n.Now())
		}
		led.views[id] = led.ev.Session(s, c, d.n.Now(), led.views[id])
	}
	return v
}

// gossip is what memberlist might say: often right, at times not at all.
func (w *world) gossip(d *daemon) map[string]decide.Sight {
	out := w.sights // the decision does not keep it
	for _, n := range w.nodes {
		switch sight := n.d != nil; {
		case w.chance(20):
			out[n.name] = decide.SightSuspect
		case w.chance(50):
			out[n.name] = decide.SightDead
		case sight:
			out[n.name] = decide.SightAlive
		default:
			out[n.name] = decide.SightDead
		}
	}
	return out
}

func (d *daemon) doStep(led *leadership, st *state.State, s decide.Step) {
	switch s.Kind {
	case decide.StepAskAges, decide.StepConfirmClosed:
		if led.ev.MayAsk(s.Session, d.n.Now()) {
			d.ask(s.Session, s.Kind == decide.StepConfirmClosed)
		}
	case decide.StepPrepare:
		led.keep[s.Service] = true
		d.prepare(led, s)
	case decide.StepCommit:
		led.pending++
		d.propose(stamped(s.Command, d.stamp("")), func(res state.Result, f failure) {
			if d.led != led {
				return
			}
			if f == "" && d.died(committedStep(s.Command)) {
				return
			}
			pause := time.Duration(0)
			if res.Refused != nil {
				d.w.say("%s: decided, but refused: %s", d.n.name, res.Refused.Why)
				pause = 50 * ms
			}
			d.after(pause, func() { d.stepDone(led, st) })
		})
	}
}

func committedStep(cmd state.Command) string {
	switch cmd.(type) {
	case state.CloseSession:
		return "close committed"
	case state.EndSession:
		return "end committed"
	case state.GrantService:
		return "grant committed"
	case state.HandOver:
		return "hand-over committed"
	}
	return "committed"
}

// stamped puts the proposer and the time on a command that decide made.
func stamped(cmd state.Command, by state.Stamp) state.Command {
	fill := func(s *state.Stamp) { s.At, s.By = by.At, by.By }
	switch c := cmd.(type) {
	case state.CloseSession:
		fill(&c.Stamp)
		return c
	case state.EndSession:
		fill(&c.Stamp)
		return c
	case state.GrantService:
		fill(&c.Stamp)
		return c
	case state.HandOver:
		fill(&c.Stamp)
		return c
	case state.SetPause:
		fill(&c.Stamp)
		return c
	case state.RequestMove:
		fill(&c.Stamp)
		return c
	case state.ReportFailure:
		fill(&c.Stamp)
		return c
	}
	return cmd
}

// ask asks every voter about a session: when it was last renewed, or, with
// closed, the same of those that have applied its close.
func (d *daemon) ask(session uint64, closed bool) {
	asked := d.n.Now()
	for _, v := range d.raft.conf.Voters {
		to := d.w.byName[v]
		d.w.datagram(d.n, to, ofLease, func(other *daemon) {
			age, standing := other.voter.Age(session)
			if standing == lease.StandingNone || closed && standing != lease.StandingClosed {
				return
			}
			d.w.check.answered(other, session)
			d.w.datagram(to, d.n, ofLease, func(now *daemon) {
				if now == d {
					now.heardAge(v, session, age, standing, asked)
				}
			})
		})
	}
}

func (d *daemon) heardAge(voter string, session uint64, age time.Duration, standing lease.Standing, asked clock.Reading) {
	if d.led == nil {
		return
	}
	s := d.voter.View().Sessions[session]
	if s == nil {
		return
	}
	d.led.ev.HeardAge(s, voter, age, standing == lease.StandingClosed, asked, d.n.Now())
	d.stir()
}

// prepare asks the candidate once; the answer is looked at in the next plan.
func (d *daemon) prepare(led *leadership, s decide.Step) {
	if !led.ev.BeginMove(s.Service, s.Node, d.n.Now()) {
		return
	}
	end := func(failed string) {
		if d.led == led {
			led.ev.EndMove(s.Service, s.Node, failed)
			d.stir()
		}
	}
	d.call(d.w.byName[s.Node], decide.PrepareLimit, func(other *daemon, reply func(func())) {
		other.prepared(s.Service, func(failed string) { reply(func() { end(failed) }) })
	}, func() { end("it did not answer") })
}

// prepared makes this node ready to receive a service.
func (d *daemon) prepared(service string, done func(failed string)) {
	if !d.voter.Ready() {
		done("not ready")
		return
	}
	limit := d.w.now + d.w.timing.ttl
	var wait func()
	wait = func() {
		switch {
		case d.left() > 0:
			failed := ""
			if d.w.chance(20) {
				failed = "address in use"
			}
			d.after(d.w.upTo(20*ms), func() { done(failed) })
		case d.w.now > limit:
			done("no lease now")
		default:
			d.after(2*ms, wait)
		}
	}
	wait()
}

// commandText is a command for the story.
func commandText(cmd state.Command) string {
	switch c := cmd.(type) {
	case state.Started:
		return fmt.Sprintf("%s has started with nonce %d, boot %s", c.Node, c.Nonce, c.BootID)
	case state.SetServices:
		return fmt.Sprintf("services %d, remove %v", len(c.Services), c.Remove)
	}
	return fmt.Sprintf("%s %+v", cmd.Kind(), cmd)
}
