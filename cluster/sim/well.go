package sim

import (
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/state"
)

// settled is how long everything must have been well in the end.
const settled = 2 * time.Second

// well says what is not well yet at the end: every service that may run runs, on
// one node, under its newest epoch, and stays there.
func (c *checker) well() string {
	bad := c.unwell()
	if bad != "" || c.lastBad == 0 {
		c.lastBad = c.w.now
	}
	if bad == "" && c.w.now-c.lastBad < settled {
		return "it has not been well for long enough"
	}
	return bad
}

func (c *checker) unwell() string {
	var leader *daemon
	for _, n := range c.w.nodes {
		if n.d != nil && n.d.led != nil {
			leader = n.d
		}
	}
	if leader == nil {
		return "nobody leads"
	}
	for _, n := range c.w.nodes {
		if !c.w.gone[n] && (n.d == nil || !n.d.voter.Ready()) {
			return n.name + " is not ready"
		}
	}
	for _, name := range services {
		svc := c.ref.Services[name]
		if svc == nil {
			continue
		}
		if why := c.service(leader, svc); why != "" {
			note := leader.led.plan.Notes[name]
			return name + " " + why + " (the leader says: " + note + ")"
		}
	}
	return ""
}

// canFence reports whether the machine's devices can be relied on.
func (w *world) canFence(n *node) bool {
	return w.fencing.on && n.honest()+n.liars() >= w.fencing.confirmations
}

func (c *checker) service(leader *daemon, svc *state.Service) string {
	var on []*node
	for _, n := range c.w.nodes {
		if n.running[svc.Name] != nil {
			on = append(on, n)
		}
	}
	open := svc.Unfinished()
	switch {
	case svc.Removed && len(on) > 0:
		return "was removed and runs"
	case len(open) > 0 && c.w.gone[c.w.byName[open[0].Node]] && svc.Spec.Takeover == state.TakeoverFence && !c.w.canFence(c.w.byName[open[0].Node]):
		return "" // as it should: only an operator who has seen that node can help
	case svc.Removed && len(open) > 0:
		return "was removed and its epoch is not over"
	case svc.Removed || decide.Paused(c.ref, svc.Name) != "":
		return ""
	case len(on) > 1:
		return "runs twice"
	case len(open) > 1:
		return "is still being handed over"
	case len(on) == 1 && len(open) == 1 && open[0].Node == on[0].name && open[0].Epoch == on[0].running[svc.Name].epoch:
		return ""
	case len(on) == 1:
		return "runs under an epoch that is over"
	}
	for _, n := range c.w.nodes {
		r := c.ref.Nodes[n.name]
		if !c.w.gone[n] && r != nil && r.Standby == nil && svc.Spec.Allows(n.name) && !n.broken[svc.Name] && r.Role.Holds() {
			return "does not run, and " + n.name + " could run it"
		}
	}
	if len(open) == 1 {
		return "does not run, and " + open[0].Node + " holds it"
	}
	return ""
}
