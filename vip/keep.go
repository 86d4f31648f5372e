package vip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// keepGap bounds how often the address is put back when something else keeps
// removing it, and reportGap how often that is said.
const (
	keepGap   = 20 * time.Millisecond
	reportGap = 5 * time.Second
)

// keeper is what the keeping goroutine remembers.
type keeper struct {
	lapsed   bool      // the kernel removed the address, and that was reported
	late     bool      // the address's lifetime was over though the lease lives
	linkBack bool      // the interface came back, without the address
	restored int       // times the address was put back and not yet reported
	reported time.Time // when it was
	failed   time.Time // when a failure was reported
}

// keep looks after an active address until Close: it is there, its lifetime is
// as long as the lease, its neighbours know where it is.
func (v *VIP) keep() {
	var k keeper
	for {
		select {
		case <-v.stop:
			return
		case c := <-v.links:
			v.linkChanged(&k, c)
		case p := <-v.seen:
			v.contested(p)
		case <-v.kick:
			v.look(&k)
			select {
			case <-time.After(keepGap):
			case <-v.stop:
				return
			}
		}
	}
}

// look puts an active address back, or renews its lifetime, while the lease lives.
func (v *VIP) look(k *keeper) {
	ctx, cancel := contextUntil(v.stop)
	defer cancel()
	var f finding
	err := v.nl.run(ctx, func(h *netlink.Handle) error {
		var err error
		f, err = v.repair(h)
		return err
	})
	switch {
	case ctx.Err() != nil:
	case f.lapsed:
		if !k.lapsed {
			k.lapsed = true
			v.report(EventLapsed, fmt.Sprintf("%s was removed from %s by the kernel: its lease was not renewed", v.addr, v.o.Interface))
		}
	case err != nil:
		if !errors.Is(err, ErrLapsed) && time.Since(k.failed) >= reportGap {
			k.failed = time.Now()
			v.report(EventFailed, fmt.Sprintf("cannot keep %s on %s: %v", v.addr, v.o.Interface, err))
		}
	case f.restored:
		k.late = f.expired
		v.putBack(k)
	case f.there && k.lapsed:
		v.putBack(k) // an Arm was faster
	}
}

// finding is what a look at the address gave.
type finding struct {
	there    bool // it was there
	restored bool // it was missing and has been put back
	expired  bool // it was missing because its lifetime was over
	lapsed   bool // it is missing and has to be, for want of a lease
}

// repair does what an active address needs. It runs alone.
func (v *VIP) repair(h *netlink.Handle) (f finding, err error) {
	v.mu.Lock()
	active, lft := v.active, v.lft
	v.mu.Unlock()
	if !active {
		return f, nil
	}
	found, err := v.find(h)
	if err != nil {
		return f, err
	}
	for _, a := range found {
		f.there = f.there || a.prefix == v.prefix()
	}
	now, left := v.lease()
	if left <= 0 {
		f.lapsed = !f.there
		return f, nil
	}
	if _, err := v.device(); err != nil && !f.there {
		return f, nil // told when the interface went; its return wakes us
	}
	if err := v.claim(h); err != nil {
		f.lapsed = !f.there && errors.Is(err, ErrLeaseTooShort)
		return f, err
	}
	f.restored = !f.there
	f.expired = f.restored && lft.rest(now) < lifetimeEarly
	return f, nil
}

// lifetimeEarly is by how much the kernel may end a lifetime too early.
const lifetimeEarly = 50 * time.Millisecond

// putBack announces an address that was missing and reports it.
func (v *VIP) putBack(k *keeper) {
	if _, err := v.device(); err != nil {
		return
	}
	if err := v.tell(); err != nil {
		v.log.Warn("cannot announce", "err", err)
	}
	event, text := EventRestored, fmt.Sprintf("%s was removed from %s by something else; put back and announced", v.addr, v.o.Interface)
	switch {
	case k.lapsed:
		event, text = EventResumed, fmt.Sprintf("%s is back on %s: its lease was resumed", v.addr, v.o.Interface)
	case k.linkBack:
		event, text = EventLinkUp, fmt.Sprintf("interface %s is back; %s put back and announced", v.o.Interface, v.addr)
	case k.late:
		event, text = EventResumed, fmt.Sprintf("%s was removed from %s by the kernel: its lifetime was renewed too late; put back and announced", v.addr, v.o.Interface)
	default:
		k.restored++
		if time.Since(k.reported) < reportGap {
			return
		}
		if k.restored > 1 {
			text = fmt.Sprintf("%s (%d times)", text, k.restored)
		}
		k.restored, k.reported = 0, time.Now()
	}
	k.lapsed, k.late, k.linkBack = false, false, false
	v.report(event, text)
}

// linkChanged follows our interface.
func (v *VIP) linkChanged(k *keeper, c linkChange) {
	v.mu.Lock()
	old, active := v.dev, v.active
	if c.gone {
		v.dev = device{}
	} else {
		v.dev = c.dev
	}
	v.mu.Unlock()
	switch {
	case c.gone:
		if active {
			v.report(EventLinkGone, fmt.Sprintf("interface %s is gone, and %s with it", v.o.Interface, v.addr))
		}
	case c.dev.index != old.index:
		k.linkBack = true
		v.cover()
		v.poke()
	case active && old.running && !c.dev.running:
		v.report(EventLinkDown, fmt.Sprintf("interface %s has no carrier", v.o.Interface))
	case active && c.dev.running && (!old.running || c.dev.mac != old.mac || flapped(old, c.dev)):
		if err := v.Announce(context.Background()); err != nil {
			v.log.Warn("cannot announce", "err", err)
		}
		v.report(EventLinkUp, fmt.Sprintf("interface %s is up; %s announced again", v.o.Interface, v.addr))
	}
}

// flapped reports whether the carrier went and came between two events.
func flapped(old, now device) bool {
	return old.changes != 0 && now.changes != 0 && old.changes != now.changes
}
