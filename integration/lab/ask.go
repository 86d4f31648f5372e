package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Ask says what a client asks, and how.
type Ask struct {
	Target netip.AddrPort
	// Every is the time from one request to the next; default 2 ms. Each goes
	// out in its turn over a connection of its own, answered or not the one before.
	Every time.Duration
	// Patience is how long a request waits for its answer before it is lost.
	// The default of 900 ms is below the second after which TCP repeats a lost
	// SYN: no repetition hides that one was lost.
	Patience time.Duration
	// WriteEvery makes every so many-th request a write; 0: every 25th; negative: none.
	WriteEvery int
	// Plain takes every 200 as an answer, whatever its body says.
	Plain bool
}

// Outcome is what became of a request.
type Outcome byte

// The outcomes. All but Waiting and Answered are a request lost.
const (
	Waiting    Outcome = iota
	Answered           // 200 and a body that says who answered
	Unanswered         // no answer within the patience: unknown, not failed
	Refused            // the connection was refused, reset or closed without an answer
	NoRoute            // the client's own kernel found no way
	Rejected           // another status than 200
)

// String names the outcome.
func (o Outcome) String() string {
	return [...]string{"waiting", "answered", "unanswered", "refused", "no route", "rejected"}[o]
}

// Request is one numbered request and what became of it.
type Request struct {
	Number  uint64
	Sent    time.Duration
	Got     time.Duration // when its outcome was known
	Outcome Outcome
	Write   bool
	Node    string // who answered
	Epoch   uint64 // under which grant; 0: the service knows of none
	// Sequence is the place of the last write in the service's own order.
	Sequence uint64
	Value    int64
}

// Lost reports whether the request failed for good.
func (r Request) Lost() bool { return r.Outcome != Waiting && r.Outcome != Answered }

// Asking is a client at work.
type Asking struct {
	lab  *Lab
	host *Host
	ask  Ask
	wake waker
	done chan struct{}

	mu       sync.Mutex
	stopped  bool
	requests []Request
	stalls   []Interval // when the client itself came late
	failed   error
}

// Client gives the host of that name, made if there is none: a place to ask from.
func (l *Lab) Client(name string) (*Host, error) {
	if h := l.Host(name); h != nil {
		return h, nil
	}
	return l.AddHost(name)
}

// Ask starts a client on the host. It goes on until Stop or the lab's end.
func (h *Host) Ask(ask Ask) (*Asking, error) {
	if !ask.Target.Addr().Is4() || ask.Target.Port() == 0 {
		return nil, fmt.Errorf("ask %s: the target must be an IPv4 address and a port", ask.Target)
	}
	if ask.Every <= 0 {
		ask.Every = 2 * time.Millisecond
	}
	if ask.Patience <= 0 {
		ask.Patience = 900 * time.Millisecond
	}
	if ask.WriteEvery == 0 {
		ask.WriteEvery = 25
	}
	w, err := newWaker()
	if err != nil {
		return nil, fmt.Errorf("start client: %w", err)
	}
	a := &Asking{lab: h.lab, host: h, ask: ask, wake: w, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(a.done)
		if err := h.In(func() error { return a.run(started) }); err != nil {
			a.mu.Lock()
			a.failed = err
			a.mu.Unlock()
			select {
			case started <- err:
			default:
			}
		}
	}()
	if err := <-started; err != nil {
		<-a.done
		w.close()
		return nil, fmt.Errorf("start client: %w", err)
	}
	h.lab.mu.Lock()
	h.lab.askings = append(h.lab.askings, a)
	h.lab.mu.Unlock()
	h.lab.onClose(func() error { a.Stop(); return nil })
	return a, nil
}

// Stop ends the client; what it saw stays. It can be called twice.
func (a *Asking) Stop() {
	a.mu.Lock()
	first := !a.stopped
	a.stopped = true
	a.mu.Unlock()
	if first {
		a.wake.wake()
		<-a.done
		a.wake.close()
	}
}

