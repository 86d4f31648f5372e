package rpc

import (
	"context"
	"crypto/tls"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// Client asks one node as an operator does. It implements cluster.Operator.
type Client struct {
	operatorClient
	conn *conn
}

var _ cluster.Operator = (*Client)(nil)

// Dial prepares a Client for unix:///path or host:port. It does not connect
// yet: the first call does, and fails with ErrUnreachable and the cause when
// nobody listens. tlsConfig nil means no TLS; a socket never uses it.
func Dial(target string, tlsConfig *tls.Config) (*Client, error) {
	c, err := newConn(target, tlsConfig, false)
	if err != nil {
		return nil, err
	}
	return &Client{conn: c, operatorClient: operatorClient{dial: func() (*conn, error) { return c, nil }}}, nil
}

// Close ends the connection and every call on it.
func (c *Client) Close() error { return c.conn.close() }

// operatorClient is cluster.Operator over whatever connection dial gives.
type operatorClient struct {
	dial func() (*conn, error)
}

func ask[Req proto.Message, Resp, Out any](
	ctx context.Context, c operatorClient, e effort,
	method func(failoverv1.OperatorServiceClient, context.Context, Req, ...grpc.CallOption) (Resp, error),
	request Req, out func(Resp) Out,
) (Out, error) {
	return call(ctx, c.dial, e, failoverv1.NewOperatorServiceClient, method, request, out)
}

// nothing is the answer of a call that has none.
func nothing[Resp any](Resp) struct{} { return struct{}{} }

// The methods of cluster.Operator, as that interface describes them.

func (c operatorClient) Status(ctx context.Context) (cluster.Status, error) {
	return ask(ctx, c, reading, failoverv1.OperatorServiceClient.Status, &failoverv1.StatusRequest{},
		func(r *failoverv1.StatusResponse) cluster.Status { return statusFromWire(r.GetStatus()) })
}

func (c operatorClient) Explain(ctx context.Context, service, node string) (cluster.Explanation, error) {
	return ask(ctx, c, reading, failoverv1.OperatorServiceClient.Explain,
		&failoverv1.ExplainRequest{Service: service, Node: node}, explanationFromWire)
}

func (c operatorClient) History(ctx context.Context, q cluster.HistoryQuery) ([]state.Event, error) {
	return ask(ctx, c, reading, failoverv1.OperatorServiceClient.History,
		&failoverv1.HistoryRequest{Service: q.Service, Node: q.Node, Limit: int64(q.Limit)},
		func(r *failoverv1.HistoryResponse) []state.Event { return mapList(r.GetEvents(), eventFromWire) })
}

func (c operatorClient) Switchover(ctx context.Context, r cluster.SwitchoverRequest) (cluster.SwitchoverResult, error) {
	return ask(ctx, c, effort{changing: !r.DryRun, within: changing.within}, failoverv1.OperatorServiceClient.Switchover,
		&failoverv1.SwitchoverRequest{Service: r.Service, To: r.To, By: r.By, Why: r.Why, DryRun: r.DryRun},
		func(r *failoverv1.SwitchoverResponse) cluster.SwitchoverResult {
			return moveResultFromWire(r.GetResult())
		})
}

func (c operatorClient) Failover(ctx context.Context, r cluster.FailoverRequest) (cluster.SwitchoverResult, error) {
	return ask(ctx, c, changing, failoverv1.OperatorServiceClient.Failover,
		&failoverv1.FailoverRequest{Service: r.Service, To: r.To, Force: r.Force, By: r.By, Why: r.Why},
		func(r *failoverv1.FailoverResponse) cluster.SwitchoverResult {
			return moveResultFromWire(r.GetResult())
		})
}

func (c operatorClient) Pause(ctx context.Context, r cluster.PauseRequest) error {
	_, err := ask(ctx, c, changing, failoverv1.OperatorServiceClient.Pause,
		&failoverv1.PauseRequest{Service: r.Service, On: r.On, For: durationpb.New(r.For), By: r.By, Why: r.Why},
		nothing[*failoverv1.PauseResponse])
	return err
}

func (c operatorClient) Standby(ctx context.Context, r cluster.StandbyRequest) error {
	_, err := ask(ctx, c, changing, failoverv1.OperatorServiceClient.Standby,
		&failoverv1.StandbyRequest{Node: r.Node, On: r.On, By: r.By, Why: r.Why},
		nothing[*failoverv1.StandbyResponse])
	return err
}

func (c operatorClient) RestartNode(ctx context.Context, node, by, why string) error {
	_, err := ask(ctx, c, changing, failoverv1.OperatorServiceClient.RestartNode,
		&failoverv1.RestartNodeRequest{Node: node, By: by, Why: why},
		nothing[*failoverv1.RestartNodeResponse])
	return err
}

func (c operatorClient) Cleanup(ctx context.Context, service, node, by string) error {
	_, err := ask(ctx, c, changing, failoverv1.OperatorServiceClient.Cleanup,
		&failoverv1.CleanupRequest{Service: service, Node: node, By: by},
		nothing[*failoverv1.CleanupResponse])
	return err
}

func (c operatorClient) Members(ctx context.Context) ([]cluster.Member, error) {
	return ask(ctx, c, reading, failoverv1.OperatorServiceClient.Members, &failoverv1.MembersRequest{},
		func(r *failoverv1.MembersResponse) []cluster.Member { return mapList(r.GetMembers(), memberFromWire) })
}

func (c operatorClient) ChangeMember(ctx context.Context, r cluster.MemberRequest) error {
	_, err := ask(ctx, c, changing, failoverv1.OperatorServiceClient.ChangeMember,
		&failoverv1.ChangeMemberRequest{
			Action: r.Action, Node: r.Node, Address: r.Address, Role: string(r.Role), Replaces: r.Replaces, By: r.By, Why: r.Why,
		}, nothing[*failoverv1.ChangeMemberResponse])
	return err
}

func (c operatorClient) Apply(ctx context.Context, r cluster.ApplyRequest) (cluster.ApplyResult, error) {
	return ask(ctx, c, effort{changing: !r.DryRun, within: changing.within}, failoverv1.OperatorServiceClient.Apply, applyToWire(r),
		func(r *failoverv1.ApplyResponse) cluster.ApplyResult {
			return cluster.ApplyResult{Changes: list(r.GetChanges()), Index: r.GetIndex()}
		})
}

func (c operatorClient) Version(ctx context.Context) (cluster.Version, error) {
	return ask(ctx, c, reading, failoverv1.OperatorServiceClient.Version, &failoverv1.VersionRequest{},
		func(r *failoverv1.VersionResponse) cluster.Version {
			return cluster.Version{Node: r.GetNode(), Version: r.GetVersion(), Protocol: int(r.GetProtocol()), Go: r.GetGo()}
		})
}
