package lab

import (
	"fmt"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// faults is what the network shall suffer; it is made true as a whole, in one
// transaction, each time it changes.
type faults struct {
	cuts []cut
}

// cut drops frames on their way from one host to another.
type cut struct {
	from, to string // host names
	percent  uint32 // of the frames; 100: all
	protocol byte   // IPPROTO_TCP, IPPROTO_UDP, or 0 for every frame
	port     uint16 // destination port of protocol; 0: every port
	by       *Imposed
}

// Partition cuts the hosts off from all others, both ways, while they still
// see each other and every carrier stays. Observers see through it.
func (l *Lab) Partition(hosts ...*Host) error {
	var others []*Host
	for _, h := range l.Hosts() {
		if !slices.Contains(hosts, h) && h.name != observerName {
			others = append(others, h)
		}
	}
	return l.Split(hosts, others)
}

// Split lets only hosts of the same group reach each other.
func (l *Lab) Split(groups ...[]*Host) error {
	return l.change(func(f *faults) {
		for i, one := range groups {
			for j, other := range groups {
				if i != j {
					f.cutAll(one, other)
				}
			}
		}
	})
}

func (f *faults) cutAll(from, to []*Host) {
	for _, a := range from {
		for _, b := range to {
			f.cuts = append(f.cuts, cut{from: a.name, to: b.name, percent: 100})
		}
	}
}

// Cut drops everything that goes from one host to another; the way back stays.
func (l *Lab) Cut(from, to *Host) error {
	return l.change(func(f *faults) {
		f.cuts = append(f.cuts, cut{from: from.name, to: to.name, percent: 100})
	})
}

// Protocols for CutPort.
const (
	TCP = unix.IPPROTO_TCP
	UDP = unix.IPPROTO_UDP
)

// CutPort drops what goes from one host to a port of another.
func (l *Lab) CutPort(from, to *Host, protocol byte, port uint16) error {
	return l.change(func(f *faults) {
		f.cuts = append(f.cuts, cut{from: from.name, to: to.name, percent: 100, protocol: protocol, port: port})
	})
}

// Lose drops that many percent of the frames between every two of the hosts,
// each way by itself.
func (l *Lab) Lose(percent int, hosts ...*Host) error {
	if percent < 0 || percent > 100 {
		return fmt.Errorf("lose %d percent of the frames: must be 0 to 100", percent)
	}
	return l.change(func(f *faults) {
		for _, a := range hosts {
			for _, b := range hosts {
				if a != b {
					f.cuts = append(f.cuts, cut{from: a.name, to: b.name, percent: uint32(percent)})
				}
			}
		}
	})
}

// Heal ends every cut and loss.
func (l *Lab) Heal() error { return l.change(func(f *faults) { f.cuts = nil }) }

// Unplug takes the carrier from the host; Plug gives it back.
func (h *Host) Unplug() error { return h.lab.fabric.port(h.port(), false) }

// Plug undoes Unplug.
func (h *Host) Plug() error { return h.lab.fabric.port(h.port(), true) }

func (l *Lab) change(edit func(*faults)) error {
	l.mu.Lock()
	edit(&l.faults)
	l.mu.Unlock()
	return l.applyFaults()
}

func (l *Lab) applyFaults() error {
	l.fabric.mu.Lock() // the last one to ask is the last one to write
	defer l.fabric.mu.Unlock()
	l.mu.Lock()
	cuts := slices.Clone(l.faults.cuts)
	l.mu.Unlock()
	if len(cuts) == 0 && !l.fabric.filtered {
		return nil // a lab that cuts nothing needs no nftables
	}
	if err := l.fabric.filter(cuts); err != nil {
		return fmt.Errorf("set faults (needs nftables for bridges, CONFIG_NF_TABLES_BRIDGE): %w", err)
	}
	l.fabric.filtered = true
	return nil
}

// filter replaces the bridge's whole filter by the cuts in one transaction.
func (f *fabric) filter(cuts []cut) error {
	c, err := nftablesIn(f.ns)
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	table := &nftables.Table{Name: "faults", Family: nftables.TableFamilyBridge}
	c.AddTable(table) // so that the deletion finds one
	c.DelTable(table)
	c.AddTable(table)
	chain := c.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	for _, cut := range cuts {
		if cut.percent > 0 {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: cut.expressions()})
		}
	}
	return c.Flush()
}

// nftablesIn opens an nftables socket inside the namespace. The library's own
// way there comes back to the namespace it left, which an ordinary user may not.
func nftablesIn(ns *os.File) (*nftables.Conn, error) {
	var conn *nftables.Conn
	err := inNet(ns, func() (err error) {
		conn, err = nftables.New(nftables.AsLasting())
		return err
	})
	return conn, err
}

func (c cut) expressions() []expr.Any {
	e := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(ifname("p-" + c.from)),
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, equal(ifname("p-" + c.to)),
	}
	if c.protocol != 0 {
		e = append(e,
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, equal(binaryutil.BigEndian.PutUint16(unix.ETH_P_IP)),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{c.protocol}))
	}
	if c.port != 0 {
		e = append(e,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			equal(binaryutil.BigEndian.PutUint16(c.port)))
	}
	if c.percent < 100 {
		e = append(e,
			&expr.Numgen{Register: 1, Modulus: 100, Type: unix.NFT_NG_RANDOM},
			// A register holds host byte order; a comparison is of bytes.
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(c.percent)})
	}
	return append(e, &expr.Verdict{Kind: expr.VerdictDrop})
}

func equal(data []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

// ifname is an interface's name as the kernel compares it, padded with zeros.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
