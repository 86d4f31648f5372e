package state

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// rich returns a state in which every field says something.
func rich(t testing.TB) *State {
	t.Helper()
	r := newScript(func(format string, args ...any) { t.Helper(); t.Fatalf(format, args...) })
	for _, line := range []string{
		`cluster a b c w:witness`,
		`standby node=c on at=5 by=ops why="new memory"`,
		`pause on at=6 until=7 by=ops why="network work"`,
		`pause`,
	} {
		r.run([]string{line})
	}
	r.run([]string{"services at=7 by=ops why=first",
		`  {"name":"erp","takeover":"lease","nodes":["a","b"],"priorities":{"a":1},"failback":true,"resources":[{"kind":"vip","name":"v","vip":{"address":"192.0.2.100/24","interface":"eth0","prefix":true}},{"kind":"process","name":"p","process":{"command":["/bin/p","<x>"],"environment":{"A":"b"},"directory":"/","user":"u","stop_signal":"INT","stop_timeout":1,"ready":"127.0.0.1:1","start_timeout":1,"restarts":2}}]}`,
		`  {"name":"db","takeover":"fence","resources":[{"kind":"exec","name":"e","exec":{"start":["/a"],"stop":["/b"],"status":["/c"],"start_timeout":1,"stop_timeout":1,"status_timeout":1,"interval":1}}]}`,
		`  {"name":"old","takeover":"lease"}`,
	})
	r.run([]string{
		`grant service=db epoch=1 node=c session=13 why="free"`,
		`grant service=erp epoch=1 node=a session=11`,
		`grant service=old epoch=1 node=a session=11`,
		`released service=old epoch=1 node=a`,
		`services remove=old`,
		`failure service=erp epoch=1 node=a at=8 why="port in use"`,
		`failure service=db epoch=1 node=c`,
		`handover service=erp from=1 from_node=a epoch=2 to_node=b to_session=12 why="ops"`,
		`session-close session=13 why="c is silent"`,
		`fence session=13 proposer=b why="no renewal"`,
		`session-end session=13 proof=expired term=1 by=a why="nobody answered"`,
		`session-open node=a boot_id=again replaces=11 ttl=3s kappa=20ms`,
		`move service=db to=b at=9 by=ops why="closer"`,
		`pause on service=db at=9 until=10 by=ops why="index"`,
		`pause on at=9 until=10 by=ops why="switch"`,
	})
	return r.s
}

// TestSnapshotFile reads a snapshot of version 1 as it was written when the
// version was made. When this fails, old snapshots are not readable any more:
// make a new version instead of a new file.
func TestSnapshotFile(t *testing.T) {
	const path = "testdata/snapshot-v1.json"
	s := rich(t)
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want = bytes.TrimSpace(want); !bytes.Equal(data, want) {
		t.Errorf("the encoding has changed:\n%s\n%s", data, want)
	}
	back, err := Decode(want)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, s) || back.Hash() != s.Hash() {
		t.Error("the state from the file differs from the one that wrote it")
	}
}

func TestDecodeRefuses(t *testing.T) {
	data, err := rich(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) string {
		if !strings.Contains(string(data), old) {
			t.Fatalf("no %q in the snapshot", old)
		}
		return strings.Replace(string(data), old, new, 1)
	}
	for _, c := range []struct {
		name, data string
		is         error
		says       string
	}{
		{"nothing", "", ErrSnapshotDamaged, "EOF"},
		{"cut", string(data[:len(data)/2]), ErrSnapshotDamaged, "EOF"},
		{"trailing", string(data) + "{}", ErrSnapshotDamaged, "something follows"},
		{"other JSON", `{"format":"tfstate","version":1,"state":{}}`, ErrSnapshotDamaged, `its format is "tfstate"`},
		{"newer", edit(`"version":1`, `"version":2`), ErrSnapshotVersion, "upgrade this node"},
		{"older", edit(`"version":1`, `"version":0`), ErrSnapshotVersion, "step by step"},
		{"field of the envelope", edit(`"version":1`, `"version":1,"more":1`), ErrSnapshotDamaged, `unknown field "more"`},
		{"field of the state", edit(`"leader_term"`, `"leader_time"`), ErrSnapshotDamaged, `unknown field "leader_time"`},
		{"no state", `{"format":"failoverd-state","version":1}`, ErrSnapshotDamaged, "EOF"},
		{"wrong type", edit(`"last_epoch":2`, `"last_epoch":"2"`), ErrSnapshotDamaged, "cannot unmarshal"},
		{"negative", edit(`"last_epoch":2`, `"last_epoch":-2`), ErrSnapshotDamaged, "cannot unmarshal"},
		{"contradiction", edit(`"last_epoch":2`, `"last_epoch":1`), ErrSnapshotDamaged, "epoch 2 is out of order"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Decode([]byte(c.data))
			if s != nil || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, %v; want %v with %q", s, err, c.is, c.says)
			}
		})
	}
}

