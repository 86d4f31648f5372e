package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// The keys that raft uses for its term and its vote, and the one key under
// which they are kept here.
const (
	keyTerm     = "CurrentTerm"
	keyVoteTerm = "LastVoteTerm"
	keyVoteFor  = "LastVoteCand"

	keyBallot = "ballot"
)

// errNotFound must read exactly like this: raft compares the text.
var errNotFound = errors.New("not found")

// ballot is the term that the node is in and the vote that it gave last. They
// stand on the disk as one value: raft writes the vote's term and its
// candidate by two calls, and a crash in between would leave this term with
// the candidate of an earlier one, who could then have the vote of this term
// without being asked for his log (hashicorp/raft issue 661).
type ballot struct {
	Term     uint64
	VoteTerm uint64
	VoteFor  []byte
}

const ballotVersion = 1

// encode writes version, term, term of the vote, candidate, checksum.
func (b ballot) encode() []byte {
	out := []byte{ballotVersion}
	out = binary.BigEndian.AppendUint64(out, b.Term)
	out = binary.BigEndian.AppendUint64(out, b.VoteTerm)
	out = append(out, b.VoteFor...)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

func decodeBallot(data []byte) (ballot, error) {
	const head, tail = 17, 4
	if len(data) < head+tail {
		return ballot{}, fmt.Errorf("term and vote: %d bytes are too few", len(data))
	}
	body := data[:len(data)-tail]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(data[len(body):]) {
		return ballot{}, errors.New("term and vote do not match their checksum")
	}
	if body[0] != ballotVersion {
		return ballot{}, fmt.Errorf("term and vote are of version %d, this node reads %d: upgrade it", body[0], ballotVersion)
	}
	b := ballot{Term: binary.BigEndian.Uint64(body[1:]), VoteTerm: binary.BigEndian.Uint64(body[9:]), VoteFor: bytes.Clone(body[head:])}
	if b.VoteTerm > b.Term {
		return ballot{}, fmt.Errorf("vote of term %d in term %d", b.VoteTerm, b.Term)
	}
	return b, nil
}

// loadBallot reads the ballot of a store, zero when there is none.
func loadBallot(from backing) (ballot, error) {
	data, err := from.Get([]byte(keyBallot))
	if err != nil {
		if err.Error() == errNotFound.Error() {
			return ballot{}, nil
		}
		return ballot{}, fmt.Errorf("read term and vote: %w", err)
	}
	return decodeBallot(data)
}

// stableStore is raft's stable store over one ballot. raft calls it from its
// main loop alone, and from Open before that runs.
type stableStore struct {
	*guarded
	now  ballot // what is on the disk
	next uint64 // the vote's term that raft has named; written with the candidate

	// promised is called once, after the first term or vote was written.
	promised func() error
}

// Set takes the candidate of a vote, and writes it with the term named before.
func (s *stableStore) Set(key, value []byte) error {
	if string(key) != keyVoteFor {
		return fmt.Errorf("stable store: unexpected key %q", key)
	}
	b := s.now
	b.VoteTerm, b.VoteFor = s.next, bytes.Clone(value)
	// A vote is given in the current term or a later one; the record says so too.
	b.Term = max(b.Term, b.VoteTerm)
	return s.save(b)
}

// Get returns the candidate of the last vote.
func (s *stableStore) Get(key []byte) ([]byte, error) {
	if string(key) != keyVoteFor || s.now.VoteTerm == 0 {
		return nil, errNotFound
	}
	return bytes.Clone(s.now.VoteFor), nil
}

// SetUint64 writes the term, at once since raft answers under it next; or
// notes the term of a vote whose candidate follows.
func (s *stableStore) SetUint64(key []byte, value uint64) error {
	switch string(key) {
	case keyVoteTerm:
		s.next = value
		return nil
	case keyTerm:
		if value == s.now.Term {
			return nil // raft writes the term it has just read at every start
		}
		if value < s.now.Term {
			s.verdict.reach(fmt.Errorf("%w: term %d after term %d: a fault in raft; start failoverd again", ErrBackwards, value, s.now.Term))
			s.verdict.park()
			return nil
		}
		b := s.now
		b.Term = value
		return s.save(b)
	}
	return fmt.Errorf("stable store: unexpected key %q", key)
}

// GetUint64 returns the term, or the term of the last vote.
func (s *stableStore) GetUint64(key []byte) (uint64, error) {
	switch string(key) {
	case keyVoteTerm:
		return s.now.VoteTerm, nil
	case keyTerm:
		return s.now.Term, nil
	}
	return 0, errNotFound
}

// save writes the ballot in one transaction. When that fails the caller is
// parked, and afterwards told that all is well: raft panics otherwise, and
// nothing it does can leave the node any more.
func (s *stableStore) save(b ballot) error {
	failpoint.Here("raft.ballot.before")
	err := s.do("write term and vote", func() error { return s.inner.Set([]byte(keyBallot), b.encode()) })
	if errors.Is(err, errStopping) {
		return nil
	}
	if err != nil {
		return err
	}
	failpoint.Here("raft.ballot.written")
	s.now = b
	if s.promised != nil {
		failpoint.Here("raft.promise.before")
		if err := s.promised(); err != nil {
			s.verdict.reach(fmt.Errorf("%w: note that the store is in use: %w", ErrDisk, err))
			s.verdict.park()
			return nil
		}
		s.promised = nil
	}
	return nil
}
