package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// The times of a probe. RFC 5227 has a host that just joined a network wait
// for seconds; here the address is ours by configuration, and the time is what
// an expiring lease leaves.
const (
	probeCount  = 3
	probeGap    = 50 * time.Millisecond
	probeListen = 150 * time.Millisecond // after the last
)

// conflictMemory is for how long a conflict is told to a Start that follows.
const conflictMemory = 30 * time.Second

// Conflict is another host's use of the address, seen on the wire.
type Conflict struct {
	MAC net.HardwareAddr
	At  time.Time
}

// ConflictError: another host uses the address.
type ConflictError struct {
	Address netip.Addr
	MAC     net.HardwareAddr
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s is in use by the host with hardware address %s, which is not the present holder", e.Address, e.MAC)
}

// probing is a Prepare under way.
type probing struct {
	ignore []hwAddr
	found  chan hwAddr
}

// Prepare asks the network whether another host uses the address (RFC 5227,
// section 2.1) while the old holder's lease runs out or a hand-over is made
// ready. It takes 250 ms, or until ctx ends. ignore holds the hardware
// addresses of nodes that may have it: the old holder's. A conflict is a
// *ConflictError; it is remembered, and a Start that follows claims the
// address all the same but says so. Other nodes' probes are no conflict: who
// claims is decided elsewhere.
func (v *VIP) Prepare(ctx context.Context, ignore []net.HardwareAddr) error {
	if err := v.prepare(ctx, ignore); err != nil {
		return fmt.Errorf("prepare %s on %s: %w", v.addr, v.o.Interface, err)
	}
	return nil
}

func (v *VIP) prepare(ctx context.Context, ignore []net.HardwareAddr) error {
	if err := v.lookUp(ctx); err != nil {
		return err
	}
	if v.o.Gate != nil {
		// From here on the address is shut on this host until it is armed,
		// whoever else may put it there. Start has less to do then, too.
		if err := v.o.Gate.Manage(v.addr); err != nil {
			return err
		}
	}
	d, err := v.device()
	if err != nil {
		return err
	}
	if !d.running {
		return fmt.Errorf("the interface has no carrier")
	}
	if !d.arp {
		return nil
	}
	p := &probing{found: make(chan hwAddr, 1)}
	for _, m := range ignore {
		if len(m) == len(hwAddr{}) {
			p.ignore = append(p.ignore, hwAddr(m))
		}
	}
	v.mu.Lock()
	if v.active {
		// Whoever contests it is reported anyway.
		v.mu.Unlock()
		return nil
	}
	if v.probing != nil {
		v.mu.Unlock()
		return errors.New("another probe is under way")
	}
	v.probing, v.conflict = p, Conflict{}
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		v.probing = nil
		v.mu.Unlock()
	}()
	return v.probe(ctx, d, p)
}

func (v *VIP) probe(ctx context.Context, d device, p *probing) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for sent := 0; ; {
		select {
		case <-wait.C:
			if sent == probeCount {
				return nil
			}
			failpoint.Here("vip.probe.before")
			if err := v.arp.send(d.index, probe(d.mac, v.addr)); err != nil {
				return err
			}
			if sent++; sent < probeCount {
				wait.Reset(probeGap)
			} else {
				wait.Reset(probeListen)
			}
		case mac := <-p.found:
			return &ConflictError{Address: v.addr, MAC: net.HardwareAddr(mac[:])}
		case <-v.stop:
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("probe not finished: %w", ctx.Err())
		}
	}
}

// Conflict returns the newest conflict seen since the last Prepare began.
func (v *VIP) Conflict() (Conflict, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.conflict, v.conflict.MAC != nil
}

// defendInterval is DEFEND_INTERVAL of RFC 5227: a conflict is answered by an
// announcement at most that often, so that two hosts do not fight by broadcast.
const defendInterval = 10 * time.Second

// contested handles an ARP packet that another host sent in the address's name.
func (v *VIP) contested(p arpPacket) {
	v.mu.Lock()
	pr, active := v.probing, v.active
	old := v.conflict
	v.mu.Unlock()
	if !active && (pr == nil || slices.Contains(pr.ignore, p.sha)) {
		return // the holder speaks, and we are not it
	}
	if v.ownMAC(p.sha) {
		return // an interface of ours on the same segment answered
	}
	now := time.Now()
	v.mu.Lock()
	v.conflict = Conflict{MAC: net.HardwareAddr(p.sha[:]), At: now}
	defend := active && now.Sub(v.defended) >= defendInterval
	if defend {
		v.defended = now
	}
	v.mu.Unlock()
	if pr != nil {
		select {
		case pr.found <- p.sha:
		default:
		}
	}
	if !active {
		return
	}
	if defend {
		if err := v.tellOnce(); err != nil && !errors.Is(err, ErrLapsed) {
			v.log.Warn("cannot defend the address", "err", err)
		}
	}
	if defend || old.MAC.String() != p.sha.String() {
		v.report(EventConflict, fmt.Sprintf("%s is also claimed by the host with hardware address %s; find it and take the address off it", v.addr, p.sha))
	}
}

// ownMAC reports whether an interface of this host has the hardware address.
func (v *VIP) ownMAC(mac hwAddr) bool {
	own := false
	ctx, cancel := contextUntil(v.stop)
	defer cancel()
	err := v.nl.run(ctx, func(h *netlink.Handle) error {
		links, err := h.LinkList()
		for _, l := range links {
			own = own || slices.Equal(l.Attrs().HardwareAddr, mac[:])
		}
		return err
	})
	return err == nil && own
}
