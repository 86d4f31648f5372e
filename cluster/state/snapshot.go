package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// snapshotVersion is the version of the snapshot that this program writes and
// the only one that it reads. A change of what a field means, or a field more,
// is a new version.
const snapshotVersion = 1

// snapshotFormat tells a snapshot of ours from any other JSON.
const snapshotFormat = "failoverd-state"

var (
	// ErrSnapshotVersion: the snapshot was written by a version of failoverd
	// that this one does not understand.
	ErrSnapshotVersion = errors.New("snapshot of another version")
	// ErrSnapshotDamaged: what was read cannot have been written by failoverd.
	ErrSnapshotDamaged = errors.New("snapshot damaged")
)

// envelope is what a snapshot is wrapped in.
type envelope[T any] struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	State   T      `json:"state"`
}

// Encode returns the state as a snapshot: versioned JSON, the same bytes for
// equal states. A state that Decode would refuse is not written: better that a
// snapshot fails now, while the log is still whole, than at the next start.
func (s *State) Encode() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("encode snapshot of index %d: the state contradicts itself: %w", s.Index, err)
	}
	return s.marshal()
}

func (s *State) marshal() ([]byte, error) {
	c := *s
	c.ready()
	if c.History == nil {
		c.History = []Event{}
	}
	data, err := json.Marshal(envelope[*State]{Format: snapshotFormat, Version: snapshotVersion, State: &c})
	if err != nil {
		return nil, fmt.Errorf("encode snapshot of index %d: %w", s.Index, err)
	}
	return data, nil
}

// Hash returns the SHA-256 of the snapshot in hexadecimal, for comparing
// replicas at one index. It never fails for a state that Apply or Decode made.
func (s *State) Hash() string {
	data, err := s.marshal()
	if err != nil {
		return "unknown: " + err.Error()
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Decode reads a snapshot that Encode wrote. Anything else is refused, with
// ErrSnapshotVersion or ErrSnapshotDamaged: a half-understood state is worse
// than a node that does not start.
func Decode(data []byte) (*State, error) {
	var head envelope[json.RawMessage]
	if err := decodeStrict(data, &head); err != nil {
		return nil, damaged(err)
	}
	if head.Format != snapshotFormat {
		return nil, damaged(fmt.Errorf("its format is %q and not %q", short(head.Format), snapshotFormat))
	}
	if head.Version != snapshotVersion {
		advice := "upgrade this node to the version of the others; a downgrade is not possible"
		if head.Version < snapshotVersion {
			advice = "start the version that wrote it once, then upgrade step by step"
		}
		return nil, fmt.Errorf("decode snapshot: %w: it has version %d, this failoverd reads %d: %s",
			ErrSnapshotVersion, head.Version, snapshotVersion, advice)
	}
	s := &State{}
	if err := decodeStrict(head.State, s); err != nil {
		return nil, damaged(err)
	}
	s.ready()
	if err := s.Check(); err != nil {
		return nil, damaged(fmt.Errorf("the state contradicts itself: %w", err))
	}
	s.normalize()
	return s, nil
}

// decodeStrict reads one JSON value of known fields and nothing behind it.
func decodeStrict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("something follows it at byte %d", d.InputOffset())
	}
	return nil
}

// normalize gives what was read the one form that Apply stores, so that a state
// from a snapshot and one from the log are equal in memory as well.
func (s *State) normalize() {
	s.Cluster.Key = list(s.Cluster.Key)
	s.History = list(s.History)
	for _, sess := range s.Sessions {
		sess.Proofs = list(sess.Proofs)
	}
	for _, svc := range s.Services {
		svc.Spec = svc.Spec.clone()
		svc.Grants = list(svc.Grants)
		svc.Failures = list(svc.Failures)
	}
}

func damaged(err error) error {
	return fmt.Errorf("decode snapshot: %w: %w: do not repair it by hand; remove this node's data and add the node again (failoverctl members replace), or restore a backup with every holder stopped",
		ErrSnapshotDamaged, err)
}
