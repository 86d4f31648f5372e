package consensus

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/cluster"
	"github.com/failoverd/failoverd/cluster/state"
)

// life is a log in which something happens, as it stands on the disk.
func life(f *testing.F) [][]byte {
	f.Helper()
	var out [][]byte
	st := state.New()
	for _, cmd := range []state.Command{
		state.Found{ID: "cluster", Key: bytes.Repeat([]byte{1}, 32)},
		state.LeaderStart{Node: "a"},
		state.SetNode{Node: "a", Role: state.RoleVoter, Address: "192.0.2.1:7400"},
		state.SetNode{Node: "b", Role: state.RoleVoter, Address: "192.0.2.2:7400"},
		state.Started{Node: "a", Nonce: 1, Birth: "one", BootID: "x", Version: "1"},
		state.SetServices{Services: []state.Spec{{Name: "erp", Takeover: state.TakeoverLease}}},
		state.OpenSession{Node: "a", BootID: "x", TTL: time.Second, Kappa: time.Millisecond},
		state.OpenSession{Node: "b", BootID: "y", TTL: time.Second, Kappa: time.Millisecond},
		state.GrantService{Service: "erp", Epoch: 1, Node: "a", Session: 7},
		state.RequestMove{Service: "erp", To: "b"},
		state.HandOver{Service: "erp", From: 1, FromNode: "a", Epoch: 2, ToNode: "b", ToSession: 8},
		state.Released{Service: "erp", Epoch: 1, Node: "a"},
		state.CloseSession{Session: 8},
		state.StartFence{Session: 8, Proposer: "a"},
		state.EndSession{Session: 8, Proof: state.ProofFenced, Term: 1},
		state.SetPause{Service: "erp", On: true},
		state.SetStandby{Node: "a", On: true},
		state.ReportFailure{Service: "erp", Epoch: 2, Node: "b"},
		state.ClearFailures{Service: "erp"},
		state.RemoveNode{Node: "b"},
	} {
		data, err := EncodeCommand(cmd)
		if err != nil {
			f.Fatal(err)
		}
		if res := st.Apply(st.Index+1, 1, cmd); res.Refused != nil {
			f.Fatalf("%#v: %v", cmd, res.Refused)
		}
		out = append(out, data)
	}
	return out
}

// FuzzLog replays a log of any entries, one a line. Whatever can be read can be
// applied and leaves no contradiction; what cannot ends the node's part before
// anything follows it; a snapshot taken on the way and the rest of the log come
// to the same state.
func FuzzLog(f *testing.F) {
	all := life(f)
	f.Add(bytes.Join(all, []byte("\n")), uint16(9))
	for i := range all {
		f.Add(bytes.Join(all[:i+1], []byte("\n")), uint16(i/2))
	}
	f.Add([]byte(`{"v":2,"kind":"found","command":{}}`), uint16(0))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		entries := bytes.Split(data, []byte("\n"))
		entries = entries[:min(len(entries), 200)]
		first, m := fsm{verdict: newVerdict()}, newMachine()
		first.machine = m
		var saved []byte
		ended := 0
		for i, body := range entries {
			if i == int(cut)%len(entries) {
				var sink sink
				s, err := first.Snapshot()
				if err == nil {
					err = s.Persist(&sink)
				}
				if err != nil {
					t.Fatalf("snapshot before entry %d: %v", i+1, err)
				}
				saved = sink.Bytes()
			}
			before := m.state.Index
			answer := first.Apply(&raft.Log{Index: uint64(i + 1), Term: 1, Data: body})
			if err, ok := answer.(error); ok {
				if !errors.Is(err, ErrUnknownCommand) || first.verdict.reached() == nil || m.state.Index != before {
					t.Fatalf("entry %d: %v", i+1, err)
				}
				ended = i + 1
				break
			}
			if err := m.state.Check(); err != nil {
				t.Fatalf("after %s: %v", body, err)
			}
		}
		if ended > 0 {
			if _, ok := first.Apply(&raft.Log{Index: uint64(ended + 1), Term: 1, Data: life0}).(error); !ok {
				t.Fatal("an entry was applied after one that was not")
			}
			return
		}
		second, r := fsm{verdict: newVerdict()}, newMachine()
		second.machine = r
		if err := second.Restore(io.NopCloser(bytes.NewReader(saved))); err != nil {
			t.Fatalf("the snapshot is refused: %v\n%s", err, saved)
		}
		for i := int(cut) % len(entries); i < len(entries); i++ {
			second.Apply(&raft.Log{Index: uint64(i + 1), Term: 1, Data: entries[i]})
		}
		if r.state.Hash() != m.state.Hash() || !reflect.DeepEqual(r.state, m.state) {
			t.Fatalf("by a snapshot before entry %d the state is another one", int(cut)%len(entries)+1)
		}
	})
}

