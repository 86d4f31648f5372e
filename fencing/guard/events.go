package guard

import (
	"sync"
	"time"
)

// EventKind says what happened.
type EventKind string

// What a guard reports.
const (
	EventStarted   EventKind = "started"
	EventExited    EventKind = "exited" // by itself: a crash, whatever its status
	EventRestarted EventKind = "restarted"
	EventFailed    EventKind = "failed" // crashed too often
	EventStopped   EventKind = "stopped"
	EventKilled    EventKind = "killed" // at the deadline
	EventLapsed    EventKind = "lapsed" // the deadline was reached
	EventLeftover  EventKind = "leftover"
	EventTrouble   EventKind = "trouble" // something that an operator should know
	EventOutput    EventKind = "output"
)

// Event is one thing that happened. Seq grows by one for each, output
// excepted, which has none: a client that comes back asks for what it missed.
type Event struct {
	Seq     uint64    `json:"seq,omitempty"`
	At      time.Time `json:"at"` // wall clock: shown, never decided upon
	Kind    EventKind `json:"kind"`
	Unit    string    `json:"unit,omitempty"`
	Session uint64    `json:"session,omitempty"`
	Epoch   uint64    `json:"epoch,omitempty"`
	Text    string    `json:"text,omitempty"`
	Output  []byte    `json:"output,omitempty"`
}

const (
	keptEvents   = 512
	queuedEvents = 256
)

// eventLog keeps the newest events and hands them to whoever watches. It never
// waits for a reader: one that falls behind loses the oldest, and sees the gap.
type eventLog struct {
	mu   sync.Mutex
	seq  uint64
	ring []Event
	subs map[*subscription]struct{}
}

type subscription struct {
	ch     chan Event
	output bool
}

func newEventLog() *eventLog { return &eventLog{subs: map[*subscription]struct{}{}} }

func (l *eventLog) add(e Event) {
	e.At = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Kind != EventOutput {
		l.seq++
		e.Seq = l.seq
		l.ring = append(l.ring, e)
		if len(l.ring) > keptEvents {
			l.ring = append(l.ring[:0], l.ring[len(l.ring)-keptEvents:]...)
		}
	}
	for s := range l.subs {
		if e.Kind == EventOutput && !s.output {
			continue
		}
		s.push(e)
	}
}

// push queues an event, at the cost of the oldest if it must. Output gives way by itself.
func (s *subscription) push(e Event) {
	for {
		select {
		case s.ch <- e:
			return
		default:
		}
		if e.Kind == EventOutput {
			return
		}
		select {
		case <-s.ch:
		default:
		}
	}
}

// subscribe returns the events after since, then everything new.
func (l *eventLog) subscribe(since uint64, output bool) *subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &subscription{ch: make(chan Event, keptEvents+queuedEvents), output: output}
	for _, e := range l.ring {
		if e.Seq > since {
			s.ch <- e
		}
	}
	l.subs[s] = struct{}{}
	return s
}

func (l *eventLog) unsubscribe(s *subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.subs, s)
}
