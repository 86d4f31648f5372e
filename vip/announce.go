package vip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/internal/failpoint"
	"github.com/failoverd/failoverd/vip/gate"
)

// repeats are the times after the first announcement at which it is repeated:
// neighbours lose packets, and switches take a while to pass them after a link
// came up. RFC 5227 asks for two, two seconds apart.
var repeats = []time.Duration{
	50 * time.Millisecond, 200 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second,
}

// Announce tells the neighbours again where the address is, now and some more
// times in the background: after a partition has healed, above all.
func (v *VIP) Announce(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	active := v.active && !v.closed
	v.mu.Unlock()
	if !active {
		return fmt.Errorf("announce %s: %w", v.addr, ErrNotActive)
	}
	return v.tell()
}

// tell announces once and has the repeats begun anew.
func (v *VIP) tell() error {
	err := v.tellOnce()
	select {
	case v.again <- struct{}{}:
	default: // not yet taken up: the same
	}
	return err
}

// repeat sends the repeats of every tell until Close.
func (v *VIP) repeat() {
	t := time.NewTimer(0)
	defer t.Stop()
	<-t.C
	var start time.Time
	next := len(repeats)
	for {
		select {
		case <-v.stop:
			return
		case <-v.again:
			start, next = time.Now(), 0
		case <-t.C:
			if err := v.tellOnce(); err != nil && !errors.Is(err, ErrNotActive) {
				v.log.Debug("announcement failed", "err", err)
			}
			next++
		}
		if next < len(repeats) {
			t.Reset(time.Until(start.Add(repeats[next])))
		} else {
			t.Stop()
		}
	}
}

// tellOnce sends both forms, if the address is active and the lease alive.
// What comes between this look and the wire is the gate's business, where it
// covers the device. sending is held meanwhile, so that a Stop can wait for it.
func (v *VIP) tellOnce() error {
	v.sending.Lock()
	defer v.sending.Unlock()
	d, err := v.device()
	if err != nil {
		return err
	}
	v.mu.Lock()
	active, left := v.active, v.left-gate.Now().Since(v.at)
	v.mu.Unlock()
	switch {
	case !active:
		return ErrNotActive
	case left <= 0:
		return ErrLapsed
	case !d.arp:
		return nil // a tunnel: there is nobody to tell
	}
	a := announcements(d.mac, v.addr)
	err = v.arp.send(d.index, a[:]...)
	failpoint.Here("vip.announced")
	if errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("%w: the gate is shut, or the queue of %s full", err, v.o.Interface)
	}
	return err
}
