package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"pgregory.net/rapid"
)

// vote is what raft does to the stable store when it gives a vote in a term it
// did not know: persist the term, then the vote's term, then its candidate.
func vote(s raft.StableStore, term uint64, candidate string) error {
	if err := s.SetUint64([]byte(keyTerm), term); err != nil {
		return err
	}
	if err := s.SetUint64([]byte(keyVoteTerm), term); err != nil {
		return err
	}
	return s.Set([]byte(keyVoteFor), []byte(candidate))
}

// wouldGrantAgain is raft's shortcut: a candidate that had the vote of a term
// gets it again, without a look at his log.
func wouldGrantAgain(s raft.StableStore, term uint64, candidate string) bool {
	voteTerm, err := s.GetUint64([]byte(keyVoteTerm))
	if err != nil {
		return false
	}
	voteFor, err := s.Get([]byte(keyVoteFor))
	return err == nil && voteTerm == term && bytes.Equal(voteFor, []byte(candidate))
}

// imaged is a store that takes an image of its file after each write: what a
// crash there leaves behind.
type imaged struct {
	backing
	path   string
	images []string
	t      *testing.T
}

func (s *imaged) Set(key, value []byte) error {
	if err := s.backing.Set(key, value); err != nil {
		return err
	}
	s.image()
	return nil
}

func (s *imaged) SetUint64(key []byte, value uint64) error {
	if err := s.backing.SetUint64(key, value); err != nil {
		return err
	}
	s.image()
	return nil
}

func (s *imaged) image() {
	data, err := os.ReadFile(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	name := fmt.Sprintf("%s.%d", s.path, len(s.images))
	if err := os.WriteFile(name, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.images = append(s.images, name)
}

func stableOver(t *testing.T, b backing) *stableStore {
	t.Helper()
	now, err := loadBallot(b)
	if err != nil {
		t.Fatal(err)
	}
	return &stableStore{guarded: &guarded{inner: b, watch: newWatch(time.Minute), verdict: newVerdict()}, now: now}
}

// TestCrashBetweenTermAndVote votes for b in term 5 and for c in term 6, with a
// crash after every write. b must not have the vote of term 6 unasked.
func TestCrashBetweenTermAndVote(t *testing.T) {
	run := func(t *testing.T, over func(backing) raft.StableStore) (holes int) {
		path := filepath.Join(t.TempDir(), "raft.db")
		bolt, err := raftboltdb.NewBoltStore(path)
		if err != nil {
			t.Fatal(err)
		}
		defer bolt.Close()
		log := &imaged{backing: bolt, path: path, t: t}
		s := over(log)
		if err := vote(s, 5, "b"); err != nil {
			t.Fatal(err)
		}
		before := len(log.images)
		if err := vote(s, 6, "c"); err != nil {
			t.Fatal(err)
		}
		if len(log.images) == before {
			t.Fatal("nothing was written")
		}
		for _, image := range log.images[before:] {
			bolt, err := raftboltdb.NewBoltStore(image)
			if err != nil {
				t.Fatal(err)
			}
			after := over(bolt)
			if wouldGrantAgain(after, 6, "b") {
				holes++
			}
			if term, err := after.GetUint64([]byte(keyTerm)); err != nil || term != 6 {
				t.Errorf("term %d, %v: it was to be on the disk before anything else", term, err)
			}
			bolt.Close()
		}
		return holes
	}
	if holes := run(t, func(b backing) raft.StableStore { return stableOver(t, b) }); holes != 0 {
		t.Errorf("%d crashes leave the vote of term 6 to the candidate of term 5", holes)
	}
	// That the test can see it: raft's three writes straight to the store.
	if holes := run(t, func(b backing) raft.StableStore { return b }); holes == 0 {
		t.Error("the check does not see the hole of three separate writes")
	}
}

// TestBallotIsAlwaysOneOfRafts draws any sequence of terms and votes, and
// crashes at every write: the disk always shows a pair that raft has named.
func TestBallotIsAlwaysOneOfRafts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := &memoryDisk{}
		s := &stableStore{guarded: &guarded{inner: disk, watch: newWatch(time.Minute), verdict: newVerdict()}}
		named := map[string]bool{"0:": true}
		term := uint64(0)
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "new term") {
				term += uint64(rapid.IntRange(1, 3).Draw(t, "by"))
				s.SetUint64([]byte(keyTerm), term)
			}
			if term > 0 && rapid.Bool().Draw(t, "vote") {
				candidate := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "for")
				named[fmt.Sprintf("%d:%s", term, candidate)] = true
				s.SetUint64([]byte(keyVoteTerm), term)
				disk.check(t, named, term)
				s.Set([]byte(keyVoteFor), []byte(candidate))
			}
			disk.check(t, named, term)
		}
	})
}

// memoryDisk keeps the one value and can be looked at as after a crash.
type memoryDisk struct {
	backing
	value []byte
}

func (d *memoryDisk) Set(_, value []byte) error { d.value = bytes.Clone(value); return nil }

func (d *memoryDisk) Get([]byte) ([]byte, error) {
	if d.value == nil {
		return nil, errNotFound
	}
	return d.value, nil
}

func (d *memoryDisk) check(t *rapid.T, named map[string]bool, term uint64) {
	t.Helper()
	b, err := loadBallot(d)
	if err != nil {
		t.Fatal(err)
	}
	if !named[fmt.Sprintf("%d:%s", b.VoteTerm, b.VoteFor)] {
		t.Fatalf("vote for %q in term %d was never given", b.VoteFor, b.VoteTerm)
	}
	if b.Term != term {
		t.Fatalf("term %d on the disk, %d in use", b.Term, term)
	}
}

func TestBallotThatIsDamagedIsSeen(t *testing.T) {
	good := ballot{Term: 7, VoteTerm: 6, VoteFor: []byte("127.0.0.1:1")}.encode()
	if b, err := decodeBallot(good); err != nil || b.Term != 7 || b.VoteTerm != 6 || string(b.VoteFor) != "127.0.0.1:1" {
		t.Fatalf("%+v, %v", b, err)
	}
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if b, err := decodeBallot(bad); err == nil {
			t.Errorf("bit %d: %+v", i, b)
		}
	}
	for n := range good {
		if b, err := decodeBallot(good[:n]); err == nil {
			t.Errorf("%d bytes: %+v", n, b)
		}
	}
	if b, err := decodeBallot(ballot{Term: 5, VoteTerm: 6}.encode()); err == nil {
		t.Errorf("a vote of the future: %+v", b)
	}
}

func TestStableStoreKnowsRaftsKeysOnly(t *testing.T) {
	s := &stableStore{guarded: &guarded{inner: &memoryDisk{}, watch: newWatch(time.Minute), verdict: newVerdict()}}
	if err := s.Set([]byte("x"), nil); err == nil {
		t.Error("Set of another key")
	}
	if err := s.SetUint64([]byte("x"), 1); err == nil {
		t.Error("SetUint64 of another key")
	}
	if _, err := s.Get([]byte(keyVoteFor)); err == nil || err.Error() != "not found" {
		t.Errorf("no vote yet: %v", err)
	}
	if _, err := s.GetUint64([]byte("x")); !errors.Is(err, errNotFound) {
		t.Errorf("GetUint64 of another key: %v", err)
	}
	if err := s.SetUint64([]byte(keyTerm), 5); err != nil {
		t.Fatal(err)
	}
	go s.SetUint64([]byte(keyTerm), 4)
	select {
	case <-s.verdict.done:
	case <-time.After(10 * time.Second):
		t.Error("the term went back")
	}
	s.verdict.release()
}
