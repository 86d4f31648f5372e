package gossip

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// deed is one call of memberlist's, cut out of a fuzzed input.
type deed struct {
	call, flags byte
	name, meta  []byte
	addr        []byte
	port        uint16
}

// deeds cuts an input into calls: a byte for which, one for flags and address,
// two lengths, name and metadata.
func deeds(b []byte) (out []deed) {
	for len(b) >= 4 && len(out) < 64 {
		d := deed{call: b[0], flags: b[1], port: uint16(b[1]) << 4}
		name, meta := int(b[2]), int(b[3])*4
		b = b[4:]
		name = min(name, len(b))
		d.name, b = b[:name], b[name:]
		meta = min(meta, len(b))
		d.meta, b = b[:meta], b[meta:]
		d.addr = [][]byte{{127, 0, 0, 9}, {127, 0, 0, d.flags}, {}, {1, 2, 3}, make([]byte, 16), {224, 0, 0, 1}, {0, 0, 0, 0}, net.IPv4(127, 0, 0, 9)}[d.flags&7]
		out = append(out, d)
	}
	return out
}

// FuzzDelegate calls everything that memberlist calls, as it might for whatever
// comes from the network. What this node remembers of it stays small, can be
// shown, and never speaks of this node itself.
func FuzzDelegate(f *testing.F) {
	entry := func(call, flags byte, name string, meta string) []byte {
		for len(meta)%4 != 0 {
			meta += " "
		}
		return append(append([]byte{call, flags, byte(len(name)), byte(len(meta) / 4)}, name...), meta...)
	}
	a := `{"n":"a","i":1,"a":"127.0.0.1:7400"}`
	f.Add(entry(0, 0, "a", a))
	f.Add(append(entry(0, 0, "a", a), entry(2, 0, "a", a)...))
	f.Add(append(entry(1, 0, "self", `{"n":"self","i":9,"a":"127.0.0.1:7400"}`), entry(4, 1, "a", a)...))
	f.Add(append(append(entry(1, 0, "a", a), entry(5, 0, "", `{"goodbye":"a","i":1}`)...), entry(3, 0, "a", "")...))
	f.Add(bytes.Repeat([]byte{4, 0, 1, 0, 'a'}, 40))
	f.Add(entry(6, 255, "a", `[[[[`))
	f.Add(entry(7, 0, "a", ""))
	f.Fuzz(func(t *testing.T, data []byte) {
		g := &Gossip{book: newBook("self"), encoded: []byte(`{"n":"self"}`)}
		now := time.Unix(1e9, 0)
		g.book.now = func() time.Time { now = now.Add(time.Minute); return now }
		d := &delegate{g}
		known := map[string]bool{} // memberlist tells of nodes that NotifyAlive let in
		for i, x := range deeds(data) {
			n := &memberlist.Node{Name: string(x.name), Addr: net.IP(x.addr), Port: x.port, Meta: x.meta, PMin: 1, PMax: 5, PCur: 2 + x.flags>>7}
			switch x.call % 9 {
			case 0:
				if d.NotifyAlive(n) != nil {
					break
				}
				if addr, ok := netip.AddrFromSlice(n.Addr); !ok || n.Port == 0 || addr.Unmap().IsUnspecified() || addr.Unmap().IsMulticast() {
					t.Fatalf("call %d: let in a node at %v:%d", i, n.Addr, n.Port)
				}
				if !known[n.Name] {
					d.NotifyJoin(n)
				} else {
					d.NotifyUpdate(n)
				}
				known[n.Name] = true
			case 1, 2:
				if d.NotifyAlive(n) == nil {
					d.NotifyUpdate(n)
				}
			case 3:
				d.NotifyLeave(n)
			case 4:
				d.NotifyConflict(&memberlist.Node{Name: n.Name, Addr: net.IPv4(127, 0, 0, 1), Port: 1}, n)
			case 5:
				d.NotifyMsg(x.meta)
			case 6:
				d.MergeRemoteState(x.meta, x.flags&1 != 0)
			case 7:
				if got := d.NodeMeta(int(x.flags)); len(got) > int(x.flags) {
					t.Fatalf("%d bytes of metadata, and %d may be", len(got), x.flags)
				}
				if got := d.LocalState(true); len(got) > 0 {
					t.Fatalf("%d bytes of state that nobody reads", len(got))
				}
			case 8:
				if d.probeLost(n.Name) {
					t.Fatal("a lost probe is tried again by TCP")
				}
				d.NotifyPingComplete(n, time.Millisecond, x.meta)
			}
		}
		members := g.Members()
		if len(members) > maxNodes || len(g.book.due()) > maxConflicts || len(g.book.conflicts) > maxConflicts {
			t.Fatalf("%d nodes and %d conflicts are remembered", len(members), len(g.book.conflicts))
		}
		for name, s := range members {
			if name == "self" || s.Meta.Name != name || s.Meta.check() != nil {
				t.Fatalf("%q is remembered as %+v", name, s.Meta)
			}
		}
		for _, c := range g.book.conflicts {
			if !nodeName.MatchString(c.Name) {
				t.Fatalf("a conflict of %q", c.Name)
			}
		}
	})
}
