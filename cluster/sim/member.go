package sim

import (
	"fmt"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/state"
)

// lookInterval is how often a node looks again without news.
const lookInterval = 250 * ms

// poke makes the member look again.
func (d *daemon) poke() {
	if d.looking || !d.begun {
		return
	}
	d.looking = true
	d.after(d.w.upTo(500*us), func() {
		d.looking = false
		d.lookMember()
	})
}

func (d *daemon) memberTick() {
	d.lookMember()
	d.after(lookInterval, d.memberTick)
}

func (d *daemon) lookMember() {
	if d.blocked || d.n.d != d {
		return
	}
	d.looked = d.n.Now()
	st := d.voter.View()
	for _, a := range decide.Member(d.memberView(st)) {
		d.w.check.acts(d, a)
		d.act(st, a)
		if d.n.d != d || d.blocked {
			return
		}
	}
}

func (d *daemon) memberView(st *state.State) decide.MemberView {
	left, ttl := d.left(), d.w.timing.ttl
	if s := st.Sessions[d.session]; s != nil {
		ttl = s.TTL
	}
	self := st.Nodes[d.n.name]
	v := decide.MemberView{
		State: st, Self: d.n.name, Ready: self != nil && self.Started == d.nonce,
		Lease: left > decide.ActivateMargin(ttl) && !d.dropped, Lapsed: left <= 0,
		Session: d.session, Refused: d.refused, Leaving: d.leaving, Deaf: d.deaf(ttl),
		Local: map[string]decide.Local{}, Told: d.told,
	}
	for _, r := range d.n.disk.records {
		v.Records = append(v.Records, decide.Record{
			Service: r.service, Epoch: r.epoch, Session: r.session,
			SameBoot: r.boot == d.n.boot, Releasing: r.releasing,
		})
	}
	for _, name := range services {
		u := d.units[name]
		if u == nil {
			continue
		}
		failed := false
		svc := st.Services[name]
		if svc != nil {
			for _, f := range svc.Failures {
				failed = failed || f.Node == d.n.name
			}
		}
		v.Local[name] = u.local(st.Index, failed)
		if u.unproven >= stuckAfter {
			d.drop(name + " could not be proven stopped")
		}
	}
	return v
}

// act does one thing that decide named.
func (d *daemon) act(st *state.State, a decide.Act) {
	if a.Kind == decide.ActOpen {
		d.open(a)
		return
	}
	u := d.unit(a.Service)
	switch a.Kind {
	case decide.ActActivate:
		if svc := st.Services[a.Service]; svc != nil {
			u.activate(a.Epoch, svc.Generation)
		}
	case decide.ActReconfigure, decide.ActStop:
		u.stop(a.Why, nil)
	case decide.ActGiveUp:
		u.stop(a.Why, func(done func(bool)) { d.givenUp(a, done) })
	case decide.ActRelease:
		d.release(a, func(next func(failure)) { u.releasing(a.Epoch, next) })
	case decide.ActErase:
		d.blocked = true
		d.journalErase(a.Service, a.Epoch, func(failure) {
			d.blocked = false
			d.forgetTold(a.Service, a.Epoch)
			d.poke()
		})
	case decide.ActReport:
		d.report(u, a)
	}
}

// givenUp runs when everything is proven stopped: the journal first, then the
// receiver of a hand-over, then the log.
func (d *daemon) givenUp(a decide.Act, done func(bool)) {
	if d.died("stopped, not journaled") {
		return
	}
	d.journalReleasing(a.Service, a.Epoch, func(f failure) {
		if f != "" {
			d.drop("no release without a journal: " + string(f))
			done(false)
			return
		}
		if d.died("releasing journaled") {
			return
		}
		if a.Tell != nil {
			d.tell(a)
			if d.died("told") {
				return
			}
		}
		d.release(a, nil)
		done(true)
	})
}

// tell says to the receiver of a hand-over that it may start.
func (d *daemon) tell(a decide.Act) {
	to := d.w.byName[a.To]
	told := *a.Tell
	d.w.say("%s tells %s that %s %d has stopped", d.n.name, a.To, a.Service, told.From)
	d.w.datagram(d.n, to, ofOthers, func(other *daemon) {
		other.told[told] = true
		other.poke()
	})
}

