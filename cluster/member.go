package cluster

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/journal"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// lookInterval is how often a node looks again without news.
const lookInterval = 250 * time.Millisecond

// memberLoop looks at this node, does what decide names, and looks again.
func (n *Node) memberLoop(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	counted := false // whether a state has named this node
	hesitates := false
	for {
		at := n.Clock.Now()
		n.looked.Store(&at)
		st := n.Voter.View()
		switch {
		case st.Nodes[n.Self] != nil:
			counted = true
			n.notice("membership", "")
		case counted:
			n.notice("membership", fmt.Sprintf("this node was removed from the cluster and holds nothing any more: stop failoverd here, or let it in again: failoverctl members add %s %s", n.Self, n.Address))
		}
		view := n.memberView(st)
		for _, a := range decide.Member(view) {
			n.act(st, a)
		}
		n.foresee(st)
		hesitates = n.hesitate(hesitates)
		if n.readyIn(st) {
			n.refreshJournal(st)
		}
		select {
		case <-ctx.Done():
			return
		case <-n.poke:
		case <-n.Voter.Changed():
			signal(n.stir)
		case <-tick.C:
		}
	}
}

// hesitate makes a node that holds something slower to stand for election: a
// leader's death then costs the services that it does not hold nothing.
func (n *Node) hesitate(now bool) bool {
	holds := false
	for _, u := range n.allUnits() {
		holds = holds || u.holding()
	}
	if holds == now {
		return now
	}
	if err := n.consensus().Hesitate(holds); err != nil {
		n.Log.Debug("election timing not changed", "err", err)
		return now
	}
	return holds
}

// memberView gathers what this node knows of itself.
func (n *Node) memberView(st *state.State) decide.MemberView {
	v := decide.MemberView{
		State: st, Self: n.Self, Ready: n.readyIn(st),
		Local: map[string]decide.Local{}, Told: map[decide.Told]bool{},
	}
	n.mu.Lock()
	v.Session, v.Refused, v.Leaving = n.session, n.refused, n.leaving
	left := n.Renewals.Left() // of this session: the lease changes before the session does
	ttl := n.TTL
	if s := st.Sessions[n.session]; s != nil {
		ttl = s.TTL // a session keeps the lease that it was opened with
	}
	v.Deaf = n.dropped == "" && n.isDeaf(v.Session, ttl) // who does not ask is not answered
	v.Lease, v.Lapsed = left > decide.ActivateMargin(ttl), left <= 0
	if n.dropped != "" {
		v.Lease = false
	}
	for t := range n.told {
		v.Told[t] = true
	}
	n.mu.Unlock()
	for _, e := range n.Journal.Entries() {
		v.Records = append(v.Records, decide.Record{
			Service: e.Service, Epoch: e.Epoch, Session: e.Session,
			SameBoot: e.BootID == n.BootID, Releasing: e.State == journal.StateReleasing,
		})
	}
	for _, u := range n.allUnits() {
		v.Local[u.name] = n.localView(st, u)
		if u.stuck() {
			n.drop(fmt.Sprintf("%s could not be proven stopped %d times; its lease's end will prove it", u.name, stuckAfter))
		}
	}
	return v
}

// readyIn reports whether this very state holds this daemon's start. To ask the
// voter instead could join an older view with a newer answer.
func (n *Node) readyIn(st *state.State) bool {
	self := st.Nodes[n.Self]
	return self != nil && self.Started == n.Nonce
}

func (n *Node) localView(st *state.State, u *unit) decide.Local {
	svc := st.Services[u.name]
	failed := false
	if svc != nil {
		for _, f := range svc.Failures {
			failed = failed || f.Node == n.Self
		}
	}
	l := u.local(st.Index, failed)
	if svc != nil && u.sameResources(svc.Spec) {
		// Only a change of the resources themselves touches what runs.
		l.Generation = svc.Generation
	}
	return l
}

func (u *unit) sameResources(spec state.Spec) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return reflect.DeepEqual(u.spec.Resources, spec.Resources)
}

