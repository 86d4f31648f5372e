package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// extendWithin bounds Extend: a guard that needs longer is dead, frozen or starved.
	extendWithin = 50 * time.Millisecond
	// helloTimeout bounds the first exchange of Dial.
	helloTimeout = 2 * time.Second
	// pingEvery and SilentAfter: a guard from which nothing was heard for that long is lost.
	pingEvery = 250 * time.Millisecond
	// lastWords is how long answers are waited for when a part of the connection has ended.
	lastWords = 100 * time.Millisecond
	// SilentAfter is how long a guard may be silent before Lost is closed.
	SilentAfter = 2 * time.Second
)

// Client is the daemon's end. All methods may be used at the same time. A
// Client whose guard is lost stays lost: make a new one with Spawn.
type Client struct {
	path  string
	info  Info
	lease *link // Extend and Ping alone, so that they wait behind nothing
	ctl   *link
	watch *link

	session atomic.Uint64
	heard   atomic.Int64 // when the guard last answered on the lease link, ns since start
	start   time.Time

	events   chan Event
	lost     chan struct{}
	lostOnce sync.Once
	lostErr  error
	closing  chan struct{}
	once     sync.Once
	wg       sync.WaitGroup
}

// Dial connects to a living guard. ErrGuardLost when there is none or it does not answer.
func Dial(ctx context.Context, path string) (*Client, error) {
	c := &Client{path: path, start: time.Now(), events: make(chan Event, queuedEvents), lost: make(chan struct{}), closing: make(chan struct{})}
	for _, l := range []**link{&c.lease, &c.ctl, &c.watch} {
		ln, info, err := dialLink(ctx, path)
		if err != nil {
			c.closeLinks()
			return nil, err
		}
		*l = ln
		c.info = info
	}
	c.watch.onEvent = c.pass
	for _, l := range []*link{c.lease, c.ctl, c.watch} {
		c.wg.Go(func() {
			l.read()
			c.lose(l.failure())
		})
	}
	if err := c.watch.call(ctx, opWatch, watchBody{Output: true}, nil); err != nil {
		c.Close()
		return nil, fmt.Errorf("watch the guard: %w", err)
	}
	c.session.Store(c.info.Session)
	c.mark()
	c.wg.Go(c.ping)
	return c, nil
}

// Info is what the guard said of itself when it was dialled.
func (c *Client) Info() Info { return c.info }

// Pid of the guard.
func (c *Client) Pid() int { return c.info.Pid }

// Use sets the session that Extend and Start are for; at first it is the
// guard's own, which a restarted daemon resumes.
func (c *Client) Use(session uint64) { c.session.Store(session) }

// Extend tells the guard the absolute deadline by both clocks, under the
// session of Use. It returns when the guard has it, and so the kernel; an
// error after 50 ms at most says that it may not: the guard then counts as
// dead or frozen, and the deadline that it had before holds.
func (c *Client) Extend(boot, raw time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), extendWithin)
	defer cancel()
	err := c.lease.call(ctx, opExtend, extendBody{Session: c.session.Load(), Deadline: Deadline{Boot: boot, Raw: raw}}, nil)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("extend the guard's deadline: no answer in %v: %w", extendWithin, ErrGuardLost)
	}
	if err != nil {
		return fmt.Errorf("extend the guard's deadline: %w", err)
	}
	c.mark()
	return nil
}

// Release makes the guard forget session and deadline; refused while anything is supervised.
func (c *Client) Release(ctx context.Context) error { return c.ctl.call(ctx, opRelease, nil, nil) }

// Start supervises what the spec says, or adopts what runs already under the
// same name, session and epoch. It returns when the program has been started.
func (c *Client) Start(ctx context.Context, s Spec) error {
	if s.Session == 0 {
		s.Session = c.session.Load()
	}
	var rep startReply
	return c.ctl.call(ctx, opStart, s, &rep)
}

// Stop ends a unit by its stop signal and, after its timeout, by SIGKILL. nil
// is the proof that nothing of it lives.
func (c *Client) Stop(ctx context.Context, name string) error {
	return c.ctl.call(ctx, opStop, nameBody{Name: name}, nil)
}

// Kill ends a unit at once. nil is the proof that nothing of it lives.
func (c *Client) Kill(ctx context.Context, name string) error {
	return c.ctl.call(ctx, opStop, nameBody{Name: name, Timeout: time.Millisecond}, nil)
}