// life0 is an entry that is always in order.
var life0 = []byte(`{"v":1,"kind":"leader","command":{"node":"a"}}`)

// sink takes a snapshot in memory.
type sink struct{ bytes.Buffer }

func (*sink) ID() string    { return "" }
func (*sink) Cancel() error { return nil }
func (*sink) Close() error  { return nil }

// FuzzRestore restores anything over a state that has gone on. It is taken whole
// and is not older, or nothing is changed and nothing follows.
func FuzzRestore(f *testing.F) {
	all := life(f)
	for _, n := range []int{0, 3, 8, len(all)} {
		m := newMachine()
		for i, body := range all[:n] {
			cmd, err := DecodeCommand(body)
			if err != nil {
				f.Fatal(err)
			}
			m.Apply(uint64(i+1), 1, cmd)
		}
		data, err := m.state.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(bytes.Replace(data, []byte(`"version":1`), []byte(`"version":2`), 1))
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMachine()
		x := fsm{machine: m, verdict: newVerdict()}
		for i, body := range all[:5] {
			cmd, err := DecodeCommand(body)
			if err != nil {
				t.Fatal(err)
			}
			m.Apply(uint64(i+1), 1, cmd)
		}
		before := m.state.Hash()
		err := x.Restore(io.NopCloser(bytes.NewReader(data)))
		switch {
		case err == nil:
			if again, err := m.state.Encode(); err != nil || m.state.Index < 5 {
				t.Fatalf("index %d was taken over 5: %s, %v", m.state.Index, again, err)
			}
			return
		case m.state.Hash() != before:
			t.Fatalf("a state was changed by a snapshot that is refused: %v", err)
		case !errors.Is(err, state.ErrSnapshotDamaged) && !errors.Is(err, state.ErrSnapshotVersion) && !errors.Is(err, ErrBackwards):
			t.Fatalf("an error that says nothing: %v", err)
		}
		if x.verdict.reached() == nil || x.Restore(io.NopCloser(bytes.NewReader(data))) == nil {
			t.Fatal("it goes on after a snapshot that was refused")
		}
	})
}

// FuzzBallot reads any term and vote. What is accepted is written as the same bytes.
func FuzzBallot(f *testing.F) {
	f.Add(ballot{}.encode())
	f.Add(ballot{Term: 3, VoteTerm: 2, VoteFor: []byte("192.0.2.1:7401")}.encode())
	f.Add(ballot{Term: 2, VoteTerm: 3}.encode())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := decodeBallot(data)
		if err == nil && (!bytes.Equal(b.encode(), data) || b.VoteTerm > b.Term) {
			t.Fatalf("%x was read as %+v", data, b)
		}
		// And with a checksum that fits, which nobody draws by chance.
		b, err = decodeBallot(ballot{Term: uint64(len(data)), VoteTerm: 1, VoteFor: data}.encode())
		if len(data) == 0 {
			if err == nil {
				t.Fatal("a vote of a later term than the term was accepted")
			}
		} else if err != nil || !bytes.Equal(b.VoteFor, data) || b.Term != uint64(len(data)) || b.VoteTerm != 1 {
			t.Fatalf("%+v, %v", b, err)
		}
	})
}

