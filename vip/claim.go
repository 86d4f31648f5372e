package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/internal/failpoint"
	"github.com/failoverd/failoverd/vip/gate"
)

// Start claims the address and announces it. Arm must have been called just
// before. A Start of what is active already only notes the epoch.
func (v *VIP) Start(ctx context.Context, epoch uint64) error {
	if err := v.start(ctx, epoch); err != nil {
		return fmt.Errorf("claim %s on %s: %w", v.addr, v.o.Interface, err)
	}
	return nil
}

func (v *VIP) start(ctx context.Context, epoch uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return ErrClosed
	}
	v.epoch = epoch
	v.turn++
	again, turn := v.active, v.turn
	v.mu.Unlock()
	err := v.nl.run(ctx, func(h *netlink.Handle) error {
		if err := v.claim(h); err != nil {
			return err
		}
		v.mu.Lock()
		mine := v.turn == turn
		v.active = mine
		v.mu.Unlock()
		if !mine {
			// This took so long that a Stop was called meanwhile.
			return errors.Join(ErrStuck, v.unclaim(h))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c, ok := v.Conflict(); ok && time.Since(c.At) < conflictMemory {
		v.report(EventConflict, fmt.Sprintf("%s was in use by %s %s before it was claimed; claimed all the same, because the grant is ours",
			v.addr, c.MAC, time.Since(c.At).Round(time.Millisecond)))
	}
	if again {
		return nil
	}
	failpoint.Here("vip.announce.before")
	if err := v.tell(); err != nil {
		// The address answers to whoever asks; the background repeats it.
		v.log.Warn("first announcement failed", "err", err)
	}
	return nil
}

// claim puts the address on the interface with the lifetime that the lease
// has left, and takes it off again if the lease ended meanwhile. It runs
// alone, and may run to its end after its caller has given up.
func (v *VIP) claim(h *netlink.Handle) error {
	at, left := v.lease()
	if left <= 0 {
		return ErrNotArmed
	}
	lft, err := lifetimeFor(at, left, v.o.Gate != nil)
	if err != nil {
		return err
	}
	failpoint.Here("vip.claim.before")
	if err := v.setAddr(h, lft); err != nil {
		return err
	}
	failpoint.Here("vip.claimed")
	if _, left := v.lease(); left > 0 {
		return nil
	}
	return errors.Join(ErrLapsed, v.unclaim(h))
}

// setAddr adds the address or, if it is there, gives it a new lifetime.
func (v *VIP) setAddr(h *netlink.Handle, lft lifetime) error {
	d, err := v.device()
	if err != nil {
		// It may have come back since the last event.
		if d, err = findDevice(h, v.o.Interface); err != nil {
			return err
		}
	}
	err = v.replaceAddr(h, d.index, lft)
	if errors.Is(err, unix.ENODEV) {
		if d, err = findDevice(h, v.o.Interface); err != nil {
			return err
		}
		err = v.replaceAddr(h, d.index, lft)
	}
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%w (CAP_NET_ADMIN is needed)", err)
		}
		return err
	}
	v.mu.Lock()
	v.dev, v.lft, v.present = d, lft, true
	v.mu.Unlock()
	return nil
}

func (v *VIP) replaceAddr(h *netlink.Handle, index int, lft lifetime) error {
	a := &netlink.Addr{
		IPNet: ipNet(v.prefix()), LinkIndex: index, Label: label(v.o.Interface, v.o.Owner),
		ValidLft: lft.seconds, PreferedLft: lft.seconds,
	}
	if !v.o.KeepPrefix {
		a.Flags = unix.IFA_F_NOPREFIXROUTE
		a.Broadcast = net.IPv4zero // of a /32 there is none
	}
	return h.AddrReplace(nil, a)
}

// prefix is the address as it is put on the interface.
func (v *VIP) prefix() netip.Prefix {
	if v.o.KeepPrefix {
		return v.o.Address
	}
	return netip.PrefixFrom(v.addr, v.addr.BitLen())
}

