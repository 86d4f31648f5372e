package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
	failoverv1 "github.com/failoverd/failoverd/proto/failover/v1"
)

// The server's times and bounds for streams.
const (
	// watchBeat is how often a stream says something, and how often the
	// history is looked at for what the bell has missed.
	watchBeat = time.Second
	// watchSlow is how long a client may take to accept a message.
	watchSlow = 10 * time.Second
	// watchWaiting is how many events may wait for a slow client, who then
	// resumes from the history.
	watchWaiting = 2 * state.MaxHistory
	// watchBatch is how many events go into one message.
	watchBatch = 100
)

// Watch streams events. The operator's own Watch does not say when it has
// begun to look, so its events are rung as a bell and merged with the history,
// which has everything: nothing is lost between a look and a subscription,
// and a resumed stream goes on where it broke.
func (s *operatorServer) Watch(r *failoverv1.WatchRequest, out grpc.ServerStreamingServer[failoverv1.WatchResponse]) error {
	if err := checkRequest(r); err != nil {
		return err
	}
	// The node's own events: they do not break off with the leader.
	ctx, cancel := context.WithCancel(WithLocal(out.Context()))
	defer cancel()
	query := cluster.HistoryQuery{Service: r.GetService(), Node: r.GetNode()}
	kept, err := s.op.History(ctx, query)
	if err != nil {
		return err
	}
	var cur cursor
	if r.GetResume() {
		cur.reach(r.GetFromIndex())
	} else {
		cur = cursorAfter(kept)
		cur.reach(cur.index + 1) // an entry's events appear in the history together
	}
	bell := newBell()
	send := s.startSender(out)
	defer close(send)
	ended := make(chan error, 1)
	s.senders.Add(1)
	go func() {
		defer s.senders.Done()
		ended <- s.op.Watch(ctx, query, bell.ring)
	}()
	return s.pump(ctx, query, &cur, bell, send, ended)
}

// pump sends what is new until the stream or the operator's Watch ends.
func (s *operatorServer) pump(ctx context.Context, query cluster.HistoryQuery, cur *cursor, bell *bell,
	send chan<- *failoverv1.WatchResponse, ended <-chan error) error {
	if err := s.hand(ctx, send, &failoverv1.WatchResponse{Index: cur.index}); err != nil {
		return err
	}
	beat := time.NewTicker(watchBeat)
	defer beat.Stop()
	for {
		rung, err := bell.take()
		if err != nil {
			return err
		}
		kept, err := s.op.History(ctx, query)
		if err != nil {
			return err
		}
		fresh := cur.fresh(kept, rung)
		for len(fresh) > 0 {
			n := min(len(fresh), watchBatch)
			// Index speaks of what is before the first event that is not sent yet.
			m := &failoverv1.WatchResponse{Index: fresh[n-1].Index, Events: mapList(fresh[:n], eventToWire)}
			fresh = fresh[n:]
			if err := s.hand(ctx, send, m); err != nil {
				return err
			}
		}
		select {
		case <-bell.rang:
		case <-beat.C:
			if err := s.hand(ctx, send, &failoverv1.WatchResponse{Index: cur.index}); err != nil {
				return err
			}
		case err := <-ended:
			if err == nil {
				err = errors.New("the node has ended the stream")
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-s.quit:
			return errors.New("the daemon is stopping")
		}
	}
}

// startSender sends on the stream what it is handed, until the channel closes
// or the stream ends. A send that hangs ends with the stream, when the handler returns.
func (s *operatorServer) startSender(out grpc.ServerStreamingServer[failoverv1.WatchResponse]) chan *failoverv1.WatchResponse {
	messages := make(chan *failoverv1.WatchResponse)
	s.senders.Add(1)
	go func() {
		defer s.senders.Done()
		broken := false
		for m := range messages {
			if broken {
				continue
			}
			cleanText(m)
			if err := out.Send(m); err != nil {
				broken = true // the stream's context ends, which ends the handler
				s.log.Debug("a stream of events broke", "error", err)
			}
		}
	}()
	return messages
}

// hand gives a message to the sender, or cuts a client that does not read.
func (s *operatorServer) hand(ctx context.Context, send chan<- *failoverv1.WatchResponse, m *failoverv1.WatchResponse) error {
	slow := time.NewTimer(s.slow)
	defer slow.Stop()
	select {
	case send <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-slow.C:
		return fmt.Errorf("the client has read nothing for %v: the stream is cut, take it up again", s.slow)
	}
}

// bell collects events between two looks of a stream.
type bell struct {
	rang chan struct{}

	mu      sync.Mutex
	waiting []state.Event
	over    bool
}

func newBell() *bell { return &bell{rang: make(chan struct{}, 1)} }

// ring is the callback of an Operator's Watch. It never blocks it.
func (b *bell) ring(e state.Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) >= watchWaiting {
		b.over = true
	} else {
		b.waiting = append(b.waiting, e)
	}
	select {
	case b.rang <- struct{}{}:
	default: // rung already
	}
	return nil
}

// take empties the bell. It fails when more came than it holds.
func (b *bell) take() ([]state.Event, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return nil, fmt.Errorf("more than %d events wait for the client: the stream is cut, take it up again", watchWaiting)
	}
	out := b.waiting
	b.waiting = nil
	return out, nil
}
