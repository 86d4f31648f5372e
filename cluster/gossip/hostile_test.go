package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/failoverd/failoverd/cluster/decide"
)

func FuzzMeta(f *testing.F) {
	good, err := options("a", 1).Meta.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, s := range []string{
		"", "{}", "null", "[]", `{"n":"a"}`, `{"n":"a\u0000","a":"127.0.0.1:1"}`, `{"n":"a","a":"127.0.0.1:1","v":"\u001b[2J"}`,
		`{"n":"a","a":"127.0.0.1:1","i":-1}`, `{"n":"a","a":"127.0.0.1:1","later":{"x":[1,2]}}`, strings.Repeat("[", 512), strings.Repeat("x", 513),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err != nil {
			if !errors.Is(err, ErrMeta) || m != (Meta{}) {
				t.Fatalf("%+v, %v", m, err)
			}
			return
		}
		for _, s := range []string{m.Name, m.Address, m.Version, m.ConfigHash, m.Role} {
			if len(s) > 64 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Fatalf("accepted %q", s)
			}
		}
		again, err := m.encode()
		if err != nil {
			t.Fatalf("cannot be sent on: %v", err)
		}
		if back, err := parseMeta(again); err != nil || back != m {
			t.Fatalf("%+v became %+v (%v)", m, back, err)
		}
	})
}

