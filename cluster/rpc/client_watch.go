package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// The client's times for streams.
const (
	// silence is how long a stream may say nothing before it counts as broken;
	// the server says something every watchBeat.
	silence = 5 * watchBeat
	// resumeFirst and resumeMost bound the wait before a broken stream is taken up again.
	resumeFirst = 100 * time.Millisecond
	resumeMost  = time.Second
)

// Follow says where a stream of events begins and who hears of its breaks.
type Follow struct {
	Query cluster.HistoryQuery // Limit is not used
	// Resume begins with the kept events after those in Seen, oldest first,
	// instead of with what happens from now on.
	Resume bool
	Seen   []state.Event
	// Broken, when set, hears each time why the stream broke, before it is
	// taken up again, and nil when it goes on.
	Broken func(error)
}

// Watch implements cluster.Operator: every event from now on, each once.
func (c operatorClient) Watch(ctx context.Context, q cluster.HistoryQuery, fn func(state.Event) error) error {
	return c.Follow(ctx, Follow{Query: q}, fn)
}

// Follow calls fn for every event, each once and in the log's order. A stream
// that breaks after it had begun is taken up again where it broke, until ctx
// ends, fn fails, or the node refuses. The error is ctx's, fn's or the node's.
func (c operatorClient) Follow(ctx context.Context, f Follow, fn func(state.Event) error) error {
	cur := cursorAfter(f.Seen)
	resume, begun := f.Resume, false
	wait := resumeFirst
	for {
		started, err := c.stream(ctx, f, resume, &cur, fn, func() {
			if begun && f.Broken != nil {
				f.Broken(nil)
			}
			begun = true
		})
		if started {
			resume, wait = true, resumeFirst
		}
		var mine callbackError
		switch {
		case errors.As(err, &mine):
			return mine.error
		case ctx.Err() != nil:
			return ctx.Err()
		case !begun || !resumable(err):
			return err
		}
		if f.Broken != nil {
			f.Broken(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, resumeMost)
	}
}

// callbackError is an error of the caller's own function, which ends a stream.
type callbackError struct{ error }

// resumable reports whether a stream that ended with err may be taken up again.
func resumable(err error) bool {
	for _, final := range []error{cluster.ErrInvalid, cluster.ErrNotFound, cluster.ErrRefused, ErrClosed} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

// stream runs one stream to its end, which always has an error. began is
// called, and started is true, once the node has said where the stream begins.
func (c operatorClient) stream(ctx context.Context, f Follow, resume bool, cur *cursor,
	fn func(state.Event) error, began func()) (started bool, err error) {
	conn, err := c.dial()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := fmt.Errorf("%s said nothing for %v: %w", conn.target, silence, ErrUnreachable)
	watchdog := time.AfterFunc(silence, func() { cancel(quiet) })
	defer watchdog.Stop()

	sent := new(atomic.Bool)
	meaning := func(err error) error {
		if errors.Is(context.Cause(ctx), quiet) {
			return quiet
		}
		return conn.meaning(err, sent.Load(), false)
	}
	request := &failoverv1.WatchRequest{Service: f.Query.Service, Node: f.Query.Node, Resume: resume, FromIndex: cur.index}
	if err := checkText(request); err != nil {
		return false, err
	}
	s, err := failoverv1.NewOperatorServiceClient(conn.cc).Watch(toHeaders(context.WithValue(ctx, sentKey{}, sent)), request)
	if err != nil {
		return false, meaning(err)
	}
	for {
		m, err := s.Recv()
		if err != nil {
			return started, meaning(err)
		}
		watchdog.Reset(silence)
		if !started {
			started = true
			began()
		}
		for _, e := range m.GetEvents() {
			event := eventFromWire(e)
			if !cur.take(event) {
				continue
			}
			if err := fn(event); err != nil {
				return started, callbackError{err}
			}
		}
		cur.reach(m.GetIndex())
	}
}
