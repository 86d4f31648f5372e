package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// errLate means that the time for reading the store through was over.
var errLate = errors.New("the check takes too long")

// verifyFile reads the store's file through before anything maps it. A flipped
// or cut page would otherwise fault, or quietly lead somewhere else; and with
// a damaged newest root bbolt falls back to the one before, whose last write is
// missing. bbolt's own check cannot be used at this point: it follows page
// numbers wherever they lead, in a goroutine where a fault cannot be caught.
func verifyFile(path string, deadline time.Time, log *slog.Logger) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer f.Close() // gives the lock back too
	if err := lockStore(f, path); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	err = checkBolt(f, info.Size(), deadline)
	switch {
	case errors.Is(err, errLate):
		log.Warn("the raft store was not read through to the end: the check would take too long", "file", path, "bytes", info.Size())
		return nil
	case err != nil:
		return fmt.Errorf("%w: %s: %w: %s", ErrDamaged, path, err, adviceDamaged)
	}
	return nil
}

// lockStore takes the lock that bbolt holds on an open file, patiently for
// half a second: a process that has just been killed may still hold it.
func lockStore(f *os.File, path string) error {
	until := time.Now().Add(500 * time.Millisecond)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock store: %w", err)
		case time.Now().After(until):
			return inUse(path)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// verifyContents holds the entries, the ballot and the newest snapshot against
// each other. Entries below the snapshot that do not lead up to it are deleted:
// they are left of an old leadership when a crash came between the installing
// of a snapshot and the deletion of the log before it.
func verifyContents(from backing, snapshots *raft.FileSnapshotStore, o Options) error {
	deadline := time.Now().Add(o.CheckLimit)
	err := caught(func() error {
		newest, err := newestSnapshot(snapshots, filepath.Join(o.Directory.Path(), snapshotDir))
		if err != nil {
			return err
		}
		b, err := loadBallot(from)
		if err != nil {
			return err
		}
		return verifyLog(from, newest, b, deadline)
	})
	switch {
	case errors.Is(err, errLate):
		o.Log.Warn("the raft log was not read through to the end: the check would take too long")
		return nil
	case errors.Is(err, ErrDisk):
		return err
	case err != nil:
		return fmt.Errorf("%w: %s: %w: %s", ErrDamaged, o.Directory.Path(), err, adviceDamaged)
	}
	return nil
}

// newestSnapshot checks the newest snapshot. The ones before may be half
// removed. raft would pass over a damaged one in silence and start from
// older state.
func newestSnapshot(s *raft.FileSnapshotStore, dir string) (raft.SnapshotMeta, error) {
	type name struct {
		term, index, ms uint64
		id              string
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return raft.SnapshotMeta{}, fmt.Errorf("list snapshots: %w", err)
	}
	var names []name
	for _, e := range entries {
		n := name{id: e.Name()}
		if c, _ := fmt.Sscanf(e.Name(), "%d-%d-%d", &n.term, &n.index, &n.ms); e.IsDir() && c == 3 {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return raft.SnapshotMeta{}, nil
	}
	newest := slices.MaxFunc(names, func(a, b name) int {
		return slices.Compare([]uint64{a.term, a.index, a.ms}, []uint64{b.term, b.index, b.ms})
	})
	meta, content, err := s.Open(newest.id)
	if err != nil {
		return raft.SnapshotMeta{}, fmt.Errorf("snapshot %s: %w", newest.id, err)
	}
	if err := content.Close(); err != nil {
		return raft.SnapshotMeta{}, fmt.Errorf("snapshot %s: %w", newest.id, err)
	}
	if meta.ID != newest.id || meta.Index != newest.index || meta.Term != newest.term || len(meta.Configuration.Servers) == 0 {
		return raft.SnapshotMeta{}, fmt.Errorf("snapshot %s: its description does not fit it", newest.id)
	}
	if listed, err := s.List(); err != nil || len(listed) == 0 || listed[0].ID != newest.id {
		return raft.SnapshotMeta{}, fmt.Errorf("snapshot %s: it is not the one that would be used (%v)", newest.id, err)
	}
	return *meta, nil
}

// verifyLog reads every entry.
func verifyLog(from raft.LogStore, newest raft.SnapshotMeta, b ballot, deadline time.Time) error {
	first, err := from.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index: %w", err)
	}
	last, err := from.LastIndex()
	if err != nil {
		return fmt.Errorf("read last index: %w", err)
	}
	if b.Term < newest.Term {
		return fmt.Errorf("term %d is recorded, but a snapshot is of term %d", b.Term, newest.Term)
	}
	if last == 0 {
		return nil
	}
	if first > newest.Index+1 {
		return fmt.Errorf("the log begins at entry %d, but the newest snapshot ends at %d", first, newest.Index)
	}
	otherwise, err := endsOtherwise(from, newest)
	if err != nil {
		return err
	}
	if otherwise {
		return dropEntries(from, first, last)
	}
	untrusted := uint64(0) // entries up to here are not known to lead up to the snapshot
	previous := uint64(0)
	for i := first; i <= last; i++ {
		if time.Now().After(deadline) {
			return errLate
		}
		var log raft.Log
		err := readEntry(from, i, &log)
		switch {
		case errors.Is(err, raft.ErrLogNotFound) && i <= newest.Index:
			untrusted, previous = i, 0
			continue
		case errors.Is(err, raft.ErrLogNotFound):
			return fmt.Errorf("entry %d is missing, the last is %d", i, last)
		case err != nil:
			return fmt.Errorf("read entry %d: %w", i, err)
		}
		if i > newest.Index {
			previous = max(previous, newest.Term)
		}
		if log.Term < previous || log.Term > b.Term || log.Term == 0 {
			return fmt.Errorf("entry %d is of term %d, after %d and in term %d", i, log.Term, previous, b.Term)
		}
		previous = log.Term
	}
	if last < newest.Index {
		untrusted = last
	}
	return dropEntries(from, first, untrusted)
}

// endsOtherwise reports whether the log has another entry where the snapshot
// ends. Then all that follows it is of an old leadership too.
func endsOtherwise(from raft.LogStore, newest raft.SnapshotMeta) (bool, error) {
	if newest.Index == 0 {
		return false, nil
	}
	var log raft.Log
	err := readEntry(from, newest.Index, &log)
	if errors.Is(err, raft.ErrLogNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read entry %d: %w", newest.Index, err)
	}
	return log.Term != newest.Term, nil
}

func dropEntries(from raft.LogStore, first, last uint64) error {
	if last < first {
		return nil
	}
	if err := from.DeleteRange(first, last); err != nil {
		return fmt.Errorf("%w: delete entries before the snapshot: %w", ErrDisk, err)
	}
	return nil
}
