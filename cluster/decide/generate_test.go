package decide

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/failoverd/failoverd/cluster/state"
)

var (
	nodesDrawn    = []string{"a", "b", "c", "d"}
	servicesDrawn = []string{"db", "erp", "web"}
)

const drawnTTL = 2 * time.Second

// drawState draws a state that the state machine has made.
func drawState(t *rapid.T) *state.State {
	st := state.New()
	apply := func(cmd state.Command) state.Result { return st.Apply(st.Index+1, 5, cmd) }
	apply(state.Found{ID: "x", Key: make([]byte, 32)})
	for i, n := range nodesDrawn {
		role := state.RoleVoter
		if n == "d" {
			role = rapid.SampledFrom([]state.Role{state.RoleVoter, state.RoleWitness, state.RoleMember}).Draw(t, "role")
		}
		apply(state.SetNode{Node: n, Role: role, Address: fmt.Sprintf("192.0.2.%d:7400", i+1)})
		apply(state.Started{Node: n, Nonce: uint64(i + 1), Birth: "data-" + n, BootID: "boot"})
	}
	apply(state.LeaderStart{Node: "a"})
	for range rapid.IntRange(5, 60).Draw(t, "commands") {
		apply(drawCommand(t, st))
	}
	if err := st.Check(); err != nil {
		t.Fatalf("the generator made a state that cannot be: %v", err)
	}
	return st
}

func drawNode(t *rapid.T) string { return rapid.SampledFrom(nodesDrawn).Draw(t, "node") }

func drawService(t *rapid.T) string { return rapid.SampledFrom(servicesDrawn).Draw(t, "service") }

// drawCommand draws a command that has a fair chance to be carried out.
func drawCommand(t *rapid.T, st *state.State) state.Command {
	by := state.Stamp{By: "ann", Why: "because"}
	node, name := drawNode(t), drawService(t)
	session := st.Nodes[node].Session
	svc := st.Services[name]
	var last uint64
	var open []state.Grant
	if svc != nil {
		last, open = svc.LastEpoch, svc.Unfinished()
	}
	switch rapid.IntRange(0, 14).Draw(t, "kind") {
	case 0, 1:
		boot := rapid.SampledFrom([]string{"boot", "boot-2"}).Draw(t, "boot")
		return state.OpenSession{Stamp: by, Node: node, BootID: boot, Replaces: session, TTL: drawnTTL, Kappa: 50 * time.Millisecond}
	case 2:
		return state.CloseSession{Stamp: by, Session: session}
	case 3:
		kind := rapid.SampledFrom([]state.ProofKind{state.ProofExpired, state.ProofVouched}).Draw(t, "proof")
		return state.EndSession{Stamp: by, Session: session, Proof: kind, Term: 5}
	case 4, 5, 6:
		return state.GrantService{Stamp: by, Service: name, Epoch: last + 1, Node: node, Session: session}
	case 7, 8:
		if len(open) > 0 {
			return state.HandOver{Stamp: by, Service: name, From: open[0].Epoch, FromNode: open[0].Node, Epoch: last + 1, ToNode: node, ToSession: session}
		}
	case 9:
		if len(open) > 0 {
			g := rapid.SampledFrom(open).Draw(t, "epoch")
			return state.Released{Stamp: by, Service: name, Epoch: g.Epoch, Node: g.Node}
		}
	case 10:
		if len(open) > 0 {
			return state.ReportFailure{Stamp: by, Service: name, Epoch: open[0].Epoch, Node: open[0].Node}
		}
	case 11:
		return state.SetStandby{Stamp: by, Node: node, On: rapid.Bool().Draw(t, "on")}
	case 12:
		to := rapid.SampledFrom(append([]string{""}, nodesDrawn...)).Draw(t, "to")
		return state.RequestMove{Stamp: by, Service: name, To: to}
	case 13:
		p := state.SetPause{Stamp: by, On: rapid.Bool().Draw(t, "on"), Until: rapid.Int64Range(0, 2000).Draw(t, "until")}
		if rapid.Bool().Draw(t, "one") {
			p.Service = name
		}
		return p
	}
	if svc != nil && rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
		return state.SetServices{Stamp: by, Remove: []string{name}}
	}
	spec := state.Spec{Name: name, Failback: rapid.Bool().Draw(t, "failback")}
	spec.Takeover = rapid.SampledFrom([]state.Takeover{state.TakeoverLease, state.TakeoverFence}).Draw(t, "takeover")
	if rapid.Bool().Draw(t, "prefers") {
		spec.Priorities = map[string]int{node: 5}
	}
	if rapid.IntRange(0, 3).Draw(t, "names") == 0 {
		spec.Nodes = []string{node}
	}
	return state.SetServices{Stamp: by, Services: []state.Spec{spec}}
}

