package gate

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// DefaultName is the name of the tables when none is given.
const DefaultName = "failoverd"

var (
	// ErrUnavailable: nftables cannot be used here; the text says why.
	ErrUnavailable = errors.New("nftables gate unavailable")
	// ErrLapsed: the time left had passed, or nearly, before the gate could be
	// armed. The address is shut.
	ErrLapsed = errors.New("lease lapsed before the gate was armed")
	// ErrStuck: the kernel has not answered in time; the outcome is unknown.
	// What was begun checks the clock when it ends and shuts what has lapsed.
	ErrStuck = errors.New("nftables does not answer")
	// ErrBusy: others commit to the ruleset so fast that no transaction of ours got in.
	ErrBusy = errors.New("nftables ruleset changes too fast")
	// ErrInUse: another process has a gate of this name open in this network namespace.
	ErrInUse = errors.New("gate is in use")
	// ErrClosed: the gate was closed.
	ErrClosed = errors.New("gate closed")
	// ErrNoEgress: the kernel has no netdev egress hook (Linux 5.16) for the device.
	ErrNoEgress = errors.New("no egress hook on the device")
	// ErrAddress: not an IPv4 address.
	ErrAddress = errors.New("the gate takes IPv4 addresses only; IPv6 is not supported yet")
)

const (
	// opTimeout bounds an operation, waiting for the one before it included.
	opTimeout = time.Second
	// buildTimeout is for those that make or remove tables: they register
	// hooks, under locks that other network namespaces hold too.
	buildTimeout = 5 * time.Second
	// minArm is the shortest time that is armed. Below, the kernel's tick
	// (10 ms at HZ = 100) could round it down to nothing, which to nftables
	// means for ever.
	minArm = 20 * time.Millisecond
	// attempts bounds the answers to foreign commits within one operation.
	attempts = 8
)

// Gate is a set of addresses that the kernel keeps open for a limited time.
// It is safe for concurrent use.
type Gate struct {
	name string
	lock *os.File
	sem  chan struct{} // held by the one operation that talks to the kernel

	// Of the operation that holds sem.
	c       *conn
	layout  layout
	gen     uint32 // generation of the ruleset as we know it; 0: read it and look
	handles map[string][]uint64

	mu       sync.Mutex
	entries  map[netip.Addr]entry // the managed addresses
	onDamage func(Damage)
	closed   bool

	reports chan Damage
	watch   *watcher
}

// entry is what we told the kernel of an address.
type entry struct {
	open  bool
	at    Instant       // read before the kernel was told
	left  time.Duration // of the lease, at that instant
	armed time.Duration // of the element, at that instant
}

// rest returns how long the element lives yet, at most.
func (e entry) rest(now Instant) time.Duration {
	if !e.open {
		return 0
	}
	return max(0, e.armed-now.Since(e.at))
}

// limit returns how long the lease behind the entry lives yet.
func (e entry) limit(now Instant) time.Duration {
	if !e.open {
		return 0
	}
	return max(0, e.left-now.Since(e.at))
}

// Open creates the tables of the given name (DefaultName when empty; names
// keep several daemons in one network namespace apart) or takes over those
// that a predecessor left: what was open stays open for as long as the kernel
// still gave it, and the rules are made anew, all in one transaction. The gate
// works in the network namespace of the calling thread; one process at a time
// has the gate of a name there, and ErrInUse tells the second.
func Open(name string) (*Gate, error) {
	if name == "" {
		name = DefaultName
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	lock, err := lockName(name)
	if err != nil {
		return nil, err
	}
	g, err := openLocked(name, lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return g, nil
}

func openLocked(name string, lock *os.File) (*Gate, error) {
	c, err := dial()
	if err != nil {
		return nil, unavailable(err)
	}
	g := &Gate{
		name: name, lock: lock, c: c, layout: layout{fib: true},
		sem:     make(chan struct{}, 1),
		handles: map[string][]uint64{},
		entries: map[netip.Addr]entry{},
		reports: make(chan Damage, 16),
	}
	if err := g.takeOver(); err != nil {
		c.close()
		return nil, unavailable(err)
	}
	if g.watch, err = startWatcher(g); err != nil {
		c.close()
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	return g, nil
}

// checkName keeps the name to what nft(8) can also say.
func checkName(name string) error {
	if len(name) > 64 {
		return fmt.Errorf("gate name %q is longer than 64 characters", name)
	}
	for i, r := range name {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r != '-' && r != '.' && (r < '0' || r > '9')) {
			return fmt.Errorf("gate name %q: use letters, digits, '_', '-' and '.', a letter first", name)
		}
	}
	return nil
}

func unavailable(err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EPERM):
		hint = " (CAP_NET_ADMIN is needed)"
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		hint = " (the kernel lacks nf_tables for inet or arp, or its module cannot be loaded)"
	}
	return fmt.Errorf("%w: %w%s", ErrUnavailable, err, hint)
}

// Name returns the name of the tables.
func (g *Gate) Name() string { return g.name }

// OnDamage sets what is called, from a goroutine of the gate's own, after
// damage by somebody else was found and repaired. It must not call Close.
func (g *Gate) OnDamage(fn func(Damage)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.onDamage = fn
}

// Manage puts addresses under the gate's rule without opening or shutting any.
func (g *Gate) Manage(addrs ...netip.Addr) error {
	if err := checkAddrs(addrs); err != nil {
		return err
	}
	return g.do("manage", func() error {
		fresh := g.unmanaged(addrs)
		if len(fresh) == 0 {
			return nil
		}
		return g.apply(func(b *batch) {
			for _, f := range g.layout.families() {
				manage(b, "manage", g.name, f, unix.NFT_MSG_NEWSETELEM, fresh)
			}
		}, func() { g.setEntries(fresh, entry{}) })
	})
}

