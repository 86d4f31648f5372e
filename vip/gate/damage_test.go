package gate_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/vip/gate"
	"github.com/failoverd/failoverd/vip/internal/nettest"
)

// nft changes the namespace's ruleset as another program would.
func nft(t testing.TB, ns *nettest.NS, change func(c *nftables.Conn)) {
	t.Helper()
	ns.Do(func() error {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		defer func() { _ = c.CloseLasting() }()
		change(c)
		return c.Flush()
	})
}

// tables lists the ruleset's tables.
func tables(t testing.TB, ns *nettest.NS) []string {
	t.Helper()
	var names []string
	ns.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		list, err := c.ListTables()
		for _, x := range list {
			names = append(names, x.Name)
		}
		return err
	})
	return names
}

// ours are the gate's tables as another program names them.
func ours(f nftables.TableFamily) *nftables.Table {
	return &nftables.Table{Family: f, Name: gate.DefaultName}
}

// damaged arms a gate, lets change damage it, and returns what was reported.
func damaged(t *testing.T, change func(c *nftables.Conn)) (g *gate.Gate, d gate.Damage, c *nettest.Client) {
	t.Helper()
	holder, _, c := world(t)
	g = open(t, holder.NS, "")
	reports := make(chan gate.Damage, 16)
	g.OnDamage(func(d gate.Damage) { reports <- d })
	arm(t, g, 20*time.Second)
	if d, err := g.Check(); err != nil || d.Any() {
		t.Fatalf("Check of a sound gate: %s, %v", d, err)
	}
	nft(t, holder.NS, change)
	select {
	case d = <-reports:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody noticed the damage")
	}
	if d, err := g.Check(); err != nil || d.Any() {
		t.Fatalf("Check after the repair: %s, %v", d, err)
	}
	return g, d, c
}

// shutsAgain proves that the repaired gate still bounds the address.
func shutsAgain(t *testing.T, g *gate.Gate, c *nettest.Client) {
	t.Helper()
	arm(t, g, 20*time.Second)
	if !c.Answers() {
		t.Error("no answer though armed")
	}
	arm(t, g, 100*time.Millisecond)
	nettest.Eventually(t, "expiry", func() bool { return g.Left(vipAddr) == 0 })
	if c.Ask(50 * time.Millisecond) {
		t.Error("answered after expiry: the repair is none")
	}
}

func TestFlushedRulesetIsRepaired(t *testing.T) {
	g, d, c := damaged(t, func(c *nftables.Conn) { c.FlushRuleset() })
	if want := []string{"inet failoverd", "arp failoverd"}; !slices.Equal(d.Missing, want) {
		t.Errorf("missing %v, want %v", d.Missing, want)
	}
	// The time that was left is kept, not begun anew.
	if left := g.Left(vipAddr); left > 18*time.Second || left < 10*time.Second {
		t.Errorf("left %s after the repair", left)
	}
	if !c.Answers() {
		t.Error("no answer after the repair")
	}
	shutsAgain(t, g, c)
}

// A ruleset that is flushed while the gate is shut is shut again at once.
func TestFlushOfAShutGate(t *testing.T) {
	holder, _, c := world(t)
	g := open(t, holder.NS, "")
	if err := g.Manage(vipAddr); err != nil {
		t.Fatal(err)
	}
	nft(t, holder.NS, func(c *nftables.Conn) { c.FlushRuleset() })
	nettest.Eventually(t, "the gate to be shut again", func() bool { return !c.Ask(20 * time.Millisecond) })
}

func TestAlteredRulesAreRepaired(t *testing.T) {
	inet := ours(nftables.TableFamilyINet)
	for name, change := range map[string]func(c *nftables.Conn){
		"rules flushed": func(c *nftables.Conn) { c.FlushChain(&nftables.Chain{Name: "prerouting", Table: inet}) },
		"rule put before": func(c *nftables.Conn) {
			c.InsertRule(&nftables.Rule{Table: inet, Chain: &nftables.Chain{Name: "output", Table: inet},
				Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
		},
		"arp table gone": func(c *nftables.Conn) { c.DelTable(ours(nftables.TableFamilyARP)) },
	} {
		t.Run(name, func(t *testing.T) {
			g, d, c := damaged(t, change)
			if len(d.Altered)+len(d.Missing) != 1 {
				t.Errorf("damage: %s", d)
			}
			shutsAgain(t, g, c)
		})
	}
}

func TestAlteredSetsAreRepaired(t *testing.T) {
	set := func(name string) *nftables.Set {
		return &nftables.Set{Table: ours(nftables.TableFamilyINet), Name: name, KeyType: nftables.TypeIPAddr, HasTimeout: name == "open"}
	}
	t.Run("no longer managed", func(t *testing.T) {
		g, d, c := damaged(t, func(c *nftables.Conn) { c.FlushSet(set("managed")) })
		if !slices.Equal(d.Lost, []netip.Addr{vipAddr}) {
			t.Errorf("damage: %s", d)
		}
		shutsAgain(t, g, c)
	})
	t.Run("opened for longer", func(t *testing.T) {
		g, d, c := damaged(t, func(c *nftables.Conn) {
			el := []nftables.SetElement{{Key: vipAddr.AsSlice(), Timeout: time.Hour}}
			_ = c.SetDeleteElements(set("open"), el)
			_ = c.SetAddElements(set("open"), el)
		})
		if !slices.Equal(d.Longer, []netip.Addr{vipAddr}) {
			t.Errorf("damage: %s", d)
		}
		shutsAgain(t, g, c)
	})
	t.Run("shut by hand", func(t *testing.T) {
		g, d, c := damaged(t, func(c *nftables.Conn) { c.FlushSet(set("open")) })
		if !slices.Equal(d.Shut, []netip.Addr{vipAddr}) {
			t.Errorf("damage: %s", d)
		}
		if c.Ask(50 * time.Millisecond) {
			t.Error("a repair opened what somebody had shut")
		}
		shutsAgain(t, g, c)
	})
}

// Renewals get through while others change the ruleset without pause, and are
// not taken for damage.
func TestBusyRuleset(t *testing.T) {
	holder, _, c := world(t)
	g := open(t, holder.NS, "")
	g.OnDamage(func(d gate.Damage) { t.Errorf("damage: %s", d) })
	arm(t, g, 20*time.Second)
	if !c.Answers() {
		t.Fatal("no answer while armed")
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				other := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "other"}
				nft(t, holder.NS, func(c *nftables.Conn) { c.AddTable(other); c.DelTable(other) })
			}
		}
	})
	for range 50 {
		arm(t, g, 5*time.Second)
	}
	if !c.Ask(time.Second) {
		t.Error("no answer while armed")
	}
	close(stop)
	wg.Wait()
}