// Stop gives the address up: gate shut, address deleted, its absence read
// back. nil means proven stopped; ErrStuck and whatever else means unknown.
// It may be called for what was never started: that proves it too.
func (v *VIP) Stop(ctx context.Context) error {
	if err := v.deactivate(); err != nil {
		return fmt.Errorf("stop %s: %w", v.addr, err)
	}
	failpoint.Here("vip.stop.before")
	var shut error
	if v.o.Gate != nil {
		if shut = v.o.Gate.Shut([]netip.Addr{v.addr}); shut != nil {
			v.log.Warn("gate not shut; deleting the address all the same", "err", shut)
		}
	}
	failpoint.Here("vip.stop.shut")
	if err := v.nl.run(ctx, v.unclaim); err != nil {
		return errors.Join(fmt.Errorf("stop %s: %w", v.addr, err), shut)
	}
	failpoint.Here("vip.stop.deleted")
	// An address that the host does not have cannot serve, shut gate or not.
	return nil
}

// deactivate waits for an announcement that has begun; none begins any more.
func (v *VIP) deactivate() error {
	v.sending.Lock()
	defer v.sending.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return ErrClosed
	}
	v.active, v.left = false, 0
	v.turn++
	return nil
}

// unclaim deletes the address from every interface that traffic could reach it
// through, and proves it by reading the list back.
func (v *VIP) unclaim(h *netlink.Handle) error {
	var errs []error
	for range 3 {
		found, err := v.find(h)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if len(found) == 0 {
			v.mu.Lock()
			v.present, v.lft = false, lifetime{}
			v.mu.Unlock()
			return nil
		}
		errs = errs[:0]
		for _, a := range found {
			if a.prefix != v.prefix() {
				v.log.Warn("removing a second entry of the address", "entry", a.prefix.String(), "index", a.index, "event", EventDuplicate)
			}
			failpoint.Here("vip.delete.before")
			if err := deleteAddr(h, a); err != nil {
				errs = append(errs, fmt.Errorf("delete %s: %w", a.prefix, err))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return fmt.Errorf("%s is put back as fast as it is deleted: look for a network manager that has it in its configuration", v.addr)
}

// find returns the entries of the address on this host. On the loopback, unless
// that is where it is configured, it is not ours: real servers behind a
// director that rewrites hardware addresses keep theirs there.
func (v *VIP) find(h *netlink.Handle) ([]holding, error) {
	list, err := listAddrs(h)
	if err != nil {
		return nil, err
	}
	var out []holding
	for _, a := range list {
		if a.prefix.Addr() == v.addr && (a.index != loopbackIndex || v.o.Interface == "lo") {
			out = append(out, a)
		}
	}
	return out, nil
}

// loopbackIndex is LOOPBACK_IFINDEX of the kernel, the same in every network namespace.
const loopbackIndex = 1

// Running reports whether this host has the address. Whether it passes traffic
// is the lease's business: an address behind a shut gate is not gone yet.
func (v *VIP) Running(ctx context.Context) (bool, error) {
	var found []holding
	err := v.nl.run(ctx, func(h *netlink.Handle) error {
		var err error
		found, err = v.find(h)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", v.addr, err)
	}
	return len(found) > 0, nil
}

// ErrNothingToAdopt: the address is not on this host, or about to go.
var ErrNothingToAdopt = errors.New("nothing to adopt")

// Adopt takes over the address that an earlier daemon claimed, without a
// packet lost: it must be there, and its lease alive. With a gate that is
// known from the kernel, else Arm comes first.
func (v *VIP) Adopt(ctx context.Context, epoch uint64) error {
	err := v.nl.run(ctx, func(h *netlink.Handle) error {
		found, err := v.find(h)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("%w: the address is not here", ErrNothingToAdopt)
		}
		d, err := v.device()
		if err != nil {
			return err
		}
		for _, a := range found {
			if a.index != d.index || a.prefix != v.prefix() {
				return fmt.Errorf("%w: it is there as %s on interface %d", ErrNothingToAdopt, a.prefix, a.index)
			}
		}
		now := gate.Now()
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.closed {
			return ErrClosed
		}
		if v.o.Gate != nil && v.left-now.Since(v.at) <= 0 {
			v.at, v.left = now, v.o.Gate.Left(v.addr)
		}
		if v.left-now.Since(v.at) <= 0 {
			return fmt.Errorf("%w: %w", ErrNothingToAdopt, ErrNotArmed)
		}
		failpoint.Here("vip.adopted")
		v.active, v.present, v.epoch = true, true, epoch
		return nil
	})
	if err != nil {
		return fmt.Errorf("adopt %s: %w", v.addr, err)
	}
	v.poke() // its lifetime is whatever the predecessor gave it
	return nil
}
