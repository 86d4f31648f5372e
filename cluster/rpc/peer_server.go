package rpc

import (
	"context"
	"fmt"

	"github.com/failoverd/failoverd/cluster"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// peerServer answers PeerService with a cluster.Peer. Errors are encoded by
// the interceptors.
type peerServer struct {
	failoverv1.UnimplementedPeerServiceServer
	peer  cluster.Peer
	codec Codec
}

func (s *peerServer) Identity(ctx context.Context, _ *failoverv1.IdentityRequest) (*failoverv1.IdentityResponse, error) {
	i, err := s.peer.Identity(ctx)
	if err != nil {
		return nil, err
	}
	return identityToWire(i), nil
}

func (s *peerServer) Propose(ctx context.Context, r *failoverv1.ProposeRequest) (*failoverv1.ProposeResponse, error) {
	cmd, err := s.codec.Decode(r.GetCommand())
	if err != nil {
		return nil, fmt.Errorf("read the proposed command: %w: %w", err, cluster.ErrInvalid)
	}
	result, err := s.peer.Propose(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return resultToWire(result), nil
}

func (s *peerServer) Stopped(ctx context.Context, r *failoverv1.StoppedRequest) (*failoverv1.StoppedResponse, error) {
	return &failoverv1.StoppedResponse{}, s.peer.Stopped(ctx, stoppedFromWire(r))
}

func (s *peerServer) Prepare(ctx context.Context, r *failoverv1.PrepareRequest) (*failoverv1.PrepareResponse, error) {
	return &failoverv1.PrepareResponse{}, s.peer.Prepare(ctx, r.GetService())
}

func (s *peerServer) Report(ctx context.Context, _ *failoverv1.ReportRequest) (*failoverv1.ReportResponse, error) {
	r, err := s.peer.Report(ctx)
	if err != nil {
		return nil, err
	}
	return reportToWire(r), nil
}

func (s *peerServer) Restart(ctx context.Context, r *failoverv1.RestartRequest) (*failoverv1.RestartResponse, error) {
	return &failoverv1.RestartResponse{}, s.peer.Restart(ctx, r.GetBy(), r.GetWhy())
}

func (s *peerServer) Goodbye(ctx context.Context, r *failoverv1.GoodbyeRequest) (*failoverv1.GoodbyeResponse, error) {
	return &failoverv1.GoodbyeResponse{}, s.peer.Goodbye(ctx, r.GetNode(), r.GetSession())
}