// FuzzBolt damages a store in memory: changes at two places and a cut. The check
// ends soon, never follows a number out of the file, and always sees a cut.
func FuzzBolt(f *testing.F) {
	good := storeBytes(f)
	f.Add(uint32(0), []byte{}, uint32(0), []byte{}, uint32(0))
	f.Add(uint32(4096*2+8), []byte{1}, uint32(4096*3+10), []byte{0xff, 0xff}, uint32(0))
	f.Add(uint32(4096*3+12), []byte{0xff, 0xff, 0xff, 0xff}, uint32(0), []byte{}, uint32(0))
	f.Add(uint32(4096*4+16), []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint32(16), []byte{1}, uint32(100))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, at2 uint32, patch2 []byte, cut uint32) {
		bad := bytes.Clone(good)
		n := copy(bad[int(at)%len(bad):], patch)
		n += copy(bad[int(at2)%len(bad):], patch2)
		bad = bad[:len(bad)-int(cut)%len(bad)]
		err := checkBolt(bytes.NewReader(bad), int64(len(bad)), time.Now().Add(5*time.Second))
		switch {
		case errors.Is(err, errLate):
			t.Fatal("the check of a small file took five seconds")
		case err == nil && len(bad) < inUse0(good):
			t.Fatalf("a file of %d bytes, cut to %d, is accepted", len(good), len(bad))
		case err != nil && n == 0 && int(cut)%len(good) == 0:
			t.Fatalf("a good file is refused: %v", err)
		}
	})
}

// inUse0 is how many bytes of a store its root in force counts as used.
func inUse0(good []byte) int {
	m, err := readRoots(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		return 0
	}
	return int(m.pages) * int(m.pageSize)
}

// storeBytes makes a store with free pages and branches, and reads its file.
func storeBytes(f *testing.F) []byte {
	f.Helper()
	var data []byte
	// A store needs a test of its own to be made in.
	dir := f.TempDir()
	d, err := OpenDirectory(filepath.Join(dir, "data"), Self{Node: "a", Role: state.RoleVoter, Address: "127.0.0.1:1", Peers: []string{"127.0.0.1:1"}})
	if err != nil {
		f.Fatal(err)
	}
	defer d.Close()
	o, err := Options{Directory: d, Machine: newMachine(), CheckLimit: time.Minute}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	st, err := openStore(o, newWatch(time.Minute), newVerdict())
	if err != nil {
		f.Fatal(err)
	}
	var logs []*raft.Log
	for i := range uint64(60) {
		logs = append(logs, &raft.Log{Index: i + 1, Term: 1, Data: bytes.Repeat([]byte{'x'}, int(40+i*37%700))})
	}
	err = errors.Join(st.log.StoreLogs(logs), st.log.DeleteRange(30, 50), st.stable.SetUint64([]byte(keyTerm), 1), st.Close())
	if err == nil {
		data, err = os.ReadFile(filepath.Join(d.Path(), storeFile))
	}
	if err != nil {
		f.Fatal(err)
	}
	return data
}

// FuzzIdentity starts in a directory with any identity.json. Nothing is taken
// for this node's that names another one, and what is taken reads the same again.
func FuzzIdentity(f *testing.F) {
	self := Self{Node: "a", Role: state.RoleVoter, Address: "192.0.2.1:7400", Peers: []string{"192.0.2.1:7400", "192.0.2.2:7400"}}
	add := func(r record) {
		data, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	good := record{Version: 1, Node: "a", Role: self.Role, Address: self.Address, Peers: self.Peers, Birth: "b1"}
	add(good)
	good.Cluster, good.Founders, good.Store = "c", []cluster.Founder{{Node: "a", Role: state.RoleVoter, Address: self.Address, Birth: "b1"}}, storeUsed
	add(good)
	good.Address = "192.0.2.9:7400"
	add(good)
	good.Node = "b"
	add(good)
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, identityFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		d := &Directory{path: dir}
		if err := d.identify(self); err != nil {
			if after, rerr := os.ReadFile(filepath.Join(dir, identityFile)); rerr != nil || !bytes.Equal(after, data) {
				t.Fatalf("what was refused (%v) was changed: %s, %v", err, after, rerr)
			}
			return
		}
		var was record
		if err := json.Unmarshal(data, &was); err != nil || was.Node != self.Node || was.Birth == "" || was.Version != identityVersion ||
			was.Cluster != "" && was.Address != self.Address {
			t.Fatalf("taken for node a's: %s", data)
		}
		again := &Directory{path: dir}
		if err := again.identify(self); err != nil || !reflect.DeepEqual(again.rec, d.rec) {
			t.Fatalf("read again: %+v, %v; first %+v", again.rec, err, d.rec)
		}
		if d.rec.Birth != was.Birth || d.rec.Cluster != was.Cluster || d.rec.Store != was.Store || d.rec.Lays != was.Lays {
			t.Fatalf("%s was read as %+v", data, d.rec)
		}
	})
}