// Signal sends a signal to a process unit's program.
func (c *Client) Signal(ctx context.Context, name, signal string) error {
	return c.ctl.call(ctx, opSignal, nameBody{Name: name, Signal: signal}, nil)
}

// Run runs a hook and waits for its end. An error says that it was not run, or
// that the guard was lost meanwhile; a result that is not Known, that it is
// unknown whether it did its work.
func (c *Client) Run(ctx context.Context, h Hook) (HookResult, error) {
	var res HookResult
	err := c.ctl.call(ctx, opRun, h, &res)
	return res, err
}

// List shows everything that the guard supervises, by name.
func (c *Client) List(ctx context.Context) ([]Running, error) {
	var out []Running
	err := c.ctl.call(ctx, opList, nil, &out)
	return out, err
}

// Output returns the last 64 KiB of a unit's output.
func (c *Client) Output(ctx context.Context, name string) ([]byte, error) {
	var rep outputReply
	err := c.ctl.call(ctx, opOutput, nameBody{Name: name}, &rep)
	return rep.Output, err
}

// SetGates says what is shut and deleted at the deadline, in place of what was said before.
func (c *Client) SetGates(ctx context.Context, gates []Gate) error {
	return c.ctl.call(ctx, opGates, gatesBody{gates}, nil)
}

// Shutdown ends the guard. It is refused while anything is supervised.
func (c *Client) Shutdown(ctx context.Context) error { return c.ctl.call(ctx, opShutdown, nil, nil) }

// Status asks the guard anew what it is and which deadline it has.
func (c *Client) Status(ctx context.Context) (Info, error) {
	l, info, err := dialLink(ctx, c.path)
	if err != nil {
		return Info{}, err
	}
	l.c.Close()
	return info, nil
}

// Events gives what happens, beginning with what the guard still remembers.
// Output gives way when nobody reads; other events push out the oldest. It is
// closed by Close.
func (c *Client) Events() <-chan Event { return c.events }

// Lost is closed when the guard is gone, or was silent for SilentAfter.
func (c *Client) Lost() <-chan struct{} { return c.lost }

// Err says why the guard is lost; nil before.
func (c *Client) Err() error {
	select {
	case <-c.lost:
		return c.lostErr
	default:
		return nil
	}
}

// Alive reports whether the guard has answered within the last 600 ms; it is
// asked every 250 ms, beside the Extends.
func (c *Client) Alive() bool {
	return c.Err() == nil && c.silent() < 2*pingEvery+100*time.Millisecond
}

// Close ends the connection. The guard goes on.
func (c *Client) Close() error {
	c.once.Do(func() {
		close(c.closing)
		c.closeLinks()
		c.wg.Wait()
		close(c.events)
	})
	return nil
}

func (c *Client) closeLinks() {
	for _, l := range []*link{c.lease, c.ctl, c.watch} {
		if l != nil {
			l.c.Close()
		}
	}
}

func (c *Client) mark()                 { c.heard.Store(int64(time.Since(c.start))) }
func (c *Client) silent() time.Duration { return time.Since(c.start) - time.Duration(c.heard.Load()) }

// ping watches the guard while nothing is extended.
func (c *Client) ping() {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-c.closing:
			return
		case <-c.lost:
			return
		case <-t.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), pingEvery)
		if err := c.lease.call(ctx, opPing, nil, nil); err == nil {
			c.mark()
		}
		cancel()
		if s := c.silent(); s > SilentAfter {
			c.lose(fmt.Errorf("%w: silent for %v", ErrGuardLost, s.Round(time.Millisecond)))
		}
	}
}

// lose ends the client for good: half a guard is none. Answers that are on
// their way are still read: a guard that ends has sent them before.
func (c *Client) lose(err error) {
	c.lostOnce.Do(func() {
		c.lostErr = err
		close(c.lost)
		for _, l := range []*link{c.lease, c.ctl, c.watch} {
			_ = l.c.SetReadDeadline(time.Now().Add(lastWords))
		}
	})
}

// pass hands an event to who reads Events.
func (c *Client) pass(e Event) {
	for {
		select {
		case c.events <- e:
			return
		default:
		}
		if e.Kind == EventOutput {
			return
		}
		select {
		case <-c.events:
		default:
		}
	}
}
