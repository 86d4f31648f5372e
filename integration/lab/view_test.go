package lab

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var vip = netip.MustParseAddr("10.77.0.100")

// claim adds the address to the host as a manager without any care would.
func claim(t *testing.T, h *Host) {
	t.Helper()
	changeVIP(t, h, (*netlink.Handle).AddrAdd)
}

func drop(t *testing.T, h *Host) {
	t.Helper()
	changeVIP(t, h, (*netlink.Handle).AddrDel)
}

func changeVIP(t *testing.T, h *Host, change func(*netlink.Handle, netlink.Link, *netlink.Addr) error) {
	t.Helper()
	handle, err := handleIn(h.ns.net)
	must(t, err)
	defer handle.Close()
	link, err := handle.LinkByName(Interface)
	must(t, err)
	must(t, change(handle, link, &netlink.Addr{IPNet: &net.IPNet{IP: vip.AsSlice(), Mask: net.CIDRMask(32, 32)}}))
}

// serve answers HTTP on the host as a service of that epoch would.
func serve(t *testing.T, h *Host, epoch *atomic.Uint64) {
	t.Helper()
	var listener net.Listener
	must(t, h.In(func() (err error) {
		listener, err = net.Listen("tcp4", ":8080")
		return err
	}))
	var sequence atomic.Uint64
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(answerBody{Node: h.name, Epoch: epoch.Load(), Sequence: sequence.Add(1)})
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

func epochs(n uint64) *atomic.Uint64 {
	var e atomic.Uint64
	e.Store(n)
	return &e
}

func asking(t *testing.T, l *Lab, client string) *Asking {
	t.Helper()
	h, err := l.Client(client)
	must(t, err)
	a, err := h.Ask(Ask{Target: netip.AddrPortFrom(vip, 8080)})
	must(t, err)
	return a
}

func judge(t *testing.T, l *Lab, from, to time.Duration) Figures {
	t.Helper()
	f, err := l.Judge(from, to)
	must(t, err)
	return f
}

// pass lets the lab's time go on: what is measured here is a span of time.
func pass(d time.Duration) { <-time.After(d) }

// TestTwoHoldersAreSeen gives two hosts the address at once, as a split brain
// does: both views must see it, and for about as long as it lasted.
func TestTwoHoldersAreSeen(t *testing.T) {
	l := newLab(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	must(t, l.Watch(vip))
	claim(t, a)
	waitHolders(t, l, "a")
	alone := l.Now()
	pass(100 * time.Millisecond)
	if f := judge(t, l, 0, l.Now()); !f.None() {
		t.Fatalf("one holder alone: %v", f)
	}
	from := l.Now()
	claim(t, b)
	pass(200 * time.Millisecond)
	drop(t, b)
	to := l.Now()
	waitHolders(t, l, "a")
	pass(50 * time.Millisecond)
	f := judge(t, l, alone, l.Now())
	span := to - from
	if f.Address < 190*time.Millisecond || f.Address > span+20*time.Millisecond {
		t.Errorf("address view: %v, two holders lasted 200 to %v\n%v", f.Address, span, f)
	}
	if f.Wire < 100*time.Millisecond || f.Wire > span+20*time.Millisecond {
		t.Errorf("wire view: %v, two holders lasted 200 to %v\n%v", f.Wire, span, f)
	}
	after := l.Now()
	pass(50 * time.Millisecond)
	if f := judge(t, l, after, l.Now()); !f.None() {
		t.Errorf("after the second had gone: %v", f)
	}
}

// TestAShortOverlapIsSeen holds the address twice for only a few ms.
func TestAShortOverlapIsSeen(t *testing.T) {
	l := newLab(t, "a", "b")
	must(t, l.Watch(vip))
	claim(t, l.Host("a"))
	waitHolders(t, l, "a")
	from := l.Now()
	claim(t, l.Host("b"))
	pass(5 * time.Millisecond)
	drop(t, l.Host("a"))
	waitHolders(t, l, "b")
	if f := judge(t, l, from, l.Now()); f.Address == 0 {
		t.Errorf("an overlap of 5 ms was not seen: %v", f)
	}
}

// TestAHandOverIsNotTwoHolders moves the address without an overlap.
func TestAHandOverIsNotTwoHolders(t *testing.T) {
	l := newLab(t, "a", "b")
	must(t, l.Watch(vip))
	claim(t, l.Host("a"))
	for i := range 20 {
		from, to := l.Host("a"), l.Host("b")
		if i%2 == 1 {
			from, to = to, from
		}
		drop(t, from)
		claim(t, to)
		waitHolders(t, l, to.name)
		pass(10 * time.Millisecond)
	}
	if f := judge(t, l, 0, l.Now()); !f.None() {
		t.Errorf("clean moves: %v", f)
	}
}

// TestPartitionsHideNothingFromTheWire puts the second holder behind a partition.
func TestPartitionsHideNothingFromTheWire(t *testing.T) {
	l := newLab(t, "a", "b")
	must(t, l.Watch(vip))
	claim(t, l.Host("a"))
	must(t, l.Partition(l.Host("a")))
	claim(t, l.Host("b"))
	waitHolders(t, l, "a", "b")
	from := l.Now()
	pass(100 * time.Millisecond)
	if f := judge(t, l, from, l.Now()); f.Wire < 50*time.Millisecond {
		t.Errorf("the wire view saw %v", f)
	}
}

// TestAShutGateIsNotHeld has a gate of the product's form on one host.
func TestAShutGateIsNotHeld(t *testing.T) {
	l := newLab(t, "a", "b")
	must(t, l.Watch(vip))
	a, b := l.Host("a"), l.Host("b")
	conn, err := nftablesIn(a.ns.net)
	must(t, err)
	defer conn.CloseLasting()
	table := conn.AddTable(&nftables.Table{Name: "failoverd", Family: nftables.TableFamilyINet})
	managed := &nftables.Set{Table: table, Name: gateManaged, KeyType: nftables.TypeIPAddr}
	open := &nftables.Set{Table: table, Name: gateOpen, KeyType: nftables.TypeIPAddr, HasTimeout: true, Timeout: time.Second}
	key := vip.As4()
	must(t, conn.AddSet(managed, []nftables.SetElement{{Key: key[:]}}))
	must(t, conn.AddSet(open, []nftables.SetElement{{Key: key[:], Timeout: 150 * time.Millisecond}}))
	from := l.Now()
	must(t, conn.Flush())
	claim(t, a)
	claim(t, b)
	waitHolders(t, l, "a", "b")
	pass(300 * time.Millisecond)
	f := judge(t, l, from, l.Now())
	if f.Address < 80*time.Millisecond || f.Address > 250*time.Millisecond {
		t.Errorf("the gate of a was open for 150 of 300 ms and more, address view says %v", f.Address)
	}
	// A flushed ruleset fails open: the address is held again.
	conn.DelTable(table)
	must(t, conn.Flush())
	from = l.Now()
	pass(50 * time.Millisecond)
	if f := judge(t, l, from, l.Now()); f.Address < 30*time.Millisecond {
		t.Errorf("without its gate a holds the address, the view says %v", f.Address)
	}
}

func TestThePowerSwitchEndsHolding(t *testing.T) {
	l := newLab(t, "a", "b")
	must(t, l.Watch(vip))
	claim(t, l.Host("a"))
	waitHolders(t, l, "a")
	must(t, l.Host("a").PowerOff())
	claim(t, l.Host("b"))
	waitHolders(t, l, "b")
	pass(20 * time.Millisecond)
	if f := judge(t, l, 0, l.Now()); !f.None() {
		t.Errorf("a was off: %v", f)
	}
	must(t, l.Host("a").PowerOn())
	from := l.Now()
	claim(t, l.Host("a"))
	waitHolders(t, l, "a", "b")
	pass(20 * time.Millisecond)
	if f := judge(t, l, from, l.Now()); f.Address == 0 || f.Wire == 0 {
		t.Errorf("a is on again and holds beside b: %v", f)
	}
}

func waitHolders(t *testing.T, l *Lab, want ...string) {
	t.Helper()
	must(t, wait(5*time.Second, time.Millisecond, func() error {
		got := l.Holders()
		if strings.Join(got, " ") != strings.Join(want, " ") {
			return fmt.Errorf("the address is on %v, want %v", got, want)
		}
		return nil
	}))
}

// TestTheClientMeasuresAnOutage takes the address away for a known time.
func TestTheClientMeasuresAnOutage(t *testing.T) {
	l := newLab(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	must(t, l.Watch(vip))
	serve(t, a, epochs(1))
	serve(t, b, epochs(2))
	claim(t, a)
	client := asking(t, l, "client")
	first, err := client.WaitAnswer(t.Context(), 0)
	must(t, err)
	if first.Node != "a" || first.Epoch != 1 {
		t.Errorf("first answer: %+v", first)
	}
	start := l.Now()
	pass(200 * time.Millisecond)
	if d, at := client.Silence(start, l.Now()); d > 50*time.Millisecond+client.Stall(start, l.Now()) {
		t.Errorf("silence of %v at %v with nothing wrong", d, at)
	}
	if lost := client.Lost(start, l.Now()); len(lost) > 0 {
		t.Errorf("lost with nothing wrong: %+v", lost)
	}
	gone := l.Now()
	must(t, a.PowerOff())
	pass(300 * time.Millisecond)
	claim(t, b)
	announce(t, b)
	back, err := client.WaitAnswerBy(t.Context(), "b", gone)
	must(t, err)
	d, _ := client.Silence(gone, l.Now())
	if d < 290*time.Millisecond || d > back.Got-gone+20*time.Millisecond {
		t.Errorf("silence of %v, the outage lasted %v", d, back.Got-gone)
	}
	must(t, client.Settle(t.Context(), back.Sent))
	if lost := client.Lost(gone, back.Sent); len(lost) < 50 {
		t.Errorf("%d requests lost in an outage of %v with one every 2 ms", len(lost), d)
	}
	if f := judge(t, l, 0, l.Now()); !f.None() {
		t.Errorf("a clean failover: %v", f)
	}
}

// TestAReturningEpochIsSeen lets the old holder answer again after the new one.
func TestAReturningEpochIsSeen(t *testing.T) {
	l := newLab(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	must(t, l.Watch(vip))
	serve(t, a, epochs(1))
	serve(t, b, epochs(2))
	claim(t, a)
	client := asking(t, l, "client")
	_, err := client.WaitAnswerBy(t.Context(), "a", 0)
	must(t, err)
	drop(t, a)
	claim(t, b)
	announce(t, b)
	_, err = client.WaitAnswerBy(t.Context(), "b", 0)
	must(t, err)
	if f := judge(t, l, 0, l.Now()); f.Data != 0 {
		t.Errorf("so far every epoch was newer: %v", f)
	}
	drop(t, b)
	claim(t, a)
	announce(t, a)
	_, err = client.WaitAnswerBy(t.Context(), "a", l.Now())
	must(t, err)
	pass(50 * time.Millisecond)
	if f := judge(t, l, 0, l.Now()); f.Data < 30*time.Millisecond {
		t.Errorf("epoch 1 answered after epoch 2: %v", f)
	}
}

// announce makes the client forget the old hardware address (RFC 5227, an
// announcement): a request whose sender and target are the address.
func announce(t *testing.T, h *Host) {
	t.Helper()
	must(t, h.In(func() error { return sendAnnouncement(h.mac) }))
}

func sendAnnouncement(mac net.HardwareAddr) error {
	v := &wireView{}
	if err := v.open(); err != nil {
		return err
	}
	defer unix.Close(v.fd)
	_, err := unix.Write(v.fd, arpRequest(mac, vip.As4(), vip.As4()))
	return err
}
