package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/failoverd/failoverd/vip/gate"
)

// lifetime is a valid_lft that the kernel was given.
type lifetime struct {
	at      gate.Instant
	seconds int
}

func (l lifetime) rest(now gate.Instant) time.Duration {
	return time.Duration(l.seconds)*time.Second - now.Since(l.at)
}

// lifetimeFor returns the whole seconds for a lease with so much left at an
// instant that is now. The kernel ends an address up to 20 ms early and, as
// measured, up to 350 ms late.
//
// With a gate it is the second line: the next full second and one more, so
// that a renewal each second keeps it up and the system's other listeners are
// not told of a new lifetime ten times as often. Without one it is the only
// line: nine tenths, rounded down.
func lifetimeFor(at gate.Instant, left time.Duration, gated bool) (lifetime, error) {
	if gated {
		return lifetime{at, int((left+time.Second-1)/time.Second) + 1}, nil
	}
	s := int(left * 9 / 10 / time.Second)
	if s < 1 {
		return lifetime{}, fmt.Errorf("%w: %s left makes no whole second; use nftables, or a lease of %s or more", ErrLeaseTooShort, left.Round(time.Millisecond), MinLease)
	}
	return lifetime{at, s}, nil
}

// refreshMargin is by how much a gated address's lifetime must exceed the
// lease to be left alone.
const refreshMargin = 250 * time.Millisecond

// refreshMost is the most by which lifetimeFor ever exceeds the lease, and a
// tick: beyond it, the lease has become shorter.
const refreshMost = 2*time.Second + 50*time.Millisecond

// Arm gives the address the time that is left of the lease. It is called
// right before Start and after every renewal.
func (v *VIP) Arm(left time.Duration) error { return v.ArmSince(gate.Now(), left) }

// ArmSince is Arm for a time left that was true at an earlier instant.
func (v *VIP) ArmSince(since gate.Instant, left time.Duration) error {
	if err := v.arm(since, left); err != nil {
		return fmt.Errorf("arm %s: %w", v.addr, err)
	}
	return nil
}

func (v *VIP) arm(since gate.Instant, left time.Duration) error {
	if v.o.Gate != nil {
		if err := v.o.Gate.ArmSince([]netip.Addr{v.addr}, since, left); err != nil {
			if errors.Is(err, gate.ErrLapsed) {
				return fmt.Errorf("%w: %w", ErrLapsed, err)
			}
			return err
		}
	} else if _, err := lifetimeFor(since, left, false); err != nil {
		return err
	}
	now := gate.Now()
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return ErrClosed
	}
	v.at, v.left = since, left
	if left-now.Since(since) <= 0 {
		v.mu.Unlock()
		return ErrLapsed
	}
	active, absent, due := v.active, !v.present, v.refreshDue(now)
	v.mu.Unlock()
	switch {
	case !active || !due:
		return nil
	case v.o.Gate != nil:
		// The gate has the lease; the lifetime behind it need not be waited
		// for, least of all when somebody holds the lock of the routing tables.
		v.poke()
		return nil
	}
	err := v.nl.run(context.Background(), v.keepAlive)
	if errors.Is(err, ErrNoInterface) {
		return nil // nor is there an address to bound; the keeper waits for both
	}
	if err != nil {
		return err
	}
	if absent {
		// It had lapsed, and the lease was resumed.
		if err := v.tell(); err != nil {
			v.log.Warn("cannot announce", "err", err)
		}
		v.poke()
	}
	return nil
}

// refreshDue reports whether the address's lifetime is to be renewed. v.mu is held.
func (v *VIP) refreshDue(now gate.Instant) bool {
	if !v.present || v.o.Gate == nil {
		return true
	}
	more := v.lft.rest(now) - (v.left - now.Since(v.at))
	return more < refreshMargin || more > refreshMost
}

// keepAlive renews the lifetime of an active address.
func (v *VIP) keepAlive(h *netlink.Handle) error {
	v.mu.Lock()
	active := v.active
	v.mu.Unlock()
	if !active {
		return nil
	}
	return v.claim(h)
}

// lease returns now and what is left of the lease.
func (v *VIP) lease() (gate.Instant, time.Duration) {
	now := gate.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	return now, v.left - now.Since(v.at)
}

// poke has the keeper look at the address.
func (v *VIP) poke() {
	select {
	case v.kick <- struct{}{}:
	default:
	}
}
