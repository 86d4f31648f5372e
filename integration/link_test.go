package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/integration/lab"
)

// neighbour complains unless the host's neighbour table has the virtual address
// at the hardware address of the other.
func neighbour(h, at *lab.Host) error {
	return inKernel(h, func(k *netlink.Handle, eth netlink.Link) error {
		list, err := k.NeighList(eth.Attrs().Index, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, n := range list {
			if n.IP.String() != lab.VIP.String() {
				continue
			}
			if bytes.Equal(n.HardwareAddr, at.MAC()) {
				return nil
			}
			return complain("%s has %s at %s, want %s of %s", h, lab.VIP, n.HardwareAddr, at.MAC(), at)
		}
		return complain("%s has no neighbour %s", h, lab.VIP)
	})
}

// mislead has the host believe, firmly, that the virtual address is at another's
// hardware address: only an announcement corrects that soon, for the kernel
// asks about it no sooner than after some 15 s or more (arp(7), base_reachable_time).
func mislead(h, at *lab.Host) error {
	return inKernel(h, func(k *netlink.Handle, eth netlink.Link) error {
		return k.NeighSet(&netlink.Neigh{
			LinkIndex: eth.Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_REACHABLE,
			IP: lab.VIP.AsSlice(), HardwareAddr: at.MAC(),
		})
	})
}

// arpFrame is an ARP packet in the name of the virtual address to all (RFC 826).
func arpFrame(op uint16, from net.HardwareAddr) []byte {
	vip := lab.VIP.As4()
	f := append(bytes.Repeat([]byte{0xff}, 6), from...)
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_ARP)
	f = append(f, 0, 1, 8, 0, 6, 4)
	f = binary.BigEndian.AppendUint16(f, op)
	f = append(append(f, from...), vip[:]...)
	return append(append(f, bytes.Repeat([]byte{0xff}, 6)...), vip[:]...)
}

// claimARP sends the host's claim to the virtual address once, in both forms.
func claimARP(h *lab.Host) error {
	return inKernel(h, func(_ *netlink.Handle, eth netlink.Link) error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Ifindex: eth.Attrs().Index, Protocol: 0x0608}
		return errors.Join(unix.Sendto(fd, arpFrame(1, h.MAC()), 0, to), unix.Sendto(fd, arpFrame(2, h.MAC()), 0, to))
	})
}

// arpListener counts the announcements of the virtual address by hardware address.
type arpListener struct {
	mu sync.Mutex
	by map[string]int
}

// listenARP listens on a host until the test ends.
func listenARP(ctx context.Context, t *testing.T, h *lab.Host) *arpListener {
	t.Helper()
	l := &arpListener{by: map[string]int{}}
	var fd int
	must(t, h.In(func() (err error) {
		// ETH_P_ARP in network order, as packet(7) wants it.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0608)
		return err
	}))
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}))
	done := make(chan struct{})
	stop, cancel := context.WithCancel(ctx)
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		defer unix.Close(fd)
		l.listen(stop, fd)
	}()
	return l
}

func (l *arpListener) listen(ctx context.Context, fd int) {
	vip := lab.VIP.As4()
	buffer := make([]byte, 256)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		// An announcement names the address as sender and as target (RFC 5227).
		if err != nil || n < 42 || !bytes.Equal(buffer[28:32], vip[:]) || !bytes.Equal(buffer[38:42], vip[:]) {
			continue
		}
		l.mu.Lock()
		l.by[net.HardwareAddr(buffer[22:28]).String()]++
		l.mu.Unlock()
	}
}

// count is how many announcements by the host were heard.
func (l *arpListener) count(h *lab.Host) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by[h.MAC().String()]
}

// more waits until more announcements by the host than before were heard.
func (l *arpListener) more(ctx context.Context, t *testing.T, h *lab.Host, before int) {
	t.Helper()
	eventually(ctx, t, "an announcement by "+h.Name(), func() error {
		if l.count(h) <= before {
			return errors.New("none was heard")
		}
		return nil
	})
}

// soon is how long the neighbours may be wrong: the announcements are repeated
// for some seconds, the kernel alone would take longer than this.
const soon = 5 * time.Second

// TestLinkFlaps takes the carrier from the holder for less than a lease, while
// the client has come to believe that another node has the address. With the
// link the holder announces itself again, under the same grant.
func TestLinkFlaps(t *testing.T) {
	ctx := limited(t, time.Minute)
	r := newRig(ctx, t, lab.RigOptions{Profile: "default"})
	client := r.Lab.Host("client")
	heard := listenARP(ctx, t, client)
	var plugged time.Duration
	m, err := r.Measure(ctx, func(holder *lab.Host, s lab.Status) error {
		_, epoch, _ := serviceOf(s, lab.Service)
		for range 2 {
			must(t, holder.Unplug())
			must(t, lab.Wait(ctx, r.Failoverd.Lease()/4))
			must(t, mislead(client, others(r, holder)[0]))
			before := heard.count(holder)
			must(t, holder.Plug())
			plugged = r.Lab.Now()
			heard.more(ctx, t, holder, before)
			limit, cancel := context.WithTimeout(ctx, soon)
			eventually(limit, t, "the client's neighbour table", func() error { return neighbour(client, holder) })
			cancel()
			a := answeredAgain(ctx, t, r, plugged)
			t.Logf("carrier back: the client was answered %v later", a.Got-plugged)
			// A bridge lets frames through up to a second after the carrier is back
			// (the kernel's linkwatch): the next flap is not the same outage.
			must(t, lab.Wait(ctx, r.Failoverd.Lease()/2))
		}
		if name, e, err := granted(ctx, r); err != nil || name != holder.Name() || e != epoch {
			t.Errorf("%s under epoch %d, before it was %s under %d (%v)", name, e, holder, epoch, err)
		}
		return nil
	})
	must(t, err)
	if m.Before != m.After {
		t.Errorf("from %s to %s\n%s", m.Before, m.After, r.Account(ctx, m))
	}
}

// TestNeighboursAfterHealing makes the client keep the old holder's hardware
// address through a partition in which it hears nothing of the new one: after
// the healing its neighbour table has the new holder, by its announcement.
func TestNeighboursAfterHealing(t *testing.T) {
	ctx := limited(t, time.Minute)
	r := newRig(ctx, t, lab.RigOptions{})
	client := r.Lab.Host("client")
	heard := listenARP(ctx, t, client)
	m, err := r.Measure(ctx, func(holder *lab.Host, _ lab.Status) error {
		must(t, r.Lab.Split([]*lab.Host{holder, client}, others(r, holder)))
		var now *lab.Host
		eventually(ctx, t, "a new holder", func() error {
			held := r.Lab.Holders()
			if len(held) != 1 || held[0] == holder.Name() {
				return complain("%v have the address", held)
			}
			now = r.Lab.Host(held[0])
			return nil
		})
		must(t, lab.Wait(ctx, 2*r.Failoverd.Lease()))
		must(t, mislead(client, holder))
		before := heard.count(now)
		must(t, r.Lab.Heal())
		healed := r.Lab.Now()
		limit, cancel := context.WithTimeout(ctx, soon)
		defer cancel()
		eventually(limit, t, "the client's neighbour table", func() error { return neighbour(client, now) })
		t.Logf("the client had the new hardware address %v after the healing", r.Lab.Now()-healed)
		heard.more(ctx, t, now, before)
		answeredAgain(ctx, t, r, healed)
		return nil
	})
	must(t, err)
	moves(t, m)
}
