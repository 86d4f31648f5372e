package guard

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// streamPair is a connected pair as the guard's socket makes one.
func streamPair(t *testing.T) (guardEnd, clientEnd *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		if ends[i], err = packetConn(os.NewFile(uintptr(fd), "pair")); err != nil {
			t.Fatal(err)
		}
	}
	return ends[0], ends[1]
}

// harmless are the operations that a fuzzed client may ask for: those that start
// programs would start whatever the input names.
var harmless = []string{opExtend, opPing, opRelease, opStop, opSignal, opList, opOutput, opGates, opHello, "teleport"}

// FuzzServer is a client that has said hello and goes on with anything but what
// starts a program. Each request that can be read gets one answer, with its
// number; the deadline is never further away than a lease may be, and within a
// session never moves back.
func FuzzServer(f *testing.F) {
	g, err := New(Options{Dir: f.TempDir(), NoCgroup: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := g.Close(); err != nil {
			f.Error(err)
		}
	})
	s := &server{g: g, conns: map[*serverConn]struct{}{}, shutdown: func() {}}
	f.Add(byte(0), []byte(`{"session":7,"deadline":{"boot":9000000000000000000,"raw":9000000000000000000}}`), int64(1e9), int64(1e9))
	f.Add(byte(0), []byte(nil), int64(1e9), int64(-5))
	f.Add(byte(0), []byte(nil), int64(1e9), int64(1)<<62)
	f.Add(byte(0), []byte(nil), int64(3600e9), int64(3601e9))
	f.Add(byte(0), []byte(nil), int64(1)<<60, int64(1)<<60)
	f.Add(byte(3), []byte(`{"name":"erp","timeout":1}`), int64(0), int64(0))
	f.Add(byte(4), []byte(`{"name":"erp","signal":"SIGKILL"}`), int64(0), int64(0))
	f.Add(byte(6), []byte(`{"name":"../../etc/passwd"}`), int64(0), int64(0))
	f.Add(byte(7), []byte(`{"gates":[{"table":"t","addresses":[{"cidr":"x","interface":"y"}]},{}]}`), int64(0), int64(0))
	f.Add(byte(9), []byte(`[`), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, op byte, body []byte, boot, raw int64) {
		mine, theirs := streamPair(t)
		sc := &serverConn{g: g, s: s, c: mine, slots: make(chan struct{}, maxRequests)}
		done := make(chan struct{})
		go func() { defer close(done); sc.serve() }()
		defer func() { theirs.Close(); <-done }()
		if err := theirs.SetDeadline(time.Now().Add(long)); err != nil {
			t.Fatal(err)
		}
		if rep := sayHello(t, theirs, goodHello(t)); rep.Error != nil {
			t.Fatal(rep.Error.err())
		}
		before := g.Info()
		if len(body) == 0 { // a deadline in order, so far from now
			d := now(t)
			d.Boot, d.Raw = d.Boot+time.Duration(boot), d.Raw+time.Duration(raw)
			if body, err = json.Marshal(extendBody{Session: 7, Deadline: d}); err != nil {
				t.Fatal(err)
			}
		}
		name := harmless[int(op)%len(harmless)]
		frame, err := json.Marshal(map[string]any{"id": 2, "op": name, "body": json.RawMessage(body)})
		if err != nil {
			frame = append(append([]byte(`{"id":2,"op":"`+name+`","body":`), body...), '}')
		}
		var asked request
		readable := json.Unmarshal(frame, &asked) == nil
		if readable && !slices.Contains(harmless, asked.Op) {
			return // the body has smuggled another operation in
		}
		if _, err := theirs.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
			t.Fatal(err)
		}
		if !readable {
			var rep reply
			if err := readFrame(theirs, &rep); err == nil {
				t.Fatalf("%s was answered with %+v", frame, rep)
			}
			return
		}
		var rep reply
		if err := readFrame(theirs, &rep); err != nil || rep.ID != asked.ID {
			t.Fatalf("%s: %+v, %v", frame, rep, err)
		}
		if rep.Error != nil && rep.Error.Text == "" {
			t.Fatalf("%s: an error that says nothing", frame)
		}
		after := g.Info()
		if left := after.Deadline.Left(now(t)); left > maxLease {
			t.Fatalf("%s: %v until the deadline", frame, left)
		}
		if after.Session == before.Session && before.Session != 0 && (after.Deadline.Boot < before.Deadline.Boot || after.Deadline.Raw < before.Deadline.Raw) {
			t.Fatalf("%s: the deadline went from %v back to %v", frame, before.Deadline, after.Deadline)
		}
		if asked.Op == opExtend && rep.Error != nil && rep.Error.Kind != "no_lease" && after.Deadline != before.Deadline {
			t.Fatalf("%s was refused (%s) and moved the deadline from %v to %v", frame, rep.Error.Text, before.Deadline, after.Deadline)
		}
	})
}

