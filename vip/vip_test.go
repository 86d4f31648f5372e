package vip_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	stdnet "net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/vip"
	"github.com/failoverd/failoverd/vip/gate"
	"github.com/failoverd/failoverd/vip/internal/nettest"
)

const (
	address = "192.0.2.100"
	lease   = 20 * time.Second
)

var (
	ctx  = context.Background()
	addr = netip.MustParseAddr(address)
)

// node is a host with a VIP, and what the VIP has reported.
type node struct {
	*nettest.Host
	*vip.VIP
	gate *gate.Gate

	mu     sync.Mutex
	events []string
}

// newNode makes a VIP on the host, with or without a gate.
func newNode(t testing.TB, h *nettest.Host, gated bool, change func(*vip.Options)) *node {
	t.Helper()
	n := &node{Host: h}
	h.Do(func() error {
		var err error
		if gated {
			if n.gate, err = gate.Open(""); err != nil {
				return err
			}
		}
		o := vip.Options{
			Name: "vip1", Address: netip.MustParsePrefix(address + "/24"), Interface: "eth0", Gate: n.gate,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			Report: func(event, text string) {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.events = append(n.events, event+": "+text)
			},
		}
		if change != nil {
			change(&o)
		}
		n.VIP, err = vip.New(o)
		return err
	})
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close vip: %v", err)
		}
		if n.gate != nil {
			if err := n.gate.Close(); err != nil {
				t.Errorf("close gate: %v", err)
			}
		}
	})
	return n
}

// reported reports how many of the events begin like this.
func (n *node) reported(event string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := 0
	for _, e := range n.events {
		if strings.HasPrefix(e, event) {
			c++
		}
	}
	return c
}

// start arms and starts.
func (n *node) start(t testing.TB, left time.Duration) {
	t.Helper()
	if err := n.Arm(left); err != nil {
		t.Fatal(err)
	}
	if err := n.VIP.Start(ctx, 1); err != nil {
		t.Fatal(err)
	}
}

func (n *node) running(t testing.TB) bool {
	t.Helper()
	yes, err := n.Running(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return yes
}

// both runs a test with and without a gate.
func both(t *testing.T, fn func(t *testing.T, gated bool)) {
	nettest.NeedNet(t)
	t.Run("gate", func(t *testing.T) { fn(t, true) })
	t.Run("lifetime alone", func(t *testing.T) { fn(t, false) })
}

func TestClaimAndGiveUp(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		net := nettest.NewNet(t)
		h, client := net.Host(), net.Host()
		h.Echo(7)
		before := len(h.Addrs())
		n := newNode(t, h, gated, nil)
		if n.running(t) {
			t.Error("running before Start")
		}
		if err := n.VIP.Start(ctx, 1); !errors.Is(err, vip.ErrNotArmed) {
			t.Fatalf("Start without Arm: %v, want ErrNotArmed", err)
		}
		n.start(t, lease)
		if !n.running(t) {
			t.Error("not running after Start")
		}
		c := client.Dial(address, 7)
		if !c.Answers() {
			t.Error("no answer from the address")
		}
		found := false
		for _, a := range h.Addrs() {
			if a.IP.String() != address {
				continue
			}
			found = true
			bits, _ := a.Mask.Size()
			if bits != 32 || a.Flags&unix.IFA_F_NOPREFIXROUTE == 0 || a.Flags&unix.IFA_F_PERMANENT != 0 {
				t.Errorf("claimed as /%d with flags %#x", bits, a.Flags)
			}
			if a.Label != "eth0:fod" {
				t.Errorf("label %q", a.Label)
			}
			if a.ValidLft < 10 || a.ValidLft > 21 || a.PreferedLft != a.ValidLft {
				t.Errorf("valid_lft %d, preferred_lft %d", a.ValidLft, a.PreferedLft)
			}
		}
		if !found {
			t.Fatalf("address not there: %v", h.Addrs())
		}
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if n.running(t) {
			t.Error("running after Stop")
		}
		if got := len(h.Addrs()); got != before {
			t.Errorf("%d addresses after Stop, %d before Start", got, before)
		}
		if c.Ask(50 * time.Millisecond) {
			t.Error("answered after Stop")
		}
		if err := n.Stop(ctx); err != nil {
			t.Errorf("second Stop: %v", err)
		}
	})
}

