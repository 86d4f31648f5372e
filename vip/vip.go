package vip

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/vip/gate"
)

var (
	// ErrNotArmed: Start was called without time left of a lease.
	ErrNotArmed = errors.New("address is not armed: no lease")
	// ErrLapsed: the lease ran out during the call; nothing is active.
	ErrLapsed = errors.New("lease lapsed")
	// ErrLeaseTooShort: without a gate the kernel counts whole seconds only.
	ErrLeaseTooShort = errors.New("lease too short for the address lifetime alone")
	// ErrNotActive: the address was not started.
	ErrNotActive = errors.New("address is not active")
	// ErrClosed: the VIP was closed.
	ErrClosed = errors.New("address closed")
	// ErrIPv6: the address is an IPv6 one.
	ErrIPv6 = errors.New("IPv6 addresses are not supported yet")
)

// MinLease is the shortest lease that the address lifetime alone can bound.
const MinLease = 3 * time.Second

// How late the address may still answer after the end of the lease (κ).
const (
	kappaGate     = 20 * time.Millisecond
	kappaLifetime = 400 * time.Millisecond
)

// The events that a VIP reports.
const (
	EventRestored  = "address-restored"    // something else had removed it
	EventResumed   = "address-resumed"     // it is back after the kernel had removed it
	EventLapsed    = "address-lapsed"      // the kernel removed it at the end of its lifetime
	EventConflict  = "address-conflict"    // another host uses it
	EventLinkUp    = "link-up"             // the interface has its carrier back; announced again
	EventLinkDown  = "link-down"           // the interface lost its carrier
	EventLinkGone  = "link-gone"           // the interface is no more
	EventFailed    = "address-failed"      // it could not be put back, kept alive or announced
	EventDuplicate = "address-also-listed" // Stop found it a second time on this host and removed that too
)

// Options describe a VIP.
type Options struct {
	Name      string       // of the resource; by default the address
	Address   netip.Prefix // the address with the prefix length of its network
	Interface string
	// KeepPrefix claims the address with its prefix length and the route to
	// its network, not as /32 without one.
	KeepPrefix bool
	// Gate is shared by all addresses of the daemon; nil: their lifetime alone.
	Gate *gate.Gate
	// Owner tells the labels of several daemons on one host apart; by default
	// the gate's name, or gate.DefaultName.
	Owner string
	Log   *slog.Logger
	// Report is told what happened, from any goroutine; it must return soon
	// and not call the VIP. May be nil.
	Report func(event, text string)
}

// VIP is one virtual address on this host. It is safe for concurrent use.
type VIP struct {
	o    Options
	addr netip.Addr
	log  *slog.Logger

	nl     *rtnl
	arp    *arpSocket
	events *os.File // links and addresses, from rtnetlink

	stop  chan struct{}
	kick  chan struct{} // the keeper is to look at the address
	links chan linkChange
	seen  chan arpPacket // in the name of the address, from another host
	again chan struct{}  // the repeats of an announcement begin anew
	wg    sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	dev      device // index 0: the interface is not there
	active   bool
	epoch    uint64
	at       gate.Instant  // when the lease had
	left     time.Duration // this much left
	lft      lifetime
	present  bool   // as far as we know
	turn     uint64 // counts Start and Stop: which of them was called last
	probing  *probing
	conflict Conflict
	defended time.Time // last announcement against a conflict

	sending sync.Mutex // held while an announcement goes out
}

// New prepares a VIP: sockets in the network namespace of the calling thread,
// and goroutines that watch. It claims nothing. Interface need not exist yet.
func New(o Options) (*VIP, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	v := &VIP{
		o: o, addr: o.Address.Addr(), log: o.Log.With("vip", o.Address.Addr().String(), "interface", o.Interface),
		stop: make(chan struct{}), kick: make(chan struct{}, 1),
		links: make(chan linkChange, 16), seen: make(chan arpPacket, 16), again: make(chan struct{}, 1),
	}
	var err error
	if v.nl, err = openRTNL(); err != nil {
		return nil, err
	}
	// Events first, then the state that they change: nothing is missed between.
	if v.events, err = subscribe(); err != nil {
		return nil, errors.Join(err, v.nl.close())
	}
	if v.arp, err = openARP(v.addr); err != nil {
		return nil, errors.Join(err, v.events.Close(), v.nl.close())
	}
	if err := v.lookUp(context.Background()); err != nil && !errors.Is(err, ErrNoInterface) {
		return nil, errors.Join(err, v.arp.close(), v.events.Close(), v.nl.close())
	}
	v.cover()
	for _, fn := range []func(){v.keep, v.repeat, v.listenEvents, v.listenARP} {
		v.wg.Go(fn)
	}
	return v, nil
}

