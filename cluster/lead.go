package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster/clock"
	"github.com/failoverd/failoverd/cluster/decide"
	"github.com/failoverd/failoverd/cluster/evidence"
	"github.com/failoverd/failoverd/cluster/lease"
	"github.com/failoverd/failoverd/cluster/state"
	"github.com/failoverd/failoverd/internal/failpoint"
)

// leaderLoop leads whenever this node is the leader, one leadership after another.
func (n *Node) leaderLoop(ctx context.Context, leaderships <-chan Leadership) {
	for {
		select {
		case <-ctx.Done():
			return
		case l, ok := <-leaderships:
			if !ok {
				return
			}
			n.leadOnce(ctx, l)
		}
	}
}

// leadOnce leads until the leadership's context ends; all memory goes with it.
func (n *Node) leadOnce(ctx context.Context, l Leadership) {
	led := &leadership{Leadership: l, ev: evidence.New(l.Term, n.Voter.View().Index, n.Clock.Now()), since: n.Clock.Now()}
	n.lead.Store(led)
	defer n.lead.Store(nil)
	n.Log.Info("leading", "term", l.Term)
	defer n.Log.Info("no longer leading", "term", l.Term)
	for l.Ctx.Err() == nil && ctx.Err() == nil {
		st := n.Voter.View()
		if st.Cluster.ID == "" {
			n.found(l.Ctx, st)
			st = n.Voter.View()
		}
		p := decide.Leader(n.leaderView(led, st))
		led.plan.Store(&p)
		n.doSteps(led, st, p)
		n.deaf(led, st, n.configuration())
		if !n.rest(ctx, l.Ctx, p) {
			return
		}
	}
}

// rest waits for news or for the time that the plan named.
func (n *Node) rest(ctx, led context.Context, p decide.Plan) bool {
	wait := lookInterval
	if p.Wake > 0 && p.Wake < wait {
		wait = p.Wake
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-led.Done():
		return false
	case <-n.stir:
	case <-t.C:
	}
	return true
}

// found gives a new cluster its first nodes and then, when all are known, its
// identity and its key: a cluster with an identity has its founders.
func (n *Node) found(ctx context.Context, st *state.State) {
	limited, cancel := context.WithTimeout(ctx, proposeLimit)
	defer cancel()
	err := n.foundSteps(limited, st)
	if err == nil {
		n.notice("found", "")
		return
	}
	if ctx.Err() == nil {
		n.notice("found", "cannot found the cluster yet: "+err.Error())
		n.pauseAfterFailure(ctx)
	}
}

func (n *Node) foundSteps(ctx context.Context, st *state.State) error {
	for _, f := range n.Founders {
		if st.Nodes[f.Node] != nil {
			continue
		}
		cmd := state.SetNode{Node: f.Node, Role: f.Role, Address: f.Address, Birth: f.Birth, Stamp: n.stamp("", "founded with the cluster")}
		if _, err := n.commit(ctx, cmd); err != nil {
			return fmt.Errorf("record founder %s: %w", f.Node, err)
		}
	}
	failpoint.Here("found.nodes")
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("draw a key: %w", err)
	}
	failpoint.Here("found.key")
	_, err := n.commit(ctx, state.Found{ID: n.ClusterID, Key: key, Stamp: n.stamp("", "first start of the cluster")})
	return err
}

// configuration is the voters of the latest Raft configuration.
func (n *Node) configuration() lease.Configuration {
	var voters []string
	for _, s := range n.consensus().Servers() {
		if s.Votes {
			voters = append(voters, s.Name)
		}
	}
	return lease.NewConfiguration(voters)
}

// leaderView gathers what this leader knows.
func (n *Node) leaderView(led *leadership, st *state.State) decide.LeaderView {
	c := n.configuration()
	now := n.Clock.Now()
	v := decide.LeaderView{
		State: st, Self: n.Self, Term: led.Term, Voters: c.Voters,
		Sessions: map[uint64]decide.SessionView{},
		Sights:   n.Gossip.Sights(),
		Moves:    led.ev.Moves(now),
		Pauses:   led.ev.Pauses(st, now),
		Unable:   n.unable(),
	}
	v.Unstarted, v.Unended = led.ev.Idle(st, now, n.begunWith)
	for id, s := range st.Sessions {
		if s.Status == state.SessionEnded {
			continue
		}
		asked := n.Clock.Now()
		if age, standing := n.Voter.Age(id); standing != lease.StandingNone {
			// The clock is read after the age was taken: read before, a stall in
			// between would make the last renewal look earlier than it was.
			led.ev.HeardAge(s, n.Self, age, standing == lease.StandingClosed, asked, n.Clock.Now())
		}
		v.Sessions[id] = led.ev.Session(s, c, n.Clock.Now(), decide.SessionView{})
	}
	return v
}