func FuzzGoodbye(f *testing.F) {
	f.Add([]byte(`{"goodbye":"a","i":1}`))
	f.Add([]byte(`{"goodbye":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, ok := parseGoodbye(b); ok && !nodeName.MatchString(g.Name) {
			t.Fatalf("accepted %q", g.Name)
		}
	})
}

func node(name string, change func(*memberlist.Node)) *memberlist.Node {
	meta, err := Meta{Name: name, Incarnation: 1, Address: "127.0.0.1:7400"}.encode()
	if err != nil {
		panic(err)
	}
	n := &memberlist.Node{Name: name, Addr: net.IPv4(127, 0, 0, 9).To4(), Port: 7402, Meta: meta, PMin: 1, PMax: 5, PCur: 2}
	if change != nil {
		change(n)
	}
	return n
}

func TestOnlyNodesAreLetIn(t *testing.T) {
	d := &delegate{&Gossip{book: newBook("self")}}
	if err := d.NotifyAlive(node("a", nil)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*memberlist.Node){
		"no metadata":      func(n *memberlist.Node) { n.Meta = nil },
		"another name":     func(n *memberlist.Node) { n.Name = "b" },
		"no address":       func(n *memberlist.Node) { n.Addr = nil },
		"half an address":  func(n *memberlist.Node) { n.Addr = n.Addr[:3] },
		"every address":    func(n *memberlist.Node) { n.Addr = net.IPv4zero },
		"multicast":        func(n *memberlist.Node) { n.Addr = net.IPv4(224, 0, 0, 1) },
		"no port":          func(n *memberlist.Node) { n.Port = 0 },
		"old protocol":     func(n *memberlist.Node) { n.PMax = 1 },
		"new protocol":     func(n *memberlist.Node) { n.PMin = 3 },
		"other protocol":   func(n *memberlist.Node) { n.PCur = 3 },
		"delegate version": func(n *memberlist.Node) { n.DMin = 1 },
	} {
		if d.NotifyAlive(node("a", change)) == nil {
			t.Errorf("%s: let in", name)
		}
	}
}

// Whatever comes in, names, conflicts and lines stay few.
func TestTheBookIsBounded(t *testing.T) {
	b := newBook("self")
	now := time.Unix(1e9, 0)
	b.now = func() time.Time { return now }
	d := &delegate{&Gossip{book: b}}
	meet := func(name string) error {
		n := node(name, nil)
		err := d.NotifyAlive(n)
		if err == nil {
			d.NotifyJoin(n)
		}
		return err
	}
	for i := range maxNodes {
		if err := meet(fmt.Sprint("n", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := meet("more"); err == nil {
		t.Error("one name too many was let in")
	}
	if err := meet("n5"); err != nil {
		t.Errorf("a known name was refused: %v", err)
	}
	d.NotifyLeave(node("n7", nil))
	if err := meet("more"); err == nil {
		t.Error("the recent dead were forgotten")
	}
	now = now.Add(keepDead + time.Second)
	if err := meet("more"); err != nil {
		t.Errorf("the dead take the place of the living: %v", err)
	}
	if got := b.members(); len(got) != maxNodes || got["n7"].State != decide.SightUnknown || got["n8"].State != decide.SightAlive {
		t.Errorf("%d names", len(got))
	}
	for i := range 1000 {
		d.NotifyConflict(node("n1", nil), node("n1", func(n *memberlist.Node) { n.Port = uint16(i + 1) }))
	}
	if got := b.due(); len(got) != maxConflicts {
		t.Errorf("%d conflicts", len(got))
	}
	if got := b.due(); len(got) != 0 {
		t.Errorf("%d conflicts at once again", len(got))
	}
	now = now.Add(conflictAgain + time.Second)
	if got := b.due(); len(got) != maxConflicts {
		t.Errorf("%d conflicts a minute later", len(got))
	}
}

// Raw rubbish on both sockets, of every kind of message, does not end a node
// or part it from the others.
func TestRubbishIsSurvived(t *testing.T) {
	for name, key := range map[string][]byte{"with a key": []byte("0123456789abcdef"), "without": nil} {
		t.Run(name, func(t *testing.T) {
			oa := options("a", 1)
			oa.Key = key
			a := start(t, oa)
			ob := options("b", 1, a)
			ob.Key = key
			b := start(t, ob)
			waitFor(t, "b", sees(a, "b", decide.SightAlive))

			random := rand.New(rand.NewPCG(1, 2))
			udp, err := net.Dial("udp", a.Address())
			if err != nil {
				t.Fatal(err)
			}
			defer udp.Close()
			label := append([]byte{244, 4}, "test"...)
			for i := range 5000 {
				body := make([]byte, random.IntN(300))
				for j := range body {
					body[j] = byte(random.Uint32())
				}
				packet := append(append([]byte{}, label...), byte(i%16))
				if i%10 == 0 {
					packet = nil
				}
				_, _ = udp.Write(append(packet, body...)) // a refusal by the kernel is as good
			}
			for i := range 200 {
				poke(t, a.Address(), append(append(append([]byte{}, label...), byte(i%16)), make([]byte, i)...))
			}
			// A push/pull whose header promises a million nodes (without a key it is read).
			header := append(append([]byte{}, label...), 6, 0x83, 0xa5)
			header = append(header, "Nodes"...)
			header = binary.BigEndian.AppendUint32(append(header, 0xce), 1<<20)
			header = append(append(header, 0xac), "UserStateLen"...)
			header = append(append(header, 0, 0xa4), "Join"...)
			poke(t, a.Address(), append(header, 0xc2))

			waitFor(t, "b still there", sees(a, "b", decide.SightAlive))
			o := options("c", 1, a)
			o.Key = key
			start(t, o)
			waitFor(t, "c let in", sees(a, "c", decide.SightAlive))
			waitFor(t, "c let in by b", sees(b, "c", decide.SightAlive))
		})
	}
}

// poke writes to a TCP port and hangs up.
func poke(t *testing.T, address string, b []byte) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = conn.Write(b)
	_ = conn.Close()
}

// Streams that never end are few, and end with the node.
func TestStreamsAreBounded(t *testing.T) {
	a := start(t, options("a", 1))
	before := runtime.NumGoroutine()
	var conns []net.Conn
	for range 100 {
		conn, err := net.DialTimeout("tcp", a.Address(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	// All but the first few are hung up on at once.
	open := 0
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, io.EOF) || isReset(err) {
			continue
		}
		if open++; open > maxStreams {
			t.Fatalf("more than %d streams are open", maxStreams)
		}
	}
	if n := runtime.NumGoroutine() - before; n > 4*maxStreams {
		t.Errorf("%d goroutines for them", n)
	}
	begin := time.Now()
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > streamTimeout {
		t.Errorf("the stop took %v", took)
	}
}

func isReset(err error) bool {
	return err != nil && strings.Contains(err.Error(), "reset")
}

func TestStreamsCarrySoMuch(t *testing.T) {
	left, right := net.Pipe()
	defer left.Close()
	tr := &transport{conns: map[*stream]bool{}}
	s := tr.keep(right, true)
	go func() {
		buf := make([]byte, 8192)
		for {
			if _, err := left.Write(buf); err != nil {
				return
			}
		}
	}()
	n, err := io.Copy(io.Discard, s)
	if n != maxStreamBytes || !errors.Is(err, errTooMuch) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := s.Close(); err != nil || len(tr.conns) != 0 || tr.inbound != 0 {
		t.Errorf("still counted: %v, %d, %v", tr.conns, tr.inbound, err)
	}
	_ = s.Close()
	if tr.inbound != 0 {
		t.Error("counted twice")
	}
}

// A goodbye counts for the life that it speaks of.
func TestOldGoodbyeIsIgnored(t *testing.T) {
	b := newBook("self")
	d := &delegate{&Gossip{book: b}}
	d.NotifyMsg([]byte(`{"goodbye":"a","i":1}`)) // nobody knows it
	d.NotifyJoin(node("a", nil))
	d.NotifyMsg([]byte(`{"goodbye":"a","i":0}`))
	d.NotifyMsg([]byte(`{"goodbye":"a"`))
	d.NotifyMsg(make([]byte, 1<<16))
	if s := b.members()["a"].State; s != decide.SightAlive {
		t.Errorf("state %q", s)
	}
	d.NotifyMsg([]byte(`{"goodbye":"a","i":1}`))
	b.answered("a") // it still answers until it stops
	d.NotifyLeave(node("a", nil))
	if s := b.members()["a"].State; s != decide.SightLeft {
		t.Errorf("state %q", s)
	}
}