// FuzzFounding lets the peers say anything. A cluster is founded only on the
// word of every single one that it has no data and the same list, by one node
// alone; a node joins only whom its very birth is counted by.
func FuzzFounding(f *testing.F) {
	add := func(ids ...cluster.Identity) {
		data, err := json.Marshal(ids)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	a, b, c := blank(0), blank(1), blank(2)
	add(b, c)
	add(b)
	add(foundedBy(b, a, b, c), c)
	add(foundedBy(b, a, b, c), foundedBy(c, a, b, c))
	add(foundedBy(b, b, c), foundedBy(c, c))
	add(a, b)
	f.Fuzz(func(t *testing.T, data []byte) {
		var said []cluster.Identity
		if json.Unmarshal(data, &said) != nil {
			return
		}
		self := blank(0)
		answers := map[string]Answer{}
		for i, id := range said {
			if i+1 < len(threePeers) {
				answers[threePeers[i+1]] = Answer{Identity: id}
			}
		}
		d := NextFounding(self, answers)
		if d.Why == "" {
			t.Fatal("a decision without a reason")
		}
		switch d.Verb {
		case Found:
			births := map[string]bool{self.Birth: true}
			for _, address := range threePeers[1:] {
				a, ok := answers[address]
				id := a.Identity
				if !ok || id.Cluster != "" || !slices.Equal(id.Peers, self.Peers) || id.Address != address || births[id.Birth] || id.Birth == "" {
					t.Fatalf("founded on the word of %s: %+v", address, id)
				}
				births[id.Birth] = true
			}
			if d.Cluster != ClusterID(d.Founders) || len(d.Founders) != len(threePeers) || Layer(d.Founders) != self.Node {
				t.Fatalf("founded: %+v", d)
			}
		case Join:
			from := answers[d.From].Identity
			if from.Cluster == "" || from.Cluster != d.Cluster || !slices.Contains(from.Founders, founder(self)) && !countsBirth(from, self) {
				t.Fatalf("joined %+v on the word of %+v", d, from)
			}
			for _, a := range answers {
				if a.Identity.Cluster != "" && a.Identity.Cluster != d.Cluster {
					t.Fatalf("joined %s while a peer is of %s", d.Cluster, a.Identity.Cluster)
				}
			}
		}
	})
}

func countsBirth(peer, self cluster.Identity) bool {
	return slices.ContainsFunc(peer.Founders, func(f cluster.Founder) bool {
		return f.Birth == self.Birth && f.Node == self.Node && f.Address == self.Address
	})
}

// FuzzGreeting calls with anything. Nobody is let in but a node of this cluster
// that wants this node, and the answer can always be sent.
func FuzzGreeting(f *testing.F) {
	for _, g := range []greeting{
		{Cluster: "c", From: "b", To: "a"}, {Cluster: "x", From: "b", To: "a"}, {Cluster: "c", From: "b", To: "x"}, {Cluster: "c", From: "a", To: "a"},
	} {
		body, err := json.Marshal(g)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte(greetingMagic), body...))
	}
	f.Add([]byte(greetingMagic))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		s := &stream{cluster: "c", node: "a"}
		hello, why := s.objection(frame)
		if why == "" {
			body, ok := strings.CutPrefix(string(frame), greetingMagic)
			var g greeting
			if err := json.Unmarshal([]byte(body), &g); !ok || err != nil || g.Cluster != "c" || g.To != "a" || g.From == "a" || hello != g {
				t.Fatalf("let in %q as %+v", frame, hello)
			}
		}
		var wire bytes.Buffer
		if err := writeFrame(&wire, []byte(why)); err != nil {
			t.Fatal(err)
		}
		if got, err := readFrame(&wire); err != nil || !strings.HasPrefix(why, string(got)) || len(why) > 0 && len(got) == 0 {
			t.Fatalf("%q was read as %q, %v", why, got, err)
		}
		// Anything as a frame: at most what a greeting may take is read.
		if got, err := readFrame(bytes.NewReader(frame)); err == nil && len(got) > greetingMax {
			t.Fatalf("a frame of %d bytes", len(got))
		}
	})
}
