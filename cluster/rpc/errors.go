package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// ErrUnreachable: there is no connection to the node that was to be asked.
// A change that fails with it, and not with cluster.ErrUnknown, was never sent.
var ErrUnreachable = errors.New("cannot be reached")

// ErrClosed: the Client or the Peers were closed.
var ErrClosed = errors.New("closed")

// sentinels pairs each error of package cluster with its name on the wire.
// The first that an error matches gives the gRPC code, for foreign clients.
var sentinels = []struct {
	kind failoverv1.ErrorKind
	err  error
	code codes.Code
}{
	{failoverv1.ErrorKind_ERROR_KIND_REFUSED, cluster.ErrRefused, codes.FailedPrecondition},
	{failoverv1.ErrorKind_ERROR_KIND_INVALID, cluster.ErrInvalid, codes.InvalidArgument},
	{failoverv1.ErrorKind_ERROR_KIND_NOT_FOUND, cluster.ErrNotFound, codes.NotFound},
	{failoverv1.ErrorKind_ERROR_KIND_UNKNOWN, cluster.ErrUnknown, codes.Unknown},
	{failoverv1.ErrorKind_ERROR_KIND_TIMEOUT, cluster.ErrTimeout, codes.DeadlineExceeded},
	{failoverv1.ErrorKind_ERROR_KIND_NOT_LEADER, cluster.ErrNotLeader, codes.Unavailable},
	{failoverv1.ErrorKind_ERROR_KIND_NO_QUORUM, cluster.ErrNoQuorum, codes.Unavailable},
}

// maxStatusText bounds the text in the status line; the detail carries it whole.
const maxStatusText = 1024

// encodeError makes an error of an Operator or Peer a gRPC status with an
// ErrorDetail. A nil error stays nil.
func encodeError(err error) error {
	if err == nil {
		return nil
	}
	text := strings.ToValidUTF8(err.Error(), "\uFFFD")
	detail := &failoverv1.ErrorDetail{Text: text}
	code := codes.Unknown
	for _, s := range sentinels {
		if !matches(err, s.err) {
			continue
		}
		if len(detail.Kinds) == 0 {
			code = s.code
		}
		detail.Kinds = append(detail.Kinds, s.kind)
	}
	if len(detail.Kinds) == 0 && errors.Is(err, context.Canceled) {
		code = codes.Canceled
	}
	var refusal *state.Refusal
	if errors.As(err, &refusal) && refusal != nil {
		detail.Refusal = refusalToWire(refusal)
	}
	st, detailErr := status.New(code, cut(text, maxStatusText)).WithDetails(detail)
	if detailErr != nil { // only for code OK or a detail that cannot be encoded
		return status.Error(code, cut(text, maxStatusText))
	}
	return st.Err()
}

// matches is errors.Is, and counts the near relatives of a sentinel: a
// refusal of the state machine is refused, a passed deadline is a timeout.
func matches(err, sentinel error) bool {
	if errors.Is(err, sentinel) {
		return true
	}
	switch sentinel {
	case cluster.ErrRefused:
		var refusal *state.Refusal
		return errors.As(err, &refusal)
	case cluster.ErrTimeout:
		return errors.Is(err, context.DeadlineExceeded)
	}
	return false
}

// cut shortens text to at most n bytes at a rune's border.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// remoteError is an error that came over the wire: its text, and what it is.
type remoteError struct {
	text string
	is   []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.is }

// outcome is what is known of a call that failed.
type outcome struct {
	target   string // who was asked
	sent     bool   // the request may have left this process
	changing bool   // it could have changed something
	cause    error  // why there is no connection, nil if not known
}

// decodeError turns what a gRPC call gave into the error that the node meant,
// or into what a lost call means for the caller.
func decodeError(err error, o outcome) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok { // an error of this process, e.g. ErrClosed
		return err
	}
	for _, d := range st.Details() {
		if detail, ok := d.(*failoverv1.ErrorDetail); ok {
			return decodeDetail(detail)
		}
	}
	return transportError(st, o)
}

func decodeDetail(detail *failoverv1.ErrorDetail) error {
	e := &remoteError{text: detail.GetText()}
	for _, kind := range detail.GetKinds() {
		for _, s := range sentinels {
			if s.kind == kind {
				e.is = append(e.is, s.err)
			}
		}
	}
	if r := detail.GetRefusal(); r != nil {
		e.is = append(e.is, refusalFromWire(r))
	}
	return e
}

// causeText is why a connection could not be made, without the address, which
// the text has already.
func causeText(cause error) string {
	var op *net.OpError
	if errors.As(cause, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return cause.Error()
}

// transportError words a status that no node's code has sent.
func transportError(st *status.Status, o outcome) error {
	var is []error
	var text string
	switch st.Code() {
	case codes.DeadlineExceeded:
		is = append(is, cluster.ErrTimeout, context.DeadlineExceeded)
		text = fmt.Sprintf("%s did not answer in time", o.target)
	case codes.Canceled:
		is = append(is, context.Canceled)
		text = "the call was cancelled"
	case codes.Unimplemented:
		return &remoteError{text: fmt.Sprintf("%s does not know this request; its daemon may be of another version (see failoverctl version)", o.target)}
	case codes.ResourceExhausted:
		return &remoteError{text: fmt.Sprintf("%s would not take the request or its answer: %s", o.target, st.Message())}
	case codes.Unavailable:
		text = fmt.Sprintf("%s cannot be reached", o.target)
		switch {
		case o.cause != nil:
			is = append(is, o.cause)
			text += ": " + causeText(o.cause)
		case o.sent:
			text = fmt.Sprintf("the connection to %s broke: %s", o.target, st.Message())
		default: // the connection was made, and nothing came over it
			text += ": it takes connections but does not speak; its daemon is frozen, is no failoverd, or wants TLS"
		}
		if !o.sent || !o.changing {
			is = append(is, ErrUnreachable)
		}
	default:
		text = fmt.Sprintf("the call to %s failed: %s (%s)", o.target, st.Message(), st.Code())
	}
	switch {
	case !o.sent:
		if st.Code() != codes.Unavailable {
			is = append(is, ErrUnreachable)
			text += ": it was not reached"
			if o.cause != nil {
				is = append(is, o.cause)
				text += ": " + causeText(o.cause)
			}
		}
	case o.changing:
		is = append(is, cluster.ErrUnknown)
		text += "; the request was sent and its outcome is not known"
	}
	return &remoteError{text: text, is: is}
}