func TestDeviceComesAndGoes(t *testing.T) {
	holder, _, _ := world(t)
	g := open(t, holder.NS, "")
	g.OnDamage(func(d gate.Damage) { t.Errorf("damage: %s", d) })
	// Allowed since Linux 6.16; before, the gate must survive the attempt.
	if err := g.Cover("eth9"); err != nil && !errors.Is(err, unix.ENODEV) {
		t.Error(err)
	}
	for range 2 {
		if err := g.Cover("eth0"); err != nil {
			t.Fatal(err)
		}
		arm(t, g, 20*time.Second)
		holder.Unplug()
		arm(t, g, 20*time.Second)
		if d, err := g.Check(); err != nil || d.Any() {
			t.Errorf("after the device went: %s, %v", d, err)
		}
		holder.Plug()
	}
	if err := g.Cover("eth0"); err != nil {
		t.Fatal(err)
	}
	client := holder.Peer()
	tap := client.Tap()
	if err := g.Shut([]netip.Addr{vipAddr}); err != nil {
		t.Fatal(err)
	}
	holder.SendARP(2, holder.MAC, vip, vip)
	holder.SendARP(2, holder.MAC, "192.0.2.251", "192.0.2.251")
	nettest.Eventually(t, "the marker", func() bool {
		return len(tap.Frames(func(f nettest.Frame) bool { return f.SPA.String() == "192.0.2.251" })) > 0
	})
	if n := len(tap.Frames(func(f nettest.Frame) bool { return f.SPA == vipAddr })); n > 0 {
		t.Errorf("%d announcements passed after the device came back", n)
	}
}

// Nothing is left behind, not even by a gate that was damaged.
func TestNothingIsLeft(t *testing.T) {
	holder, _, _ := world(t)
	var g *gate.Gate
	holder.Do(func() (err error) { g, err = gate.Open(""); return err })
	if err := g.Cover("eth0"); err != nil {
		t.Fatal(err)
	}
	arm(t, g, time.Second)
	if got := tables(t, holder.NS); len(got) != 3 {
		t.Errorf("tables %v", got)
	}
	if err := g.Remove([]netip.Addr{vipAddr}); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if got := tables(t, holder.NS); len(got) > 0 {
		t.Errorf("left behind: %v", got)
	}
	if err := g.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := g.Arm([]netip.Addr{vipAddr}, time.Second); err == nil {
		t.Error("armed after Close")
	}

	// What is managed outlives the gate, and Clean removes it.
	holder.Do(func() (err error) { g, err = gate.Open("other.name"); return err })
	arm(t, g, 20*time.Second)
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(tables(t, holder.NS), " "); got != "other.name other.name" {
		t.Errorf("tables %q: what is managed must stay", got)
	}
	holder.Do(func() error { return gate.Clean("other.name") })
	holder.Do(func() error { return gate.Clean("other.name") })
	if got := tables(t, holder.NS); len(got) > 0 {
		t.Errorf("left behind: %v", got)
	}
}

// Used from many goroutines at once.
func TestConcurrent(t *testing.T) {
	holder, _, _ := world(t)
	g := open(t, holder.NS, "")
	var wg sync.WaitGroup
	for i := range 6 {
		a := []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)})}
		wg.Go(func() {
			for range 20 {
				if err := g.Arm(a, 5*time.Second); err != nil {
					t.Error(err)
				}
				if _, err := g.State(); err != nil {
					t.Error(err)
				}
				if err := g.Shut(a); err != nil {
					t.Error(err)
				}
			}
			if err := g.Remove(a); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s, err := g.State(); err != nil || len(s) != 0 {
		t.Errorf("state %v, %v", s, err)
	}
}

// BenchmarkArm is one renewal.
func BenchmarkArm(b *testing.B) {
	nettest.NeedNet(b)
	ns := nettest.New(b)
	g := open(b, ns, "")
	a := []netip.Addr{vipAddr}
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Arm(a, 2*time.Second); err != nil {
			b.Fatal(err)
		}
	}
}