// Shut closes addresses at once. They stay managed, or become it.
func (g *Gate) Shut(addrs []netip.Addr) error {
	if err := checkAddrs(addrs); err != nil {
		return err
	}
	return g.do("shut", func() error { return g.shut(addrs) })
}

func (g *Gate) shut(addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	// First of all in our own book: a repair, now or later, must not open them.
	g.setEntries(addrs, entry{})
	return g.apply(func(b *batch) {
		for _, f := range g.layout.families() {
			manage(b, "manage", g.name, f, unix.NFT_MSG_NEWSETELEM, addrs)
			evict(b, g.name, f, addrs)
		}
	}, func() {})
}

// evict deletes elements that may or may not be there: a deletion alone would
// fail for one that has expired.
func evict(b *batch, name string, family uint8, addrs []netip.Addr) {
	open := make([]element, len(addrs))
	for i, a := range addrs {
		open[i] = element{a, minArm}
	}
	addOpen(b, name, family, open)
	deleteOpen(b, name, family, open)
}

// Remove shuts addresses and takes them out of the gate's rule: whatever
// happens to them then is nobody's business here. Their absence is proven first
// by whoever calls.
func (g *Gate) Remove(addrs []netip.Addr) error {
	if err := checkAddrs(addrs); err != nil {
		return err
	}
	return g.do("remove", func() error {
		if len(addrs) == 0 {
			return nil
		}
		return g.apply(func(b *batch) {
			for _, f := range g.layout.families() {
				evict(b, g.name, f, addrs)
				manage(b, "manage", g.name, f, unix.NFT_MSG_NEWSETELEM, addrs)
				manage(b, "release", g.name, f, unix.NFT_MSG_DELSETELEM, addrs)
			}
		}, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			for _, a := range addrs {
				delete(g.entries, a)
			}
		})
	})
}

// apply commits a change that only ever closes, and therefore in the end
// against any generation of the ruleset; when our tables are gone it puts them
// back first.
func (g *Gate) apply(build func(*batch), done func()) error {
	if g.gen != 0 {
		// In the hope that nobody has committed anything: then the next Arm
		// need not look at the tables again.
		if err := g.commit(g.gen, build); err == nil {
			g.gen = nextGeneration(g.gen)
			done()
			return nil
		}
	}
	g.gen = 0
	if err := g.commit(0, build); errors.Is(err, unix.ENOENT) {
		if err := g.catchUp(); err != nil {
			return err
		}
		g.gen = 0
		if err := g.commit(0, build); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	done()
	return nil
}

func (g *Gate) commit(gen uint32, build func(*batch)) error {
	b := g.c.start()
	b.begin(gen)
	build(b)
	b.commit()
	failpoint.Here("gate.change.before")
	return g.c.transact()
}

// State returns for each managed address how long the kernel keeps it open,
// at most, computed from what it was told: 0 is shut. An element that expires
// is announced by nobody. The error says that the gate is closed.
func (g *Gate) State() (map[netip.Addr]time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, ErrClosed
	}
	now := Now()
	out := make(map[netip.Addr]time.Duration, len(g.entries))
	for a, e := range g.entries {
		out[a] = e.rest(now)
	}
	return out, nil
}

// Left returns how long the kernel keeps one address open, at most.
func (g *Gate) Left(addr netip.Addr) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.entries[addr].rest(Now())
}

// Close stops watching. It removes the tables when no address is managed any
// more; else they stay, and what is open expires by itself.
func (g *Gate) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	empty := len(g.entries) == 0
	g.mu.Unlock()
	g.watch.close()
	return g.runFor("close", buildTimeout, func() error {
		var err error
		if empty {
			err = removeTables(g.c, g.name)
		}
		return errors.Join(err, g.c.close(), g.lock.Close())
	})
}

// do runs an operation of an open gate.
func (g *Gate) do(what string, fn func() error) error {
	return g.doFor(what, opTimeout, fn)
}

func (g *Gate) doFor(what string, limit time.Duration, fn func() error) error {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed {
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	return g.runFor(what, limit, fn)
}

// runFor runs fn alone and gives up waiting for it after limit. The lock that
// a netlink call takes in the kernel cannot be interrupted: fn goes on by
// itself then, and the next operation waits for it.
func (g *Gate) runFor(what string, limit time.Duration, fn func() error) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case g.sem <- struct{}{}:
	case <-t.C:
		return fmt.Errorf("%s: %w", what, ErrStuck)
	}
	done := make(chan error, 1)
	go func() {
		err := fn()
		<-g.sem
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	case <-t.C:
		return fmt.Errorf("%s: %w", what, ErrStuck)
	}
}

func checkAddrs(addrs []netip.Addr) error {
	for _, a := range addrs {
		if !a.Is4() {
			return fmt.Errorf("%s: %w", a, ErrAddress)
		}
	}
	return nil
}

// unmanaged returns those of addrs that are not under the gate's rule yet.
func (g *Gate) unmanaged(addrs []netip.Addr) []netip.Addr {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		_, ok := g.entries[a]
		return ok
	})
}

func (g *Gate) setEntries(addrs []netip.Addr, e entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range addrs {
		g.entries[a] = e
	}
}

func (g *Gate) report(d Damage) {
	select {
	case g.reports <- d:
	default: // the reader hangs, and has sixteen of them already
		slog.Warn("nftables gate damaged", "gate", g.name, "damage", d.String())
	}
}
