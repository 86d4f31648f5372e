package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Interface is the name of every host's interface.
const Interface = "eth0"

// fabric is the bridge and its namespace.
type fabric struct {
	ns     *os.File
	handle *netlink.Handle
	bridge *netlink.Bridge

	mu       sync.Mutex // one change of the filter at a time
	filtered bool       // there have been rules
}

func newFabric() (*fabric, error) {
	ns, err := newNet()
	if err != nil {
		return nil, err
	}
	f := &fabric{ns: ns}
	if err := f.build(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *fabric) build() error {
	handle, err := handleIn(f.ns)
	if err != nil {
		return err
	}
	f.handle = handle
	if err := quiet(f.ns); err != nil {
		return err
	}
	snooping := false // multicast groups need a querier that nobody plays here
	f.bridge = &netlink.Bridge{
		LinkAttrs:         netlink.LinkAttrs{Name: "lab", MTU: 1500},
		MulticastSnooping: &snooping,
	}
	if err := handle.LinkAdd(f.bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	if err := handle.LinkSetUp(f.bridge); err != nil {
		return fmt.Errorf("set bridge up: %w", err)
	}
	return nil
}

func (f *fabric) close() {
	if f.handle != nil {
		f.handle.Close()
	}
	_ = f.ns.Close() // the namespace and all in it go with its last descriptor
}

// plug joins a host's namespace to the bridge: eth0 there, the port of that
// name here, both up.
func (f *fabric) plug(port string, ns *os.File, mac net.HardwareAddr, addr *netlink.Addr) error {
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: port, MTU: 1500, MasterIndex: f.bridge.Index},
		PeerName:         Interface,
		PeerHardwareAddr: mac,
		PeerNamespace:    netlink.NsFd(int(ns.Fd())),
	}
	if err := f.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("add cable %s: %w", port, err)
	}
	if err := f.port(port, true); err != nil {
		return err
	}
	handle, err := handleIn(ns)
	if err != nil {
		return err
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := handle.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	eth, err := handle.LinkByName(Interface)
	if err != nil {
		return fmt.Errorf("find %s: %w", Interface, err)
	}
	if err := handle.AddrAdd(eth, addr); err != nil {
		return fmt.Errorf("add address: %w", err)
	}
	if err := handle.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set %s up: %w", Interface, err)
	}
	return nil
}

// port sets a port of the bridge up or down; down takes the carrier from the host.
func (f *fabric) port(name string, up bool) error {
	link, err := f.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find port %s: %w", name, err)
	}
	set := f.handle.LinkSetDown
	if up {
		set = f.handle.LinkSetUp
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set port %s: %w", name, err)
	}
	return nil
}

// unplug removes a port, and with it the host's interface.
func (f *fabric) unplug(name string) error {
	link, err := f.handle.LinkByName(name)
	if err != nil {
		if _, ok := err.(netlink.LinkNotFoundError); ok {
			return nil
		}
		return fmt.Errorf("find port %s: %w", name, err)
	}
	// The kernel takes the cable away too when the host's namespace ends.
	if err := f.handle.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove port %s: %w", name, err)
	}
	return nil
}

// handleIn opens a routing netlink socket inside the namespace.
func handleIn(ns *os.File) (*netlink.Handle, error) {
	var handle *netlink.Handle
	err := inNet(ns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		handle = h
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return handle, nil
}

// quiet turns off what would add noise of its own to a measurement.
func quiet(ns *os.File) error {
	return inNet(ns, func() error {
		for _, path := range []string{"ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"} {
			if err := writeSysctl(path, "1"); err != nil {
				return fmt.Errorf("turn off IPv6: %w", err)
			}
		}
		return nil
	})
}
