package sim

import (
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/evidence"
	"github.com/failoverd/failoverd/cluster/state"
)

// surveyInterval is how often a leader asks the others for their own account, and
// an account is believed for twice as long.
const surveyInterval = 2 * time.Second

// report is a node's own account of itself, now.
type report struct {
	at    clock.Reading
	ready bool
	begun map[string]evidence.Account // by service
}

func (d *daemon) account() report {
	r := report{ready: d.voter.Ready(), begun: map[string]evidence.Account{}}
	for name, u := range d.units {
		r.begun[name] = u.account()
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

// account is what a node says of a service.
func (u *unit) account() evidence.Account {
	return evidence.Account{Epoch: u.epoch, Serves: u.phase == decide.PhaseStarting || u.phase == decide.PhaseRunning}
}

// begunWith says what nodes have told of the epochs that they have begun with.
func (d *daemon) begunWith(led *leadership) func(node, service string) (evidence.Account, bool) {
	return func(node, service string) (evidence.Account, bool) {
		if node == d.n.name {
			a := evidence.Account{Own: true}
			if u := d.units[service]; u != nil {
				a = u.account()
				a.Own = true
			}
			return a, true
		}
		r, ok := d.recent(led, node)
		a := r.begun[service]
		a.At = r.at
		return a, ok
	}
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
