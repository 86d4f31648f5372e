package guard

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (r *rig) raw() net.Conn {
	r.t.Helper()
	c, err := connect(ctx(r.t), filepath.Join(r.dir, SocketName))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(long)); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func sayHello(t *testing.T, c net.Conn, h hello) reply {
	t.Helper()
	body, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, c, request{ID: 1, Op: opHello, Body: body})
}

func ask(t *testing.T, c net.Conn, v any) reply {
	t.Helper()
	var rep reply
	if err := writeFrame(c, v); err != nil {
		t.Fatal(err)
	}
	if err := readFrame(c, &rep); err != nil {
		t.Fatal(err)
	}
	return rep
}

func goodHello(t *testing.T) hello {
	t.Helper()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	return hello{Min: 1, Max: 1, BootID: boot, Now: now(t)}
}

// What a daemon of another version, or of another world, is told.
func TestVersionExchange(t *testing.T) {
	r := startRig(t)
	for name, c := range map[string]struct {
		change func(*hello)
		want   error
		text   string
	}{
		"same":                 {func(*hello) {}, nil, ""},
		"newer, knows ours":    {func(h *hello) { h.Max = 9 }, nil, ""},
		"newer, not any more":  {func(h *hello) { h.Min, h.Max = 8, 9 }, ErrUnsupported, "8 to 9"},
		"another boot":         {func(h *hello) { h.BootID = "x" }, ErrClocks, "boot id"},
		"another time, ahead":  {func(h *hello) { h.Now.Boot += time.Hour }, ErrClocks, "time namespace"},
		"another time, behind": {func(h *hello) { h.Now = h.Now.Add(-time.Hour) }, ErrClocks, "time namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			h := goodHello(t)
			c.change(&h)
			rep := sayHello(t, r.raw(), h)
			err := rep.Error.err()
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Fatalf("answer %v, want %v with %q", err, c.want, c.text)
			}
			var info Info
			if err == nil {
				if err := json.Unmarshal(rep.Body, &info); err != nil || info.Protocol != 1 || info.Pid != r.Pid() {
					t.Errorf("%+v %v", info, err)
				}
			}
		})
	}
}

// A request that this guard does not know is refused, and the talk goes on;
// fields that it does not know are passed over.
func TestUnknownRequest(t *testing.T) {
	r := startRig(t)
	c := r.raw()
	if rep := sayHello(t, c, goodHello(t)); rep.Error != nil {
		t.Fatal(rep.Error.err())
	}
	rep := ask(t, c, request{ID: 2, Op: "teleport"})
	if !errors.Is(rep.Error.err(), ErrUnsupported) || !strings.Contains(rep.Error.Text, "teleport") || rep.ID != 2 {
		t.Errorf("answer %+v %v", rep, rep.Error.err())
	}
	rep = ask(t, c, map[string]any{"id": 3, "op": "list", "later": true, "body": map[string]any{"filter": "x"}})
	if rep.Error != nil || rep.ID != 3 {
		t.Errorf("answer %+v", rep)
	}
	rep = ask(t, c, request{ID: 4, Op: opExtend, Body: json.RawMessage(`{"session":"seven"}`)})
	if !errors.Is(rep.Error.err(), ErrRefused) {
		t.Errorf("a body of the wrong type: %v", rep.Error.err())
	}
}