func TestKeepPrefix(t *testing.T) {
	nettest.NeedNet(t)
	h := nettest.NewNet(t).Host()
	n := newNode(t, h, true, func(o *vip.Options) {
		o.Address, o.KeepPrefix = netip.MustParsePrefix("198.51.100.7/25"), true
	})
	n.start(t, lease)
	found := false
	for _, a := range h.Addrs() {
		if a.String() == "198.51.100.7/25 eth0:fod" && a.Flags&unix.IFA_F_NOPREFIXROUTE == 0 {
			found = true
		}
	}
	if !found {
		t.Errorf("addresses %v", h.Addrs())
	}
	if !strings.Contains(listing(t, h), "198.51.100.0/25") {
		t.Error("no route to the kept prefix")
	}
	if err := n.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

// A Stop that leaves the address in another guise on the host has not stopped it.
func TestStopFindsEveryEntry(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		h := nettest.NewNet(t).Host()
		n := newNode(t, h, gated, nil)
		n.start(t, lease)
		h.AddAddr(address + "/24") // an administrator made it static
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(listing(t, h), address) {
			t.Error("still there after a Stop that was proven")
		}
		// It is not to be active, but there: that is running, whoever did it.
		h.AddAddr(address + "/24")
		if !n.running(t) {
			t.Error("not running though the host has the address")
		}
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// On the loopback it is ours only if it is configured there.
func TestLoopback(t *testing.T) {
	nettest.NeedNet(t)
	h := nettest.NewNet(t).Host()
	n := newNode(t, h, true, func(o *vip.Options) { o.Interface = "lo" })
	n.start(t, lease)
	if !n.running(t) || !strings.Contains(listing(t, h), address+"/32 lo:fod") {
		t.Errorf("not claimed on lo:\n%s", listing(t, h))
	}
	m := newNode(t, h, false, nil)
	if m.running(t) {
		t.Error("an address on the loopback taken for the one on eth0")
	}
	if err := m.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if !n.running(t) {
		t.Error("somebody else's Stop removed it from lo")
	}
	if err := n.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if n.running(t) {
		t.Error("running after Stop")
	}
}

// After a Stop something else puts the address back: it serves nobody.
func TestStoppedAddressStaysShut(t *testing.T) {
	nettest.NeedNet(t)
	net := nettest.NewNet(t)
	h, client := net.Host(), net.Host()
	h.Echo(7)
	n := newNode(t, h, true, nil)
	n.start(t, lease)
	c := client.Dial(address, 7)
	if !c.Answers() {
		t.Fatal("no answer")
	}
	if err := n.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	h.AddAddr(address + "/32")
	if c.Ask(100 * time.Millisecond) {
		t.Error("answered though it was stopped")
	}
}

// The standby's own programs reach the address on the holder.
func TestStandbyIsAClientToo(t *testing.T) {
	nettest.NeedNet(t)
	net := nettest.NewNet(t)
	a, b := net.Host(), net.Host()
	a.Echo(7)
	holder, standby := newNode(t, a, true, nil), newNode(t, b, true, nil)
	holder.start(t, lease)
	mac, err := holder.VIP.MAC()
	if err != nil {
		t.Fatal(err)
	}
	if err := standby.Prepare(ctx, []stdnet.HardwareAddr{mac}); err != nil {
		t.Fatal(err)
	}
	if left := standby.gate.Left(addr); left != 0 {
		t.Fatalf("open on the standby for %s", left)
	}
	if !b.Dial(address, 7).Answers() {
		t.Error("a host on which the address is shut must still reach it elsewhere")
	}
}

func TestShortLeases(t *testing.T) {
	nettest.NeedNet(t)
	h := nettest.NewNet(t).Host()
	n := newNode(t, h, false, nil)
	err := n.Arm(time.Second)
	if !errors.Is(err, vip.ErrLeaseTooShort) || !strings.Contains(err.Error(), "3s") {
		t.Errorf("err = %v, want ErrLeaseTooShort with the least", err)
	}
	if g := newNode(t, nettest.NewNet(t).Host(), true, nil); g.Arm(100*time.Millisecond) != nil {
		t.Error("100 ms refused with a gate")
	} else if err := g.Arm(0); !errors.Is(err, vip.ErrLapsed) {
		t.Errorf("err = %v, want ErrLapsed", err)
	}
	for _, n := range []*node{n} {
		if n.Kappa() != 400*time.Millisecond || strings.Join(n.Guarantee(), ", ") != "address lifetime" {
			t.Errorf("kappa %s, guarantee %v", n.Kappa(), n.Guarantee())
		}
	}
}

func TestRefusedOptions(t *testing.T) {
	for text, o := range map[string]vip.Options{
		"no address":        {Interface: "eth0"},
		"not supported yet": {Address: netip.MustParsePrefix("2001:db8::1/64"), Interface: "eth0"},
		"no interface":      {Address: netip.MustParsePrefix("192.0.2.1/24")},
		"longer than":       {Address: netip.MustParsePrefix("192.0.2.1/24"), Interface: "averyveryverylongname"},
		"network itself":    {Address: netip.MustParsePrefix("192.0.2.0/24"), Interface: "eth0"},
		"broadcast":         {Address: netip.MustParsePrefix("192.0.2.255/24"), Interface: "eth0"},
		"can claim":         {Address: netip.MustParsePrefix("224.0.0.5/24"), Interface: "eth0"},
		"IPv4 address":      {Address: netip.MustParsePrefix("::ffff:192.0.2.1/120"), Interface: "eth0"},
	} {
		if v, err := vip.New(o); err == nil {
			v.Close()
			t.Errorf("%v accepted", o.Address)
		} else if !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %q does not say %q", o.Address, err, text)
		}
	}
	if _, err := vip.New(vip.Options{Address: netip.MustParsePrefix("2001:db8::1/64"), Interface: "eth0"}); !errors.Is(err, vip.ErrIPv6) {
		t.Errorf("IPv6: %v", err)
	}
	err := vip.CheckInterface("nosuch0")
	if !errors.Is(err, vip.ErrNoInterface) || !strings.Contains(err.Error(), "lo") {
		t.Errorf("CheckInterface: %v", err)
	}
	if err := vip.CheckInterface("lo"); err != nil {
		t.Error(err)
	}
}

func TestPool(t *testing.T) {
	nettest.NeedNet(t)
	h := nettest.NewNet(t).Host()
	p := vip.NewPool(vip.Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	o := vip.Options{Name: "a", Address: netip.MustParsePrefix(address + "/24"), Interface: "eth0"}
	h.Do(func() error {
		a, err := p.Get(o)
		if err != nil {
			return err
		}
		if b, err := p.Get(o); err != nil || a != b {
			t.Errorf("not the same again: %v", err)
		}
		o.KeepPrefix = true
		if b, err := p.Get(o); err != nil || a == b {
			t.Errorf("the same for another claim: %v", err)
		}
		return nil
	})
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Get(o); !errors.Is(err, vip.ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
}

// Everything at once, for the race detector.
func TestConcurrent(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		h := nettest.NewNet(t).Host()
		n := newNode(t, h, gated, nil)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for range 10 {
					// A Stop beside it takes the lease away.
					if err := n.Arm(lease); err != nil && !errors.Is(err, vip.ErrLapsed) && !errors.Is(err, vip.ErrNotArmed) {
						t.Error(err)
					}
					switch i {
					case 0:
						_ = n.VIP.Start(ctx, 1) // ErrNotArmed beside a Stop
					case 1:
						if err := n.Stop(ctx); err != nil {
							t.Error(err)
						}
					case 2:
						_ = n.Announce(ctx) // ErrNotActive after a Stop
					}
				}
			})
		}
		wg.Wait()
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if n.running(t) {
			t.Error("running after the last Stop")
		}
	})
}

func TestAsOrdinaryUser(t *testing.T) { nettest.AsUser(t, "TestClaimAndGiveUp") }

// BenchmarkStart measures from the call of Arm and Start to the first packet
// of the announcement at a neighbour, as the take-over's client sees it.
func BenchmarkStart(b *testing.B) {
	nettest.NeedNet(b)
	net := nettest.NewNet(b)
	h, client := net.Host(), net.Host()
	n := newNode(b, h, true, nil)
	tap := client.Tap()
	var total, call time.Duration
	for b.Loop() {
		begin := time.Now()
		n.start(b, lease)
		call += time.Since(begin)
		var first time.Time
		nettest.Eventually(b, "the announcement", func() bool {
			f := tap.Frames(func(f nettest.Frame) bool { return f.SPA == addr && f.At.After(begin) })
			if len(f) > 0 {
				first = f[0].At
			}
			return len(f) > 0
		})
		total += first.Sub(begin)
		b.StopTimer()
		if err := n.Stop(ctx); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(total.Microseconds())/float64(b.N), "µs-to-wire")
	b.ReportMetric(float64(call.Microseconds())/float64(b.N), "µs-call")
}
