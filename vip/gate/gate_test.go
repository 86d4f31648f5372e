package gate_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/failoverd/failoverd/vip/gate"
	"github.com/failoverd/failoverd/vip/internal/nettest"
)

const vip = "192.0.2.100"

var vipAddr = netip.MustParseAddr(vip)

// open makes a gate in the host's namespace.
func open(t testing.TB, ns *nettest.NS, name string) *gate.Gate {
	t.Helper()
	var g *gate.Gate
	ns.Do(func() error {
		var err error
		g, err = gate.Open(name)
		return err
	})
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return g
}

func arm(t testing.TB, g *gate.Gate, left time.Duration) {
	t.Helper()
	if err := g.Arm([]netip.Addr{vipAddr}, left); err != nil {
		t.Fatal(err)
	}
}

// world is a holder that has the address, answers on it, and a client.
func world(t testing.TB) (holder, client *nettest.Host, c *nettest.Client) {
	t.Helper()
	nettest.NeedNet(t)
	n := nettest.NewNet(t)
	holder, client = n.Host(), n.Host()
	holder.AddAddr(vip + "/32")
	holder.Echo(7)
	return holder, client, client.Dial(vip, 7)
}

func TestClosedUntilArmed(t *testing.T) {
	holder, client, c := world(t)
	if !c.Answers() {
		t.Fatal("the world itself does not work: no answer without a gate")
	}
	g := open(t, holder.NS, "")
	if err := g.Manage(vipAddr); err != nil {
		t.Fatal(err)
	}
	if c.Ask(100 * time.Millisecond) {
		t.Error("answered though managed and never armed")
	}
	if client.Ping(vip, 100*time.Millisecond) {
		t.Error("ping answered though shut")
	}
	arm(t, g, 20*time.Second)
	if !c.Answers() {
		t.Error("no answer though armed")
	}
	if !client.Ping(vip, 5*time.Second) {
		t.Error("ping not answered though armed")
	}
	if err := g.Shut([]netip.Addr{vipAddr}); err != nil {
		t.Fatal(err)
	}
	if c.Ask(100 * time.Millisecond) {
		t.Error("answered after Shut")
	}
	if err := g.Remove([]netip.Addr{vipAddr}); err != nil {
		t.Fatal(err)
	}
	if !c.Answers() {
		t.Error("no answer after Remove: the address is nobody's business then")
	}
}

// An expired address is silent on the wire: no ARP answer, no ARP request in
// its name, no packet from it, not even from a raw socket.
func TestExpiredIsSilentOnTheWire(t *testing.T) {
	holder, client, c := world(t)
	g := open(t, holder.NS, "")
	if err := g.Cover("eth0"); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "an answer while armed", func() bool {
		arm(t, g, 200*time.Millisecond)
		return c.Ask(100 * time.Millisecond)
	})
	nettest.Eventually(t, "expiry", func() bool { return g.Left(vipAddr) == 0 })
	client.ForgetNeighbour(vip)
	tap := client.Tap()

	client.SendARP(1, client.MAC, client.IP.String(), vip) // who has it?
	holder.SendARP(1, holder.MAC, vip, vip)                // a late announcement, both forms
	holder.SendARP(2, holder.MAC, vip, vip)
	if c.Ask(100 * time.Millisecond) {
		t.Error("answered after expiry")
	}
	if client.Ping(vip, 100*time.Millisecond) {
		t.Error("ping answered after expiry")
	}
	// Something that does come through proves that the tap works, and comes
	// behind all the above.
	holder.SendARP(1, holder.MAC, holder.IP.String(), "192.0.2.250")
	nettest.Eventually(t, "the marker", func() bool {
		return len(tap.Frames(func(f nettest.Frame) bool { return f.TPA.String() == "192.0.2.250" })) == 1
	})
	if got := tap.Frames(func(f nettest.Frame) bool { return f.SPA == vipAddr }); len(got) > 0 {
		t.Errorf("ARP in the name of the expired address: %+v", got)
	}

	arm(t, g, 20*time.Second)
	holder.SendARP(1, holder.MAC, vip, vip)
	nettest.Eventually(t, "an announcement while armed", func() bool {
		return len(tap.Frames(func(f nettest.Frame) bool { return f.SPA == vipAddr })) > 0
	})
	if !c.Answers() {
		t.Error("no answer after arming again")
	}
}

// Renewed every interval, never silent; left alone, silent before the lease is over.
func TestExpiryIsOnTime(t *testing.T) {
	for _, lease := range []time.Duration{100 * time.Millisecond, 600 * time.Millisecond} {
		t.Run(lease.String(), func(t *testing.T) {
			holder, _, c := world(t)
			g := open(t, holder.NS, "")
			nettest.Eventually(t, "an answer while armed", func() bool {
				arm(t, g, lease)
				return c.Ask(lease / 2)
			})
			// Too late is never forgiven. That a busy machine sees nothing of
			// an address for a while, or not to the end, is: five times.
			for try := 1; ; try++ {
				arm(t, g, lease)
				kept := !c.Answered(time.Now().Add(lease / 3)).IsZero()
				armed := time.Now()
				arm(t, g, lease)
				last := c.Answered(armed.Add(2 * lease))
				if late := last.Sub(armed.Add(lease)); late > 0 {
					t.Fatalf("answered %s after the end of the lease", late)
				}
				if kept && last.After(armed.Add(lease/2)) {
					t.Logf("lease %s: last answer %s after arming (0.9 of it is armed)", lease, last.Sub(armed).Round(100*time.Microsecond))
					return
				}
				if try == 5 {
					t.Fatalf("answered while renewed: %v; last answer %s after arming for %s", kept, last.Sub(armed), lease)
				}
			}
		})
	}
}

