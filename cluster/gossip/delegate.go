package gossip

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. Several of these run under its lock and
// all must return at once: they write into the book and nothing else.
type delegate struct{ g *Gossip }

// NodeMeta is part of memberlist.Delegate.
func (d *delegate) NodeMeta(limit int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	if len(d.g.encoded) > limit {
		return nil // encode has seen to it; memberlist panics on more
	}
	return d.g.encoded
}

// NotifyMsg is part of memberlist.Delegate: the only message is a goodbye.
func (d *delegate) NotifyMsg(b []byte) {
	if word, ok := parseGoodbye(b); ok {
		d.g.book.farewell(word)
	}
}

// GetBroadcasts, LocalState and MergeRemoteState are parts of
// memberlist.Delegate that are not used.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is part of memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState is part of memberlist.Delegate.
func (d *delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive is part of memberlist.AliveDelegate: an error keeps the node out.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	meta, err := parseMeta(n.Meta)
	if err != nil {
		return err
	}
	if meta.Name != n.Name {
		return fmt.Errorf("%w: it calls itself %q and %q", ErrMeta, n.Name, meta.Name)
	}
	addr, ok := netip.AddrFromSlice(n.Addr)
	addr = addr.Unmap()
	if !ok || n.Port == 0 || addr.IsUnspecified() || addr.IsMulticast() {
		return fmt.Errorf("%w: no host has the address %v:%d", ErrMeta, n.Addr, n.Port)
	}
	const ours = memberlist.ProtocolVersion2Compatible
	if n.PCur != ours || n.PMin > ours || n.PMax < ours || n.DMin != 0 || n.DCur != 0 {
		return fmt.Errorf("%w: protocol version %d (%d to %d), wanted %d", ErrMeta, n.PCur, n.PMin, n.PMax, ours)
	}
	return d.g.book.admit(n.Name)
}

// NotifyJoin is part of memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.seen(n) }

// NotifyUpdate is part of memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.seen(n) }

func (d *delegate) seen(n *memberlist.Node) {
	if meta, err := parseMeta(n.Meta); err == nil { // NotifyAlive let no other in
		d.g.book.seen(meta, endpoint(n.Addr, n.Port))
	}
}

// NotifyLeave is part of memberlist.EventDelegate: dead or left.
func (d *delegate) NotifyLeave(n *memberlist.Node) { d.g.book.gone(n.Name) }

// NotifyConflict is part of memberlist.ConflictDelegate.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	if nodeName.MatchString(existing.Name) {
		d.g.book.clash(existing.Name, endpoint(existing.Addr, existing.Port), endpoint(other.Addr, other.Port))
	}
}

// AckPayload is part of memberlist.PingDelegate.
func (d *delegate) AckPayload() []byte { return nil }

// NotifyPingComplete is part of memberlist.PingDelegate: a direct probe of this
// node's own was answered.
func (d *delegate) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	d.g.book.answered(n.Name)
}

// probeLost is memberlist's question whether to try TCP, which it asks when a
// direct probe was not answered in time, and only then.
func (d *delegate) probeLost(name string) bool {
	d.g.book.doubt(name)
	return false
}

// endpoint is host:port in its canonical form, whatever the length of the IP.
func endpoint(ip net.IP, port uint16) string {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return "invalid"
	}
	return netip.AddrPortFrom(addr.Unmap(), port).String()
}
