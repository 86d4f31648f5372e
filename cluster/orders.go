package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// leading returns this node's leadership, or ErrNotLeader.
func (n *Node) leading() (*leadership, error) {
	led := n.lead.Load()
	if led == nil {
		return nil, fmt.Errorf("%w: this node does not lead", ErrNotLeader)
	}
	return led, nil
}

// pick finds the service that an operator means; without a name, the only one.
func pick(st *state.State, name string) (*state.Service, error) {
	var live []string
	for _, s := range sortedNames(st.Services) {
		if !st.Services[s].Removed {
			live = append(live, s)
		}
	}
	if name == "" {
		if len(live) == 1 {
			return st.Services[live[0]], nil
		}
		return nil, fmt.Errorf("%w: name the service, one of: %s", ErrInvalid, strings.Join(live, ", "))
	}
	if svc := st.Services[name]; svc != nil && !svc.Removed {
		return svc, nil
	}
	return nil, fmt.Errorf("%w: no service %q; there is: %s", ErrNotFound, name, strings.Join(live, ", "))
}

// Switchover orders a planned move and waits for it.
func (n *Node) Switchover(ctx context.Context, r SwitchoverRequest) (SwitchoverResult, error) {
	led, err := n.leading()
	if err != nil {
		return SwitchoverResult{}, err
	}
	st := n.Voter.View()
	svc, err := pick(st, r.Service)
	if err != nil {
		return SwitchoverResult{}, err
	}
	res, err := n.planSwitchover(led, st, svc, r.To)
	if err != nil || r.DryRun {
		return res, err
	}
	begun := n.Clock.Now()
	failpoint.Here("order.move.before")
	done, err := n.commit(ctx, state.RequestMove{Service: svc.Name, To: r.To, Stamp: n.stamp(r.By, r.Why)})
	if err != nil {
		return res, err
	}
	failpoint.Here("order.move.committed")
	if err := n.awaitMove(ctx, svc.Name, svc.LastEpoch, done.Index, &res); err != nil {
		return res, err
	}
	res.Took = clock.Longer(begun, n.Clock.Now())
	return res, nil
}

// planSwitchover says what a switchover would do, or why it is refused.
func (n *Node) planSwitchover(led *leadership, st *state.State, svc *state.Service, to string) (SwitchoverResult, error) {
	res := SwitchoverResult{Service: svc.Name}
	if why := decide.Paused(st, svc.Name); why != "" {
		return res, fmt.Errorf("%w: %s; resume it first", ErrRefused, why)
	}
	open := svc.Unfinished()
	if len(open) != 1 {
		return res, fmt.Errorf("%w: a switchover needs one holder, and %s has %d; failoverctl explain %s says what it waits for", ErrRefused, svc.Name, len(open), svc.Name)
	}
	res.From = open[0].Node
	if to == res.From {
		return res, fmt.Errorf("%w: %s holds %s already", ErrRefused, to, svc.Name)
	}
	var reasons []string
	for _, c := range decide.Candidates(n.leaderView(led, st), svc) {
		if c.Node == res.From || to != "" && c.Node != to {
			continue
		}
		if c.Unknown {
			return res, fmt.Errorf("%w: this leader is new and knows too little of %s yet; ask again in a moment", ErrNotLeader, c.Node)
		}
		if c.Can {
			res.To = c.Node
			break
		}
		reasons = append(reasons, c.Node+" "+c.Why)
	}
	if res.To == "" {
		if len(reasons) == 0 && to != "" {
			return res, fmt.Errorf("%w: there is no node %q", ErrNotFound, to)
		}
		return res, fmt.Errorf("%w: nobody can take %s: %s", ErrRefused, svc.Name, strings.Join(reasons, "; "))
	}
	res.Epoch = svc.LastEpoch + 1
	res.Steps = []string{
		fmt.Sprintf("%s prepares: address probed for a conflict, resources ready", res.To),
		fmt.Sprintf("the hand-over from %s (epoch %d) to %s (epoch %d) is committed as one entry", res.From, open[0].Epoch, res.To, res.Epoch),
	}
	for i := len(svc.Spec.Resources) - 1; i >= 0; i-- {
		res.Steps = append(res.Steps, fmt.Sprintf("%s stops %s %s", res.From, svc.Spec.Resources[i].Kind, svc.Spec.Resources[i].Name))
	}
	res.Steps = append(res.Steps, fmt.Sprintf("%s tells %s that it has stopped", res.From, res.To))
	for _, r := range svc.Spec.Resources {
		res.Steps = append(res.Steps, fmt.Sprintf("%s starts %s %s", res.To, r.Kind, r.Name))
	}
	return res, nil
}

