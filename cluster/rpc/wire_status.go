package rpc

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

func refusalToWire(r *state.Refusal) *failoverv1.Refusal {
	if r == nil {
		return nil
	}
	return &failoverv1.Refusal{Code: r.Code, Why: r.Why}
}

func refusalFromWire(r *failoverv1.Refusal) *state.Refusal {
	if r == nil {
		return nil
	}
	return &state.Refusal{Code: r.GetCode(), Why: r.GetWhy()}
}

func markToWire(m *state.Mark) *failoverv1.Mark {
	if m == nil {
		return nil
	}
	return &failoverv1.Mark{By: m.By, Reason: m.Reason, At: millisToWire(m.At), Until: millisToWire(m.Until), Index: m.Index}
}

func markFromWire(m *failoverv1.Mark) *state.Mark {
	if m == nil {
		return nil
	}
	return &state.Mark{
		By: m.GetBy(), Reason: m.GetReason(),
		At: millisFromWire(m.GetAt()), Until: millisFromWire(m.GetUntil()), Index: m.GetIndex(),
	}
}

func eventToWire(e state.Event) *failoverv1.Event {
	return &failoverv1.Event{
		Index: e.Index, At: millisToWire(e.At), Kind: e.Kind, Service: e.Service, Node: e.Node,
		Session: e.Session, Epoch: e.Epoch, By: e.By, Why: e.Why,
	}
}

func eventFromWire(e *failoverv1.Event) state.Event {
	return state.Event{
		Index: e.GetIndex(), At: millisFromWire(e.GetAt()), Kind: e.GetKind(), Service: e.GetService(), Node: e.GetNode(),
		Session: e.GetSession(), Epoch: e.GetEpoch(), By: e.GetBy(), Why: e.GetWhy(),
	}
}

func moveToWire(m *state.Move) *failoverv1.Move {
	if m == nil {
		return nil
	}
	return &failoverv1.Move{To: m.To, By: m.By, Why: m.Why, Index: m.Index, At: millisToWire(m.At)}
}

func moveFromWire(m *failoverv1.Move) *state.Move {
	if m == nil {
		return nil
	}
	return &state.Move{To: m.GetTo(), By: m.GetBy(), Why: m.GetWhy(), Index: m.GetIndex(), At: millisFromWire(m.GetAt())}
}

func failureToWire(f state.Failure) *failoverv1.Failure {
	return &failoverv1.Failure{Node: f.Node, Epoch: f.Epoch, Why: f.Why, Index: f.Index, At: millisToWire(f.At)}
}

func failureFromWire(f *failoverv1.Failure) state.Failure {
	return state.Failure{Node: f.GetNode(), Epoch: f.GetEpoch(), Why: f.GetWhy(), Index: f.GetIndex(), At: millisFromWire(f.GetAt())}
}

func statusToWire(s cluster.Status) *failoverv1.Status {
	return &failoverv1.Status{
		Cluster: s.Cluster, Node: s.Node, Waiting: s.Waiting, Leader: s.Leader, Term: s.Term, Index: s.Index,
		Quorum: s.Quorum, Voters: int64(s.Voters), VotersUp: int64(s.VotersUp),
		Age: durationpb.New(s.Age), At: timeToWire(s.At), Paused: markToWire(s.Paused),
		Services: mapList(s.Services, serviceToWire),
		Nodes:    mapList(s.Nodes, nodeToWire),
		Alarms:   s.Alarms,
	}
}

func statusFromWire(s *failoverv1.Status) cluster.Status {
	return cluster.Status{
		Cluster: s.GetCluster(), Node: s.GetNode(), Waiting: s.GetWaiting(), Leader: s.GetLeader(), Term: s.GetTerm(), Index: s.GetIndex(),
		Quorum: s.GetQuorum(), Voters: int(s.GetVoters()), VotersUp: int(s.GetVotersUp()),
		Age: s.GetAge().AsDuration(), At: timeFromWire(s.GetAt()), Paused: markFromWire(s.GetPaused()),
		Services: mapList(s.GetServices(), serviceFromWire),
		Nodes:    mapList(s.GetNodes(), nodeFromWire),
		Alarms:   list(s.GetAlarms()),
	}
}

func serviceToWire(s cluster.ServiceStatus) *failoverv1.ServiceStatus {
	out := &failoverv1.ServiceStatus{
		Name: s.Name, Holder: s.Holder, Epoch: s.Epoch, State: s.State,
		LeaseLeft: durationpb.New(s.LeaseLeft), Since: timeToWire(s.Since),
		Guarantee: s.Guarantee, Kappa: durationpb.New(s.Kappa), Takeover: string(s.Takeover),
		Resources:  mapList(s.Resources, resourceStatusToWire),
		Candidates: mapList(s.Candidates, candidateToWire),
		Paused:     markToWire(s.Paused), Move: moveToWire(s.Move),
		Failures: mapList(s.Failures, failureToWire),
		Next:     s.Next,
	}
	if s.Last != nil {
		out.Last = eventToWire(*s.Last)
	}
	return out
}

