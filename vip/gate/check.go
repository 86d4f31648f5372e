package gate

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Damage is what somebody else did to our tables. The zero Damage is none.
type Damage struct {
	Missing []string     // tables that are gone
	Altered []string     // chains that are gone or whose rules were changed, tables switched off
	Lost    []netip.Addr // addresses no longer under the gate's rule: these were open without a limit
	Longer  []netip.Addr // addresses open for longer than they were armed for
	Shut    []netip.Addr // addresses shut before their time, by the guard or by hand; not reopened by a repair
}

// Any reports whether there is any damage.
func (d Damage) Any() bool {
	return len(d.Missing)+len(d.Altered)+len(d.Lost)+len(d.Longer)+len(d.Shut) > 0
}

// String says it in words, for a log or an event.
func (d Damage) String() string {
	var parts []string
	add := func(what string, names []string) {
		if len(names) > 0 {
			parts = append(parts, what+" "+strings.Join(names, ", "))
		}
	}
	texts := func(addrs []netip.Addr) []string {
		var s []string
		for _, a := range addrs {
			s = append(s, a.String())
		}
		return s
	}
	add("removed table", d.Missing)
	add("changed", d.Altered)
	add("no longer gated", texts(d.Lost))
	add("opened for too long", texts(d.Longer))
	add("shut early", texts(d.Shut))
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, "; ")
}

// slack is how far the kernel's remaining time may exceed our own reckoning:
// some ticks of its clock.
const slack = 50 * time.Millisecond

// Check reads the tables back and says what is not as it was left.
func (g *Gate) Check() (Damage, error) {
	var d Damage
	err := g.do("check gate", func() error {
		var err error
		d, err = g.check()
		return err
	})
	return d, err
}

// Repair makes the tables anew, in one transaction, with what is left of each
// address's time.
func (g *Gate) Repair() error {
	return g.doFor("repair gate", buildTimeout, func() error { return g.rebuild(g.layout) })
}

func (g *Gate) check() (Damage, error) {
	var d Damage
	for _, f := range g.layout.families() {
		flags, err := g.c.readTable(g.name, f)
		switch {
		case errors.Is(err, unix.ENOENT):
			d.Missing = append(d.Missing, tableText(g.name, f))
			continue
		case err != nil:
			return Damage{}, err
		case flags&tableDormant != 0:
			d.Altered = append(d.Altered, tableText(g.name, f)+" switched off")
		}
		if err := g.checkSets(&d, f); err != nil {
			return Damage{}, err
		}
	}
	for _, ch := range g.layout.chains() {
		if slices.Contains(d.Missing, tableText(g.name, ch.family)) {
			continue
		}
		handles, err := g.c.readRules(g.name, ch)
		if err != nil {
			return Damage{}, err
		}
		if !slices.Equal(handles, g.handles[chainText(g.name, ch)]) {
			d.Altered = append(d.Altered, chainText(g.name, ch))
		}
	}
	return d, nil
}

func (g *Gate) checkSets(d *Damage, family uint8) error {
	managed, err := g.c.readSet(g.name, family, setManaged)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	before := Now()
	open, err := g.c.readSet(g.name, family, setOpen)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	after := Now()
	add := func(list *[]netip.Addr, a netip.Addr) {
		if !slices.Contains(*list, a) {
			*list = append(*list, a)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for a, e := range g.entries {
		if _, ok := managed[a]; !ok {
			add(&d.Lost, a)
		}
		// It may have expired while we read: only what must be there is missed.
		if _, ok := open[a]; !ok && e.rest(after) > slack {
			add(&d.Shut, a)
		}
	}
	for a, left := range open {
		if left > g.entries[a].limit(before)+slack {
			add(&d.Longer, a)
		}
	}
	return nil
}

// catchUp learns the ruleset's generation and, since somebody else has
// committed something, looks whether it concerned us, repairs it and reports.
func (g *Gate) catchUp() error {
	for range attempts {
		gen, err := g.c.generation()
		if err != nil {
			return err
		}
		if gen == g.gen {
			return nil
		}
		d, err := g.check()
		if err != nil {
			return err
		}
		if !d.Any() {
			g.gen = gen
			return nil
		}
		// The kernel is believed: a repair opens nothing that was shut in one
		// of the tables, but shuts it in all.
		g.setEntries(d.Shut, entry{})
		covered := g.layout.devices
		if err := g.rebuild(g.layout); err != nil {
			return fmt.Errorf("repair gate (%s): %w", d, err)
		}
		if d = d.blame(g.name, covered, g.layout.devices); d.Any() {
			g.report(d)
		}
	}
	return ErrBusy
}

// blame takes out of the damage the chains of devices that have gone: the
// kernel removed those itself.
func (d Damage) blame(name string, before, after []string) Damage {
	for _, dev := range before {
		if !slices.Contains(after, dev) {
			d.Altered = without(d.Altered, chainText(name, egress(dev)))
		}
	}
	return d
}

func tableText(name string, family uint8) string {
	f := map[uint8]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_ARP: "arp", unix.NFPROTO_NETDEV: "netdev"}
	return f[family] + " " + name
}

func chainText(name string, ch chain) string { return tableText(name, ch.family) + " " + ch.name }
