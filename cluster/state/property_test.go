package state

import (
	"flag"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A failure prints how to reproduce it; files are not left in the tree, where
// runs against mutants would heap them up, and not long is spent on shrinking.
func init() {
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.shrinktime": "3s"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}

// counted is how often the drawn commands of a kind were carried out with effect,
// by kind, and refused, by code: a search that reaches nothing proves nothing.
type counted struct{ done, refused map[string]int }

// TestProperties applies drawn commands, compares the state with the model after
// each, and holds replicas beside it that take other ways to the same index.
func TestProperties(t *testing.T) {
	seen := counted{done: map[string]int{}, refused: map[string]int{}}
	rapid.Check(t, func(t *rapid.T) {
		w := world{t: t, s: settled(t), m: newModel(), seen: seen}
		w.restored = w.s.Clone()
		w.follow()
		steps := rapid.IntRange(40, 300).Draw(t, "steps")
		for range steps {
			w.step()
		}
		w.finish()
	})
	for _, kind := range []string{"session-open", "session-close", "session-end", "fence", "grant", "handover", "released", "services", "pause", "node"} {
		if seen.done[kind] == 0 {
			t.Errorf("no %s was carried out", kind)
		}
	}
	for _, code := range []string{
		CodeEpochNotOver, CodeEpochWrong, CodeEpochOver, CodeEpochNode, CodeSessionNotOpen, CodeSessionOpen,
		CodeSessionReplaced, CodeTermDiffers, CodeNoFence, CodeSelfFence, CodePaused, CodeNodeHolds, CodeNodeSession,
	} {
		if seen.refused[code] == 0 {
			t.Errorf("nothing was refused with %s", code)
		}
	}
	t.Logf("done %v", seen.done)
	t.Logf("refused %v", seen.refused)
}

// settled returns a cluster of four nodes and two services in which something can happen.
func settled(t *rapid.T) *State {
	s := New()
	for _, cmd := range []Command{
		SetNode{Node: "a", Role: RoleVoter, Address: "192.0.2.1:7400"},
		SetNode{Node: "b", Role: RoleVoter, Address: "192.0.2.2:7400"},
		SetNode{Node: "c", Role: RoleMember, Address: "192.0.2.3:7400"},
		SetNode{Node: "w", Role: RoleWitness, Address: "192.0.2.4:7400"},
		SetServices{Services: []Spec{{Name: "erp", Takeover: TakeoverLease}, {Name: "db", Takeover: TakeoverFence}}},
	} {
		if res := s.Apply(s.Index+1, 1, cmd); res.Refused != nil {
			t.Fatal(res.Refused)
		}
	}
	for _, node := range []string{"a", "b", "c"} {
		s.Apply(s.Index+1, 1, OpenSession{Node: node, BootID: "x", TTL: 2 * time.Second, Kappa: 50 * time.Millisecond})
	}
	return s
}

type world struct {
	t        *rapid.T
	s        *State
	m        *model
	restored *State // the same log, by way of snapshots
	clones   []held
	log      []Command
	term     uint64
	seen     counted
}

// held is a clone that must stay what it was.
type held struct {
	s    *State
	hash string
}

// follow begins the model at the settled state.
func (w *world) follow() {
	w.term = 1
	for name, svc := range w.s.Services {
		w.m.service(name).takeover = svc.Spec.Takeover
	}
	for id, sess := range w.s.Sessions {
		w.m.sessions[id] = &modelSession{node: sess.Node, boot: sess.BootID, status: sess.Status}
		w.m.current[sess.Node] = id
	}
}

func (w *world) step() {
	if rapid.IntRange(0, 19).Draw(w.t, "new term") == 0 {
		w.term++
	}
	cmd := drawCommand(w.t, w.s, w.term)
	if len(w.log) > 0 && rapid.IntRange(0, 9).Draw(w.t, "late") == 0 {
		cmd = rapid.SampledFrom(w.log).Draw(w.t, "late command")
	}
	w.log = append(w.log, cmd)
	if w.apply(cmd) == nil && rapid.IntRange(0, 2).Draw(w.t, "twice") == 0 {
		before := w.s.Clone()
		w.apply(cmd)
		if !sameButIndex(before, w.s) {
			w.t.Fatalf("%#v changed something the second time", cmd)
		}
	}
	switch rapid.IntRange(0, 9).Draw(w.t, "aside") {
	case 0:
		w.restored = w.snapshot(w.restored)
	case 1:
		w.clones = append(w.clones, held{s: w.s.Clone(), hash: w.s.Hash()})
	case 2:
		// A clone goes a way of its own; the state must not notice.
		before := w.s.Hash()
		c := w.s.Clone()
		c.Apply(c.Index+1, w.term, drawCommand(w.t, c, w.term))
		if w.s.Hash() != before {
			w.t.Fatal("a clone's change reached the state")
		}
	}
}

// apply applies a command to the state and its replica, and checks what must hold.
func (w *world) apply(cmd Command) *Refusal {
	before := w.s.Clone()
	index := w.s.Index + rapid.Uint64Range(1, 3).Draw(w.t, "gap")
	res := w.s.Apply(index, w.term, cmd)
	if again := w.restored.Apply(index, w.term, cmd); !reflect.DeepEqual(res, again) {
		w.t.Fatalf("%#v gave %+v here and %+v on a restored replica", cmd, res, again)
	}
	if w.s.Index != index || w.s.Term != w.term || res.Index != index {
		w.t.Fatalf("the state stands at %d/%d after entry %d/%d", w.s.Index, w.s.Term, index, w.term)
	}
	if res.Refused != nil {
		w.seen.refused[res.Refused.Code]++
		if !sameButIndex(before, w.s) {
			w.t.Fatalf("%#v was refused (%v) and changed something", cmd, res.Refused)
		}
	} else {
		if !sameButIndex(before, w.s) {
			w.seen.done[cmd.Kind()]++
			w.explained(index)
		}
		w.m.took(w.t, before, cmd, res, w.term)
	}
	if err := w.m.compare(w.s); err != nil {
		w.t.Fatalf("after %#v: %v", cmd, err)
	}
	if err := w.s.Check(); err != nil {
		w.t.Fatalf("after %#v: %v", cmd, err)
	}
	w.old(index)
	return res.Refused
}

// explained checks that what was done stands in the history.
func (w *world) explained(index uint64) {
	if n := len(w.s.History); n == 0 || w.s.History[n-1].Index != index || n > MaxHistory {
		w.t.Fatalf("entry %d did something and the history of %d events does not end with it", index, n)
	}
}

// old checks that an entry that was applied is not applied again.
func (w *world) old(index uint64) {
	before := w.s.Clone()
	res := w.s.Apply(index, w.term+1, RemoveNode{Node: "d"})
	if res.Refused == nil || res.Refused.Code != CodeAlreadyApplied || !reflect.DeepEqual(before, w.s) {
		w.t.Fatalf("entry %d was applied twice: %+v", index, res)
	}
}

// snapshot returns the state after a way through Encode and Decode.
func (w *world) snapshot(s *State) *State {
	data, err := s.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	back, err := Decode(data)
	if err != nil {
		w.t.Fatal(err)
	}
	again, err := back.Encode()
	if err != nil || string(again) != string(data) {
		w.t.Fatalf("the snapshot of a snapshot differs: %v", err)
	}
	return back
}

// finish compares the replicas and looks whether the clones kept still.
func (w *world) finish() {
	if w.s.Hash() != w.restored.Hash() || !reflect.DeepEqual(w.s, w.restored) {
		w.t.Fatalf("snapshot and tail differ from the replay:\n%v\n%v", summary(w.s), summary(w.restored))
	}
	for _, c := range w.clones {
		if c.s.Hash() != c.hash {
			w.t.Fatal("a clone changed with the state")
		}
	}
}

// TestHostile applies commands of arbitrary content: nothing panics, nothing
// contradicts itself, and everything survives a snapshot.
func TestHostile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := settled(t)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			s.Apply(s.Index+rapid.Uint64Range(0, 3).Draw(t, "gap"), s.Term+rapid.Uint64Range(0, 1).Draw(t, "term"), drawHostile(t))
		}
		data, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Decode(data); err != nil || !reflect.DeepEqual(s, back) {
			t.Fatalf("the snapshot differs: %v", err)
		}
	})
}