// act does one thing that decide named. Everything slow goes on in the
// background, once at a time.
func (n *Node) act(st *state.State, a decide.Act) {
	if a.Kind == decide.ActOpen {
		n.open(a)
		return
	}
	u := n.unit(a.Service)
	switch a.Kind {
	case decide.ActActivate:
		n.activate(st, u, a)
	case decide.ActReconfigure:
		u.stop(a.Why, nil)
	case decide.ActStop:
		u.stop(a.Why, nil)
	case decide.ActGiveUp:
		u.stop(a.Why, func() error { return n.givenUp(a) })
	case decide.ActRelease:
		n.release(a, func() error { return u.releasing(a.Epoch) })
	case decide.ActErase:
		if err := n.Journal.Erase(a.Service, a.Epoch); err != nil {
			n.notice("journal", "cannot erase: "+err.Error())
		}
		failpoint.Here("member.erased")
		n.forgetTold(a.Service, a.Epoch)
	case decide.ActReport:
		n.report(u, a)
	}
}

func (n *Node) activate(st *state.State, u *unit, a decide.Act) {
	svc := st.Services[a.Service]
	if svc == nil {
		return
	}
	origin := Origin{Service: a.Service, Epoch: a.Epoch, Reason: a.Why}
	for i, g := range svc.Grants {
		if g.Epoch == a.Epoch && i > 0 {
			origin.Previous, origin.Proof = svc.Grants[i-1].Node, svc.Grants[i-1].Over
		}
	}
	u.activate(a.Epoch, svc.Generation, svc.Spec, origin)
}

// givenUp runs when everything is proven stopped: the journal first, then the
// receiver of a hand-over, then the log (LEASE.md 9 and 10).
func (n *Node) givenUp(a decide.Act) error {
	failpoint.Here("member.release.before")
	if err := (watchedRecords{n}).Releasing(a.Service, a.Epoch); err != nil {
		n.notice("journal", "cannot journal the release: "+err.Error())
		n.drop("no release without a journal: " + err.Error())
		return fmt.Errorf("journal the release: %w", err)
	}
	failpoint.Here("member.release.journaled")
	if a.Tell != nil {
		n.wg.Go(func() { n.tell(a) })
	}
	n.release(a, nil)
	return nil
}

// tell says to the receiver of a hand-over that it may start. If it is lost,
// the release in the log says the same a little later.
func (n *Node) tell(a decide.Act) {
	node := n.Voter.View().Nodes[a.To]
	if node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, time.Second)
	defer cancel()
	failpoint.Here("handover.tell.before")
	peer, err := n.Peers.Peer(node.Address)
	if err == nil {
		err = peer.Stopped(ctx, Stopped{Service: a.Service, From: a.Tell.From, Epoch: a.Tell.Epoch, Index: a.Tell.Index, Node: n.Self})
	}
	failpoint.Here("handover.told")
	if err != nil {
		n.Log.Info("could not tell the receiver directly; the log will", "service", a.Service, "to", a.To, "err", err)
	}
}

// release commits that an epoch is stopped or was never started. The journal
// says so first: a release that is still on its way when this daemon restarts
// must find the epoch never activated again (R1).
func (n *Node) release(a decide.Act, first func() error) {
	key := fmt.Sprintf("release %s %d", a.Service, a.Epoch)
	cmd := state.Released{Service: a.Service, Epoch: a.Epoch, Node: n.Self, Stamp: n.stamp("", a.Why)}
	n.background(key, cmd, first, func(res state.Result, err error) {
		switch {
		case err == nil && res.Refused != nil:
			n.notice(key, "a release was refused: "+res.Refused.Why)
		case err == nil:
			failpoint.Here("member.released")
			n.notice(key, "")
		default:
			n.Log.Debug("release not committed yet", "service", a.Service, "epoch", a.Epoch, "err", err)
		}
	})
}

func (n *Node) report(u *unit, a decide.Act) {
	n.background(fmt.Sprintf("failure %s %d", a.Service, a.Epoch),
		state.ReportFailure{Service: a.Service, Epoch: a.Epoch, Node: n.Self, Stamp: n.stamp("", a.Why)},
		nil, func(res state.Result, err error) {
			if err == nil {
				failpoint.Here("failure.reported")
				u.markReported(res.Index)
			}
		})
}