// awaitMove waits until a later epoch runs, or the order was withdrawn.
func (n *Node) awaitMove(ctx context.Context, service string, before, order uint64, res *SwitchoverResult) error {
	for {
		st := n.Voter.View()
		svc := st.Services[service]
		if svc == nil {
			return fmt.Errorf("%w: %s was removed meanwhile", ErrRefused, service)
		}
		g := svc.Newest()
		switch {
		case g != nil && g.Epoch > before && g.Over == "" && n.runs(ctx, g.Node, service, g.Epoch):
			res.To, res.Epoch = g.Node, g.Epoch
			return nil
		case svc.LastEpoch == before && svc.Move == nil && st.Index >= order:
			return fmt.Errorf("%w: the move was withdrawn: %s", ErrRefused, lastWhy(st, service, order))
		}
		t := time.NewTimer(5 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w: the move of %s is ordered and goes on; failoverctl explain %s follows it: %w", ErrTimeout, service, service, ctx.Err())
		case <-t.C:
		}
	}
}

// runs asks a node itself whether it runs a service under an epoch.
func (n *Node) runs(ctx context.Context, node, service string, epoch uint64) bool {
	var rep Report
	if node == n.Self {
		rep, _ = n.Report(ctx)
	} else {
		m := n.Voter.View().Nodes[node]
		if m == nil {
			return false
		}
		peer, err := n.Peers.Peer(m.Address)
		if err != nil {
			return false
		}
		limited, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if rep, err = peer.Report(limited); err != nil {
			return false
		}
	}
	for _, s := range rep.Services {
		if s.Name == service && s.Epoch == epoch && s.State == string(decide.PhaseRunning) {
			return true
		}
	}
	return false
}

// lastWhy is the reason of the newest event about a service since an index.
func lastWhy(st *state.State, service string, since uint64) string {
	for i := len(st.History) - 1; i >= 0 && st.History[i].Index > since; i-- {
		if e := st.History[i]; e.Service == service && e.Why != "" {
			return e.Why
		}
	}
	return "no reason is recorded; failoverctl history shows what happened"
}

// Failover takes a service on the operator's word that its holder is off.
func (n *Node) Failover(ctx context.Context, r FailoverRequest) (SwitchoverResult, error) {
	led, err := n.leading()
	if err != nil {
		return SwitchoverResult{}, err
	}
	st := n.Voter.View()
	svc, err := pick(st, r.Service)
	if err != nil {
		return SwitchoverResult{}, err
	}
	res := SwitchoverResult{Service: svc.Name}
	g := svc.Newest()
	if g == nil || len(svc.Unfinished()) == 0 {
		return res, fmt.Errorf("%w: nobody holds %s, so there is nothing to take; failoverctl explain %s says what it waits for", ErrRefused, svc.Name, svc.Name)
	}
	open := svc.Unfinished()[0]
	res.From = open.Node
	s := st.Sessions[open.Session]
	if s == nil {
		return res, fmt.Errorf("%w: session %d of %s is not known", ErrNotFound, open.Session, open.Node)
	}
	if err := n.mayVouch(led, st, svc, s, r); err != nil {
		return res, err
	}
	why := r.Why
	if why == "" {
		why = "an operator says that " + s.Node + " is off"
	}
	if s.Status == state.SessionOpen {
		if _, err := n.commit(ctx, state.CloseSession{Session: s.ID, Stamp: n.stamp(r.By, why)}); err != nil {
			return res, err
		}
	}
	failpoint.Here("order.vouch.before")
	done, err := n.commit(ctx, state.EndSession{Session: s.ID, Proof: state.ProofVouched, Stamp: n.stamp(r.By, why)})
	if err != nil {
		return res, err
	}
	failpoint.Here("order.vouched")
	signal(n.stir)
	res.Steps = []string{fmt.Sprintf("session %d of %s ended on the word of %s", s.ID, s.Node, r.By)}
	begun := n.Clock.Now()
	err = n.awaitMove(ctx, svc.Name, open.Epoch, done.Index, &res)
	res.Took = clock.Longer(begun, n.Clock.Now())
	return res, err
}

// mayVouch refuses a word that is known to be false, or that was not given.
func (n *Node) mayVouch(led *leadership, st *state.State, svc *state.Service, s *state.Session, r FailoverRequest) error {
	age, known := time.Duration(0), false
	if s.Status == state.SessionOpen {
		for _, a := range n.leaderView(led, st).Sessions[s.ID].Ages {
			if !known || a < age {
				age, known = a, true
			}
		}
		if known && age < s.TTL/2 {
			return fmt.Errorf("%w: %s renewed its lease %s ago, so it is not off; failoverctl switchover %s moves the service safely",
				ErrRefused, s.Node, age.Round(time.Millisecond), svc.Name)
		}
	}
	if why := decide.Paused(st, svc.Name); why != "" {
		return fmt.Errorf("%w: %s; resume it first", ErrRefused, why)
	}
	if r.Force {
		return nil
	}
	return fmt.Errorf("%w: %s may still run %s; it is taken by itself once its lease cannot be left. "+
		"Only when you have seen that %s is off: failoverctl failover %s --force --reason TEXT", ErrRefused, s.Node, svc.Name, s.Node, svc.Name)
}

