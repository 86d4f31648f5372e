package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// ARP for IPv4 over Ethernet: RFC 826, and RFC 5227 for probes, announcements
// and conflicts.

// arpLen is the length of an ARP packet with six-byte hardware addresses and
// four-byte protocol addresses.
const arpLen = 28

// The operations of RFC 826.
const (
	arpRequest = 1
	arpReply   = 2
)

const (
	hardwareEthernet = 1
	protocolIPv4     = 0x0800
)

var (
	errShortARP   = errors.New("ARP packet is cut off")
	errForeignARP = errors.New("ARP packet is not for IPv4 over Ethernet")
)

// hwAddr is an Ethernet address.
type hwAddr [6]byte

func (h hwAddr) String() string { return net.HardwareAddr(h[:]).String() }

var broadcast = hwAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// arpPacket is an ARP packet, in the names of RFC 826.
type arpPacket struct {
	op  uint16
	sha hwAddr     // sender's hardware address
	spa netip.Addr // sender's protocol address
	tha hwAddr     // target's hardware address
	tpa netip.Addr // target's protocol address
}

// probe asks for addr in nobody's name (RFC 5227, section 2.1.1).
func probe(mac hwAddr, addr netip.Addr) arpPacket {
	return arpPacket{op: arpRequest, sha: mac, spa: netip.IPv4Unspecified(), tpa: addr}
}

// announcements are the two forms in which hosts are told of an address: the
// ARP Announcement of RFC 5227, section 2.3, which is a request, and the
// gratuitous reply of RFC 5944, section 4.6. There are systems that heed only
// one of them.
func announcements(mac hwAddr, addr netip.Addr) [2]arpPacket {
	return [2]arpPacket{
		{op: arpRequest, sha: mac, spa: addr, tpa: addr},
		{op: arpReply, sha: mac, spa: addr, tha: mac, tpa: addr},
	}
}

// append appends the packet's 28 bytes. Both addresses are IPv4.
func (p arpPacket) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, hardwareEthernet)
	b = binary.BigEndian.AppendUint16(b, protocolIPv4)
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, p.op)
	spa, tpa := p.spa.As4(), p.tpa.As4()
	b = append(append(b, p.sha[:]...), spa[:]...)
	return append(append(b, p.tha[:]...), tpa[:]...)
}

// parseARP decodes an ARP packet; padding behind it is ignored.
func parseARP(b []byte) (arpPacket, error) {
	if len(b) < 8 {
		return arpPacket{}, errShortARP
	}
	hw, proto := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if hw != hardwareEthernet || proto != protocolIPv4 || b[4] != 6 || b[5] != 4 {
		return arpPacket{}, fmt.Errorf("%w: hardware type %d, protocol %#04x, lengths %d and %d", errForeignARP, hw, proto, b[4], b[5])
	}
	if len(b) < arpLen {
		return arpPacket{}, errShortARP
	}
	return arpPacket{
		op:  binary.BigEndian.Uint16(b[6:]),
		sha: hwAddr(b[8:14]), spa: netip.AddrFrom4([4]byte(b[14:18])),
		tha: hwAddr(b[18:24]), tpa: netip.AddrFrom4([4]byte(b[24:28])),
	}, nil
}