// drawLeaderView draws what a leader might know of a state.
func drawLeaderView(t *rapid.T) LeaderView {
	st := drawState(t)
	v := LeaderView{
		State: st, Self: "a", Term: 5, Sessions: map[uint64]SessionView{}, Sights: map[string]Sight{},
		Moves: map[string]Preparation{}, Pauses: map[uint64]PauseView{}, Unable: map[string]map[string]string{},
	}
	if rapid.IntRange(0, 9).Draw(t, "old") == 0 {
		v.Term = 6
	}
	for _, n := range nodesDrawn {
		if st.Nodes[n].Role.Votes() {
			v.Voters = append(v.Voters, n)
		}
	}
	for _, id := range st.SessionIDs() {
		s := SessionView{Ages: map[string]time.Duration{}, Told: map[string]time.Duration{}}
		for _, n := range v.Voters {
			if rapid.IntRange(0, 4).Draw(t, "tells") > 0 {
				told := drawTime(t)
				s.Ages[n], s.Told[n] = told+drawTime(t), told
			}
		}
		if s.Opened = rapid.IntRange(0, 3).Draw(t, "opened") == 0; s.Opened {
			s.Since = drawTime(t)
		}
		s.Asked = drawTime(t)
		s.Goodbye = rapid.IntRange(0, 9).Draw(t, "goodbye") == 0
		s.DueKnown = rapid.Bool().Draw(t, "due known")
		s.Due = drawTime(t) - time.Second
		v.Sessions[id] = s
	}
	v.Unstarted, v.Unended = map[string]time.Duration{}, map[string]time.Duration{}
	for _, name := range servicesDrawn {
		if rapid.IntRange(0, 4).Draw(t, "unstarted") == 0 {
			v.Unstarted[name] = 3 * drawTime(t)
			v.Unended[name] = 3 * drawTime(t)
		}
		if rapid.Bool().Draw(t, "prepares") {
			p := Preparation{To: drawNode(t), Waited: 10 * drawTime(t)}
			if p.Done = rapid.Bool().Draw(t, "done"); !p.Done && rapid.Bool().Draw(t, "failed") {
				p.Failed = "no room"
			}
			v.Moves[name] = p
		}
		if rapid.IntRange(0, 9).Draw(t, "unable") == 0 {
			v.Unable[name] = map[string]string{drawNode(t): "no such interface"}
		}
	}
	return v
}

func drawTime(t *rapid.T) time.Duration {
	return rapid.SampledFrom([]time.Duration{0, 10 * time.Millisecond, 500 * time.Millisecond, 900 * time.Millisecond, 1700 * time.Millisecond, 3 * time.Second}).Draw(t, "time")
}

// drawMemberView draws what a node might know of itself: of its journal and its
// services anything that the node's own rules let come about.
func drawMemberView(t *rapid.T) MemberView {
	st := drawState(t)
	self := drawNode(t)
	v := MemberView{
		State: st, Self: self, Ready: rapid.IntRange(0, 4).Draw(t, "ready") > 0,
		Refused: rapid.IntRange(0, 5).Draw(t, "refused") == 0, Leaving: rapid.IntRange(0, 5).Draw(t, "leaving") == 0,
		Deaf: rapid.IntRange(0, 5).Draw(t, "deaf") == 0, Local: map[string]Local{}, Told: map[Told]bool{},
	}
	switch rapid.IntRange(0, 2).Draw(t, "lease") {
	case 0:
		v.Lease = true
	case 1:
		v.Lapsed = true
	}
	v.Session = st.Nodes[self].Session
	if rapid.IntRange(0, 4).Draw(t, "other session") == 0 {
		v.Session = rapid.Uint64Range(0, st.Index).Draw(t, "session")
	}
	for _, name := range servicesDrawn {
		drawRecords(t, &v, name)
		if svc := st.Services[name]; svc != nil {
			for _, g := range svc.Grants {
				if g.Kind == state.KindHandOver && rapid.Bool().Draw(t, "told") {
					index := g.Index - uint64(rapid.IntRange(0, 1).Draw(t, "wrong"))
					v.Told[Told{Service: name, From: g.From, Epoch: g.Epoch, Index: index}] = true
				}
			}
		}
	}
	return v
}

// drawRecords draws a service's records, and what runs of it: something that has
// an active record, or something whose start is not journaled yet.
func drawRecords(t *rapid.T, v *MemberView, name string) {
	var last uint64
	if svc := v.State.Services[name]; svc != nil {
		last = svc.LastEpoch
	}
	if last == 0 && v.Ready {
		return // what was ever begun is in the state of a node that is ready
	}
	most := last
	if !v.Ready {
		most++
	}
	epochs := rapid.SliceOfNDistinct(rapid.Uint64Range(1, most), 0, 2, rapid.ID[uint64]).Draw(t, "records")
	slices.Sort(epochs)
	for _, e := range epochs {
		r := Record{Service: name, Epoch: e, Session: v.Session, SameBoot: true, Releasing: rapid.Bool().Draw(t, "releasing")}
		if rapid.IntRange(0, 3).Draw(t, "foreign") == 0 {
			r.SameBoot = rapid.Bool().Draw(t, "same boot")
			r.Session = rapid.Uint64Range(1, v.State.Index).Draw(t, "of session")
		}
		v.Records = append(v.Records, r)
	}
	phases := []Phase{PhaseStopped, PhaseStarting, PhaseRunning, PhaseStopping, PhaseUnknown}
	if rapid.Bool().Draw(t, "local") {
		l := Local{Phase: rapid.SampledFrom(phases).Draw(t, "phase"), Epoch: rapid.Uint64Range(0, last+1).Draw(t, "epoch")}
		if l.Phase == PhaseStopped && rapid.IntRange(0, 3).Draw(t, "failed") == 0 {
			l.Failed, l.Reported = "exit status 3", rapid.Bool().Draw(t, "reported")
		}
		v.Local[name] = l
	}
}
