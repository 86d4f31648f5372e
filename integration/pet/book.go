package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// book is the part of the state that trusts failoverd: registers and sets,
// kept in memory as a database keeps them. It reads its file once, when it
// begins, and from then on writes every entry to the place where it believes
// the next one belongs. It asks nobody whether it is alone and checks no epoch.
// Two instances that live at once therefore answer from old memory and write
// over each other: the damage is there for a client to see.
type book struct {
	node  string
	epoch uint64
	file  *os.File

	mu        sync.Mutex
	sequence  uint64
	registers map[uint32]uint64
	sets      map[uint32]map[uint64]bool
	failed    error // a write or sync that failed: never tried again as if nothing had been

	queue   []*entry
	writing bool
}

// entry is one change: a place in the file, as many bytes for each.
type entry struct {
	op       byte
	key      uint32
	value    uint64
	epoch    uint64
	sequence uint64
	done     chan error
}

// The operations of an entry.
const (
	opWrite byte = 'w' // the register of the key has the value
	opAdd   byte = 'a' // the value is in the set of the key
)

// entryBytes is the length of an entry in the file: operation, key, value,
// epoch, sequence, node (cut to seven bytes) and a check sum.
const entryBytes = 40

func openBook(dir, node string, epoch uint64) (*book, error) {
	b := &book{node: node, epoch: epoch, registers: map[uint32]uint64{}, sets: map[uint32]map[uint64]bool{}}
	var err error
	if b.file, err = os.OpenFile(filepath.Join(dir, "book"), os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return nil, fmt.Errorf("open book: %w", err)
	}
	if err := b.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open book: %w", err), b.file.Close())
	}
	return b, nil
}

func (b *book) close() { _ = b.file.Close() } // every entry was synced

// load reads the entries up to the first that is not whole: what follows it
// was never acknowledged.
func (b *book) load() error {
	raw, err := io.ReadAll(b.file)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	for len(raw) >= entryBytes {
		e, whole := decode(raw[:entryBytes])
		if !whole || e.sequence != b.sequence+1 {
			break
		}
		b.apply(e)
		raw = raw[entryBytes:]
	}
	return nil
}

func (b *book) apply(e entry) {
	b.sequence = e.sequence
	switch e.op {
	case opWrite:
		b.registers[e.key] = e.value
	case opAdd:
		if b.sets[e.key] == nil {
			b.sets[e.key] = map[uint64]bool{}
		}
		b.sets[e.key][e.value] = true
	}
}

// read gives the register of the key, 0 if it was never written.
func (b *book) read(key uint32) (sequence, value uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sequence, b.registers[key], b.failed
}

// members gives what is in the set of the key, in order.
func (b *book) members(key uint32) (sequence uint64, members []uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sequence, slices.Sorted(maps.Keys(b.sets[key])), b.failed
}

// change makes the change and returns its place once it is on the disk.
func (b *book) change(op byte, key uint32, value uint64) (uint64, error) {
	e := &entry{op: op, key: key, value: value, epoch: b.epoch, done: make(chan error, 1)}
	b.mu.Lock()
	b.queue = append(b.queue, e)
	if !b.writing {
		b.writing = true
		for len(b.queue) > 0 {
			batch := b.queue
			b.queue = nil
			err := b.writeBatch(batch)
			for _, one := range batch {
				one.done <- err
			}
		}
		b.writing = false
	}
	b.mu.Unlock()
	if err := <-e.done; err != nil {
		return 0, err
	}
	return e.sequence, nil
}

// writeBatch writes and syncs the entries, and only then lets them be read: what
// is shown is on the disk. The lock is let go of while the disk works.
func (b *book) writeBatch(batch []*entry) error {
	if b.failed != nil {
		return b.failed
	}
	raw := make([]byte, 0, len(batch)*entryBytes)
	at := int64(b.sequence) * entryBytes
	for i, e := range batch {
		e.sequence = b.sequence + uint64(i) + 1
		raw = append(raw, e.encode(b.node)...)
	}
	b.mu.Unlock()
	_, err := b.file.WriteAt(raw, at)
	if err == nil {
		err = b.file.Sync()
	}
	b.mu.Lock()
	if err != nil {
		b.failed = fmt.Errorf("%w: %w", errStorage, err)
		return b.failed
	}
	for _, e := range batch {
		b.apply(*e)
	}
	return nil
}

func (e entry) encode(node string) []byte {
	raw := make([]byte, entryBytes)
	raw[0] = e.op
	copy(raw[1:8], node)
	binary.LittleEndian.PutUint64(raw[8:], e.sequence)
	binary.LittleEndian.PutUint64(raw[16:], e.epoch)
	binary.LittleEndian.PutUint64(raw[24:], e.value)
	binary.LittleEndian.PutUint32(raw[32:], e.key)
	binary.LittleEndian.PutUint32(raw[36:], crc32.ChecksumIEEE(raw[:36]))
	return raw
}

// decode reads an entry and reports whether it is whole.
func decode(raw []byte) (entry, bool) {
	return entry{
		op:       raw[0],
		sequence: binary.LittleEndian.Uint64(raw[8:]),
		epoch:    binary.LittleEndian.Uint64(raw[16:]),
		value:    binary.LittleEndian.Uint64(raw[24:]),
		key:      binary.LittleEndian.Uint32(raw[32:]),
	}, binary.LittleEndian.Uint32(raw[36:]) == crc32.ChecksumIEEE(raw[:36])
}
