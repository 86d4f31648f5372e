package rpc

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// A spec must arrive as it was written: a list that was absent stays absent,
// so that a node which compares it with what is in force sees no difference.

func specToWire(s state.Spec) *failoverv1.Spec {
	out := &failoverv1.Spec{
		Name: s.Name, Takeover: string(s.Takeover), Nodes: s.Nodes, Failback: s.Failback,
		Resources: mapList(s.Resources, resourceToWire),
	}
	if len(s.Priorities) > 0 {
		out.Priorities = make(map[string]int64, len(s.Priorities))
		for node, priority := range s.Priorities {
			out.Priorities[node] = int64(priority)
		}
	}
	return out
}

func specFromWire(s *failoverv1.Spec) state.Spec {
	out := state.Spec{
		Name: s.GetName(), Takeover: state.Takeover(s.GetTakeover()), Nodes: s.GetNodes(), Failback: s.GetFailback(),
	}
	for _, r := range s.GetResources() {
		out.Resources = append(out.Resources, resourceFromWire(r))
	}
	if len(s.GetPriorities()) > 0 {
		out.Priorities = make(map[string]int, len(s.GetPriorities()))
		for node, priority := range s.GetPriorities() {
			out.Priorities[node] = int(priority)
		}
	}
	return out
}

func resourceToWire(r state.Resource) *failoverv1.Resource {
	out := &failoverv1.Resource{Kind: r.Kind, Name: r.Name}
	switch {
	case r.VIP != nil:
		out.Body = &failoverv1.Resource_Vip{Vip: &failoverv1.Vip{
			Address: r.VIP.Address, Interface: r.VIP.Interface, Prefix: r.VIP.Prefix,
		}}
	case r.Process != nil:
		p := r.Process
		out.Body = &failoverv1.Resource_Process{Process: &failoverv1.Process{
			Command: p.Command, Environment: p.Environment, Directory: p.Directory, User: p.User,
			StopSignal: p.StopSignal, StopTimeout: durationpb.New(p.StopTimeout),
			Ready: p.Ready, StartTimeout: durationpb.New(p.StartTimeout), Restarts: int64(p.Restarts),
		}}
	case r.Exec != nil:
		e := r.Exec
		out.Body = &failoverv1.Resource_Exec{Exec: &failoverv1.Exec{
			Start: e.Start, Stop: e.Stop, Status: e.Status,
			StartTimeout: durationpb.New(e.StartTimeout), StopTimeout: durationpb.New(e.StopTimeout),
			StatusTimeout: durationpb.New(e.StatusTimeout), Interval: durationpb.New(e.Interval),
		}}
	}
	return out
}

func resourceFromWire(r *failoverv1.Resource) state.Resource {
	out := state.Resource{Kind: r.GetKind(), Name: r.GetName()}
	switch body := r.GetBody().(type) {
	case *failoverv1.Resource_Vip:
		out.VIP = &state.VIP{
			Address: body.Vip.GetAddress(), Interface: body.Vip.GetInterface(), Prefix: body.Vip.GetPrefix(),
		}
	case *failoverv1.Resource_Process:
		p := body.Process
		out.Process = &state.Process{
			Command: p.GetCommand(), Environment: p.GetEnvironment(), Directory: p.GetDirectory(), User: p.GetUser(),
			StopSignal: p.GetStopSignal(), StopTimeout: p.GetStopTimeout().AsDuration(),
			Ready: p.GetReady(), StartTimeout: p.GetStartTimeout().AsDuration(), Restarts: int(p.GetRestarts()),
		}
	case *failoverv1.Resource_Exec:
		e := body.Exec
		out.Exec = &state.Exec{
			Start: e.GetStart(), Stop: e.GetStop(), Status: e.GetStatus(),
			StartTimeout: e.GetStartTimeout().AsDuration(), StopTimeout: e.GetStopTimeout().AsDuration(),
			StatusTimeout: e.GetStatusTimeout().AsDuration(), Interval: e.GetInterval().AsDuration(),
		}
	}
	return out
}

func applyToWire(r cluster.ApplyRequest) *failoverv1.ApplyRequest {
	return &failoverv1.ApplyRequest{
		Services: mapList(r.Services, specToWire), Prune: r.Prune, Yes: r.Yes, DryRun: r.DryRun, By: r.By, Why: r.Why,
	}
}

func applyFromWire(r *failoverv1.ApplyRequest) cluster.ApplyRequest {
	return cluster.ApplyRequest{
		Services: mapList(r.GetServices(), specFromWire),
		Prune:    r.GetPrune(), Yes: r.GetYes(), DryRun: r.GetDryRun(), By: r.GetBy(), Why: r.GetWhy(),
	}
}

func moveResultToWire(r cluster.SwitchoverResult) *failoverv1.SwitchoverResult {
	return &failoverv1.SwitchoverResult{
		Service: r.Service, From: r.From, To: r.To, Epoch: r.Epoch, Took: durationpb.New(r.Took), Steps: r.Steps,
	}
}

func moveResultFromWire(r *failoverv1.SwitchoverResult) cluster.SwitchoverResult {
	return cluster.SwitchoverResult{
		Service: r.GetService(), From: r.GetFrom(), To: r.GetTo(), Epoch: r.GetEpoch(),
		Took: r.GetTook().AsDuration(), Steps: list(r.GetSteps()),
	}
}