// TestDecodeNull accepts what says nothing where nothing has to be said.
func TestDecodeNull(t *testing.T) {
	s, err := Decode([]byte(`{"format":"failoverd-state","version":1,"state":{"nodes":null,"history":null}}`))
	if err != nil || !reflect.DeepEqual(s, New()) {
		t.Fatalf("%+v, %v", s, err)
	}
	if a, b := s.Hash(), (&State{}).Hash(); a != b {
		t.Error("a zero state and a new one encode differently")
	}
}

// TestCheck breaks a good state in every way that Check names, and sees each
// named; a sentence of check.go that no line here provokes fails as well.
func TestCheck(t *testing.T) {
	var said []string
	for _, c := range []struct {
		says  string
		wreck func(s *State)
	}{
		{"leader term 9 is above the term 1", func(s *State) { s.LeaderTerm = 9 }},
		{`the leader's name "-" cannot be`, func(s *State) { s.Leader = "-" }},
		{"the cluster has no usable identity and key", func(s *State) { s.Cluster.Key = nil }},
		{"the cluster's pause is of a later index", func(s *State) { s.Paused.Index = 99 }},
		{"node a: it is empty", func(s *State) { s.Nodes["a"] = nil }},
		{`node a: it is called "b"`, func(s *State) { s.Nodes["a"].Name = "b" }},
		{`node a: its role ""`, func(s *State) { s.Nodes["a"].Role = "" }},
		{"node a: it started without a birth", func(s *State) { s.Nodes["a"].Birth = "" }},
		{"node a: its session 12 is not there", func(s *State) { s.Nodes["a"].Session = 12 }},
		{"node c: standby is of a later index", func(s *State) { s.Nodes["c"].Standby.Index = 99 }},
		{"session 12: it is empty", func(s *State) { s.Sessions[12] = nil }},
		{"session 12: its id is 13", func(s *State) { s.Sessions[12].ID = 13 }},
		{"session 12: it replaces the later session 13", func(s *State) { s.Sessions[12].Replaces = 13 }},
		{"session 12: a kappa of", func(s *State) { s.Sessions[12].Kappa = time.Hour }},
		{`session 12: its node "z" is not there`, func(s *State) { s.Sessions[12].Node = "z" }},
		{"session 12: its node knows an older one, 0", func(s *State) { s.Nodes["b"].Session = 0 }},
		{"session 11: it is open, but the node's current one is 35", func(s *State) { s.Sessions[11].Status = SessionOpen }},
		{"session 12: it is open, with a reason", func(s *State) { s.Sessions[12].Closing = "x" }},
		{"session 11: it is closing without a reason", func(s *State) { s.Sessions[11].Closing = "" }},
		{"session 13: it is ended without a reason or a proof", func(s *State) { s.Sessions[13].Proofs = nil }},
		{`session 13: its status is "gone"`, func(s *State) { s.Sessions[13].Status = "gone" }},
		{"session 13: its fence is of a later index", func(s *State) { s.Sessions[13].Fence.Index = 99 }},
		{`session 13: its proof "expired" is unknown or there twice`, func(s *State) { p := s.Sessions[13]; p.Proofs = append(p.Proofs, p.Proofs[0]) }},
		{`session 13: its proof "hope" is unknown or there twice`, func(s *State) { s.Sessions[13].Proofs[0].Kind = "hope" }},
		{"session 13: its proof expired is of a later index", func(s *State) { s.Sessions[13].Proofs[0].Index = 99 }},
		{"session 13: it was fenced without a fence", func(s *State) { s.Sessions[13].Fence = nil; s.Sessions[13].Proofs[0].Kind = ProofFenced }},
		{"service erp: it is empty", func(s *State) { s.Services["erp"] = nil }},
		{`service erp: it is called "web"`, func(s *State) { s.Services["erp"].Name = "web" }},
		{"service erp: its last epoch 18446744073709551615 is too high", func(s *State) { s.Services["erp"].LastEpoch = ^uint64(0) }},
		{"service erp: its generation 99 is above the index", func(s *State) { s.Services["erp"].Generation = 99 }},
		{"service db: its pause is of a later index", func(s *State) { s.Services["db"].Paused.Index = 99 }},
		{"service old: it is gone and still has something", func(s *State) { s.Services["old"].Spec.Name = "old" }},
		{`service erp: its specification is that of "web"`, func(s *State) { s.Services["erp"].Spec.Name = "web" }},
		{`service db: takeover "" is neither`, func(s *State) { s.Services["db"].Spec.Takeover = "" }},
		{"its address 192.0.2.100 is that of db as well", func(s *State) { s.Services["db"].Spec.Resources = s.Services["erp"].Spec.Resources }},
		{"service db: its move cannot be", func(s *State) { s.Services["db"].Move.Index = 99 }},
		{`service db: its move to "w" cannot be carried out`, func(s *State) { s.Services["db"].Move.To = "w" }},
		{`service db: its failure on "z" cannot be`, func(s *State) { s.Services["db"].Failures[0].Node = "z" }},
		{"service db: its failures are out of order", func(s *State) { p := s.Services["db"]; p.Failures = append(p.Failures, p.Failures[0]) }},
		{"service erp: epoch 3 is out of order", func(s *State) { s.Services["erp"].Grants[1].Epoch = 3 }},
		{"service erp: epoch 2 has no usable node or index", func(s *State) { s.Services["erp"].Grants[1].Index = 99 }},
		{`service erp: epoch 2 is a "handover" from 2`, func(s *State) { s.Services["erp"].Grants[1].From = 2 }},
		{"service erp: epoch 1 is over and not the newest", func(s *State) { s.Services["erp"].Grants[0].Over = ProofReleased }},
		{`service erp: epoch 2 is over by "hope"`, func(s *State) { s.Services["erp"].Grants[1].Over = "hope" }},
		{"service erp: epoch 2 is not over and its session 13 is not there", func(s *State) { s.Services["erp"].Grants[1].Session = 13 }},
		{`service erp: epoch 2 is not over and "b" is no node that may hold`, func(s *State) { s.Nodes["b"].Role = RoleWitness }},
		{"service db: epoch 1 is over by expired and not marked", func(s *State) { s.Services["db"].Spec.Takeover = TakeoverLease }},
		{"service erp: 3 epochs are not over", func(s *State) { p := s.Services["erp"]; p.Grants = append(p.Grants, p.Grants[1]) }},
		{"service erp: epochs 1 and 2 are not over and no hand-over joins them", func(s *State) { s.Services["erp"].Grants[1].Kind, s.Services["erp"].Grants[1].From = KindGrant, 0 }},
		{"history: 1001 events are more than 1000", func(s *State) { s.History = make([]Event, MaxHistory+1) }},
		{"history: event 0 has index 99", func(s *State) { s.History[0].Index = 99 }},
		{"history: event 0 has no kind or no reason", func(s *State) { s.History[0].Why = "" }},
	} {
		s := rich(t)
		c.wreck(s)
		err := s.Check()
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("got %v; want %q", err, c.says)
			continue
		}
		said = append(said, strings.Split(err.Error(), "\n")...)
		if _, err := s.Encode(); err == nil {
			t.Errorf("%s: a broken state was written", c.says)
		}
		if data, err := s.marshal(); err != nil {
			t.Error(err)
		} else if _, err := Decode(data); !errors.Is(err, ErrSnapshotDamaged) {
			t.Errorf("%s: a broken state was read: %v", c.says, err)
		}
	}
	for _, format := range complaintsInSource(t, "check.go") {
		pattern := sentencePattern(format)
		if !shownText(said, func(s string) bool {
			_, after, _ := strings.Cut(s, ": ")
			return pattern.MatchString(s) || pattern.MatchString(after)
		}) {
			t.Errorf("no line provokes %q", format)
		}
	}
}

