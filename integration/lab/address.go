package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// AddressEvent says that a host got or lost the watched address.
type AddressEvent struct {
	At   time.Duration
	Host string
	Held bool
}

// addressView sees which hosts have the address, by a netlink socket in every
// one of them. While two have it, it looks every millisecond whether the
// kernel's gate is open at both: a gate that expires sends no event.
type addressView struct {
	lab  *Lab
	vip  netip.Addr
	wake waker
	done chan struct{}

	mu      sync.Mutex
	stopped bool
	hosts   []*addressHost
	events  []AddressEvent
	doubles []Interval
	worst   time.Duration // longest time between two looks while two had the address
}

type addressHost struct {
	host *Host
	fd   int
	held map[string]bool // the labels under which the address is there: interface indexes
	gate *gateReader
	off  bool
}

func newAddressView(l *Lab, vip netip.Addr) (*addressView, error) {
	w, err := newWaker()
	if err != nil {
		return nil, fmt.Errorf("watch addresses: %w", err)
	}
	v := &addressView{lab: l, vip: vip, wake: w, done: make(chan struct{})}
	go v.run()
	return v, nil
}

func (v *addressView) stop() {
	v.mu.Lock()
	v.stopped = true
	v.mu.Unlock()
	v.wake.wake()
	<-v.done
	v.wake.close()
}

// hostOn opens the socket and asks for what is there already.
func (v *addressView) hostOn(h *Host, ns *os.File) error {
	a := &addressHost{host: h, held: map[string]bool{}}
	err := inNet(ns, func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		a.fd = fd
		a.gate = newGateReader(v.vip)
		return errors.Join(
			unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR}),
			a.dump(),
			a.gate.open(),
		)
	})
	if err != nil {
		if a.fd > 0 {
			_ = unix.Close(a.fd)
		}
		return fmt.Errorf("watch addresses of %s: %w", h.name, err)
	}
	v.mu.Lock()
	v.hosts = append(v.hosts, a)
	v.mu.Unlock()
	v.wake.wake()
	return nil
}

// hostOff notes that nobody can reach the host since then.
func (v *addressView) hostOff(h *Host, at time.Duration) {
	v.mu.Lock()
	for _, a := range v.hosts {
		if a.host == h && !a.off {
			a.off = true
			if len(a.held) > 0 {
				v.events = append(v.events, AddressEvent{At: at, Host: h.name})
			}
		}
	}
	v.mu.Unlock()
	v.wake.wake()
}

// dump asks for every IPv4 address; the answers look like news.
func (a *addressHost) dump() error {
	return unix.Sendto(a.fd, addressRequest(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (v *addressView) run() {
	defer close(v.done)
	runtime.LockOSThread() // never unlocked, since its priority is changed
	urgent()
	buffer := make([]byte, 1<<16)
	var last time.Duration // of the last look that saw two
	for {
		hosts, stopped := v.current()
		if stopped {
			return
		}
		fds := []unix.PollFd{{Fd: int32(v.wake.fd), Events: unix.POLLIN}}
		for _, a := range hosts {
			fds = append(fds, unix.PollFd{Fd: int32(a.fd), Events: unix.POLLIN})
		}
		pause := 100 * time.Millisecond
		if last != 0 {
			pause = time.Millisecond
		}
		poll(fds, pause)
		v.wake.drain()
		for _, a := range hosts {
			v.read(a, buffer)
		}
		last = v.look(hosts, last)
	}
}

// current gives the hosts that are on, and lets go of those that are not.
func (v *addressView) current() ([]*addressHost, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hosts = slices.DeleteFunc(v.hosts, func(a *addressHost) bool {
		if a.off || v.stopped {
			_ = unix.Close(a.fd)
			a.gate.close()
			return true
		}
		return false
	})
	return slices.Clone(v.hosts), v.stopped
}

// read takes in what the host's kernel has told.
func (v *addressView) read(a *addressHost, buffer []byte) {
	for {
		n, _, err := unix.Recvfrom(a.fd, buffer, 0)
		if errors.Is(err, unix.ENOBUFS) {
			_ = a.dump() // news was lost; a second failure shows at the next loss
			continue
		}
		if err != nil || n == 0 {
			return
		}
		at := v.lab.Now()
		for _, m := range parseAddresses(buffer[:n]) {
			if m.address == v.vip {
				v.note(a, m, at)
			}
		}
	}
}

func (v *addressView) note(a *addressHost, m addressMessage, at time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if a.off {
		return
	}
	before := len(a.held) > 0
	if m.deleted {
		delete(a.held, m.label)
	} else {
		a.held[m.label] = true
	}
	if after := len(a.held) > 0; after != before {
		v.events = append(v.events, AddressEvent{At: at, Host: a.host.name, Held: after})
	}
}

// look counts who has the address with the gate open, and keeps the time
// during which there were two. It gives when it looked, or 0 unless two had it.
func (v *addressView) look(hosts []*addressHost, last time.Duration) time.Duration {
	v.mu.Lock()
	var having []*addressHost
	for _, a := range hosts {
		if !a.off && len(a.held) > 0 {
			having = append(having, a)
		}
	}
	v.mu.Unlock()
	if len(having) < 2 {
		return 0
	}
	now := v.lab.Now()
	var open []string
	for _, a := range having {
		if a.gate.isOpen() {
			open = append(open, a.host.name)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if last != 0 {
		v.worst = max(v.worst, now-last)
	}
	if len(open) < 2 {
		return now
	}
	what := "address on " + strings.Join(open, " and ")
	if n := len(v.doubles); n > 0 && v.doubles[n-1].To == last && v.doubles[n-1].What == what {
		v.doubles[n-1].To = now
		return now
	}
	v.doubles = append(v.doubles, Interval{From: now, To: now, What: what})
	return now
}

// holders gives who has the address now, by name, whatever the gate says.
func (v *addressView) holders() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var names []string
	for _, a := range v.hosts {
		if !a.off && len(a.held) > 0 {
			names = append(names, a.host.name)
		}
	}
	slices.Sort(names)
	return names
}
