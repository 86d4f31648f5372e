package vip_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/failoverd/failoverd/vip"
	"github.com/failoverd/failoverd/vip/gate"
	"github.com/failoverd/failoverd/vip/internal/nettest"
)

// The helper is a daemon reduced to its address: it claims and renews it until
// it is killed or stopped. FAILOVERD_TEST_HELPER names gate or lifetime and the lease.
const helperEnv = "FAILOVERD_TEST_HELPER"

func TestMain(m *testing.M) {
	if spec := os.Getenv(helperEnv); spec != "" {
		if err := helper(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helper(spec string) error {
	kind, text, _ := strings.Cut(spec, " ")
	left, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	o := vip.Options{Address: netip.MustParsePrefix(address + "/24"), Interface: "eth0"}
	if kind == "gate" {
		if o.Gate, err = gate.Open(""); err != nil {
			return err
		}
	}
	v, err := vip.New(o)
	if err != nil {
		return err
	}
	if err := v.Arm(left); err != nil {
		return err
	}
	if err := v.Start(context.Background(), 1); err != nil {
		return err
	}
	fmt.Println("started")
	answers := bufio.NewReader(os.Stdin)
	for {
		// A renewal: the clock is read, the question sent, the answer awaited.
		time.Sleep(left / 6)
		since := gate.Now()
		fmt.Println("renew")
		if _, err := answers.ReadString('\n'); err != nil {
			return err
		}
		if err := v.ArmSince(since, left); err != nil && !errors.Is(err, vip.ErrLapsed) {
			return err
		}
	}
}

// daemon is a helper that runs, with the test as its majority.
type daemon struct {
	*os.Process
	asked   chan struct{} // one for each question
	answers io.Writer
	silent  atomic.Bool // the majority answers no more
}

// startHelper runs the helper on the host and returns when it has started.
func startHelper(t *testing.T, h *nettest.Host, gated bool, left time.Duration) *daemon {
	t.Helper()
	kind := "lifetime"
	if gated {
		kind = "gate"
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+kind+" "+left.String())
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.Start(cmd)
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || line != "started\n" {
		t.Fatalf("helper: %q, %v", line, err)
	}
	d := &daemon{Process: cmd.Process, asked: make(chan struct{}, 100), answers: in}
	go func() { // ends when the helper does
		for {
			if _, err := lines.ReadString('\n'); err != nil {
				return
			}
			if !d.silent.Load() {
				fmt.Fprintln(in, "ok")
			}
			select {
			case d.asked <- struct{}{}:
			default:
			}
		}
	}()
	return d
}

func signal(t *testing.T, p *daemon, s syscall.Signal) {
	t.Helper()
	if err := p.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// A daemon that is frozen loses the address at the end of its lease, and gets
// nothing through when it thaws until it has a lease again.
func TestFrozenDaemon(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		leases := []time.Duration{3 * time.Second}
		kappa := 400 * time.Millisecond
		if gated {
			leases, kappa = []time.Duration{100 * time.Millisecond, 600 * time.Millisecond, 2 * time.Second}, 20*time.Millisecond
		}
		for _, left := range leases {
			t.Run(left.String(), func(t *testing.T) {
				nw := nettest.NewNet(t)
				h, client := nw.Host(), nw.Host()
				h.Echo(7)
				p := startHelper(t, h, gated, left)
				c := client.Dial(address, 7)
				if !c.Answers() {
					t.Fatal("no answer")
				}
				signal(t, p, syscall.SIGSTOP)
				stopped := time.Now() // its last renewal was before
				last := c.Answered(stopped.Add(left + time.Second))
				if late := last.Sub(stopped.Add(left)); late > kappa {
					t.Errorf("answered %s after the end of the lease", late)
				}
				if gated {
					client.ForgetNeighbour(address)
					tap := client.Tap()
					if c.Ask(100 * time.Millisecond) {
						t.Error("answered while frozen")
					}
					if got := tap.Frames(func(f nettest.Frame) bool { return f.SPA == addr }); len(got) > 0 {
						t.Errorf("ARP in the address's name while frozen: %+v", got)
					}
				}
				t.Logf("last answer %s after SIGSTOP, lease %s", last.Sub(stopped).Round(time.Millisecond), left)
			})
		}
	})
}

// A daemon is frozen between its question and the answer, and thaws with the
// answer in its hands when the lease is over: it opens nothing any more.
func TestFrozenWithTheAnswerInItsHands(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		left := 600 * time.Millisecond
		if !gated {
			left = 3 * time.Second
		}
		nw := nettest.NewNet(t)
		h, client := nw.Host(), nw.Host()
		h.Echo(7)
		p := startHelper(t, h, gated, left)
		c := client.Dial(address, 7)
		if !c.Answers() {
			t.Fatal("no answer")
		}
		p.silent.Store(true)
		for len(p.asked) > 0 {
			<-p.asked
		}
		<-p.asked // the one that is answered while it is frozen, or the one before
		signal(t, p, syscall.SIGSTOP)
		stopped := time.Now()
		fmt.Fprintln(p.answers, "ok")
		c.Answered(stopped.Add(left + 500*time.Millisecond))
		tap := client.Tap()
		signal(t, p, syscall.SIGCONT)
		thawed := time.Now()
		select {
		case <-p.asked: // it has tried, and asks again
		case <-time.After(10 * time.Second):
			t.Fatal("the helper does not run on")
		}
		if last := c.Answered(time.Now().Add(100 * time.Millisecond)); last.After(thawed) {
			t.Errorf("answered %s after it thawed", last.Sub(thawed))
		}
		if got := tap.Frames(func(f nettest.Frame) bool { return f.SPA == addr && f.At.After(thawed) }); len(got) > 0 {
			t.Errorf("ARP in the address's name after it thawed: %+v", got)
		}
	})
}