func serviceFromWire(s *failoverv1.ServiceStatus) cluster.ServiceStatus {
	out := cluster.ServiceStatus{
		Name: s.GetName(), Holder: s.GetHolder(), Epoch: s.GetEpoch(), State: s.GetState(),
		LeaseLeft: unknownable(s.GetLeaseLeft()), Since: timeFromWire(s.GetSince()),
		Guarantee: list(s.GetGuarantee()), Kappa: s.GetKappa().AsDuration(), Takeover: state.Takeover(s.GetTakeover()),
		Resources:  mapList(s.GetResources(), resourceStatusFromWire),
		Candidates: mapList(s.GetCandidates(), candidateFromWire),
		Paused:     markFromWire(s.GetPaused()), Move: moveFromWire(s.GetMove()),
		Failures: mapList(s.GetFailures(), failureFromWire),
		Next:     s.GetNext(),
	}
	if s.GetLast() != nil {
		last := eventFromWire(s.GetLast())
		out.Last = &last
	}
	return out
}

func resourceStatusToWire(r cluster.ResourceStatus) *failoverv1.ResourceStatus {
	return &failoverv1.ResourceStatus{Name: r.Name, Kind: r.Kind, State: r.State, Text: r.Text}
}

func resourceStatusFromWire(r *failoverv1.ResourceStatus) cluster.ResourceStatus {
	return cluster.ResourceStatus{Name: r.GetName(), Kind: r.GetKind(), State: r.GetState(), Text: r.GetText()}
}

func candidateToWire(c cluster.Candidate) *failoverv1.Candidate {
	return &failoverv1.Candidate{Node: c.Node, Can: c.Can, Why: c.Why, Priority: int64(c.Priority)}
}

func candidateFromWire(c *failoverv1.Candidate) cluster.Candidate {
	return cluster.Candidate{Node: c.GetNode(), Can: c.GetCan(), Why: c.GetWhy(), Priority: int(c.GetPriority())}
}

func nodeToWire(n cluster.NodeStatus) *failoverv1.NodeStatus {
	return &failoverv1.NodeStatus{
		Name: n.Name, Role: string(n.Role), Address: n.Address, Alive: n.Alive, Ready: n.Ready, Leader: n.Leader,
		Session: n.Session, SessionState: n.SessionState, Renewed: durationpb.New(n.Renewed), Version: n.Version,
		Standby: markToWire(n.Standby), ConfigDiffers: n.ConfigDiffers, Holds: n.Holds, Alarms: n.Alarms,
	}
}

func nodeFromWire(n *failoverv1.NodeStatus) cluster.NodeStatus {
	return cluster.NodeStatus{
		Name: n.GetName(), Role: state.Role(n.GetRole()), Address: n.GetAddress(), Alive: n.GetAlive(), Ready: n.GetReady(), Leader: n.GetLeader(),
		Session: n.GetSession(), SessionState: n.GetSessionState(), Renewed: unknownable(n.GetRenewed()), Version: n.GetVersion(),
		Standby: markFromWire(n.GetStandby()), ConfigDiffers: n.GetConfigDiffers(), Holds: list(n.GetHolds()), Alarms: list(n.GetAlarms()),
	}
}

func explanationToWire(e cluster.Explanation) *failoverv1.ExplainResponse {
	return &failoverv1.ExplainResponse{
		Service: e.Service, Node: e.Node, Lines: e.Lines,
		Candidates: mapList(e.Candidates, candidateToWire),
		History:    mapList(e.History, eventToWire),
	}
}

func explanationFromWire(e *failoverv1.ExplainResponse) cluster.Explanation {
	return cluster.Explanation{
		Service: e.GetService(), Node: e.GetNode(), Lines: list(e.GetLines()),
		Candidates: mapList(e.GetCandidates(), candidateFromWire),
		History:    mapList(e.GetHistory(), eventFromWire),
	}
}

func memberToWire(m cluster.Member) *failoverv1.Member {
	return &failoverv1.Member{
		Name: m.Name, Address: m.Address, Role: string(m.Role), Vote: m.Vote,
		Alive: m.Alive, Waiting: m.Waiting, Birth: m.Birth,
	}
}

func memberFromWire(m *failoverv1.Member) cluster.Member {
	return cluster.Member{
		Name: m.GetName(), Address: m.GetAddress(), Role: state.Role(m.GetRole()), Vote: m.GetVote(),
		Alive: m.GetAlive(), Waiting: m.GetWaiting(), Birth: m.GetBirth(),
	}
}
