package main

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/fencing/guard"
	"github.com/failoverd/failoverd/vip/gate"
)

// ownNetwork moves the test's thread into a network namespace of its own.
func ownNetwork(t *testing.T) netlink.Link {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace on a thread")
	}
	runtime.LockOSThread() // never unlocked: the thread, and so the namespace, ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	return lo
}

func TestDeleteAddresses(t *testing.T) {
	lo := ownNetwork(t)
	for _, cidr := range []string{"192.0.2.1/32", "192.0.2.10/32", "198.51.100.1/24"} {
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(lo, a); err != nil {
			t.Fatal(err)
		}
	}
	all := []guard.Address{
		{CIDR: "192.0.2.1/32", Interface: "lo"}, {CIDR: "198.51.100.1/24", Interface: "lo"},
		{CIDR: "192.0.2.77/32", Interface: "lo"}, {CIDR: "192.0.2.1/32", Interface: "gone0"},
	}
	for range 2 { // what is gone already is no error
		if err := deleteAddresses(all); err != nil {
			t.Fatal(err)
		}
	}
	left, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range left {
		names = append(names, a.IPNet.String())
	}
	if got := strings.Join(names, " "); got != "127.0.0.1/8 192.0.2.10/32" {
		t.Errorf("left: %s", got)
	}
	err = deleteAddresses([]guard.Address{{CIDR: "nonsense", Interface: "lo"}, {CIDR: "192.0.2.10/32", Interface: "lo"}})
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("nonsense: %v", err)
	}
	if left, err = netlink.AddrList(lo, netlink.FAMILY_V4); err != nil || len(left) != 1 {
		t.Errorf("a mistake in one kept another: %v %v", left, err)
	}
}

// The gate is shut through a socket that was opened before, also when its
// tables are gone.
func TestShutGate(t *testing.T) {
	ownNetwork(t)
	s, err := openGate("guard_test")
	if err != nil {
		t.Skipf("no nftables here: %v", err)
	}
	defer func() {
		if err := gate.Clean("guard_test"); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for range 2 {
		if err := s.Shut([]guard.Address{{CIDR: "192.0.2.1/32", Interface: "lo"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Shut([]guard.Address{{CIDR: "nonsense"}}); err == nil {
		t.Error("nonsense was taken for an address")
	}
}