// release commits that an epoch is stopped or was never started.
func (d *daemon) release(a decide.Act, first func(func(failure))) {
	cmd := state.Released{Service: a.Service, Epoch: a.Epoch, Node: d.n.name, Stamp: d.stamp(a.Why)}
	d.background(fmt.Sprintf("release %s %d", a.Service, a.Epoch), cmd, first, func(_ state.Result, f failure, next func()) {
		if f != "" || !d.died("release committed") {
			next()
		}
	})
	d.died("release proposed")
}

func (d *daemon) report(u *unit, a decide.Act) {
	cmd := state.ReportFailure{Service: a.Service, Epoch: a.Epoch, Node: d.n.name, Stamp: d.stamp(a.Why)}
	d.background(fmt.Sprintf("failure %s %d", a.Service, a.Epoch), cmd, nil, func(res state.Result, f failure, next func()) {
		if f == "" {
			u.reported = res.Index
		}
		next()
	})
}

func (d *daemon) open(a decide.Act) {
	cmd := state.OpenSession{
		Node: d.n.name, BootID: d.n.bootID(), Replaces: a.Session,
		TTL: d.w.timing.ttl, Kappa: d.w.timing.kappa, Stamp: d.stamp(a.Why),
	}
	d.background("open-session", cmd, nil, func(res state.Result, f failure, next func()) {
		if f == "" && res.Refused == nil {
			d.opened(res.Session, next)
			return
		}
		next()
	})
}

func (d *daemon) forgetTold(service string, epoch uint64) {
	for t := range d.told {
		if t.Service == service && t.Epoch <= epoch {
			delete(d.told, t)
		}
	}
}

func (d *daemon) stamp(why string) state.Stamp {
	return state.Stamp{At: d.w.now.Milliseconds(), By: d.n.name, Why: why}
}

// leaveMoveLimit is how long a stop waits for others to take the services over.
const leaveMoveLimit = 15 * time.Second

// leave gives everything up before the daemon stops for good; it comes back after a while.
func (d *daemon) leave(away time.Duration) {
	d.w.say("%s leaves", d.n.name)
	for _, name := range services {
		if u := d.units[name]; u != nil && (u.phase == decide.PhaseRunning || u.phase == decide.PhaseStarting) {
			d.moveAway(name)
		}
	}
	deadline := d.w.now + leaveMoveLimit
	var await func()
	await = func() {
		idle := len(d.n.disk.records) == 0
		for _, u := range d.units {
			idle = idle && u.idle()
		}
		switch {
		case idle && d.leaving:
			d.goodbye(away)
			return
		case idle || d.w.now > deadline && !d.leaving:
			d.leaving = true
			d.poke()
		}
		d.after(10*ms, await)
	}
	await()
}

func (d *daemon) moveAway(service string) {
	giveUp := func() {
		d.leaving = true
		d.poke()
	}
	d.forward(state.RequestMove{Service: service, Stamp: d.stamp(d.n.name + " stops")}, func(res state.Result, f failure) {
		if f != "" || res.Refused != nil {
			giveUp()
			return
		}
		var look func()
		look = func() {
			st := d.voter.View()
			svc := st.Services[service]
			switch {
			case svc == nil || d.leaving:
			case st.Index < res.Index || svc.Move != nil:
				d.after(5*ms, look)
			case len(svc.Unfinished()) == 1 && svc.Newest().Node == d.n.name:
				giveUp()
			}
		}
		look()
	})
}

// goodbye says that everything is stopped, and ends the daemon.
func (d *daemon) goodbye(away time.Duration) {
	gone := func() {
		d.w.say("%s says goodbye", d.n.name)
		d.w.saw("goodbye")
		d.held = false
		d.n.kill()
		d.n.startAfter(away)
	}
	session := d.session
	switch {
	case session == 0 || d.raft.leader == "":
		gone()
	case d.raft.leads:
		d.propose(state.CloseSession{Session: session, Stamp: d.stamp(d.n.name + " said goodbye: everything on it is stopped")},
			func(state.Result, failure) { gone() })
	default:
		d.call(d.w.byName[d.raft.leader], proposeLimit, func(other *daemon, reply func(func())) {
			if other.led != nil {
				other.led.ev.Goodbye(session)
				other.stir()
			}
			reply(gone)
		}, gone)
	}
}
