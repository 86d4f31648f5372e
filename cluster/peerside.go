package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/evidence"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

var _ Peer = (*Node)(nil)

// Identity says which cluster this node belongs to and whom it knows there: a
// node that waits to be let in finds its own birth among them once it is.
func (n *Node) Identity(context.Context) (Identity, error) {
	id := Identity{
		Node: n.Self, Role: n.Role, Address: n.Address, Birth: n.Birth,
		Cluster: n.ClusterID, Version: n.SoftwareVersion, Founders: n.Founders,
	}
	st := n.Voter.View()
	if st.Cluster.ID == "" {
		return id, nil
	}
	id.Founders = nil
	for _, name := range sortedNames(st.Nodes) {
		m := st.Nodes[name]
		id.Founders = append(id.Founders, Founder{Node: name, Role: m.Role, Address: m.Address, Birth: m.Birth})
	}
	return id, nil
}

// Propose appends a command for another node; only a leader does.
func (n *Node) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	if n.consensus() == nil {
		return state.Result{}, fmt.Errorf("%w: the log is not loaded yet", ErrNotLeader)
	}
	if !peerMay(cmd) {
		return state.Result{}, fmt.Errorf("%w: a %s is not for a peer to propose", ErrInvalid, cmd.Kind())
	}
	if name, _ := n.consensus().Leader(); name != n.Self {
		return state.Result{}, fmt.Errorf("%w: %s leads", ErrNotLeader, orNobody(name))
	}
	failpoint.Here("peer.propose.heard")
	return n.consensus().Propose(ctx, cmd)
}

// peerMay lists what a node proposes about itself; everything else is decided by the leader.
func peerMay(cmd state.Command) bool {
	switch cmd.(type) {
	case state.Started, state.OpenSession, state.Released, state.ReportFailure, state.RequestMove:
		return true
	}
	return false
}

func orNobody(name string) string {
	if name == "" {
		return "nobody known here"
	}
	return name
}

// Stopped hears a giver's word.
func (n *Node) Stopped(_ context.Context, m Stopped) error {
	n.hear(m)
	return nil
}

// Prepare makes this node ready to receive a service.
func (n *Node) Prepare(ctx context.Context, service string) error {
	if !n.Voter.Ready() {
		return fmt.Errorf("%w: %s has not caught up with the log since its start", ErrRefused, n.Self)
	}
	st := n.Voter.View()
	svc := st.Services[service]
	if svc == nil {
		return fmt.Errorf("%w: service %q is not known on %s", ErrNotFound, service, n.Self)
	}
	// A session that was opened just now has its first lease in a moment.
	n.awaitLease(ctx, n.TTL)
	if n.Renewals.Left() <= 0 {
		return fmt.Errorf("%w: %s has no lease now", ErrRefused, n.Self)
	}
	if g := svc.Newest(); g != nil {
		if _, ok := n.recent(g.Node); !ok {
			n.ask(ctx, askLimit) // whose hardware address has the service now is no conflict
		}
	}
	return n.unit(service).prepare(ctx, svc.Spec, n.knownMACs())
}

// Report is this node's account of itself.
func (n *Node) Report(context.Context) (Report, error) {
	n.mu.Lock()
	session := n.session
	n.mu.Unlock()
	r := Report{
		Cluster: n.ClusterID, Node: n.Self, Index: n.Voter.View().Index, Ready: n.Voter.Ready(), Session: session,
		LeaseLeft: max(n.Renewals.Left(), 0), Version: n.SoftwareVersion, Alarms: n.alarms(), MACs: ownMACs(),
	}
	st := n.Voter.View()
	for _, name := range sortedNames(st.Services) {
		if rep, tell := n.reportOn(st.Services[name]); tell {
			r.Services = append(r.Services, rep)
		}
	}
	return r, nil
}

// reportOn is this node's account of one service; tell is false when there is nothing to say.
func (n *Node) reportOn(svc *state.Service) (rep ServiceReport, tell bool) {
	n.mu.Lock()
	u := n.units[svc.Name]
	n.mu.Unlock()
	if u != nil {
		rep = u.report()
	}
	if rep.Epoch == 0 {
		rep = ServiceReport{Name: svc.Name, State: string(decide.PhaseStopped)}
	}
	if !svc.Removed && n.Role.Holds() {
		if err := n.Builder.Able(svc.Spec); err != nil {
			rep.Unable = err.Error()
		}
	}
	return rep, rep.Epoch != 0 || rep.Unable != ""
}

// Restart makes this daemon start anew; its services go on under their lease.
func (n *Node) Restart(_ context.Context, by, why string) error {
	n.Log.Info("restart ordered", "by", by, "why", why)
	failpoint.Here("peer.restart.heard")
	n.OnRestart()
	return nil
}

// Goodbye hears that a node has stopped everything and leaves: its session
// need not be waited for.
func (n *Node) Goodbye(_ context.Context, node string, session uint64) error {
	led := n.lead.Load()
	if led == nil {
		return fmt.Errorf("goodbye of %s: %w", node, ErrNotLeader)
	}
	s := n.Voter.View().Sessions[session]
	if s == nil || s.Node != node {
		return fmt.Errorf("goodbye of %s: %w: session %d is not its own", node, ErrNotFound, session)
	}
	failpoint.Here("peer.goodbye.heard")
	led.ev.Goodbye(session)
	signal(n.stir)
	return nil
}