// FuzzLink is a guard that says anything to its client. A call ends with an
// answer that was given to it, or because the guard is lost.
func FuzzLink(f *testing.F) {
	add := func(rs ...any) {
		var b bytes.Buffer
		for _, r := range rs {
			if err := writeFrame(&b, r); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(b.Bytes())
	}
	add(reply{ID: 2})
	add(reply{ID: 2, Error: &wireError{Kind: "refused", Text: "no"}})
	add(reply{Event: &Event{Kind: EventLapsed}}, reply{ID: 9}, reply{ID: 2, Body: json.RawMessage(`{"output":"eA=="}`)})
	add(reply{ID: 2, Body: json.RawMessage(`[]`)})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return // more than the socket takes at once
		}
		mine, theirs := streamPair(t)
		events := 0
		l := &link{c: theirs, calls: map[uint64]chan reply{}, next: 1, onEvent: func(Event) { events++ }}
		go func() {
			var r request
			if readFrame(mine, &r) == nil {
				_, _ = mine.Write(data)
			}
			mine.Close()
		}()
		read := make(chan struct{})
		go func() { defer close(read); l.read() }()
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		var out outputReply
		err := l.call(ctx, opOutput, nameBody{Name: "x"}, &out)
		<-read

		var want *reply
		var told int
		for r := bytes.NewReader(data); ; {
			var rep reply
			if readFrame(r, &rep) != nil {
				break
			}
			if rep.Event != nil {
				told++
			} else if rep.ID == 2 && want == nil {
				want = &rep
			}
		}
		switch {
		case events != told:
			t.Fatalf("%d events were told, %d were sent", events, told)
		case want == nil && !errors.Is(err, ErrGuardLost):
			t.Fatalf("without an answer the call gave %v", err)
		case want != nil && want.Error != nil && (err == nil || err.Error() != want.Error.Text):
			t.Fatalf("%q became %v", want.Error.Text, err)
		case want != nil && want.Error == nil && err != nil && !errors.Is(err, ErrRefused):
			t.Fatalf("a good answer gave %v", err)
		}
		if l.failure() == nil || len(l.calls) > 0 {
			t.Fatal("the end of the connection is not noticed")
		}
	})
}

// FuzzPacket is what goes between the guard and an init: anything in a packet,
// with descriptors beside it. None of those stays open when the packet is bad.
func FuzzPacket(f *testing.F) {
	for _, v := range []any{order{Op: "setup", Kind: KindProcess, Program: &program{Argv: []string{"/x"}}}, order{Op: "run", ID: 3}, news{Ev: "up", Pid: 2}, news{Ev: "exited", Status: "x"}} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(len(b)%4))
	}
	f.Add([]byte(`{"op":`), byte(3))
	f.Add([]byte{}, byte(2))
	f.Fuzz(func(t *testing.T, data []byte, files byte) {
		if len(data) > 64<<10 {
			return
		}
		ours, theirsFile, err := packetPair()
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := packetConn(theirsFile)
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		// A pipe's end that is passed on is closed when every copy is.
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var fds []int
		for range files % 5 {
			fds = append(fds, int(w.Fd()))
		}
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		_, _, err = ours.WriteMsgUnix(data, rights, nil)
		w.Close()
		ours.Close()
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, maxPacket)
		var o order
		got, err := recvPacket(theirs, buf, &o)
		if (err == nil) != (json.Unmarshal(data, new(order)) == nil) {
			t.Fatalf("%q: %v", data, err)
		}
		if err == nil && len(got) != len(fds) || err != nil && len(got) > 0 {
			t.Fatalf("%d descriptors of %d, %v", len(got), len(fds), err)
		}
		closeAll(got)
		if err := r.SetReadDeadline(time.Now().Add(long)); err != nil {
			t.Fatal(err)
		}
		if n, err := r.Read(buf[:1]); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a descriptor was left open: %d, %v", n, err)
		}
		if sig, err := ParseSignal(string(data)); err == nil && (sig <= 0 || sig > 64) {
			t.Fatalf("%q is taken for signal %d", data, sig)
		}
		if checkUnitName(string(data)) == nil && (bytes.ContainsAny(data, "/\x00\n") || len(data) == 0 || data[0] == '.') {
			t.Fatalf("%q is taken for a unit's name", data)
		}
		if name := UnitName(string(data), "x"); len(name) <= 200 && checkUnitName(name) != nil {
			t.Fatalf("the unit name %q of service %q is refused", name, data)
		}
	})
}
