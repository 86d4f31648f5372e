package gate

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The names inside our tables.
const (
	setManaged  = "managed"
	setOpen     = "open"
	chainEgress = "egress_" // followed by the device
	ruleComment = "closed: no live lease on this host"
)

// Hook priorities: before everything else that looks at a packet on its way
// in, and behind everything that rewrites one on its way out.
const (
	first  = -450 // NF_IP_PRI_RAW_BEFORE_DEFRAG
	behind = 320  // behind NF_IP_PRI_NAT_SRC (100) and the conntrack helpers (300)
)

// defaultTimeout is for elements that somebody else adds without one. Ours
// always name theirs: in a set without a default they would never expire.
const defaultTimeout = time.Second

// layout is what the kernel lets us have.
type layout struct {
	fib     bool     // the fib expression: tells this host's addresses from others'
	devices []string // covered by a netdev chain
}

// families lists those in which the layout has a table.
func (l layout) families() []uint8 {
	f := []uint8{unix.NFPROTO_INET, unix.NFPROTO_ARP}
	if len(l.devices) > 0 {
		f = append(f, unix.NFPROTO_NETDEV)
	}
	return f
}

// chain is one base chain with its single rule.
type chain struct {
	family   uint8
	name     string
	hook     uint32
	priority int32
	device   string
	rule     []expr.Any
}

// element is an open address and how long the kernel shall keep it open.
type element struct {
	addr netip.Addr
	left time.Duration
}

func (l layout) chains() []chain {
	cs := []chain{
		{family: unix.NFPROTO_INET, name: "prerouting", hook: unix.NF_INET_PRE_ROUTING, priority: first,
			rule: dropIP(16, &expr.Fib{Register: unix.NFT_REG_2, FlagDADDR: true, ResultADDRTYPE: true}, l.fib)},
		// With ip_nonlocal_bind a program sends from an address that the host
		// does not have, so that here the address alone decides.
		{family: unix.NFPROTO_INET, name: "output", hook: unix.NF_INET_LOCAL_OUT, priority: first,
			rule: dropIP(12, nil, false)},
		{family: unix.NFPROTO_INET, name: "postrouting", hook: unix.NF_INET_POST_ROUTING, priority: behind,
			rule: dropIP(12, &expr.Fib{Register: unix.NFT_REG_2, FlagSADDR: true, ResultADDRTYPE: true}, l.fib)},
		{family: unix.NFPROTO_ARP, name: "output", hook: nfARPOut, priority: first, rule: dropARP(false)},
	}
	for _, d := range l.devices {
		cs = append(cs, egress(d))
	}
	return cs
}

func egress(device string) chain {
	return chain{family: unix.NFPROTO_NETDEV, name: chainEgress + device, hook: unix.NF_NETDEV_EGRESS,
		priority: first, device: device, rule: dropARP(true)}
}

const (
	nfARPOut = 1 // NF_ARP_OUT of linux/netfilter_arp.h
	nfAccept = 1 // NF_ACCEPT of linux/netfilter.h
)

// dropIP drops an IPv4 packet whose address at offset in the header is managed
// and not open; with fib only if the address is one of this host's.
func dropIP(offset uint32, fib *expr.Fib, withFib bool) []expr.Any {
	r := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{unix.NFPROTO_IPV4}},
	}
	r = append(r, closed(offset)...)
	if withFib {
		r = append(r, fib, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_2,
			Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)})
	}
	return append(r, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

// dropARP drops an ARP packet for IPv4 over six-byte addresses (RFC 826) whose
// sender address is managed and not open.
func dropARP(netdev bool) []expr.Any {
	var r []expr.Any
	if netdev {
		r = append(r, &expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1,
				Data: binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP)})
	}
	r = append(r,
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 2, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{0x08, 0x00, 6, 4}})
	r = append(r, closed(14)...)
	return append(r, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

func closed(offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: setManaged},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: setOpen, Invert: true},
	}
}

// replaceTables appends what replaces our tables, whatever they held, by l.
func replaceTables(b *batch, name string, l layout, managed []netip.Addr, open []element) error {
	for i, f := range l.families() {
		table(b, "add table", name, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, f)
		table(b, "delete table", name, unix.NFT_MSG_DELTABLE, 0, f)
		table(b, "add table", name, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, f)
		set(b, name, f, setManaged, uint32(2*i+1), false)
		set(b, name, f, setOpen, uint32(2*i+2), true)
	}
	for _, c := range l.chains() {
		if err := addChain(b, name, c); err != nil {
			return err
		}
	}
	for _, f := range l.families() {
		manage(b, "manage", name, f, unix.NFT_MSG_NEWSETELEM, managed)
		addOpen(b, name, f, open)
	}
	return nil
}

func table(b *batch, what, name string, typ, flags uint16, family uint8) {
	b.nft(what, typ, flags|unix.NLM_F_ACK, family)
	b.text(unix.NFTA_TABLE_NAME, name)
	b.end()
}

