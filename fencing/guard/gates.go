package guard

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// Shutter shuts one gate. It is opened when the gate is named, not at the
// deadline, when there may be no descriptor left to open anything with.
type Shutter interface {
	// Shut closes all addresses of the gate at once, also when its table has to
	// be made anew for it.
	Shut(addresses []Address) error
	Close() error
}

// gateTime is how long the gates may hold up the killing.
const gateTime = 5 * time.Millisecond

// heldGate is a gate and its shutter, used by one at a time.
type heldGate struct {
	Gate
	mu      sync.Mutex
	shutter Shutter // nil: could not be opened, or closed again
}

// gates is what is shut and deleted at the deadline.
type gates struct {
	open   func(table string) (Shutter, error) // nil: none is shut from here
	remove func([]Address) error               // nil: none is deleted from here
	tell   func(text string)

	setMu sync.Mutex // one replacement at a time; it may open sockets
	mu    sync.Mutex
	held  []*heldGate
}

// set replaces what is held. A shutter that cannot be opened is an error, and
// the gate is held all the same: at the deadline it is tried again.
func (gs *gates) set(want []Gate) error {
	gs.setMu.Lock()
	defer gs.setMu.Unlock()
	old := map[string]*heldGate{}
	for _, h := range gs.list() {
		old[h.Table] = h
	}
	var errs []error
	next := make([]*heldGate, 0, len(want))
	for _, g := range want {
		h := &heldGate{Gate: g}
		if was := old[g.Table]; was != nil {
			delete(old, g.Table)
			was.mu.Lock()
			h.shutter, was.shutter = was.shutter, nil
			was.mu.Unlock()
		}
		if err := h.ready(gs.open); err != nil {
			errs = append(errs, err)
		}
		next = append(next, h)
	}
	failpoint.Here("guard.gates.set")
	gs.mu.Lock()
	gs.held = next
	gs.mu.Unlock()
	for _, h := range old {
		h.close()
	}
	return errors.Join(errs...)
}

func (gs *gates) list() []*heldGate {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.held
}

// ready opens the shutter if there is none.
func (h *heldGate) ready(open func(string) (Shutter, error)) error {
	if h.shutter != nil || h.Table == "" || open == nil {
		return nil
	}
	s, err := open(h.Table)
	if err != nil {
		return fmt.Errorf("prepare to shut the gate %s: %w", h.Table, err)
	}
	h.shutter = s
	return nil
}

func (h *heldGate) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shutter != nil {
		_ = h.shutter.Close()
		h.shutter = nil
	}
}

// shut shuts all gates, then reports on done, then deletes the addresses.
func (gs *gates) shut(done chan<- struct{}) {
	held := gs.list()
	for _, h := range held {
		if err := gs.shutOne(h); err != nil {
			gs.tell(fmt.Sprintf("shut the gate %s at the deadline: %v", h.Table, err))
		}
	}
	close(done)
	if gs.remove == nil {
		return
	}
	for _, h := range held {
		if len(h.Addresses) == 0 {
			continue
		}
		failpoint.Here("guard.deadline.delete")
		if err := gs.remove(h.Addresses); err != nil {
			gs.tell(fmt.Sprintf("delete addresses at the deadline: %v", err))
		}
	}
}

func (gs *gates) shutOne(h *heldGate) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.ready(gs.open); err != nil || h.shutter == nil {
		return err
	}
	return h.shutter.Shut(h.Addresses)
}

func (gs *gates) close() {
	for _, h := range gs.list() {
		h.close()
	}
}

// expired is what happens at the deadline: gates, then processes, then
// addresses. Nothing in it is waited for beyond gateTime before the kill.
func (g *Guard) expired(victims []*birth) {
	failpoint.Here("guard.deadline.reached")
	gated := len(g.gates.list()) > 0
	if gated {
		shut := make(chan struct{})
		g.wg.Go(func() { g.gates.shut(shut) })
		t := time.NewTimer(gateTime)
		select {
		case <-shut:
		case <-t.C:
		}
		t.Stop()
	}
	failpoint.Here("guard.deadline.shut")
	for _, b := range victims {
		b.signal(atDeadline)
	}
	for _, b := range victims {
		b.sweep()
	}
	failpoint.Here("guard.deadline.killed")
	// SIGKILL is on its way to all: from here on the kernel's timer is not needed.
	if err := g.lease.doom(victims...); err != nil {
		g.trouble(err.Error())
	}
	if gated || len(victims) > 0 {
		text := fmt.Sprintf("the deadline was reached; services killed: %d", len(victims))
		g.events.add(Event{Kind: EventLapsed, Text: text})
		g.opts.Log(text)
	}
}