// Requests gives those that were sent in [from, to], in order.
func (a *Asking) Requests(from, to time.Duration) []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	first, _ := slices.BinarySearchFunc(a.requests, from, bySent)
	last, _ := slices.BinarySearchFunc(a.requests, to+1, bySent)
	return slices.Clone(a.requests[first:max(first, last)])
}

func bySent(r Request, at time.Duration) int {
	switch {
	case r.Sent < at:
		return -1
	case r.Sent > at:
		return 1
	}
	return 0
}

// Silence gives the longest time between two answers that followed each other
// in [from, to], and when it began. The answer before from counts as its start;
// the end, when no answer followed, is to.
func (a *Asking) Silence(from, to time.Duration) (longest, at time.Duration) {
	return silence(a.Requests(from-2*time.Second-a.ask.Patience, to), from, to)
}

func silence(requests []Request, from, to time.Duration) (longest, at time.Duration) {
	last := time.Duration(-1)
	var times []time.Duration
	for _, r := range requests {
		switch {
		case r.Outcome != Answered || r.Got > to:
		case r.Got < from:
			last = max(last, r.Got)
		default:
			times = append(times, r.Got)
		}
	}
	if last < 0 {
		last = from
	}
	slices.Sort(times)
	for _, t := range append(times, to) {
		if t-last > longest {
			longest, at = t-last, last
		}
		last = t
	}
	return longest, at
}

// Lost gives the requests sent in [from, to] that got no answer. Those whose
// outcome is still open are not among them: wait for the patience to pass.
func (a *Asking) Lost(from, to time.Duration) []Request {
	return slices.DeleteFunc(a.Requests(from, to), func(r Request) bool { return !r.Lost() })
}

// Settle waits until nothing sent before the instant is open any more.
func (a *Asking) Settle(ctx context.Context, before time.Duration) error {
	return a.until(ctx, func() bool {
		for _, r := range a.Requests(before-a.ask.Patience-time.Second, before) {
			if r.Outcome == Waiting {
				return false
			}
		}
		return a.lab.Now() > before
	})
}

// WaitAnswer waits for an answer to a request sent after the instant.
func (a *Asking) WaitAnswer(ctx context.Context, after time.Duration) (Request, error) {
	var found Request
	err := a.until(ctx, func() bool {
		for _, r := range a.Requests(after, a.lab.Now()) {
			if r.Outcome == Answered {
				found = r
				return true
			}
		}
		return false
	})
	if err != nil {
		return Request{}, fmt.Errorf("no answer from %s since %.0f ms: %w", a.ask.Target, ms(after), err)
	}
	return found, nil
}

// WaitAnswerBy waits for an answer by the node to a request sent after the instant.
func (a *Asking) WaitAnswerBy(ctx context.Context, node string, after time.Duration) (Request, error) {
	var found Request
	err := a.until(ctx, func() bool {
		for _, r := range a.Requests(after, a.lab.Now()) {
			if r.Outcome == Answered && r.Node == node {
				found = r
				return true
			}
		}
		return false
	})
	if err != nil {
		return Request{}, fmt.Errorf("no answer by %s since %.0f ms: %w", node, ms(after), err)
	}
	return found, nil
}

func (a *Asking) until(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		a.mu.Lock()
		failed := a.failed
		a.mu.Unlock()
		if failed != nil {
			return failed
		}
		select {
		case <-tick.C:
		case <-a.done:
			return errors.New("the client has ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Stall is the longest time in [from, to] that the client itself came late, its
// thread not having been run: a silence of about that length may be its own.
func (a *Asking) Stall(from, to time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	var longest time.Duration
	for _, i := range clip(a.stalls, from, to) {
		longest = max(longest, i.To-i.From)
	}
	return longest
}

// record stores what became of the request at that place.
func (a *Asking) record(place int, edit func(*Request)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	edit(&a.requests[place])
}

func outcomeOf(err error) Outcome {
	switch {
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.ENETDOWN):
		return NoRoute
	case errors.Is(err, unix.ETIMEDOUT):
		return Unanswered
	}
	return Refused
}
