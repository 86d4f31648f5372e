package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime/debug"

	"github.com/hashicorp/raft"

	"github.com/failoverd/failoverd/internal/failpoint"
)

// ErrDisk means that a read or a write of the raft store failed. What is on
// the disk is unknown from then on: after a failed fsync the kernel may drop
// the pages and report the next one as clean. The node stops taking part.
var ErrDisk = errors.New("raft store failed")

// errStopping is what a parked call returns once the node is being stopped.
var errStopping = errors.New("the node has stopped")

// backing is what is wanted of raft-boltdb.
type backing interface {
	raft.LogStore
	raft.StableStore
}

// guarded stands between raft and a store. It times the calls, turns page
// faults and panics of the store into errors, and after the first error never
// touches the store again.
type guarded struct {
	inner   backing
	watch   *watch
	verdict *verdict
}

// do runs one call. The first error other than raft.ErrLogNotFound ends the
// node's part; the caller is then parked, since raft panics on a term that
// cannot be saved and on an entry that cannot be read, and retries the rest.
func (g *guarded) do(what string, call func() error) error {
	if g.verdict.reached() != nil {
		g.verdict.park()
		return errStopping
	}
	err := g.timed(call)
	if errors.Is(err, errStopping) {
		return errStopping
	}
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	g.verdict.reach(fmt.Errorf("%w: %s: %w: this node takes no part any more: check the disk under its data directory, then start failoverd again", ErrDisk, what, err))
	g.verdict.park()
	return errStopping
}

// timed times reads as well as writes: a page that is not in memory hangs too.
// A write for which there is no room hangs until there is.
func (g *guarded) timed(call func() error) error {
	return g.watch.patiently(g.verdict.released, func() error { return caught(call) })
}

// caught turns a panic of the store into an error. The file is mapped: a page
// that cannot be read comes as a fault, which kills the process unless this
// goroutine asked for a panic instead.
func caught(call func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged or unreadable file: %v", r)
		}
	}()
	return call()
}

// logStore is raft's log. Every entry carries a checksum on the disk, since
// bbolt has none for its pages.
type logStore struct{ *guarded }

// IsMonotonic makes raft delete the whole local log once it has installed a
// snapshot of the leader's. Without that the entries below the snapshot stay,
// uncommitted ones of an old leadership included, and this node, leading
// later, could hand those to a node that lags behind them.
func (l logStore) IsMonotonic() bool { return true }

// FirstIndex returns the first index written, 0 for none.
func (l logStore) FirstIndex() (index uint64, err error) {
	err = l.do("read the first index", func() (err error) { index, err = l.inner.FirstIndex(); return err })
	return index, err
}

// LastIndex returns the last index written, 0 for none.
func (l logStore) LastIndex() (index uint64, err error) {
	err = l.do("read the last index", func() (err error) { index, err = l.inner.LastIndex(); return err })
	return index, err
}

// GetLog reads an entry and checks it.
func (l logStore) GetLog(index uint64, log *raft.Log) error {
	return l.do("read an entry", func() error { return readEntry(l.inner, index, log) })
}

// StoreLog writes one entry.
func (l logStore) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs writes entries in one transaction.
func (l logStore) StoreLogs(logs []*raft.Log) error {
	sealed := make([]*raft.Log, len(logs))
	for i, log := range logs {
		sealed[i] = seal(log)
	}
	failpoint.Here("raft.log.before")
	err := l.do("write entries", func() error { return l.inner.StoreLogs(sealed) })
	failpoint.Here("raft.log.stored")
	return err
}

// DeleteRange deletes the entries from first to last, both included.
func (l logStore) DeleteRange(first, last uint64) error {
	failpoint.Here("raft.log.delete")
	err := l.do("delete entries", func() error { return l.inner.DeleteRange(first, last) })
	failpoint.Here("raft.log.deleted")
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum covers everything in an entry that has a meaning to raft or to us. The
// time of appending has none and does not survive the encoding bit by bit.
func sum(log *raft.Log) []byte {
	var head [17]byte
	binary.BigEndian.PutUint64(head[0:], log.Index)
	binary.BigEndian.PutUint64(head[8:], log.Term)
	head[16] = byte(log.Type)
	crc := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, log.Data)
	return binary.BigEndian.AppendUint32(nil, crc)
}

// seal returns a copy of the entry with its checksum in the extensions, which
// nothing else uses: we never set them, and they are taken off when read.
func seal(log *raft.Log) *raft.Log {
	sealed := *log
	sealed.Extensions = sum(log)
	return &sealed
}

// readEntry reads an entry, checks it against its checksum and takes that off.
func readEntry(from raft.LogStore, index uint64, log *raft.Log) error {
	if err := from.GetLog(index, log); err != nil {
		return err
	}
	if log.Index != index || string(sum(log)) != string(log.Extensions) {
		return fmt.Errorf("entry %d does not match its checksum", index)
	}
	log.Extensions = nil
	return nil
}