// Pause pauses or resumes a service or the cluster.
func (n *Node) Pause(ctx context.Context, r PauseRequest) error {
	if _, err := n.leading(); err != nil {
		return err
	}
	if r.Service != "" {
		if _, err := pick(n.Voter.View(), r.Service); err != nil {
			return err
		}
	}
	cmd := state.SetPause{Service: r.Service, On: r.On, Stamp: n.stamp(r.By, r.Why)}
	if r.On && r.For > 0 {
		cmd.Until = cmd.At + r.For.Milliseconds()
	}
	failpoint.Here("order.pause.before")
	_, err := n.commit(ctx, cmd)
	return err
}

// Standby makes a node stand by or serve again.
func (n *Node) Standby(ctx context.Context, r StandbyRequest) error {
	if _, err := n.leading(); err != nil {
		return err
	}
	_, err := n.commit(ctx, state.SetStandby{Node: r.Node, On: r.On, Stamp: n.stamp(r.By, r.Why)})
	return err
}

// RestartNode makes a node's daemon start anew, one at a time, and only when
// the voters without it are a majority that is ready.
func (n *Node) RestartNode(ctx context.Context, node, by, why string) error {
	led, err := n.leading()
	if err != nil {
		return err
	}
	st := n.Voter.View()
	m := st.Nodes[node]
	if m == nil {
		return fmt.Errorf("%w: no node %q", ErrNotFound, node)
	}
	asked := n.Clock.Now()
	n.ask(ctx, time.Second)
	if err := n.quorumWithout(st, node, asked); err != nil {
		return err
	}
	if err := n.oneRestart(led, m); err != nil {
		return err
	}
	if node == n.Self {
		n.OnRestart()
		return nil
	}
	peer, err := n.Peers.Peer(m.Address)
	if err != nil {
		return fmt.Errorf("reach %s: %w", node, err)
	}
	failpoint.Here("order.restart.before")
	return peer.Restart(ctx, by, why)
}

// restartPatience is how long a node that was told to restart is waited for.
const restartPatience = 30 * time.Second

// oneRestart refuses a restart while another node has not come back from its
// own: until it goes down it still answers, and two at once lapse every lease.
func (n *Node) oneRestart(led *leadership, m *state.Node) error {
	now := n.Clock.Now()
	st := n.Voter.View()
	n.mu.Lock()
	defer n.mu.Unlock()
	last := led.restart
	other := st.Nodes[last.node]
	if other != nil && other.Name != m.Name && other.Started == last.start && clock.Shorter(last.at, now) < restartPatience {
		return fmt.Errorf("%w: %s was told to restart %s ago and is not back yet; wait for it",
			ErrRefused, last.node, clock.Shorter(last.at, now).Round(time.Millisecond))
	}
	led.restart = restarted{node: m.Name, start: m.Started, at: now}
	return nil
}

// toldSince is a node's account given after an instant, and whether there is one.
func (n *Node) toldSince(node string, asked clock.Reading) (Report, bool) {
	if node == n.Self {
		return n.recent(node)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	r, ok := n.reports[node]
	return r.Report, ok && clock.Shorter(asked, r.at) >= 0
}

// quorumWithout refuses when the voters but one could not go on (LEASE.md 13),
// by what they have told since asked: an older word may be from before a crash.
func (n *Node) quorumWithout(st *state.State, node string, asked clock.Reading) error {
	voters, ready := 0, 0
	var missing []string
	for _, name := range sortedNames(st.Nodes) {
		if !st.Nodes[name].Role.Votes() {
			continue
		}
		voters++
		if name == node {
			continue
		}
		if rep, ok := n.toldSince(name, asked); ok && rep.Ready {
			ready++
		} else {
			missing = append(missing, name)
		}
	}
	if !st.Nodes[node].Role.Votes() || ready >= voters/2+1 {
		return nil
	}
	return fmt.Errorf("%w: without %s only %d of %d voters are ready, and every lease would lapse; wait for %s",
		ErrRefused, node, ready, voters, strings.Join(missing, ", "))
}

// Cleanup forgets failures.
func (n *Node) Cleanup(ctx context.Context, service, node, by string) error {
	if _, err := n.leading(); err != nil {
		return err
	}
	if _, err := pick(n.Voter.View(), service); err != nil {
		return err
	}
	_, err := n.commit(ctx, state.ClearFailures{Service: service, Node: node, Stamp: n.stamp(by, "failures forgotten")})
	return err
}
