package vip_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
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
