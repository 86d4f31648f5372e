package config

import (
	"net/netip"
	"slices"
	"strings"
)

// readAddresses reads this node's address, its peers and the address for
// operators, and checks how they fit together.
func (n *Node) readAddresses(s *section) {
	port := DefaultPort
	s.whole("port", &port, 1, 65535-portsPerNode+1)

	var written string
	switch {
	case !s.has("address"):
		s.missing("address", "at which the other nodes reach this one", `"192.0.2.11"`)
	case s.text("address", &written):
		address, err := ParseAddress(written, port)
		if err != nil {
			s.bad("address", "address: %s", err)
			break
		}
		n.Address = address
		if s.has("port") && portOf(address) != port {
			s.bad("port", "port = %d and the port of address = %q differ; write it in one place", port, written)
		}
	}
	n.readPeers(s, port)
	n.readAPI(s)
}

func (n *Node) readPeers(s *section, port int) {
	var written []string
	if !s.has("peers") {
		s.missing("peers", "the addresses of all founding nodes with this one among them", `["192.0.2.11", "192.0.2.12", "192.0.2.13"]`)
		return
	}
	if !s.list("peers", &written) {
		return
	}
	good := true
	for i, p := range written {
		address, err := ParseAddress(p, port)
		if err != nil {
			s.badItem("peers", i, "peers: %s", err)
			good = false
			continue
		}
		n.Peers = append(n.Peers, address)
	}
	if !good {
		return
	}
	slices.Sort(n.Peers)
	n.checkPeers(s)
}

func (n *Node) checkPeers(s *section) {
	if len(n.Peers) == 0 {
		s.bad("peers", "peers is empty; name every founding node, this one among them")
		return
	}
	for i := 1; i < len(n.Peers); i++ {
		if n.Peers[i] == n.Peers[i-1] {
			s.bad("peers", "peers names %s twice; every node stands there once", n.Peers[i])
		}
	}
	unique := slices.Compact(slices.Clone(n.Peers))
	for i, a := range unique {
		for _, b := range unique[i+1:] {
			if distance := portOf(b) - portOf(a); hostOf(a) == hostOf(b) && distance > -portsPerNode && distance < portsPerNode {
				s.bad("peers", "peers %s and %s share ports: a node uses %d from its base port on; keep them %d apart", a, b, portsPerNode, portsPerNode)
			}
		}
	}
	if n.Address != "" && !slices.Contains(n.Peers, n.Address) {
		s.bad("peers", "peers does not name this node: add %s, or correct address; it names %s", n.Address, strings.Join(n.Peers, ", "))
	}
	if len(unique) == 2 {
		s.bad("peers", `two peers cannot do without one another: when one is lost the other has no majority. Add a third node: a voter, or a small witness (role = "witness") that votes and never holds`)
	}
}

func (n *Node) readAPI(s *section) {
	var written string
	if !s.text("api", &written) {
		return
	}
	ap, err := parseAddrPort(written, 0)
	if _, bare := netip.ParseAddr(written); bare == nil && err != nil {
		s.bad("api", "api = %q has no port; write it as host:port", written)
		return
	}
	if err != nil {
		s.bad("api", "api: %s", err)
		return
	}
	n.API = ap.String()
	if offset := int(ap.Port()) - portOf(n.Address); n.Address != "" && ap.Addr() == hostOf(n.Address) && offset >= 0 && offset < portsPerNode {
		s.bad("api", "api = %q is one of this node's own ports %d to %d; take another", written, portOf(n.Address), portOf(n.Address)+portsPerNode-1)
	}
}

// checkExposure refuses to be reachable from other hosts without certificates,
// unless the user said that this is wanted.
func (n *Node) checkExposure(s *section) {
	switch {
	case n.Insecure && s.hasBlock("tls"):
		s.bad("insecure", "insecure = true and the tls { } block contradict one another; remove one of them")
		return
	case n.Insecure, s.hasBlock("tls"):
		return
	}
	for _, a := range []struct{ key, address string }{{"address", n.Address}, {"api", n.API}} {
		if a.address != "" && !hostOf(a.address).IsLoopback() {
			s.bad(a.key, "%s = %s can be reached from other hosts and there is no tls { } block: add one with ca, cert and key, or write insecure = true on a network that you trust", a.key, a.address)
		}
	}
}
