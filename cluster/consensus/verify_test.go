package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/failoverd/failoverd/cluster/state"
)

// contents is what a store holds, as far as it means anything.
type contents struct {
	Ballot  ballot
	Entries []string
}

// read opens a store as Open does, and reads all of it.
func read(t *testing.T, o Options) (contents, error) {
	t.Helper()
	st, err := openStore(o, newWatch(time.Minute), newVerdict())
	if err != nil {
		return contents{}, err
	}
	defer st.Close()
	c := contents{Ballot: st.stable.now}
	first, _ := st.bolt.FirstIndex()
	last, _ := st.bolt.LastIndex()
	for i := first; i <= last && i > 0; i++ {
		var log raft.Log
		if err := readEntry(st.bolt, i, &log); err != nil {
			t.Fatalf("entry %d after a good check: %v", i, err)
		}
		c.Entries = append(c.Entries, fmt.Sprintf("%d/%d %d %s", log.Index, log.Term, log.Type, log.Data))
	}
	return c, nil
}

// filled makes a directory with a store that has seen some life: entries
// written, deleted and written over, so that pages are free, and branches.
func filled(t *testing.T, entries int) (Options, contents) {
	t.Helper()
	dir, err := OpenDirectory(filepath.Join(t.TempDir(), "data"), Self{Node: "a", Role: state.RoleVoter, Address: "127.0.0.1:1", Peers: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	o, err := Options{Directory: dir, Machine: newMachine(), Log: slog.New(slog.DiscardHandler), CheckLimit: time.Minute}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	st, err := openStore(o, newWatch(time.Minute), newVerdict())
	if err != nil {
		t.Fatal(err)
	}
	entry := func(i int, term uint64) *raft.Log {
		return &raft.Log{Index: uint64(i), Term: term, Data: bytes.Repeat([]byte{byte('a' + i%26)}, 40+i*37%700)}
	}
	if err := st.stable.SetUint64([]byte(keyTerm), 3); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= entries; i++ {
		if err := st.log.StoreLog(entry(i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.log.DeleteRange(uint64(entries/2), uint64(entries)); err != nil {
		t.Fatal(err)
	}
	for i := entries / 2; i <= entries; i++ {
		if err := st.log.StoreLogs([]*raft.Log{entry(i, 2)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.stable.SetUint64([]byte(keyVoteTerm), 3); err != nil {
		t.Fatal(err)
	}
	if err := st.stable.Set([]byte(keyVoteFor), []byte("127.0.0.1:2")); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	// Opening a store commits an empty transaction: put the file back as the
	// last write left it, so that the root in force is that of the write.
	path := filepath.Join(dir.Path(), storeFile)
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := read(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, written, 0o600); err != nil {
		t.Fatal(err)
	}
	if len(want.Entries) != entries || want.Ballot.VoteTerm != 3 {
		t.Fatalf("%+v", want)
	}
	return o, want
}

// TestDamageAnywhereIsRefusedOrHarmless damages every page in several ways:
// either the store is refused with advice, or nothing of it has changed. A
// panic or a fault would end the test's process.
func TestDamageAnywhereIsRefusedOrHarmless(t *testing.T) {
	o, want := filled(t, 120)
	path := filepath.Join(o.Directory.Path(), storeFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	random := rand.New(rand.NewPCG(1, 2))
	flip := func(b []byte, at int) { b[at] ^= 1 << random.IntN(8) }
	damages := map[string]func(page []byte){
		"zeroed": func(p []byte) { clear(p) },
		"ones":   func(p []byte) { copy(p, bytes.Repeat([]byte{0xff}, len(p))) },
		"random": func(p []byte) {
			for i := range p {
				p[i] = byte(random.Uint32())
			}
		},
		"flip in header":  func(p []byte) { flip(p, random.IntN(16)) },
		"flip in element": func(p []byte) { flip(p, 16+random.IntN(48)) },
		"flip in middle":  func(p []byte) { flip(p, len(p)/2+random.IntN(64)) },
		"flip anywhere":   func(p []byte) { flip(p, random.IntN(len(p))) },
		"second half":     func(p []byte) { clear(p[len(p)/2:]) },
	}
	refused, harmless := 0, 0
	try := func(name string, bad []byte) {
		t.Helper()
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := read(t, o)
		switch {
		case err == nil && cmp.Equal(got, want):
			harmless++
		case err == nil:
			t.Errorf("%s: accepted, but it reads otherwise", name)
		case errors.Is(err, ErrDamaged) && strings.Contains(err.Error(), "failoverctl members replace"):
			refused++
		default:
			t.Errorf("%s: %v", name, err)
		}
	}
	for id := range len(good) / page {
		for name, damage := range damages {
			for range 2 {
				bad := bytes.Clone(good)
				damage(bad[id*page : (id+1)*page])
				try(fmt.Sprintf("page %d %s", id, name), bad)
			}
		}
		try(fmt.Sprintf("cut to %d pages", id), good[:id*page])
		try(fmt.Sprintf("cut within page %d", id), good[:id*page+page/3])
	}
	t.Logf("%d pages: %d damages refused, %d harmless", len(good)/page, refused, harmless)
	if refused < harmless/4 {
		t.Errorf("only %d refused", refused)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, o); err != nil || !cmp.Equal(got, want) {
		t.Errorf("the good file: %v", err)
	}
}

// TestCheckAgreesWithBolt holds the check against bbolt's own on many files.
func TestCheckAgreesWithBolt(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for round := range 60 {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte(fmt.Sprintf("bucket%d", random.IntN(3))))
			if err != nil {
				return err
			}
			for range random.IntN(300) {
				key := []byte(fmt.Sprintf("%06d", random.IntN(2000)))
				if random.IntN(3) == 0 {
					err = b.Delete(key)
				} else {
					err = b.Put(key, make([]byte, random.IntN(3)*random.IntN(4000)))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkBolt(f, info.Size(), time.Now().Add(time.Minute)); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		f.Close()
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("bbolt: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheckIsBoundedInTime(t *testing.T) {
	o, want := filled(t, 50)
	o.CheckLimit = time.Nanosecond
	if got, err := read(t, o); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v", err)
	}
}

func TestStoreThatIsGoneOrEmptyIsRefused(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"removed":  os.Remove,
		"emptied":  func(path string) error { return os.Truncate(path, 0) },
		"one byte": func(path string) error { return os.Truncate(path, 1) },
		"made anew": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			fresh, err := raftboltdb.NewBoltStore(path)
			if err != nil {
				return err
			}
			return fresh.Close()
		},
		"entries deleted": func(path string) error {
			s, err := raftboltdb.NewBoltStore(path)
			if err != nil {
				return err
			}
			defer s.Close()
			return s.DeleteRange(3, 4)
		},
		"first entries deleted": func(path string) error {
			s, err := raftboltdb.NewBoltStore(path)
			if err != nil {
				return err
			}
			defer s.Close()
			return s.DeleteRange(1, 4)
		},
		"term and vote deleted": func(path string) error {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				return err
			}
			defer db.Close()
			return db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("conf")).Delete([]byte(keyBallot)) })
		},
		"a directory": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Mkdir(path, 0o700)
		},
	} {
		o, _ := filled(t, 10)
		path := filepath.Join(o.Directory.Path(), storeFile)
		if err := harm(path); err != nil {
			t.Fatal(err)
		}
		_, err := read(t, o)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "move the data directory away") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCrashWhileTheStoreIsMade leaves an unfinished file that nothing hangs on.
func TestCrashWhileTheStoreIsMade(t *testing.T) {
	dir, err := OpenDirectory(t.TempDir(), Self{Node: "a", Address: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := os.WriteFile(filepath.Join(dir.Path(), storeFile+".new"), []byte("half a page"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, _ := Options{Directory: dir, Machine: newMachine()}.withDefaults()
	for range 2 { // the second time it has been created, and nothing was promised
		if _, err := read(t, o); err != nil {
			t.Fatal(err)
		}
	}
	if dir.marked() != storeCreated {
		t.Errorf("mark %q", dir.marked())
	}
}

// snapshotOf writes a snapshot as raft would.
func snapshotOf(t *testing.T, o Options, index, term uint64, s *state.State) {
	t.Helper()
	files, err := openSnapshots(o)
	if err != nil {
		t.Fatal(err)
	}
	_, trans := raft.NewInmemTransport("")
	c := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "127.0.0.1:1"}}}
	sink, err := files.Create(1, index, term, c, 1, trans)
	if err != nil {
		t.Fatal(err)
	}
	if err := (snapshot{s}).Persist(sink); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	o, _ := filled(t, 20)
	snapshotOf(t, o, 5, 1, state.New())
	time.Sleep(2 * time.Millisecond) // raft names snapshots by the millisecond
	snapshotOf(t, o, 15, 2, stateOf(t, "n2"))
	if _, err := read(t, o); err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(o.Directory.Path(), snapshotDir, "2-15-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatal(dirs, err)
	}
	for _, name := range []string{"state.bin", "meta.json"} {
		path := filepath.Join(dirs[0], name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for what, bad := range map[string][]byte{
			"flipped": append(append([]byte{}, good[:len(good)/2]...), append([]byte{good[len(good)/2] ^ 4}, good[len(good)/2+1:]...)...),
			"cut":     good[:len(good)/2],
			"empty":   {},
		} {
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := read(t, o); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := read(t, o); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s removed: %v", name, err)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// An older one may be half removed, and an unfinished one is cleaned up.
	old, err := filepath.Glob(filepath.Join(o.Directory.Path(), snapshotDir, "1-5-*"))
	if err != nil || len(old) != 1 {
		t.Fatal(old, err)
	}
	if err := os.Remove(filepath.Join(old[0], "meta.json")); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(o.Directory.Path(), snapshotDir, "3-99-1.tmp")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, o); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Error("the unfinished snapshot is still there")
	}
}

func TestSnapshotsRemovedAreMissed(t *testing.T) {
	o, _ := filled(t, 20)
	snapshotOf(t, o, 15, 2, stateOf(t, "n2"))
	st, err := openStore(o, newWatch(time.Minute), newVerdict())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.log.DeleteRange(1, 12); err != nil {
		t.Fatal(err)
	}
	st.Close()
	if _, err := read(t, o); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(o.Directory.Path(), snapshotDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, o); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}

// TestEntriesThatDoNotLeadUpToTheSnapshotGo is the crash between installing a
// snapshot and deleting the log before it.
func TestEntriesThatDoNotLeadUpToTheSnapshotGo(t *testing.T) {
	for name, c := range map[string]struct {
		index, term uint64
		left        int
	}{
		"snapshot beyond the log":      {50, 3, 0},
		"another term at its end":      {15, 3, 0},
		"the same term at its end":     {15, 2, 20},
		"at the end, the same term":    {20, 2, 20},
		"at the end, another term":     {20, 3, 0},
		"one beyond the end":           {21, 3, 0},
		"before the change of a term":  {9, 1, 20},
		"wrong term before the change": {9, 3, 0},
	} {
		o, _ := filled(t, 20)
		snapshotOf(t, o, c.index, c.term, state.New())
		got, err := read(t, o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.Entries) != c.left {
			t.Errorf("%s: %d entries left, want %d", name, len(got.Entries), c.left)
		}
	}
}
