package gate

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// takeOver reads what a predecessor of this name left in the kernel and makes
// the tables anew around it.
func (g *Gate) takeOver() error {
	// The generation is only fetched to learn early, and in the clearest
	// words, that nftables cannot be used.
	if _, err := g.c.generation(); err != nil {
		return err
	}
	if _, err := g.c.readTable(g.name, unix.NFPROTO_INET); err == nil {
		if err := g.readEntries(); err != nil {
			return fmt.Errorf("read the gate that is there: %w", err)
		}
	} else if !errors.Is(err, unix.ENOENT) {
		return err
	}
	return g.rebuild(g.layout)
}

func (g *Gate) readEntries() error {
	managed, err := g.c.readSet(g.name, unix.NFPROTO_INET, setManaged)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	at := Now()
	open, err := g.c.readSet(g.name, unix.NFPROTO_INET, setOpen)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for a := range managed {
		e := entry{}
		// An element without end is none of ours, nor a lease.
		if left, ok := open[a]; ok && left != forever {
			e = entry{open: true, at: at, left: left, armed: left / 10 * 9}
		}
		g.entries[a] = e
	}
	return nil
}

// rebuild replaces our tables by those of layout l, with all addresses and the
// time that each has left. Nothing is open or shut in between that is not
// before and after. On success l is the gate's layout, less what the kernel
// refused.
func (g *Gate) rebuild(l layout) error {
	var err error
	for range attempts {
		var gen uint32
		if gen, err = g.c.generation(); err != nil {
			return err
		}
		if err = g.replace(gen, l); err == nil {
			return nil
		}
		var r refused
		errors.As(err, &r)
		device, onDevice := strings.CutPrefix(r.step.chain, chainEgress)
		switch {
		case errors.Is(err, unix.ERESTART):
		case onDevice && (r.errno == unix.ENOENT || r.errno == unix.ENODEV):
			l.devices = without(l.devices, device) // the device is gone
		case l.fib && r.step.rule && !onDevice:
			l.fib = false
		default:
			return err
		}
	}
	return err
}

func (g *Gate) replace(gen uint32, l layout) error {
	now := Now()
	managed, open, lapsed := g.book(now)
	orphan := len(l.devices) == 0 && g.hasNetdev()
	b := g.c.start()
	b.begin(gen)
	if orphan {
		table(b, "delete table", g.name, unix.NFT_MSG_DELTABLE, 0, unix.NFPROTO_NETDEV)
	}
	if err := replaceTables(b, g.name, l, managed, open); err != nil {
		return err
	}
	b.commit()
	if err := g.c.transact(); err != nil {
		return err
	}
	g.gen, g.layout = nextGeneration(gen), l
	g.setEntries(lapsed, entry{})
	for _, ch := range l.chains() {
		handles, err := g.c.readRules(g.name, ch)
		if err != nil {
			return err
		}
		g.handles[chainText(g.name, ch)] = handles
	}
	return g.trim(now)
}

func (g *Gate) hasNetdev() bool {
	_, err := g.c.readTable(g.name, unix.NFPROTO_NETDEV)
	return err == nil
}

// book returns what the kernel is to know: all managed addresses, the open
// ones with their time, and those whose time is over.
func (g *Gate) book(now Instant) (managed []netip.Addr, open []element, lapsed []netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for a, e := range g.entries {
		managed = append(managed, a)
		if rest := e.rest(now); rest >= minArm {
			open = append(open, element{a, rest})
		} else if e.open {
			lapsed = append(lapsed, a)
		}
	}
	return managed, open, lapsed
}

// trim shuts what a rebuild that was held up since began has given more than
// the tenth that was kept back allows.
func (g *Gate) trim(began Instant) error {
	heldUp := Now().Since(began)
	var late []netip.Addr
	g.mu.Lock()
	for a, e := range g.entries {
		if e.open && heldUp > e.left-e.armed {
			late = append(late, a)
		}
	}
	g.mu.Unlock()
	return g.shut(late)
}

func without(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == s })
}