func shownText(said []string, match func(string) bool) bool {
	for _, s := range said {
		if match(s) {
			return true
		}
	}
	return false
}

// complaintsInSource returns the sentences of every complaint in a file.
func complaintsInSource(t *testing.T, path string) (formats []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || (f.Sel.Name != "check" && f.Sel.Name != "add") {
			return true
		}
		arg := call.Args[0]
		if f.Sel.Name == "check" {
			arg = call.Args[1]
		}
		if lit, ok := arg.(*ast.BasicLit); ok {
			formats = append(formats, literal(t, lit))
		}
		return true
	})
	if len(formats) < 30 {
		t.Fatalf("found only %d sentences in %s", len(formats), path)
	}
	return formats
}

// FuzzDecode reads anything. What is accepted must encode, decode to the same,
// and take commands without panic or contradiction.
func FuzzDecode(f *testing.F) {
	for _, s := range []*State{New(), rich(f)} {
		data, err := s.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Decode(data)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatalf("accepted and not encoded: %v", err)
		}
		back, err := Decode(again)
		if err != nil || !reflect.DeepEqual(s, back) {
			t.Fatalf("not the same again: %v", err)
		}
		for _, cmd := range []Command{
			LeaderStart{Node: "b"},
			SetNode{Node: "d", Role: RoleVoter, Address: "192.0.2.9:7400"},
			OpenSession{Node: "d", BootID: "x", TTL: time.Second, Kappa: time.Millisecond},
			CloseSession{Session: 12},
			EndSession{Session: 12, Proof: ProofExpired, Term: s.Term},
			EndSession{Session: 11, Proof: ProofVouched, Stamp: Stamp{By: "ops", Why: "off"}},
			Released{Service: "erp", Epoch: 1, Node: "a"},
			GrantService{Service: "erp", Epoch: 3, Node: "d", Session: s.Index},
			SetServices{Services: []Spec{{Name: "erp", Takeover: TakeoverFence}, {Name: "db", Takeover: TakeoverLease}}},
			RemoveNode{Node: "c"},
		} {
			s.Apply(s.Index+1, s.Term, cmd)
			if err := s.Check(); err != nil {
				t.Fatalf("after %#v: %v", cmd, err)
			}
		}
	})
}
