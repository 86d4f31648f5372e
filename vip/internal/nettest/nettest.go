// Package nettest makes small networks for the tests of vip and vip/gate:
// hosts in network namespaces of their own, on one bridge in another.
package nettest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is a network namespace.
type NS struct {
	t  testing.TB
	fd netns.NsHandle
}

// New makes an empty namespace with its loopback up. It goes with the test.
func New(t testing.TB) *NS {
	t.Helper()
	ns := &NS{t: t}
	onThread(t, func() error {
		var err error
		if ns.fd, err = netns.New(); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	t.Cleanup(func() { ns.fd.Close() })
	return ns
}

// onThread runs fn on a thread that is thrown away afterwards.
func onThread(t testing.TB, fn func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- fn()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Do runs fn in the namespace, on a thread of its own, and fails the test on an error.
func (ns *NS) Do(fn func() error) {
	ns.t.Helper()
	onThread(ns.t, func() error { return ns.enter(fn) })
}

func (ns *NS) enter(fn func() error) error {
	if err := netns.Set(ns.fd); err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	return fn()
}

// Start starts cmd inside the namespace and kills it with the test.
func (ns *NS) Start(cmd *exec.Cmd) {
	ns.t.Helper()
	// The thread has to outlive the child: a parent-death signal follows it.
	started, end := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		started <- ns.enter(cmd.Start)
		<-end
	}()
	if err := <-started; err != nil {
		close(end)
		ns.t.Fatal(err)
	}
	var once sync.Once
	ns.t.Cleanup(func() {
		once.Do(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			close(end)
		})
	})
}

// Net is a bridge in a namespace of its own.
type Net struct {
	t      testing.TB
	bridge *NS
	hosts  []*Host
}

// Host is a namespace with one cable, "eth0", to the bridge.
type Host struct {
	*NS
	IP   net.IP
	MAC  net.HardwareAddr
	Link int // index of eth0
	net  *Net
	port string
}

// NewNet makes a bridge without hosts.
func NewNet(t testing.TB) *Net {
	t.Helper()
	n := &Net{t: t, bridge: New(t)}
	n.bridge.Do(func() error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(br); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		return netlink.LinkSetUp(br)
	})
	return n
}

// Host adds a host 192.0.2.1/24 and on.
func (n *Net) Host() *Host {
	n.t.Helper()
	i := len(n.hosts) + 1
	h := &Host{NS: New(n.t), net: n, port: fmt.Sprintf("port%d", i), IP: net.IPv4(192, 0, 2, byte(i)).To4()}
	n.hosts = append(n.hosts, h)
	h.Plug()
	return h
}

// Peer returns another host of the same network.
func (h *Host) Peer() *Host {
	for _, p := range h.net.hosts {
		if p != h {
			return p
		}
	}
	return h.net.Host()
}

// Plug makes the host's cable, anew after an Unplug, and brings it up.
func (h *Host) Plug() {
	h.t.Helper()
	h.net.bridge.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: h.port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.fd)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add cable: %w", err)
		}
		br, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(veth, br); err != nil {
			return err
		}
		return netlink.LinkSetUp(veth)
	})
	h.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		h.MAC, h.Link = l.Attrs().HardwareAddr, l.Attrs().Index
		return netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: h.IP, Mask: net.CIDRMask(24, 32)}})
	})
	Eventually(h.t, "carrier on eth0", func() bool {
		up := false
		h.Do(func() error {
			l, err := netlink.LinkByName("eth0")
			up = err == nil && l.Attrs().RawFlags&unix.IFF_RUNNING != 0
			return err
		})
		return up
	})
}

// Unplug removes the cable, and with it the host's interface.
func (h *Host) Unplug() {
	h.t.Helper()
	h.net.bridge.Do(func() error {
		l, err := netlink.LinkByName(h.port)
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
}

// Cable takes the carrier off the host's cable at the bridge, or gives it back.
func (h *Host) Cable(up bool) {
	h.t.Helper()
	h.net.bridge.Do(func() error {
		l, err := netlink.LinkByName(h.port)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	})
}

// AddAddr puts an address on eth0 as an administrator would.
func (h *Host) AddAddr(cidr string) {
	h.t.Helper()
	h.Do(func() error {
		l, a, err := linkAddr(cidr)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, a)
	})
}

// DelAddr removes an address from eth0.
func (h *Host) DelAddr(cidr string) {
	h.t.Helper()
	h.Do(func() error {
		l, a, err := linkAddr(cidr)
		if err != nil {
			return err
		}
		return netlink.AddrDel(l, a)
	})
}

func linkAddr(cidr string) (netlink.Link, *netlink.Addr, error) {
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return nil, nil, err
	}
	l, err := netlink.LinkByName("eth0")
	return l, a, err
}

// Addrs returns the IPv4 addresses of eth0; none when there is no eth0.
func (h *Host) Addrs() []netlink.Addr {
	h.t.Helper()
	var out []netlink.Addr
	h.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return nil
		}
		out, err = netlink.AddrList(l, netlink.FAMILY_V4)
		return err
	})
	return out
}

// Eventually waits until cond holds, ten seconds at most.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("gave up waiting for: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// NeedNet skips the test where namespaces cannot be made, saying why.
func NeedNet(t testing.TB) {
	t.Helper()
	if !Inside() && os.Geteuid() != 0 {
		t.Skip("needs root (or CAP_SYS_ADMIN) to make network namespaces; the user-namespace test runs as anybody")
	}
}

const inUserNS = "FAILOVERD_TEST_USERNS"

// AsUser runs one test of this binary again as an ordinary user in a user and
// network namespace of its own, the way `make demo` does without root.
func AsUser(t *testing.T, test string) {
	t.Helper()
	rerun(t, test, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNET)
}

// WithoutNet runs one test of this binary again in a user namespace that has
// no say over the network namespace it is in.
func WithoutNet(t *testing.T, test string) {
	t.Helper()
	rerun(t, test, syscall.CLONE_NEWUSER)
}

// Inside reports whether this is such a second run.
func Inside() bool { return os.Getenv(inUserNS) != "" }

func rerun(t *testing.T, test string, flags uintptr) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), inUserNS+"=1")
	uid, gid := os.Getuid(), os.Getgid()
	attr := &syscall.SysProcAttr{
		Cloneflags: flags,
		// As root of the namespace only: outside it is whoever runs this.
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
		Credential:  &syscall.Credential{NoSetGroups: true},
		Pdeathsig:   syscall.SIGKILL,
	}
	if uid == 0 {
		// Be nobody first: root in a user namespace would be no ordinary user.
		const nobody = 65534
		attr.UidMappings[0].HostID, attr.GidMappings[0].HostID = nobody, nobody
	}
	cmd.SysProcAttr = attr
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err != nil {
		if os.IsPermission(err) {
			t.Skipf("user namespaces are denied here (user.max_user_namespaces, kernel.unprivileged_userns_clone or AppArmor): %v", err)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: "+test) {
		t.Fatalf("%s did not run:\n%s", test, out)
	}
}
