package lab

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/google/nftables"
)

// The gate's names (package vip/gate): a table of this prefix in the families
// inet and arp, with the addresses that need a lease and those that have one.
const (
	gatePrefix  = "failoverd"
	gateManaged = "managed"
	gateOpen    = "open"
)

// gateReader tells whether the kernel's gate lets the address through on a
// host. The kernel leaves expired elements out of a listing, so that what is
// listed as open is open. What cannot be read counts as open: a view must not
// hide a second holder.
type gateReader struct {
	vip    netip.Addr
	conn   *nftables.Conn
	tables []gateTable
}

type gateTable struct{ managed, open *nftables.Set }

func newGateReader(vip netip.Addr) *gateReader { return &gateReader{vip: vip} }

// open must be called on a thread inside the host's network namespace. A
// kernel without nftables has no gates.
func (g *gateReader) open() error {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil
	}
	g.conn = conn
	return nil
}

func (g *gateReader) close() {
	if g.conn != nil {
		_ = g.conn.CloseLasting() // it was only read from
	}
}

// isOpen reports whether anything passes for the address: IP packets or ARP.
// Without a gate it does.
func (g *gateReader) isOpen() bool {
	if g.conn == nil {
		return true
	}
	if len(g.tables) > 0 {
		if passes, err := g.passes(); err == nil {
			return passes
		}
	}
	// The tables may have been replaced or flushed: look again from the start.
	if !g.find() {
		return true
	}
	passes, err := g.passes()
	return passes || err != nil
}

// passes reports whether one of the tables lets the address through.
func (g *gateReader) passes() (bool, error) {
	for _, t := range g.tables {
		managed, err := g.holds(t.managed)
		if err != nil {
			return false, err
		}
		open, err := g.holds(t.open)
		if err != nil {
			return false, err
		}
		if open || !managed {
			return true, nil
		}
	}
	return false, nil
}

func (g *gateReader) holds(set *nftables.Set) (bool, error) {
	elements, err := g.conn.GetSetElements(set)
	if err != nil {
		return false, err
	}
	want := g.vip.As4()
	for _, e := range elements {
		if bytes.Equal(e.Key, want[:]) {
			return true, nil
		}
	}
	return false, nil
}

// find looks for the gate's tables and reports whether there are any.
func (g *gateReader) find() bool {
	g.tables = nil
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyARP} {
		tables, err := g.conn.ListTablesOfFamily(family)
		if err != nil {
			continue
		}
		for _, table := range tables {
			if !strings.HasPrefix(table.Name, gatePrefix) {
				continue
			}
			managed, err := g.conn.GetSetByName(table, gateManaged)
			if err != nil {
				continue
			}
			open, err := g.conn.GetSetByName(table, gateOpen)
			if err != nil {
				continue
			}
			g.tables = append(g.tables, gateTable{managed, open})
		}
	}
	return len(g.tables) > 0
}