func TestCleanStaleAfterKill(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		nw := nettest.NewNet(t)
		h, client := nw.Host(), nw.Host()
		h.Echo(7)
		h.AddAddr("192.0.2.77/24") // nothing of ours
		p := startHelper(t, h, gated, lease)
		signal(t, p, syscall.SIGKILL)
		c := client.Dial(address, 7)
		if !c.Answers() {
			t.Fatal("the address went with the daemon: a restart would be an outage")
		}
		clean := func(keep ...netip.Addr) (removed []netip.Prefix) {
			h.Do(func() error {
				o := vip.CleanOptions{Keep: keep}
				if gated {
					g, err := gate.Open("")
					if err != nil {
						return err
					}
					defer func() {
						if err := g.Close(); err != nil {
							t.Error(err)
						}
					}()
					o.Gate = g
				}
				var err error
				removed, err = vip.CleanStale(ctx, o)
				return err
			})
			return removed
		}
		if got := clean(addr); len(got) > 0 {
			t.Errorf("removed %v though told to keep it", got)
		}
		if !c.Answers() {
			t.Error("no answer though it was to be kept")
		}
		if got := clean(); len(got) != 1 || got[0] != netip.PrefixFrom(addr, 32) {
			t.Errorf("removed %v, want %s/32", got, address)
		}
		if got := len(h.Addrs()); got != 2 {
			t.Errorf("%d addresses left, want the two that are not ours", got)
		}
		if got := listing(t, h); strings.Contains(got, "table") {
			t.Errorf("left behind:\n%s", got)
		}
		if got := clean(); len(got) > 0 {
			t.Errorf("removed %v the second time", got)
		}
	})
}

// A new daemon takes over what the old one left, and no client notices.
func TestAdopt(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		nw := nettest.NewNet(t)
		h, client := nw.Host(), nw.Host()
		h.Echo(7)
		p := startHelper(t, h, gated, lease)
		c := client.Dial(address, 7)
		if !c.Answers() {
			t.Fatal("no answer")
		}
		signal(t, p, syscall.SIGKILL)
		n := newNode(t, h, gated, nil)
		if !gated {
			if err := n.Adopt(ctx, 1); !errors.Is(err, vip.ErrNothingToAdopt) {
				t.Errorf("adopted without a lease: %v", err)
			}
			if err := n.Arm(lease); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Adopt(ctx, 1); err != nil {
			t.Fatal(err)
		}
		if !c.Ask(time.Second) {
			t.Error("no answer after the adoption")
		}
		h.DelAddr(address + "/32")
		nettest.Eventually(t, "an adopted address to be put back", func() bool { return n.running(t) })
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if err := n.Adopt(ctx, 1); !errors.Is(err, vip.ErrNothingToAdopt) {
			t.Errorf("adopted what is not there: %v", err)
		}
	})
}

// listing is everything of the host's network that we could leave behind.
func listing(t testing.TB, h *nettest.Host) string {
	t.Helper()
	var b strings.Builder
	h.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			fmt.Fprintf(&b, "link %s %s\n", l.Attrs().Name, l.Attrs().HardwareAddr)
			addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				fmt.Fprintf(&b, "addr %s\n", a)
			}
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, 0)
		if err != nil {
			return err
		}
		for _, r := range routes {
			fmt.Fprintf(&b, "route %s\n", r)
		}
		local, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 255}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, r := range local {
			fmt.Fprintf(&b, "local %s\n", r)
		}
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		for _, x := range tables {
			fmt.Fprintf(&b, "table %d %s\n", x.Family, x.Name)
		}
		return err
	})
	return b.String()
}

func TestNothingIsLeft(t *testing.T) {
	both(t, func(t *testing.T, gated bool) {
		for _, keep := range []bool{false, true} {
			h := nettest.NewNet(t).Host()
			before := listing(t, h)
			n := newNode(t, h, gated, func(o *vip.Options) { o.KeepPrefix = keep })
			n.start(t, lease)
			if listing(t, h) == before {
				t.Fatal("the listing does not show a claimed address")
			}
			if err := n.Stop(ctx); err != nil {
				t.Fatal(err)
			}
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			if n.gate != nil {
				if err := n.gate.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if after := listing(t, h); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		}
	})
}