func (n *Node) open(a decide.Act) {
	if self := n.Voter.View().Nodes[n.Self]; self == nil || self.Standby != nil {
		// It is given nothing while it stands by, and one that is being removed
		// must not open another session whenever one is closed.
		return
	}
	n.background("open-session", state.OpenSession{
		Node: n.Self, BootID: n.BootID, Replaces: a.Session, TTL: n.TTL, Kappa: n.Kappa, Stamp: n.stamp("", a.Why),
	}, nil, func(res state.Result, err error) {
		switch {
		case err != nil:
			n.Log.Debug("cannot open a session yet", "err", err)
		case res.Refused != nil:
			// This node's state lags, most likely: what it replaces is not the
			// newest. Each try is an entry of the log, so it waits until it has
			// caught up with its own refusal.
			n.notice("session", "no session: "+res.Refused.Why)
			n.awaitApplied(res.Index)
			_ = sleep(n.ctx, retryOpen)
		default:
			failpoint.Here("session.opened")
			n.notice("session", "")
			n.awaitApplied(res.Index)
			if n.opened(res.Session); !n.renews(res.Session) {
				_ = sleep(n.ctx, retryOpen) // not in a hot loop: each try is an entry of the log
			}
		}
	})
}

// retryOpen is the pause after a session that was opened and could not be taken.
const retryOpen = 200 * time.Millisecond

func (n *Node) renews(session uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.session == session && !n.refused && n.dropped == ""
}

// awaitApplied waits a little until an entry is applied here.
func (n *Node) awaitApplied(index uint64) {
	ctx, cancel := context.WithTimeout(n.ctx, time.Second)
	defer cancel()
	for n.Voter.View().Index < index && sleep(ctx, 2*time.Millisecond) == nil {
	}
}

// maxTold bounds the words that are kept at once.
const maxTold = 1024

// hear notes a giver's word. It is kept for this daemon's life only: after a
// restart the log says the same.
func (n *Node) hear(m Stopped) {
	n.mu.Lock()
	if len(n.told) >= maxTold {
		clear(n.told) // the log says the same
	}
	n.told[decide.Told{Service: m.Service, From: m.From, Epoch: m.Epoch, Index: m.Index}] = true
	n.mu.Unlock()
	failpoint.Here("handover.heard")
	n.Poke()
}

func (n *Node) forgetTold(service string, epoch uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for t := range n.told {
		if t.Service == service && t.Epoch <= epoch {
			delete(n.told, t)
		}
	}
}

// probe names one preparation for a take-over.
type probe struct {
	service string
	session uint64
}

// foresee prepares a take-over while the old holder's lease runs out: a
// conflict is looked for then, and adds nothing to the outage.
func (n *Node) foresee(st *state.State) {
	n.mu.Lock()
	for key := range n.probed {
		if s := st.Sessions[key.session]; s == nil || s.Status == state.SessionEnded {
			delete(n.probed, key) // it never closes again
		}
	}
	n.mu.Unlock()
	for _, name := range sortedNames(st.Services) {
		svc := st.Services[name]
		g := svc.Newest()
		if g == nil || g.Over != "" || g.Node == n.Self {
			continue
		}
		s := st.Sessions[g.Session]
		if s == nil || s.Status != state.SessionClosing {
			continue
		}
		n.mu.Lock()
		key := probe{service: name, session: s.ID}
		done := n.probed[key]
		n.probed[key] = true
		n.mu.Unlock()
		if done {
			continue
		}
		spec, holder := svc.Spec, g.Node
		n.wg.Go(func() {
			ctx, cancel := context.WithTimeout(n.ctx, n.TTL)
			defer cancel()
			if err := n.unit(spec.Name).prepare(ctx, spec, n.knownMACs()); err != nil {
				n.Log.Warn("preparing a take-over found", "service", spec.Name, "holder", holder, "err", err)
			}
		})
	}
}
