package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rtnlTimeout bounds one operation on addresses and links, waiting for the one
// before it included.
const rtnlTimeout = 2 * time.Second

// ErrStuck: the kernel has not answered in time; the outcome is unknown. What
// was begun checks the lease when it ends.
var ErrStuck = errors.New("rtnetlink does not answer")

// rtnl is a lasting rtnetlink socket whose operations run one at a time, each
// bounded: the lock that they take in the kernel can be held for long by
// others and cannot be waited for with a timeout.
type rtnl struct {
	h   *netlink.Handle
	sem chan struct{}
}

func openRTNL() (*rtnl, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	if err := h.SetSocketTimeout(rtnlTimeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("bound rtnetlink socket: %w", err)
	}
	return &rtnl{h: h, sem: make(chan struct{}, 1)}, nil
}

// run runs fn alone and waits for it until ctx ends or rtnlTimeout has passed.
// fn goes on by itself then, and the next operation waits for it.
func (r *rtnl) run(ctx context.Context, fn func(h *netlink.Handle) error) error {
	t := time.NewTimer(rtnlTimeout)
	defer t.Stop()
	select {
	case r.sem <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return ErrStuck
	}
	done := make(chan error, 1)
	go func() {
		err := fn(r.h)
		<-r.sem
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrStuck, ctx.Err())
	case <-t.C:
		return ErrStuck
	}
}

// close waits for what is under way, within the bound.
func (r *rtnl) close() error {
	return r.run(context.Background(), func(h *netlink.Handle) error {
		h.Close()
		return nil
	})
}

// device is what matters of a network interface.
type device struct {
	index   int
	mac     hwAddr
	arp     bool // an Ethernet device on which ARP is spoken
	running bool // IFF_RUNNING: it has a carrier
	changes uint32
}

func deviceOf(l netlink.Link) device {
	a := l.Attrs()
	d := device{index: a.Index, running: a.RawFlags&unix.IFF_RUNNING != 0}
	d.arp = a.EncapType == "ether" && a.RawFlags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) == 0 && len(a.HardwareAddr) == len(d.mac)
	copy(d.mac[:], a.HardwareAddr)
	return d
}

// ErrNoInterface: there is no network interface of that name.
var ErrNoInterface = errors.New("no such interface")

func findDevice(h *netlink.Handle, name string) (device, error) {
	l, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing) || errors.Is(err, unix.ENODEV):
		return device{}, noInterface(h, name)
	case err != nil:
		return device{}, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return deviceOf(l), nil
}

func noInterface(h *netlink.Handle, name string) error {
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("%s: %w", name, ErrNoInterface)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	return fmt.Errorf("%s: %w; there are %s", name, ErrNoInterface, strings.Join(names, ", "))
}

// CheckInterface returns ErrNoInterface, with the names that there are, when
// this host has no interface of that name.
func CheckInterface(name string) error {
	r, err := openRTNL()
	if err != nil {
		return err
	}
	defer r.close()
	return r.run(context.Background(), func(h *netlink.Handle) error {
		_, err := findDevice(h, name)
		return err
	})
}

// holding is an address that the host has.
type holding struct {
	prefix netip.Prefix
	index  int // of the interface
	label  string
	raw    netlink.Addr
}

// listAddrs returns the IPv4 addresses of all interfaces.
func listAddrs(h *netlink.Handle) ([]holding, error) {
	var list []netlink.Addr
	var err error
	for range 5 {
		list, err = h.AddrList(nil, netlink.FAMILY_V4)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []holding
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		if ok {
			out = append(out, holding{netip.PrefixFrom(ip.Unmap(), bits), a.LinkIndex, a.Label, a})
		}
	}
	return out, nil
}

// deleteAddr deletes one entry; that it has gone meanwhile is no error.
func deleteAddr(h *netlink.Handle, a holding) error {
	raw := a.raw
	err := h.AddrDel(nil, &raw)
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
