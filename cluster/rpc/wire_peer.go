package rpc

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

func identityToWire(i cluster.Identity) *failoverv1.IdentityResponse {
	return &failoverv1.IdentityResponse{
		Node: i.Node, Role: string(i.Role), Address: i.Address, Peers: i.Peers, Birth: i.Birth, Cluster: i.Cluster,
		Founders: mapList(i.Founders, func(f cluster.Founder) *failoverv1.Founder {
			return &failoverv1.Founder{Node: f.Node, Role: string(f.Role), Address: f.Address, Birth: f.Birth}
		}),
		Version: i.Version,
	}
}

func identityFromWire(i *failoverv1.IdentityResponse) cluster.Identity {
	return cluster.Identity{
		Node: i.GetNode(), Role: state.Role(i.GetRole()), Address: i.GetAddress(), Peers: list(i.GetPeers()),
		Birth: i.GetBirth(), Cluster: i.GetCluster(),
		Founders: mapList(i.GetFounders(), func(f *failoverv1.Founder) cluster.Founder {
			return cluster.Founder{Node: f.GetNode(), Role: state.Role(f.GetRole()), Address: f.GetAddress(), Birth: f.GetBirth()}
		}),
		Version: i.GetVersion(),
	}
}

func resultToWire(r state.Result) *failoverv1.ProposeResponse {
	return &failoverv1.ProposeResponse{Index: r.Index, Session: r.Session, Epoch: r.Epoch, Refused: refusalToWire(r.Refused)}
}

func resultFromWire(r *failoverv1.ProposeResponse) state.Result {
	return state.Result{Index: r.GetIndex(), Session: r.GetSession(), Epoch: r.GetEpoch(), Refused: refusalFromWire(r.GetRefused())}
}

func stoppedToWire(m cluster.Stopped) *failoverv1.StoppedRequest {
	return &failoverv1.StoppedRequest{Service: m.Service, From: m.From, Epoch: m.Epoch, Index: m.Index, Node: m.Node}
}

func stoppedFromWire(m *failoverv1.StoppedRequest) cluster.Stopped {
	return cluster.Stopped{Service: m.GetService(), From: m.GetFrom(), Epoch: m.GetEpoch(), Index: m.GetIndex(), Node: m.GetNode()}
}

func reportToWire(r cluster.Report) *failoverv1.ReportResponse {
	return &failoverv1.ReportResponse{
		Node: r.Node, Index: r.Index, Ready: r.Ready, Session: r.Session, LeaseLeft: durationpb.New(r.LeaseLeft),
		Services: mapList(r.Services, serviceReportToWire), Alarms: r.Alarms, Version: r.Version, Macs: r.MACs, Cluster: r.Cluster,
	}
}

func reportFromWire(r *failoverv1.ReportResponse) cluster.Report {
	return cluster.Report{
		Node: r.GetNode(), Index: r.GetIndex(), Ready: r.GetReady(), Session: r.GetSession(), LeaseLeft: unknownable(r.GetLeaseLeft()),
		Services: mapList(r.GetServices(), serviceReportFromWire), Alarms: list(r.GetAlarms()), Version: r.GetVersion(),
		MACs: list(r.GetMacs()), Cluster: r.GetCluster(),
	}
}

func serviceReportToWire(s cluster.ServiceReport) *failoverv1.ServiceReport {
	return &failoverv1.ServiceReport{
		Name: s.Name, Epoch: s.Epoch, State: s.State, Since: timeToWire(s.Since), Guarantee: s.Guarantee,
		Resources: mapList(s.Resources, resourceStatusToWire), Unable: s.Unable,
	}
}

func serviceReportFromWire(s *failoverv1.ServiceReport) cluster.ServiceReport {
	return cluster.ServiceReport{
		Name: s.GetName(), Epoch: s.GetEpoch(), State: s.GetState(), Since: timeFromWire(s.GetSince()), Guarantee: list(s.GetGuarantee()),
		Resources: mapList(s.GetResources(), resourceStatusFromWire), Unable: s.GetUnable(),
	}
}
