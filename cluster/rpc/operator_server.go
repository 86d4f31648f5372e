package rpc

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// operatorServer answers OperatorService with a cluster.Operator. Errors are
// encoded by the interceptors.
type operatorServer struct {
	failoverv1.UnimplementedOperatorServiceServer
	op      cluster.Operator
	quit    <-chan struct{}
	senders *sync.WaitGroup
	log     *slog.Logger
	slow    time.Duration // watchSlow
}

func (s *operatorServer) Status(ctx context.Context, _ *failoverv1.StatusRequest) (*failoverv1.StatusResponse, error) {
	st, err := s.op.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &failoverv1.StatusResponse{Status: statusToWire(st)}, nil
}

func (s *operatorServer) Explain(ctx context.Context, r *failoverv1.ExplainRequest) (*failoverv1.ExplainResponse, error) {
	e, err := s.op.Explain(ctx, r.GetService(), r.GetNode())
	if err != nil {
		return nil, err
	}
	return explanationToWire(e), nil
}

func (s *operatorServer) History(ctx context.Context, r *failoverv1.HistoryRequest) (*failoverv1.HistoryResponse, error) {
	events, err := s.op.History(ctx, cluster.HistoryQuery{Service: r.GetService(), Node: r.GetNode(), Limit: int(r.GetLimit())})
	if err != nil {
		return nil, err
	}
	return &failoverv1.HistoryResponse{Events: mapList(events, eventToWire)}, nil
}

func (s *operatorServer) Switchover(ctx context.Context, r *failoverv1.SwitchoverRequest) (*failoverv1.SwitchoverResponse, error) {
	result, err := s.op.Switchover(ctx, cluster.SwitchoverRequest{
		Service: r.GetService(), To: r.GetTo(), By: r.GetBy(), Why: r.GetWhy(), DryRun: r.GetDryRun(),
	})
	if err != nil {
		return nil, err
	}
	return &failoverv1.SwitchoverResponse{Result: moveResultToWire(result)}, nil
}

func (s *operatorServer) Failover(ctx context.Context, r *failoverv1.FailoverRequest) (*failoverv1.FailoverResponse, error) {
	result, err := s.op.Failover(ctx, cluster.FailoverRequest{
		Service: r.GetService(), To: r.GetTo(), Force: r.GetForce(), By: r.GetBy(), Why: r.GetWhy(),
	})
	if err != nil {
		return nil, err
	}
	return &failoverv1.FailoverResponse{Result: moveResultToWire(result)}, nil
}

func (s *operatorServer) Pause(ctx context.Context, r *failoverv1.PauseRequest) (*failoverv1.PauseResponse, error) {
	return &failoverv1.PauseResponse{}, s.op.Pause(ctx, cluster.PauseRequest{
		Service: r.GetService(), On: r.GetOn(), For: r.GetFor().AsDuration(), By: r.GetBy(), Why: r.GetWhy(),
	})
}

func (s *operatorServer) Standby(ctx context.Context, r *failoverv1.StandbyRequest) (*failoverv1.StandbyResponse, error) {
	return &failoverv1.StandbyResponse{}, s.op.Standby(ctx, cluster.StandbyRequest{
		Node: r.GetNode(), On: r.GetOn(), By: r.GetBy(), Why: r.GetWhy(),
	})
}

func (s *operatorServer) RestartNode(ctx context.Context, r *failoverv1.RestartNodeRequest) (*failoverv1.RestartNodeResponse, error) {
	return &failoverv1.RestartNodeResponse{}, s.op.RestartNode(ctx, r.GetNode(), r.GetBy(), r.GetWhy())
}

func (s *operatorServer) Cleanup(ctx context.Context, r *failoverv1.CleanupRequest) (*failoverv1.CleanupResponse, error) {
	return &failoverv1.CleanupResponse{}, s.op.Cleanup(ctx, r.GetService(), r.GetNode(), r.GetBy())
}

func (s *operatorServer) Members(ctx context.Context, _ *failoverv1.MembersRequest) (*failoverv1.MembersResponse, error) {
	members, err := s.op.Members(ctx)
	if err != nil {
		return nil, err
	}
	return &failoverv1.MembersResponse{Members: mapList(members, memberToWire)}, nil
}

func (s *operatorServer) ChangeMember(ctx context.Context, r *failoverv1.ChangeMemberRequest) (*failoverv1.ChangeMemberResponse, error) {
	return &failoverv1.ChangeMemberResponse{}, s.op.ChangeMember(ctx, cluster.MemberRequest{
		Action: r.GetAction(), Node: r.GetNode(), Address: r.GetAddress(), Role: state.Role(r.GetRole()),
		Replaces: r.GetReplaces(), By: r.GetBy(), Why: r.GetWhy(),
	})
}

func (s *operatorServer) Apply(ctx context.Context, r *failoverv1.ApplyRequest) (*failoverv1.ApplyResponse, error) {
	result, err := s.op.Apply(ctx, applyFromWire(r))
	if err != nil {
		return nil, err
	}
	return &failoverv1.ApplyResponse{Changes: result.Changes, Index: result.Index}, nil
}

func (s *operatorServer) Version(ctx context.Context, _ *failoverv1.VersionRequest) (*failoverv1.VersionResponse, error) {
	v, err := s.op.Version(ctx)
	if err != nil {
		return nil, err
	}
	return &failoverv1.VersionResponse{Node: v.Node, Version: v.Version, Protocol: int64(v.Protocol), Go: v.Go}, nil
}
