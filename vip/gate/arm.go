package gate

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// Arm opens addresses for the time that is left of their lease, of which the
// kernel is given nine tenths. It replaces whatever time they had. ErrLapsed
// says that it came too late; the addresses are shut then.
func (g *Gate) Arm(addrs []netip.Addr, left time.Duration) error {
	return g.ArmSince(addrs, Now(), left)
}

// ArmSince is Arm for a time left that was true at an earlier instant: what
// has passed since is taken off, however long the caller was held up between
// reading its clock and this call.
func (g *Gate) ArmSince(addrs []netip.Addr, since Instant, left time.Duration) error {
	if err := checkAddrs(addrs); err != nil {
		return err
	}
	if len(addrs) == 0 {
		return nil
	}
	return g.do("arm gate", func() error { return g.arm(addrs, since, left) })
}

func (g *Gate) arm(addrs []netip.Addr, since Instant, left time.Duration) error {
	renew := g.allOpen(addrs)
	open := make([]element, len(addrs))
	for range attempts {
		if g.gen == 0 {
			if err := g.catchUp(); err != nil {
				return err
			}
		}
		now := Now()
		rest := left - now.Since(since)
		armed := rest / 10 * 9
		if armed < minArm {
			return errors.Join(fmt.Errorf("%w, by %s", ErrLapsed, max(0, -rest)), g.shut(addrs))
		}
		for i, a := range addrs {
			open[i] = element{a, armed}
		}
		failpoint.Here("gate.arm.before")
		switch err := g.transactArm(addrs, open, renew); {
		case err == nil:
			failpoint.Here("gate.armed")
			g.gen = nextGeneration(g.gen)
			g.setEntries(addrs, entry{open: true, at: now, left: rest, armed: armed})
			if Now().Since(now) <= rest-armed {
				return nil
			}
			// Held up by more than the tenth kept back: the elements live too
			// long by that. Once more, with what is left now.
			renew = true
		case errors.Is(err, unix.ERESTART):
			g.gen, renew = 0, false
		case errors.Is(err, unix.ENOENT) && renew:
			// Expired, or shut by the guard, before we came. The clock decides.
			renew = false
		default:
			g.gen = 0
			return err
		}
	}
	return ErrBusy
}

// transactArm replaces the elements in all tables. A renewal fails with ENOENT
// when one of the elements is no longer alive; else they may be there or not.
func (g *Gate) transactArm(addrs []netip.Addr, open []element, renew bool) error {
	fresh := g.unmanaged(addrs)
	b := g.c.start()
	b.begin(g.gen)
	for _, f := range g.layout.families() {
		manage(b, "manage", g.name, f, unix.NFT_MSG_NEWSETELEM, fresh)
		if !renew {
			addOpen(b, g.name, f, open)
		}
		deleteOpen(b, g.name, f, open)
		addOpen(b, g.name, f, open)
	}
	b.commit()
	return g.c.transact()
}

// allOpen reports whether by our own book all of addrs are alive in the kernel.
func (g *Gate) allOpen(addrs []netip.Addr) bool {
	now := Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range addrs {
		if g.entries[a].rest(now) == 0 {
			return false
		}
	}
	return true
}

// sweep shuts what should have expired by our clocks: the kernel's own timers
// stand still during suspend.
func (g *Gate) sweep() error {
	now := Now()
	var late []netip.Addr
	g.mu.Lock()
	for a, e := range g.entries {
		if e.open && now.Since(e.at) >= e.left {
			late = append(late, a)
		}
	}
	g.mu.Unlock()
	return g.shut(late)
}