func set(b *batch, tableName string, family uint8, name string, id uint32, timeout bool) {
	const typeIPv4 = 7 // nft(8)'s own number for ipv4_addr, by which it prints the elements
	b.nft("add set", unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_ACK, family)
	b.text(unix.NFTA_SET_TABLE, tableName)
	b.text(unix.NFTA_SET_NAME, name)
	b.u32(unix.NFTA_SET_ID, id)
	b.u32(unix.NFTA_SET_KEY_TYPE, typeIPv4)
	b.u32(unix.NFTA_SET_KEY_LEN, 4)
	if timeout {
		b.u32(unix.NFTA_SET_FLAGS, unix.NFT_SET_TIMEOUT)
		b.u64(unix.NFTA_SET_TIMEOUT, uint64(defaultTimeout.Milliseconds()))
	}
	b.end()
}

func addChain(b *batch, tableName string, c chain) error {
	b.nftStep(step{text: "add chain", chain: c.name}, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_ACK, c.family)
	b.text(unix.NFTA_CHAIN_TABLE, tableName)
	b.text(unix.NFTA_CHAIN_NAME, c.name)
	hook := b.nest(unix.NFTA_CHAIN_HOOK)
	b.u32(unix.NFTA_HOOK_HOOKNUM, c.hook)
	b.u32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
	if c.device != "" {
		b.text(unix.NFTA_HOOK_DEV, c.device)
	}
	b.unnest(hook)
	b.u32(unix.NFTA_CHAIN_POLICY, nfAccept)
	b.text(unix.NFTA_CHAIN_TYPE, "filter")
	b.end()

	b.nftStep(step{text: "add rule to", chain: c.name, rule: true}, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND|unix.NLM_F_ACK, c.family)
	b.text(unix.NFTA_RULE_TABLE, tableName)
	b.text(unix.NFTA_RULE_CHAIN, c.name)
	list := b.nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range c.rule {
		data, err := expr.Marshal(c.family, e)
		if err != nil {
			return fmt.Errorf("encode rule of %s: %w", c.name, err)
		}
		b.bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, data)
	}
	b.unnest(list)
	comment := append([]byte{udataRuleComment, byte(len(ruleComment) + 1)}, ruleComment...)
	b.bytes(unix.NFTA_RULE_USERDATA, append(comment, 0))
	b.end()
	return nil
}

// manage adds or deletes (typ) elements of the managed set.
func manage(b *batch, what, name string, family uint8, typ uint16, addrs []netip.Addr) {
	if len(addrs) == 0 {
		return
	}
	list := startElements(b, what, name, family, typ, setManaged)
	for _, a := range addrs {
		key(b, a, 0)
	}
	endElements(b, list)
}

func addOpen(b *batch, name string, family uint8, open []element) {
	if len(open) == 0 {
		return
	}
	list := startElements(b, "open", name, family, unix.NFT_MSG_NEWSETELEM, setOpen)
	for _, e := range open {
		key(b, e.addr, e.left)
	}
	endElements(b, list)
}

func deleteOpen(b *batch, name string, family uint8, open []element) {
	list := startElements(b, "shut", name, family, unix.NFT_MSG_DELSETELEM, setOpen)
	for _, e := range open {
		key(b, e.addr, 0)
	}
	endElements(b, list)
}

// flushOpen deletes all elements of the open set.
func flushOpen(b *batch, name string, family uint8) {
	b.nft("shut all", unix.NFT_MSG_DELSETELEM, unix.NLM_F_ACK, family)
	b.text(unix.NFTA_SET_ELEM_LIST_TABLE, name)
	b.text(unix.NFTA_SET_ELEM_LIST_SET, setOpen)
	b.end()
}

func startElements(b *batch, what, name string, family uint8, typ uint16, set string) int {
	flags := uint16(unix.NLM_F_ACK)
	if typ == unix.NFT_MSG_NEWSETELEM {
		flags |= unix.NLM_F_CREATE
	}
	b.nft(what, typ, flags, family)
	b.text(unix.NFTA_SET_ELEM_LIST_TABLE, name)
	b.text(unix.NFTA_SET_ELEM_LIST_SET, set)
	return b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
}

func endElements(b *batch, list int) {
	b.unnest(list)
	b.end()
}

// key appends one element; a left of 0 names none, for a deletion or a set
// without timeouts.
func key(b *batch, a netip.Addr, left time.Duration) {
	el := b.nest(unix.NFTA_LIST_ELEM)
	k := b.nest(unix.NFTA_SET_ELEM_KEY)
	ip := a.As4()
	b.bytes(unix.NFTA_DATA_VALUE, ip[:])
	b.unnest(k)
	if left > 0 {
		b.u64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(left.Milliseconds()))
	}
	b.unnest(el)
}