// Nonsense on the socket ends that connection, and nothing else.
func TestSocketMisuse(t *testing.T) {
	r := startRig(t)
	r.lease(time.Minute)
	r.start(Spec{Name: "a", Command: sh("exec sleep 100")})
	u := r.await("a", UnitRunning)
	good := func() []byte {
		var b bytes.Buffer
		body, err := json.Marshal(goodHello(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFrame(&b, request{ID: 1, Op: opHello, Body: body}); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}()
	frame := func(s string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
	}
	for name, bytes := range map[string][]byte{
		"text":                []byte("GET / HTTP/1.1\r\n\r\n"),
		"a huge frame":        {0xff, 0xff, 0xff, 0xff},
		"an empty frame":      {0, 0, 0, 0},
		"no JSON":             frame("{"),
		"no hello":            frame(`{"id":1,"op":"stop","body":{"name":"a"}}`),
		"huge after hello":    append(append([]byte{}, good...), 0x7f, 0, 0, 0),
		"garbage after hello": append(append([]byte{}, good...), frame("\x00\x01\x02")...),
	} {
		t.Run(name, func(t *testing.T) {
			c := r.raw()
			if _, err := c.Write(bytes); err != nil {
				t.Fatal(err)
			}
			// Cut off, perhaps after an answer.
			if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("not cut off: %v", err)
			}
		})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		c := r.raw()
		junk := make([]byte, rng.IntN(200))
		for i := range junk {
			junk[i] = byte(rng.Uint32())
		}
		_, _ = c.Write(append(good, junk...))
		c.Close()
	}
	r.lease(time.Minute)
	if again := r.await("a", UnitRunning); again.Pid != u.Pid {
		t.Errorf("%+v, was init %d", again, u.Pid)
	}
}

// Many connections that say nothing are bounded, and do not keep the daemon out for long.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	r := startRig(t)
	for range 2 * maxConns {
		c, err := connect(ctx(t), filepath.Join(r.dir, SocketName))
		if err != nil {
			break
		}
		defer c.Close()
	}
	r.lease(time.Minute) // the daemon that is there feels nothing
	eventually(t, "a new connection", func() bool {
		c, err := Dial(ctx(t), filepath.Join(r.dir, SocketName))
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// Another user is kept out by the socket's mode, and by its credentials if
// somebody opened the mode.
func TestOtherUsersAreKeptOut(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can act as another user")
	}
	r := startRig(t)
	exe := copySelf(t)
	asNobody := func() string {
		cmd := exec.Command(exe, "status", "-dir", r.dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Fatalf("let in:\n%s", out)
		}
		return string(out)
	}
	openWay(t, r.dir)
	if out := asNobody(); !strings.Contains(out, "permission denied") {
		t.Errorf("by mode: %s", out)
	}
	if err := os.Chmod(filepath.Join(r.dir, SocketName), 0o666); err != nil {
		t.Fatal(err)
	}
	if out := asNobody(); !strings.Contains(out, ErrGuardLost.Error()) {
		t.Errorf("by credentials: %s", out)
	}
	eventually(t, "a word about it", func() bool {
		select {
		case e := <-r.Events():
			return e.Kind == EventTrouble && strings.Contains(e.Text, "user 65534")
		default:
			return false
		}
	})
}

// copySelf puts the test's program where every user may run it.
func copySelf(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	openWay(t, dir)
	path := filepath.Join(dir, "failoverguard-test")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// openWay lets every user walk down to a directory that the test made.
func openWay(t *testing.T, dir string) {
	t.Helper()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestErrorsKeepTheirIdentity(t *testing.T) {
	for kind, sentinel := range kinds {
		w := toWire(fmt.Errorf("start x: %w: because", sentinel))
		b, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		var back *wireError
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if got := back.err(); !errors.Is(got, sentinel) || got.Error() != w.Text {
			t.Errorf("%s: came back as %v", kind, got)
		}
	}
	if toWire(nil).err() != nil {
		t.Error("no error came back as one")
	}
	if err := toWire(io.EOF).err(); err == nil || err.Error() != "EOF" {
		t.Errorf("an error without a kind: %v", err)
	}
}

func TestUnitNames(t *testing.T) {
	seen := map[string]string{}
	for _, p := range [][2]string{{"a", "b"}, {"a:b", "c"}, {"a", "b:c"}, {"a/b", "c"}, {".a", "b"}, {"ä", "b"}, {"a%3Ab", "c"}, {"a b", "\n"}, {"192.0.2.1/24", "x"}} {
		n := UnitName(p[0], p[1])
		if err := checkUnitName(n); err != nil {
			t.Errorf("%q: %v", p, err)
		}
		if was, ok := seen[n]; ok {
			t.Errorf("%q and %s share %s", p, was, n)
		}
		seen[n] = fmt.Sprint(p)
	}
	for _, bad := range []string{"", ".", "..", ".x", "a/b", "a b", "a\n", "ä", strings.Repeat("x", 201)} {
		if err := checkUnitName(bad); !errors.Is(err, ErrRefused) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Add([]byte{0, 0, 0, 9, '{', '"', 'i', 'd', '"', ':', '1', '}', ' '})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r request
		if err := readFrame(bytes.NewReader(b), &r); err != nil {
			return
		}
		var out bytes.Buffer
		if err := writeFrame(&out, r); err != nil {
			return // a body that is no JSON does not get here
		}
		var again request
		if err := readFrame(&out, &again); err != nil || again.ID != r.ID || again.Op != r.Op {
			t.Errorf("%+v came back as %+v, %v", r, again, err)
		}
	})
}
