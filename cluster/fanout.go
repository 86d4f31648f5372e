package cluster

import (
	"context"
	"sync"

	"github.com/failoverd/failoverd/cluster/state"
)

// fanoutBuffer is how many events a slow listener may lag behind before it is cut off.
const fanoutBuffer = 256

// fanout hands the history's new events to whoever listens.
type fanout struct {
	mu        sync.Mutex
	listeners map[chan state.Event]bool
}

func newFanout() *fanout { return &fanout{listeners: map[chan state.Event]bool{}} }

func (f *fanout) listen() chan state.Event {
	c := make(chan state.Event, fanoutBuffer)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners[c] = true
	return c
}

func (f *fanout) leave(c chan state.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listeners[c] {
		delete(f.listeners, c)
		close(c)
	}
}

// send gives the event to everybody; who does not keep up is cut off, and
// sees that by its closed channel.
func (f *fanout) send(e state.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.listeners {
		select {
		case c <- e:
		default:
			delete(f.listeners, c)
			close(c)
		}
	}
}

// publish follows the history and hands on what is new since the start.
func (n *Node) publish(ctx context.Context) {
	last := n.Voter.View().Index
	for {
		st := n.Voter.View()
		for _, e := range st.History {
			if e.Index > last {
				n.events.send(e)
			}
		}
		last = max(last, st.Index)
		if !n.restUntilApplied(ctx, last) {
			return
		}
	}
}