func (o *Options) check() error {
	a := o.Address.Addr()
	switch {
	case !o.Address.IsValid():
		return errors.New("vip: no address; write it as 192.0.2.100/24")
	case a.Is4In6():
		return fmt.Errorf("vip %s: write it as the IPv4 address %s", o.Address, a.Unmap())
	case a.Is6():
		return fmt.Errorf("vip %s: %w", o.Address, ErrIPv6)
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("vip %s: not an address that a host can claim", o.Address)
	case o.Address.Bits() < 31 && (a == o.Address.Masked().Addr() || a == lastOf(o.Address)):
		return fmt.Errorf("vip %s: that is the address of the network itself, or its broadcast address", o.Address)
	case o.Interface == "":
		return fmt.Errorf("vip %s: no interface", o.Address)
	case len(o.Interface) >= unix.IFNAMSIZ:
		return fmt.Errorf("vip %s: interface name %q is longer than %d characters", o.Address, o.Interface, unix.IFNAMSIZ-1)
	}
	if o.Name == "" {
		o.Name = a.String()
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Owner == "" && o.Gate != nil {
		o.Owner = o.Gate.Name()
	}
	return nil
}

// lastOf returns the broadcast address of an IPv4 network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// Name returns the resource's name.
func (v *VIP) Name() string { return v.o.Name }

// MAC returns the hardware address in whose name the VIP is announced from
// this host: what other nodes need not take for a conflict.
func (v *VIP) MAC() (net.HardwareAddr, error) {
	d, err := v.device()
	if err != nil {
		return nil, err
	}
	if !d.arp {
		return nil, fmt.Errorf("%s: no Ethernet interface with ARP", v.o.Interface)
	}
	return net.HardwareAddr(d.mac[:]), nil
}

// Guarantee says in words what ends the address when nobody is left to do it.
func (v *VIP) Guarantee() []string {
	if v.o.Gate != nil {
		return []string{"kernel gate", "address lifetime"}
	}
	return []string{"address lifetime"}
}

// Kappa returns how late that may be after the end of the lease (LEASE.md, κ).
func (v *VIP) Kappa() time.Duration {
	if v.o.Gate != nil {
		return kappaGate
	}
	return kappaLifetime
}

// Close ends the goroutines and frees the sockets. A VIP that is active is
// left to the end of its lease; one that is not is taken out of the gate.
func (v *VIP) Close() error {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return nil
	}
	v.closed = true
	active := v.active
	v.mu.Unlock()
	close(v.stop)
	errs := []error{v.events.Close(), v.arp.close()}
	v.wg.Wait()
	if v.o.Gate != nil && !active {
		errs = append(errs, v.release())
	}
	errs = append(errs, v.nl.close())
	return errors.Join(errs...)
}

// release takes the address out of the gate once it is not on this host; one
// that still is, through whatever fault, stays under the rule and shut.
func (v *VIP) release() error {
	return v.nl.run(context.Background(), func(h *netlink.Handle) error {
		list, err := listAddrs(h)
		if err != nil {
			return err
		}
		for _, a := range list {
			if a.prefix.Addr() == v.addr {
				return nil
			}
		}
		err = v.o.Gate.Remove([]netip.Addr{v.addr})
		if errors.Is(err, gate.ErrClosed) {
			return nil
		}
		return err
	})
}

// device returns the interface as last seen.
func (v *VIP) device() (device, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.dev.index == 0 {
		return device{}, fmt.Errorf("%s: %w", v.o.Interface, ErrNoInterface)
	}
	return v.dev, nil
}

// lookUp reads the interface anew.
func (v *VIP) lookUp(ctx context.Context) error {
	return v.nl.run(ctx, func(h *netlink.Handle) error {
		d, err := findDevice(h, v.o.Interface)
		v.mu.Lock()
		v.dev = d
		v.mu.Unlock()
		return err
	})
}

// cover has the gate watch raw sockets on the interface too, where the kernel can.
func (v *VIP) cover() {
	if v.o.Gate == nil {
		return
	}
	if _, err := v.device(); err != nil {
		return
	}
	if err := v.o.Gate.Cover(v.o.Interface); err != nil {
		v.log.Info("late announcements by this program itself are not gated", "err", err)
	}
}

func (v *VIP) report(event, text string) {
	v.log.Warn(text, "event", event)
	if v.o.Report != nil {
		v.o.Report(event, text)
	}
}

// label returns the label that marks an address on the interface as ours, or
// the plain name of an interface too long for one: then the gate's list and
// the configuration must tell.
func label(device, owner string) string {
	tag := ":fod"
	if owner != "" && owner != gate.DefaultName {
		h := fnv.New32a()
		h.Write([]byte(owner))
		tag = ":f" + strconv.FormatUint(uint64(h.Sum32()%(36*36)), 36)
	}
	if len(device)+len(tag) >= unix.IFNAMSIZ {
		return device
	}
	return device + tag
}
