package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// record is a line of the log. A claim says that an instance begins.
type record struct {
	At       int64  `json:"at"` // CLOCK_MONOTONIC in ns: one kernel runs all hosts of a lab
	Op       string `json:"op"` // claim or add
	Node     string `json:"node"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Value    int64  `json:"value"`
}

// violation is a line of the file "violations": this instance was alive while
// a newer one had begun, or one of the same epoch elsewhere.
type violation struct {
	At    int64  `json:"at"`
	Since int64  `json:"since"`
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
	Other string `json:"other"`
	Newer uint64 `json:"newer"`
}

// store is the state on disk: a log that every instance appends to.
type store struct {
	node  string
	epoch uint64
	log   *os.File
	told  *os.File

	mu       sync.Mutex
	seen     int64 // bytes of the log that were read
	partial  []byte
	sequence uint64
	value    int64
	rival    *record // the first claim that makes this instance a violation
	failed   error   // a write or sync that failed: never tried again as if nothing had been

	queue   []*write
	writing bool
}

// write is one addition that waits for the disk.
type write struct {
	record record
	done   chan error
}

// errStorage says that the disk has failed this instance.
var errStorage = errors.New("storage failed; restart to read it again")

func openStore(dir, node string, epoch uint64) (*store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &store{node: node, epoch: epoch}
	var err error
	const flags = os.O_CREATE | os.O_RDWR | os.O_APPEND
	if s.log, err = os.OpenFile(filepath.Join(dir, "log"), flags, 0o644); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if s.told, err = os.OpenFile(filepath.Join(dir, "violations"), flags, 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.log.Close())
	}
	s.mu.Lock()
	err = s.catchUp()
	s.mu.Unlock()
	if err == nil {
		err = s.append(&write{record: record{Op: "claim"}})
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (s *store) close() {
	_ = s.log.Close() // every write was synced
	_ = s.told.Close()
}

// read gives the place and the value of the last write.
func (s *store) read() (sequence uint64, value int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.catchUp(); err != nil {
		return 0, 0, err
	}
	s.tell()
	return s.sequence, s.value, nil
}

// add puts the value into the set and returns when it is on the disk.
func (s *store) add(value int64) (uint64, error) {
	w := &write{record: record{Op: "add", Value: value}}
	if err := s.append(w); err != nil {
		return 0, err
	}
	return w.record.Sequence, nil
}

// append writes with whatever else waits: one sync serves all that queued up
// while the one before was under way.
func (s *store) append(w *write) error {
	w.done = make(chan error, 1)
	s.mu.Lock()
	s.queue = append(s.queue, w)
	if s.writing {
		s.mu.Unlock()
		return <-w.done
	}
	s.writing = true
	for len(s.queue) > 0 {
		batch := s.queue
		s.queue = nil
		err := s.writeBatch(batch)
		for _, one := range batch {
			one.done <- err
		}
	}
	s.writing = false
	s.mu.Unlock()
	return <-w.done
}

// writeBatch numbers, writes and syncs the batch. It lets go of the lock while
// the disk works, so that a slow disk delays writes and no reads; nobody else
// numbers meanwhile.
func (s *store) writeBatch(batch []*write) error {
	if s.failed != nil {
		return s.failed
	}
	if err := s.catchUp(); err != nil {
		return err
	}
	s.tell()
	var text bytes.Buffer
	next := s.sequence
	for _, w := range batch {
		w.record.At, w.record.Node, w.record.Epoch = now(), s.node, s.epoch
		if w.record.Op == "add" {
			next++
		}
		w.record.Sequence = next
		line, err := json.Marshal(w.record)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		text.Write(line)
		text.WriteByte('\n')
	}
	s.mu.Unlock()
	_, err := s.log.Write(text.Bytes())
	if err == nil {
		err = s.log.Sync()
	}
	s.mu.Lock()
	if err != nil {
		s.failed = fmt.Errorf("%w: %w", errStorage, err)
		return s.failed
	}
	return s.catchUp()
}

// catchUp reads what was appended since, by whomever.
func (s *store) catchUp() error {
	info, err := s.log.Stat()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	for s.seen < info.Size() {
		b := make([]byte, min(info.Size()-s.seen, 1<<16))
		n, err := s.log.ReadAt(b, s.seen)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read log: %w", err)
		}
		if n == 0 {
			break
		}
		s.seen += int64(n)
		s.partial = append(s.partial, b[:n]...)
		for {
			line, rest, found := bytes.Cut(s.partial, []byte("\n"))
			if !found {
				break
			}
			s.partial = rest
			s.take(line)
		}
	}
	return nil
}

// take applies one line of the log.
func (s *store) take(line []byte) {
	var r record
	if json.Unmarshal(line, &r) != nil {
		return // cut off by a power failure and never acknowledged
	}
	if r.Op == "add" && r.Sequence >= s.sequence {
		s.sequence, s.value = r.Sequence, r.Value
	}
	// Without epochs there is no order to violate.
	rival := s.epoch != 0 && (r.Epoch > s.epoch || r.Epoch == s.epoch && r.Node != s.node)
	if rival && s.rival == nil {
		s.rival = &r
	}
}

func (s *store) overtaken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rival != nil
}

// tell notes that this instance is alive although it should not be.
func (s *store) tell() {
	if s.rival == nil {
		return
	}
	line, err := json.Marshal(violation{At: now(), Since: s.rival.At, Node: s.node, Epoch: s.epoch,
		Other: s.rival.Node, Newer: s.rival.Epoch})
	if err == nil {
		_, err = s.told.Write(append(line, '\n'))
	}
	if err != nil && s.failed == nil {
		s.failed = fmt.Errorf("%w: note a violation: %w", errStorage, err)
	}
}

// guard looks at the disk even while nobody asks anything.
func (s *store) guard(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// What cannot be read now is reported to the next who asks.
		_, _, _ = s.read()
	}
}

func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // cannot fail for this clock (clock_gettime(2))
	}
	return ts.Nano()
}
