package rpc

import (
	"context"

	"google.golang.org/grpc/metadata"
)

// The request headers; operator.proto describes them.
const (
	headerLocal     = "failoverd-local"
	headerForwarded = "failoverd-forwarded"
)

type localKey struct{}
type forwardedKey struct{}

// WithLocal asks that reads under ctx are answered from the asked node's own
// view, without asking the leader.
func WithLocal(ctx context.Context) context.Context {
	return context.WithValue(ctx, localKey{}, true)
}

// IsLocal reports whether WithLocal was asked for, here or by the client.
func IsLocal(ctx context.Context) bool { return ctx.Value(localKey{}) != nil }

// withForwarded marks a call as passed on by this node: nobody passes it on again.
func withForwarded(ctx context.Context) context.Context {
	return context.WithValue(ctx, forwardedKey{}, true)
}

func isForwarded(ctx context.Context) bool { return ctx.Value(forwardedKey{}) != nil }

// toHeaders puts the marks of ctx into the headers of an outgoing call.
func toHeaders(ctx context.Context) context.Context {
	if IsLocal(ctx) {
		ctx = metadata.AppendToOutgoingContext(ctx, headerLocal, "1")
	}
	if isForwarded(ctx) {
		ctx = metadata.AppendToOutgoingContext(ctx, headerForwarded, "1")
	}
	return ctx
}

// fromHeaders takes the marks from the headers of an incoming call.
func fromHeaders(ctx context.Context) context.Context {
	if len(metadata.ValueFromIncomingContext(ctx, headerLocal)) > 0 {
		ctx = WithLocal(ctx)
	}
	if len(metadata.ValueFromIncomingContext(ctx, headerForwarded)) > 0 {
		ctx = withForwarded(ctx)
	}
	return ctx
}