func TestLateArmIsRefused(t *testing.T) {
	holder, _, c := world(t)
	g := open(t, holder.NS, "")
	arm(t, g, 20*time.Second)
	since := gate.Now()
	since.Boot -= time.Second
	since.Raw -= time.Second
	err := g.ArmSince([]netip.Addr{vipAddr}, since, 900*time.Millisecond)
	if !errors.Is(err, gate.ErrLapsed) {
		t.Fatalf("err = %v, want ErrLapsed", err)
	}
	if g.Left(vipAddr) != 0 {
		t.Error("left over after a lapse")
	}
	if c.Ask(100 * time.Millisecond) {
		t.Error("answered after a lapse: it must be shut, however long it was armed before")
	}
}

func TestShutAllFromOutside(t *testing.T) {
	holder, _, c := world(t)
	g := open(t, holder.NS, "mine")
	damage := make(chan gate.Damage, 4)
	g.OnDamage(func(d gate.Damage) { damage <- d })
	arm(t, g, 20*time.Second)
	if !c.Answers() {
		t.Fatal("no answer while armed")
	}
	holder.Do(func() error { return gate.ShutAll("mine") })
	if c.Ask(100 * time.Millisecond) {
		t.Error("answered after ShutAll")
	}
	select {
	case d := <-damage:
		if len(d.Shut) != 1 || !strings.Contains(d.String(), "shut early 192.0.2.100") {
			t.Errorf("damage = %s", d)
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody noticed that the gate was shut early")
	}
	if g.Left(vipAddr) != 0 {
		t.Error("a gate shut from outside is still counted as open")
	}
	if c.Ask(100 * time.Millisecond) {
		t.Error("answered again though nobody armed it")
	}
	arm(t, g, 20*time.Second)
	if !c.Answers() {
		t.Error("no answer after arming again")
	}

	holder.Do(func() error {
		if err := gate.ShutAll("other"); !errors.Is(err, gate.ErrMissing) {
			t.Errorf("ShutAll of a gate that is not there: %v, want ErrMissing", err)
		}
		return nil
	})
	holder.Do(func() error { return gate.ShutAll("other", vipAddr) })
	if c.Ask(100 * time.Millisecond) {
		t.Error("answered though ShutAll with addresses made a shut gate")
	}
	holder.Do(func() error { return gate.Clean("other") })
	if !c.Answers() {
		t.Error("no answer after Clean of the other gate")
	}
}

// A daemon that comes back finds open what was open, for no longer than it was.
func TestTakeOver(t *testing.T) {
	holder, _, c := world(t)
	old := open(t, holder.NS, "")
	arm(t, old, 20*time.Second)
	other := netip.MustParseAddr("192.0.2.101")
	if err := old.Manage(other); err != nil {
		t.Fatal(err)
	}
	holder.Do(func() error {
		if g, err := gate.Open(""); !errors.Is(err, gate.ErrInUse) {
			t.Errorf("a second gate of the name: %v, %v; want ErrInUse", g, err)
		}
		return nil
	})
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if !c.Answers() {
		t.Error("no answer with nobody there though the lease lives")
	}
	g := open(t, holder.NS, "")
	if !c.Answers() {
		t.Error("no answer after the table was taken over")
	}
	state, err := g.State()
	if err != nil {
		t.Fatal(err)
	}
	if left := state[vipAddr]; left < 10*time.Second || left > 18*time.Second {
		t.Errorf("left = %s, want something below 18 s", left)
	}
	if left, ok := state[other]; !ok || left != 0 {
		t.Errorf("other: left = %s, managed %v; want managed and shut", left, ok)
	}
	if err := g.Remove([]netip.Addr{vipAddr, other}); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedNames(t *testing.T) {
	for _, name := range []string{"1a", "a b", "a;b", strings.Repeat("x", 65), "-"} {
		if g, err := gate.Open(name); err == nil {
			g.Close()
			t.Errorf("%q accepted", name)
		}
	}
	if err := (&gate.Gate{}).Arm([]netip.Addr{netip.MustParseAddr("2001:db8::1")}, time.Second); !errors.Is(err, gate.ErrAddress) {
		t.Errorf("IPv6: %v, want ErrAddress", err)
	}
}

func TestAsOrdinaryUser(t *testing.T) { nettest.AsUser(t, "TestExpiredIsSilentOnTheWire") }

// Where the network may not be changed the error says so, and what is missing.
func TestUnavailable(t *testing.T) {
	if !nettest.Inside() {
		nettest.WithoutNet(t, "TestUnavailable")
		return
	}
	_, err := gate.Open("")
	if !errors.Is(err, gate.ErrUnavailable) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("err = %v, want ErrUnavailable and the capability's name", err)
	}
}
