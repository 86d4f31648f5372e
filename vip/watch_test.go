package vip_test

import (
	"testing"
	"time"

	"github.com/failoverd/failoverd/vip/internal/nettest"
)

// announced counts gratuitous ARP packets of one form for the address.
func announced(tap *nettest.Tap, op uint16, h *nettest.Host) int {
	return len(tap.Frames(func(f nettest.Frame) bool {
		return f.Op == op && f.SPA == addr && f.TPA == addr && f.SHA.String() == h.MAC.String()
	}))
}

func TestAnnouncedInBothForms(t *testing.T) {
	nettest.NeedNet(t)
	net := nettest.NewNet(t)
	a, b, client := net.Host(), net.Host(), net.Host()
	a.Echo(7)
	b.Echo(7)
	first, second := newNode(t, a, true, nil), newNode(t, b, true, nil)
	tap := client.Tap()
	first.start(t, lease)
	c := client.Dial(address, 7)
	if !c.Answers() {
		t.Fatal("no answer")
	}
	if got := client.Neighbour(address); got.String() != a.MAC.String() {
		t.Fatalf("neighbour %s, want %s", got, a.MAC)
	}
	nettest.Eventually(t, "announcements repeated in both forms", func() bool {
		return announced(tap, 1, a) >= 3 && announced(tap, 2, a) >= 3
	})
	if err := first.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	second.start(t, lease)
	nettest.Eventually(t, "the client to know the new holder", func() bool {
		return client.Neighbour(address).String() == b.MAC.String()
	})
	if !c.Answers() {
		t.Error("no answer from the new holder")
	}

	// A partition healed: somebody else's announcement came meanwhile.
	client.SendARP(2, a.MAC, address, address)
	a.SendARP(2, a.MAC, address, address)
	before := announced(tap, 1, b)
	if err := second.Announce(ctx); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "the announcement", func() bool { return announced(tap, 1, b) > before })
	nettest.Eventually(t, "the client to believe the holder", func() bool {
		return client.Neighbour(address).String() == b.MAC.String()
	})
	if err := first.Announce(ctx); err == nil {
		t.Error("announced by a host that does not hold it")
	}
}

func TestForeignDeletionIsPutBack(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		net := nettest.NewNet(t)
		h, client := net.Host(), net.Host()
		h.Echo(7)
		n := newNode(t, h, gated, nil)
		n.start(t, lease)
		tap := client.Tap()
		h.DelAddr(address + "/32")
		nettest.Eventually(t, "the address to be put back", func() bool { return n.running(t) && n.reported("address-restored") > 0 })
		nettest.Eventually(t, "an announcement", func() bool { return announced(tap, 1, h) > 0 })
		if !client.Dial(address, 7).Answers() {
			t.Error("no answer after it was put back")
		}
		for _, a := range h.Addrs() {
			if a.IP.String() == address && (a.ValidLft < 10 || a.ValidLft > 21) {
				t.Errorf("put back with valid_lft %d", a.ValidLft)
			}
		}
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if n.running(t) {
			t.Error("put back after Stop")
		}
	})
}

func TestLapse(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		net := nettest.NewNet(t)
		h, client := net.Host(), net.Host()
		h.Echo(7)
		n := newNode(t, h, gated, nil)
		c := client.Dial(address, 7)
		n.start(t, lease)
		if !c.Answers() {
			t.Fatal("no answer while armed")
		}
		left := 3 * time.Second
		armed := time.Now()
		if err := n.Arm(left); err != nil {
			t.Fatal(err)
		}
		last := c.Answered(armed.Add(left + time.Second))
		if late := last.Sub(armed.Add(left)); late > n.Kappa() {
			t.Errorf("answered %s after the lease; kappa is %s", late, n.Kappa())
		}
		t.Logf("last answer %s after arming for %s", last.Sub(armed).Round(time.Millisecond), left)
		nettest.Eventually(t, "the kernel to remove the address", func() bool { return !n.running(t) })
		nettest.Eventually(t, "the report", func() bool { return n.reported("address-lapsed") == 1 })

		// The lease was resumed: it comes back by itself, announced.
		tap := client.Tap()
		if err := n.Arm(lease); err != nil {
			t.Fatal(err)
		}
		nettest.Eventually(t, "the address to come back", func() bool { return n.running(t) })
		if !c.Answers() {
			t.Error("no answer after the lease was resumed")
		}
		nettest.Eventually(t, "an announcement", func() bool { return announced(tap, 1, h) > 0 })
	})
}

// Renewed each quarter of its time, the address is never away.
func TestRenewedAddressStays(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		net := nettest.NewNet(t)
		h, client := net.Host(), net.Host()
		h.Echo(7)
		n := newNode(t, h, gated, nil)
		left := 600 * time.Millisecond
		if !gated {
			left = 3 * time.Second
		}
		n.start(t, lease)
		c := client.Dial(address, 7)
		if !c.Answers() {
			t.Fatal("no answer")
		}
		for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
			if err := n.Arm(left); err != nil {
				t.Fatal(err)
			}
			if last := c.Answered(time.Now().Add(left / 4)); last.IsZero() {
				t.Error("silent while renewed")
			}
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.events) > 0 {
			t.Errorf("events: %q", n.events)
		}
	})
}

func TestLinkFlapIsAnnounced(t *testing.T) {
	nettest.NeedNet(t)
	net := nettest.NewNet(t)
	h, client := net.Host(), net.Host()
	n := newNode(t, h, true, nil)
	n.start(t, lease)
	tap := client.Tap()
	h.Cable(false)
	nettest.Eventually(t, "the loss to be seen", func() bool { return n.reported("link-down") == 1 })
	before := announced(tap, 2, h)
	h.Cable(true)
	nettest.Eventually(t, "the link to be seen", func() bool { return n.reported("link-up") >= 1 })
	nettest.Eventually(t, "an announcement", func() bool { return announced(tap, 2, h) > before })
}

func TestInterfaceComesAndGoes(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		net := nettest.NewNet(t)
		h, client := net.Host(), net.Host()
		h.Echo(7)
		n := newNode(t, h, gated, nil)
		n.start(t, lease)
		h.Unplug()
		nettest.Eventually(t, "the loss to be seen", func() bool { return n.reported("link-gone") == 1 })
		if n.running(t) {
			t.Error("running without its interface")
		}
		if _, err := n.VIP.MAC(); err == nil {
			t.Error("a MAC without an interface")
		}
		if err := n.Arm(lease); err != nil {
			t.Errorf("Arm without the interface: %v", err)
		}
		h.Plug()
		nettest.Eventually(t, "the address to come back", func() bool { return n.running(t) })
		if !client.Dial(address, 7).Answers() {
			t.Error("no answer after the interface came back")
		}
		h.Unplug()
		nettest.Eventually(t, "the loss to be seen", func() bool { return n.reported("link-gone") == 2 })
		if err := n.Stop(ctx); err != nil {
			t.Errorf("Stop without the interface: %v", err)
		}
		if err := n.Arm(lease); err != nil {
			t.Fatal(err)
		}
		if err := n.VIP.Start(ctx, 2); err == nil {
			t.Error("started without an interface")
		} else {
			t.Log(err)
		}
	})
}
