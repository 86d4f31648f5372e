package vip_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/vip"
	"github.com/failoverd/failoverd/vip/internal/nettest"
)

func TestPrepareFindsAConflict(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		nw := nettest.NewNet(t)
		h, rogue := nw.Host(), nw.Host()
		n := newNode(t, h, gated, nil)
		start := time.Now()
		if err := n.Prepare(ctx, nil); err != nil {
			t.Fatalf("nobody else has it: %v", err)
		}
		if d := time.Since(start); d < 200*time.Millisecond {
			t.Errorf("prepared after %s: no time for an answer", d)
		}
		tap := rogue.Tap()
		rogue.AddAddr(address + "/24")
		err := n.Prepare(ctx, nil)
		var conflict *vip.ConflictError
		if !errors.As(err, &conflict) || conflict.MAC.String() != rogue.MAC.String() || !strings.Contains(err.Error(), rogue.MAC.String()) {
			t.Fatalf("err = %v, want a conflict with %s", err, rogue.MAC)
		}
		var probes []nettest.Frame
		nettest.Eventually(t, "a probe on the wire", func() bool {
			probes = tap.Frames(func(f nettest.Frame) bool { return f.TPA == addr && f.Op == 1 })
			return len(probes) > 0
		})
		for _, p := range probes {
			if !p.SPA.IsUnspecified() {
				t.Errorf("a probe in the name of %s: RFC 5227 wants 0.0.0.0", p.SPA)
			}
		}
		if err := n.Prepare(ctx, []net.HardwareAddr{rogue.MAC}); err != nil {
			t.Errorf("the old holder's MAC taken for a conflict: %v", err)
		}
		if c, ok := n.Conflict(); ok {
			t.Errorf("the old holder's MAC remembered as a conflict: %v", c)
		}

		// A grant is claimed all the same, and it is said.
		if err := n.Prepare(ctx, nil); !errors.As(err, &conflict) {
			t.Fatalf("err = %v, want a conflict", err)
		}
		n.start(t, lease)
		if n.reported("address-conflict: "+address+" was in use by "+rogue.MAC.String()) != 1 {
			t.Errorf("events: %q", n.events)
		}
	})
}

func TestPrepareIsBounded(t *testing.T) {
	nettest.NeedNet(t)
	h := nettest.NewNet(t).Host()
	n := newNode(t, h, true, nil)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := n.Prepare(short, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want the deadline", err)
	}
	// A Start does not wait for a Prepare under way.
	best := time.Hour // of several: the machine may be busy
	for range 5 {
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- n.Prepare(ctx, nil) }()
		begin := time.Now()
		n.start(t, lease)
		best = min(best, time.Since(begin))
		if err := <-done; err != nil {
			t.Errorf("Prepare: %v", err)
		}
	}
	if best > 100*time.Millisecond {
		t.Errorf("Start took %s beside a Prepare", best)
	}
	h.Cable(false)
	nettest.Eventually(t, "the loss to be seen", func() bool { return n.reported("link-down") == 1 })
	if err := n.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.Prepare(ctx, nil); err == nil || !strings.Contains(err.Error(), "carrier") {
		t.Errorf("err = %v, want the missing carrier", err)
	}
}

func TestConflictWhileActive(t *testing.T) {
	nettest.NeedNet(t)
	nw := nettest.NewNet(t)
	h, rogue, client := nw.Host(), nw.Host(), nw.Host()
	n := newNode(t, h, true, nil)
	n.start(t, lease)
	// The announcements of the start are over before the count.
	tap := client.Tap()
	nettest.Eventually(t, "the last announcement of the start", func() bool { return announced(tap, 1, h) >= 4 })
	before := announced(tap, 1, h)
	for range 20 {
		rogue.SendARP(2, rogue.MAC, address, address)
	}
	nettest.Eventually(t, "the report", func() bool { return n.reported("address-conflict") > 0 })
	nettest.Eventually(t, "the defence", func() bool { return announced(tap, 1, h) > before })
	if got := n.reported("address-conflict: " + address + " is also claimed by the host with hardware address " + rogue.MAC.String()); got != 1 {
		t.Errorf("reported %d times: %q", got, n.events)
	}
	if got := announced(tap, 1, h) - before; got > 2 {
		t.Errorf("defended %d times within an interval", got)
	}
	if c, ok := n.Conflict(); !ok || c.MAC.String() != rogue.MAC.String() {
		t.Errorf("conflict = %v, %v", c, ok)
	}
	// Asking for the address, or probing for it, is nobody's conflict.
	other := nw.Host()
	other.SendARP(1, other.MAC, "0.0.0.0", address)
	other.SendARP(1, other.MAC, other.IP.String(), address)
	other.SendARP(2, other.MAC, address, address) // behind which the above have come
	nettest.Eventually(t, "the second conflict", func() bool { return n.reported("address-conflict") > 1 })
	if n.reported("address-conflict") != 2 {
		t.Errorf("events: %q", n.events)
	}
}