// HeardAge is called when a voter has answered a question about a session, which
// was sent at asked; the answer was received at at.
func (n *Node) HeardAge(voter string, session uint64, age time.Duration, standing lease.Standing, asked, at clock.Reading) {
	led := n.lead.Load()
	if led == nil || standing == lease.StandingNone {
		return
	}
	s := n.Voter.View().Sessions[session]
	if s == nil {
		return
	}
	led.ev.HeardAge(s, voter, age, standing == lease.StandingClosed, asked, at)
	signal(n.stir)
}

// doSteps does what decide named. Entries about different things are proposed
// side by side; the loop looks again when all are answered.
func (n *Node) doSteps(led *leadership, st *state.State, p decide.Plan) {
	var wg sync.WaitGroup
	keep := map[string]bool{}
	for _, s := range p.Steps {
		switch s.Kind {
		case decide.StepAskAges:
			if led.ev.MayAsk(s.Session, n.Clock.Now()) {
				failpoint.Here("leader.ages.before")
				n.Renewals.AskAges(s.Session)
			}
		case decide.StepConfirmClosed:
			if led.ev.MayAsk(s.Session, n.Clock.Now()) {
				failpoint.Here("leader.confirm.before")
				n.Renewals.ConfirmClosed(s.Session)
			}
		case decide.StepPrepare:
			keep[s.Service] = true
			n.prepareMove(led, st, s)
		case decide.StepCommit:
			wg.Go(func() { n.commitStep(led, s) })
		}
	}
	wg.Wait()
	led.ev.Prune(st, keep)
}

// commitStep proposes one entry of a plan. What fails is named again by the next plan.
func (n *Node) commitStep(led *leadership, s decide.Step) {
	ctx, cancel := context.WithTimeout(led.Ctx, proposeLimit)
	defer cancel()
	cmd := n.stamped(s.Command)
	started := n.Clock.Now()
	atCommit(cmd)
	res, err := n.consensus().Propose(ctx, cmd)
	atCommitted(cmd)
	took := clock.Longer(started, n.Clock.Now())
	switch {
	case err != nil:
		n.Log.Warn("decided, but not committed", "what", cmd.Kind(), "why", s.Why, "err", err)
		n.pauseAfterFailure(led.Ctx)
		signal(n.stir) // look again soon: this may be all that a take-over waits for
	case res.Refused != nil:
		n.Log.Warn("decided, but refused", "what", cmd.Kind(), "why", s.Why, "refused", res.Refused.Why)
		n.pauseAfterFailure(led.Ctx)
	default:
		n.spread(led)
		n.Log.Info("decided", "what", cmd.Kind(), "service", s.Service, "node", s.Node, "why", s.Why, "took", took)
	}
}

// spread makes the followers learn of a commit at once: raft tells them with
// its next entry, and a barrier is one.
func (n *Node) spread(led *leadership) {
	n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(led.Ctx, proposeLimit)
		defer cancel()
		if err := n.consensus().Barrier(ctx); err != nil {
			n.Log.Debug("followers learn of the commit a little later", "err", err)
		}
	})
}

// stamped puts the proposer and the time on a command that decide made.
func (n *Node) stamped(cmd state.Command) state.Command {
	fill := func(s *state.Stamp) {
		s.At = time.Now().UnixMilli()
		if s.By == "" {
			s.By = n.Self
		}
	}
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

// prepareMove asks the candidate once to prepare; the answer is looked at in
// the next plan.
func (n *Node) prepareMove(led *leadership, st *state.State, s decide.Step) {
	node := st.Nodes[s.Node]
	if node == nil || !led.ev.BeginMove(s.Service, s.Node, n.Clock.Now()) {
		return
	}
	n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(led.Ctx, decide.PrepareLimit)
		defer cancel()
		failpoint.Here("leader.prepare.before")
		failed := ""
		if err := n.prepareAt(ctx, node, s.Service); err != nil {
			failed = err.Error()
		}
		failpoint.Here("leader.prepared")
		led.ev.EndMove(s.Service, s.Node, failed)
		signal(n.stir)
	})
}

func (n *Node) prepareAt(ctx context.Context, node *state.Node, service string) error {
	if node.Name == n.Self {
		return n.Prepare(ctx, service)
	}
	peer, err := n.Peers.Peer(node.Address)
	if err != nil {
		return fmt.Errorf("reach %s: %w", node.Name, err)
	}
	return peer.Prepare(ctx, service)
}

func sortedNames[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}
