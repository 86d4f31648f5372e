package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// DefaultPort is the base port of a node whose address names none.
const DefaultPort = 7400

// The ports of a node, counted from its base port.
const (
	offsetRaft   = 0 // TCP: the Raft log
	offsetPeer   = 1 // TCP: gRPC between nodes
	offsetGossip = 2 // TCP and UDP: gossip
	offsetRenew  = 3 // UDP: lease renewals
	portsPerNode = 4
)

// RaftAddress is where a node with this base address listens for Raft (TCP).
func RaftAddress(base string) string { return Endpoint(base, offsetRaft) }

// PeerAddress is where it answers other nodes over gRPC (TCP).
func PeerAddress(base string) string { return Endpoint(base, offsetPeer) }

// GossipAddress is where it gossips (TCP and UDP).
func GossipAddress(base string) string { return Endpoint(base, offsetGossip) }

// RenewAddress is where it exchanges lease renewals (UDP).
func RenewAddress(base string) string { return Endpoint(base, offsetRenew) }

// Endpoint counts a port on from a base address that a loader has accepted. An
// address that is none is returned as it is, so that the dial or the listen
// that follows names it in its error.
func Endpoint(base string, offset int) string {
	ap, err := netip.ParseAddrPort(base)
	if err != nil || int(ap.Port())+offset > 65535 {
		return base
	}
	return netip.AddrPortFrom(ap.Addr(), ap.Port()+uint16(offset)).String()
}

// ParseAddress reads a node's address, "192.0.2.11", "192.0.2.11:7400",
// "2001:db8::11" or "[2001:db8::11]:7400", and returns it as host:port in its
// one canonical form. Host names are refused: a failover must not wait for a
// resolver, and must not follow it to another host.
func ParseAddress(text string, port int) (string, error) {
	ap, err := parseAddrPort(text, port)
	if err != nil {
		return "", err
	}
	if int(ap.Port())+portsPerNode-1 > 65535 {
		return "", fmt.Errorf("%q leaves no room for the four ports counted from %d; take a base port of %d at the most",
			text, ap.Port(), 65535-portsPerNode+1)
	}
	return ap.String(), nil
}

func parseAddrPort(text string, port int) (netip.AddrPort, error) {
	none := netip.AddrPort{}
	if text == "" {
		return none, fmt.Errorf(`the address is empty; write for example "192.0.2.11"`)
	}
	host := text
	if addr, err := netip.ParseAddr(text); err != nil {
		ap, err := netip.ParseAddrPort(text)
		switch {
		case err == nil:
			host, port = ap.Addr().String(), int(ap.Port())
		case strings.Contains(text, "/"):
			return none, fmt.Errorf("%q is a network; write the node's address alone, without /%s", text, text[strings.LastIndex(text, "/")+1:])
		case looksLikeName(text):
			return none, fmt.Errorf("%q is a name; write the IP address, since a failover must not wait for a resolver", text)
		default:
			return none, fmt.Errorf(`%q is no IP address; write for example "192.0.2.11" or "192.0.2.11:%d"`, text, DefaultPort)
		}
	} else {
		host = addr.String()
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return none, fmt.Errorf("%q is no IP address", text)
	}
	addr = addr.Unmap()
	switch {
	case addr.Zone() != "":
		return none, fmt.Errorf("%q carries an interface name, which means something else on every node; use an address that is not link-local", text)
	case addr.IsUnspecified():
		return none, fmt.Errorf("%q stands for every address; write the one at which the other nodes reach this node", text)
	case addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return none, fmt.Errorf("%q is no address of a single host", text)
	case port < 1 || port > 65535:
		return none, fmt.Errorf("%q has port %d; ports go from 1 to 65535", text, port)
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

// looksLikeName tells a host name from a mistyped address, for the message only.
func looksLikeName(text string) bool {
	host := text
	if i := strings.LastIndex(text, ":"); i >= 0 && strings.Count(text, ":") == 1 {
		if _, err := strconv.Atoi(text[i+1:]); err == nil {
			host = text[:i]
		}
	}
	letter := false
	for _, c := range host {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			letter = true
		case c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return letter
}

// hostOf is the host of a canonical host:port.
func hostOf(address string) netip.Addr {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

func portOf(address string) int {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return 0
	}
	return int(ap.Port())
}
