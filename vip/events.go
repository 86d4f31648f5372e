package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkChange is what an event said of our interface.
type linkChange struct {
	dev  device
	gone bool
}

// subscribe opens a socket that hears of links and IPv4 addresses.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	return os.NewFile(uintptr(fd), "rtnetlink events"), nil
}

// listenEvents reads events until the socket is closed.
func (v *VIP) listenEvents() {
	buf := make([]byte, 64<<10)
	for {
		n, err := v.events.Read(buf)
		if errors.Is(err, unix.ENOBUFS) {
			// Some were lost: look at everything.
			if err := v.relook(); err != nil {
				v.log.Debug("cannot look up the interface", "err", err)
			}
			continue
		}
		if err != nil {
			return
		}
		eachMessage(buf[:n], v.event)
	}
}

// relook makes a link event out of what is there now.
func (v *VIP) relook() error {
	ctx, cancel := contextUntil(v.stop)
	defer cancel()
	var c linkChange
	err := v.nl.run(ctx, func(h *netlink.Handle) error {
		var err error
		c.dev, err = findDevice(h, v.o.Interface)
		if errors.Is(err, ErrNoInterface) {
			c.gone, err = true, nil
		}
		return err
	})
	v.poke()
	if err != nil {
		return err
	}
	select {
	case v.links <- c:
	case <-v.stop:
	}
	return nil
}

func (v *VIP) event(typ uint16, body []byte) {
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		v.linkEvent(typ, body)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		v.addrEvent(typ, body)
	}
}

// linkEvent parses struct ifinfomsg and what follows (rtnetlink(7)).
func (v *VIP) linkEvent(typ uint16, body []byte) {
	if len(body) < unix.SizeofIfInfomsg || body[0] != unix.AF_UNSPEC {
		return // a bridge speaks of its ports under AF_BRIDGE
	}
	flags := binary.NativeEndian.Uint32(body[8:])
	d := device{
		index:   int(int32(binary.NativeEndian.Uint32(body[4:]))),
		running: flags&unix.IFF_RUNNING != 0,
		arp: binary.NativeEndian.Uint16(body[2:]) == unix.ARPHRD_ETHER &&
			flags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) == 0,
	}
	name := ""
	eachAttr(body[unix.SizeofIfInfomsg:], func(typ uint16, value []byte) {
		switch typ {
		case unix.IFLA_IFNAME:
			name = unix.ByteSliceToString(value)
		case unix.IFLA_ADDRESS:
			d.arp = d.arp && copy(d.mac[:], value) == len(d.mac) && len(value) == len(d.mac)
		case unix.IFLA_CARRIER_CHANGES:
			if len(value) == 4 {
				d.changes = binary.NativeEndian.Uint32(value)
			}
		}
	})
	v.mu.Lock()
	known := v.dev.index
	v.mu.Unlock()
	c := linkChange{dev: d}
	switch {
	case typ == unix.RTM_DELLINK && d.index == known,
		typ == unix.RTM_NEWLINK && d.index == known && name != v.o.Interface: // renamed
		c.gone = true
	case typ == unix.RTM_NEWLINK && name == v.o.Interface:
	default:
		return
	}
	select {
	case v.links <- c:
	case <-v.stop:
	}
}

// addrEvent parses struct ifaddrmsg and what follows (rtnetlink(7)).
func (v *VIP) addrEvent(typ uint16, body []byte) {
	if len(body) < unix.SizeofIfAddrmsg || body[0] != unix.AF_INET || typ != unix.RTM_DELADDR {
		return
	}
	eachAttr(body[unix.SizeofIfAddrmsg:], func(typ uint16, value []byte) {
		if typ != unix.IFA_LOCAL || len(value) != 4 || netip.AddrFrom4([4]byte(value)) != v.addr {
			return
		}
		v.mu.Lock()
		v.present = false // or so it may be: the keeper looks
		v.mu.Unlock()
		v.poke()
	})
}

// listenARP hands over what others send in the address's name.
func (v *VIP) listenARP() {
	for {
		p, index, err := v.arp.receive()
		switch {
		case errors.Is(err, errShortARP), errors.Is(err, errForeignARP), errors.Is(err, unix.ENETDOWN):
			continue
		case err != nil:
			return
		}
		v.mu.Lock()
		ours := index == v.dev.index && p.sha != v.dev.mac
		v.mu.Unlock()
		if !ours {
			continue
		}
		select {
		case v.seen <- p:
		default: // a storm; one of its kind is as good as all
		}
	}
}

// eachMessage calls fn for each netlink message in data.
func eachMessage(data []byte, fn func(typ uint16, body []byte)) {
	for len(data) >= unix.NLMSG_HDRLEN {
		n := int(binary.NativeEndian.Uint32(data))
		if n < unix.NLMSG_HDRLEN || n > len(data) {
			return
		}
		fn(binary.NativeEndian.Uint16(data[4:]), data[unix.NLMSG_HDRLEN:n])
		data = data[min(len(data), (n+3)&^3):]
	}
}

// eachAttr calls fn for each routing attribute in data.
func eachAttr(data []byte, fn func(typ uint16, value []byte)) {
	for len(data) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(data))
		if n < unix.SizeofRtAttr || n > len(data) {
			return
		}
		fn(binary.NativeEndian.Uint16(data[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data[unix.SizeofRtAttr:n])
		data = data[min(len(data), (n+3)&^3):]
	}
}

// contextUntil returns a context that ends with a channel.
func contextUntil(stop <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
