package sim

import (
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/state"
)

// surveyInterval is how often a leader asks the others for their own account, and
// an account is believed for twice as long.
const surveyInterval = 2 * time.Second

// report is a node's own account of itself, now.
type report struct {
	at     clock.Reading
	ready  bool
	epochs map[string]uint64 // that it has begun with, by service
}

func (d *daemon) account() report {
	r := report{ready: d.voter.Ready(), epochs: map[string]uint64{}}
	for name, u := range d.units {
		r.epochs[name] = u.epoch
	}
	return r
}

// survey keeps the others' accounts at hand as long as this node leads.
func (d *daemon) survey(led *leadership) {
	if d.led != led {
		return
	}
	for _, n := range d.w.nodes {
		if n == d.n {
			continue
		}
		d.call(n, time.Second, func(other *daemon, reply func(func())) {
			r := other.account()
			reply(func() {
				r.at = d.n.Now()
				led.reports[n.name] = r
			})
		}, func() {})
	}
	d.after(surveyInterval, func() { d.survey(led) })
}

// tookUp reports whether a holder has begun with an epoch, or may have: only an
// account of its own that came since then says that it has not.
func (d *daemon) tookUp(led *leadership, holder, service string, g grantSeen) bool {
	if holder == d.n.name {
		u := d.units[service]
		return u != nil && u.epoch == g.epoch
	}
	r, ok := d.recent(led, holder)
	return !ok || r.epochs[service] == g.epoch || clock.Shorter(g.at, r.at) <= 0
}

// recent is a node's account, if there is one that is not too old; of this node
// itself, only whether it is ready.
func (d *daemon) recent(led *leadership, node string) (report, bool) {
	if node == d.n.name {
		return report{ready: d.voter.Ready()}, true
	}
	r, ok := led.reports[node]
	return r, ok && clock.Shorter(r.at, d.n.Now()) <= 2*surveyInterval
}

// unable says which nodes cannot run anything, by what they told, or since they
// do not answer.
func (d *daemon) unable(led *leadership, st *state.State) map[string]map[string]string {
	var out map[string]map[string]string
	long := clock.Shorter(led.since, d.n.Now()) > 2*surveyInterval
	for _, n := range d.w.nodes {
		r, ok := d.recent(led, n.name)
		why := ""
		switch {
		case ok && !r.ready:
			why = "it has not caught up with the log since its start"
		case !ok && long:
			why = "it does not answer calls"
		default:
			continue
		}
		if out == nil {
			out = map[string]map[string]string{}
		}
		for name := range st.Services {
			if out[name] == nil {
				out[name] = map[string]string{}
			}
			out[name][n.name] = why
		}
	}
	return out
}

// unstarted tells for how long holders have left what they were granted: counted
// from when no other epoch was in the way, by accounts that came after that.
func (d *daemon) unstarted(led *leadership, st *state.State) map[string]time.Duration {
	var out map[string]time.Duration
	now := d.n.Now()
	for name, svc := range st.Services {
		open := svc.Unfinished()
		if len(open) != 1 {
			delete(led.granted, name)
			continue
		}
		g := led.granted[name]
		if g.epoch != open[0].Epoch {
			g = grantSeen{epoch: open[0].Epoch, at: now}
			led.granted[name] = g
		}
		if d.tookUp(led, open[0].Node, name, g) {
			continue
		}
		if out == nil {
			out = map[string]time.Duration{}
		}
		out[name] = clock.Shorter(g.at, now)
	}
	return out
}

// grantSeen is when a leader first saw an epoch with no other in its way.
type grantSeen struct {
	epoch uint64
	at    clock.Reading
}