func (n *Node) alarms() []string {
	n.mu.Lock()
	out := make([]string, 0, len(n.notices))
	for _, subject := range sortedNames(n.notices) {
		out = append(out, n.notices[subject])
	}
	n.mu.Unlock()
	if n.Alarms != nil {
		out = append(out, n.Alarms()...)
	}
	if n.consensus() != nil {
		if since, stuck := n.consensus().DiskStalled(); stuck {
			out = append(out, fmt.Sprintf("a write to this node's disk has been stuck for %s", since.Round(time.Millisecond)))
		}
	}
	return out
}

func ownMACs() []string {
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []string
	for _, i := range list {
		if len(i.HardwareAddr) == 6 {
			out = append(out, i.HardwareAddr.String())
		}
	}
	return out
}

// knownMACs are the hardware addresses of all nodes, as they last told: who of
// them has the address now is the holder, or has just been made it.
func (n *Node) knownMACs() []net.HardwareAddr {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []net.HardwareAddr
	for _, r := range n.reports {
		for _, text := range r.MACs {
			if mac, err := net.ParseMAC(text); err == nil {
				out = append(out, mac)
			}
		}
	}
	return out
}

// surveyInterval is how often a node asks the others for their own account.
const surveyInterval = 2 * time.Second

// survey keeps the other nodes' accounts at hand.
func (n *Node) survey(ctx context.Context) {
	for {
		n.ask(ctx, time.Second)
		wait := surveyInterval
		switch all, missed := n.heardAll(); {
		case !all:
			wait = surveyInterval / 20
		case missed:
			wait = surveyInterval / 4 // to notice soon that it is back
		}
		if sleep(ctx, wait) != nil {
			return
		}
	}
}

// heardAll reports whether every other node has told of itself at least once,
// and whether one of them did not answer the newest question.
func (n *Node) heardAll() (all, missed bool) {
	st := n.Voter.View()
	n.mu.Lock()
	defer n.mu.Unlock()
	for name := range st.Nodes {
		r, ok := n.reports[name]
		if !ok && name != n.Self {
			return false, false
		}
		missed = missed || r.missed
	}
	return st.Cluster.ID != "", missed
}

// ask gathers the accounts of all other nodes, side by side, within the limit.
func (n *Node) ask(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		node string
		rep  Report
		err  error
	}
	st := n.Voter.View()
	answers := make(chan answer, len(st.Nodes))
	asked := 0
	for name, m := range st.Nodes {
		if name == n.Self {
			continue
		}
		peer, err := n.Peers.Peer(m.Address)
		if err != nil {
			continue
		}
		asked++
		go func() {
			rep, err := peer.Report(ctx)
			if err == nil && (rep.Cluster != n.ClusterID || rep.Node != name) {
				err = fmt.Errorf("%w: %s is answered for by %s of cluster %s", ErrInvalid, name, rep.Node, rep.Cluster)
			}
			answers <- answer{name, rep, err}
		}()
	}
	if own, err := n.Report(ctx); err == nil {
		n.mu.Lock()
		n.reports[n.Self] = heardOf{Report: own, at: n.Clock.Now()}
		n.mu.Unlock()
	}
	for range asked {
		a := <-answers
		n.mu.Lock()
		before, had := n.reports[a.node]
		if a.err == nil {
			n.reports[a.node] = heardOf{Report: a.rep, at: n.Clock.Now()}
		} else if had && errors.Is(a.err, ErrInvalid) {
			delete(n.reports, a.node) // somebody else answers at its address
		} else if had {
			before.missed = true
			n.reports[a.node] = before
		}
		n.mu.Unlock()
		if a.err == nil && had && before.missed {
			// A node is heard again after a silence: a partition may have
			// healed, and neighbours beyond it may believe in another address.
			n.healed(ctx)
		}
	}
}

// healed announces what this node holds.
func (n *Node) healed(ctx context.Context) {
	for _, u := range n.allUnits() {
		u.announce(ctx)
	}
}

// recent is a node's account if it is not too old to be shown as the present.
func (n *Node) recent(node string) (Report, bool) {
	if node == n.Self {
		r, _ := n.Report(n.ctx)
		return r, true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	r, ok := n.reports[node]
	if !ok || r.missed || clock.Shorter(r.at, n.Clock.Now()) > 2*surveyInterval {
		return Report{}, false
	}
	return r.Report, true
}

// begunWith says which epoch of a service a node has begun with, by its own
// account if that is not too old.
func (n *Node) begunWith(node, service string) (evidence.Account, bool) {
	n.mu.Lock()
	u := n.units[service]
	r, ok := n.reports[node]
	n.mu.Unlock()
	if node == n.Self {
		a := evidence.Account{Own: true}
		if u != nil {
			own := u.report()
			a.Epoch, a.Serves = own.Epoch, serves(own)
		}
		return a, true
	}
	if !ok || r.missed || clock.Shorter(r.at, n.Clock.Now()) > 2*surveyInterval {
		return evidence.Account{}, false
	}
	a := evidence.Account{At: r.at}
	for _, s := range r.Services {
		if s.Name == service {
			a.Epoch, a.Serves = s.Epoch, serves(s)
		}
	}
	return a, true
}

// serves reports whether a node says that it runs a service or is about to.
func serves(s ServiceReport) bool { return s.State == "running" || s.State == "starting" }

// unable gathers, by service and node, why nodes say that they could not run it.
func (n *Node) unable() map[string]map[string]string {
	out := map[string]map[string]string{}
	tell := func(node string, services []ServiceReport) {
		for _, s := range services {
			if s.Unable == "" {
				continue
			}
			if out[s.Name] == nil {
				out[s.Name] = map[string]string{}
			}
			out[s.Name][node] = s.Unable
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for node, r := range n.reports {
		tell(node, r.Services)
	}
	return out
}
