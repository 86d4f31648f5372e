package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"testing"
)

var (
	errCrash  = errors.New("crashed")
	errFaulty = errors.New("input/output error")
)

// memDisk is a directory that knows what would survive a loss of power: of a
// file what was synced, of the names those before the last sync of the directory.
// At operation number failAt it fails once, or from then on if crash is set.
type memDisk struct {
	ops     int
	failAt  int // 0: never
	crash   bool
	partial bool  // a failing write leaves half of its bytes
	err     error // what fails with; errFaulty by default

	names   map[string]*memFile // as a process sees them
	durable map[string]*memFile // as they are after a loss of power
	log     []string
}

type memFile struct {
	disk   *memDisk
	data   []byte
	synced []byte
}

func newMemDisk() *memDisk {
	return &memDisk{names: map[string]*memFile{}, durable: map[string]*memFile{}}
}

// op counts an operation and says whether it fails.
func (d *memDisk) op(name string) error {
	d.ops++
	d.log = append(d.log, name)
	switch {
	case d.crash && d.failAt > 0 && d.ops >= d.failAt:
		return errCrash
	case !d.crash && d.ops == d.failAt:
		if d.err != nil {
			return d.err
		}
		return errFaulty
	}
	return nil
}

func (d *memDisk) path(name string) string { return "/mem/" + name }

func (d *memDisk) read(name string) ([]byte, error) {
	f := d.names[name]
	if f == nil {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(f.data), nil
}

func (d *memDisk) create(name string) (diskFile, error) {
	if err := d.op("create"); err != nil {
		return nil, err
	}
	f := &memFile{disk: d}
	d.names[name] = f
	return f, nil
}

func (d *memDisk) rename(from, to string) error {
	if err := d.op("rename"); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *memDisk) remove(name string) error {
	if err := d.op("remove"); err != nil {
		return err
	}
	delete(d.names, name)
	return nil
}

func (d *memDisk) syncDir() error {
	if err := d.op("syncdir"); err != nil {
		return err
	}
	d.durable = maps.Clone(d.names)
	return nil
}

func (f *memFile) Write(b []byte) (int, error) {
	if err := f.disk.op("write"); err != nil {
		n := 0
		if f.disk.partial {
			n = len(b) / 2
			f.data = append(f.data, b[:n]...)
		}
		return n, err
	}
	f.data = append(f.data, b...)
	return len(b), nil
}

func (f *memFile) Truncate(size int64) error {
	if err := f.disk.op("truncate"); err != nil {
		return err
	}
	f.data = f.data[:size]
	return nil
}

func (f *memFile) Sync() error {
	if err := f.disk.op("sync"); err != nil {
		return err
	}
	f.synced = bytes.Clone(f.data)
	return nil
}

func (f *memFile) Close() error { return nil }

// survivors are the disks that a machine may find after the power was lost now:
// for the names as they were last synced or as they are, and for the bytes
// beyond what was synced none, some number of them, all, or zeros in their place.
func (d *memDisk) survivors() []*memDisk {
	var out []*memDisk
	for _, names := range []map[string]*memFile{d.durable, d.names} {
		f := names[fileName]
		if f == nil {
			out = append(out, newMemDisk())
			continue
		}
		base := f.synced
		if len(f.data) < len(base) || !bytes.Equal(f.data[:len(base)], base) {
			base = f.data // truncated since; the journal does so only to its synced length
		}
		// Steps that are no multiple of anything; TestCutAtEveryByte has every byte.
		for n := len(base); n < len(f.data); n += 1 + (n-len(base))/7 {
			out = append(out, diskWith(f.data[:n]))
		}
		out = append(out, diskWith(f.data))
		if extra := len(f.data) - len(base); extra > 0 {
			out = append(out, diskWith(append(bytes.Clone(base), make([]byte, extra)...)))
		}
	}
	return out
}

// diskWith is a disk with a journal of the given bytes and a forgotten temporary file.
func diskWith(b []byte) *memDisk {
	d := newMemDisk()
	d.names[fileName] = &memFile{disk: d, data: bytes.Clone(b), synced: bytes.Clone(b)}
	d.names[tempName] = &memFile{disk: d, data: []byte("rubbish")}
	d.durable = maps.Clone(d.names)
	return d
}

func mustOpen(t *testing.T, d *memDisk, boot string) *Journal {
	t.Helper()
	j, err := open(d, boot)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return j
}

// dump is the whole of what a journal says, as text.
func dump(j *Journal) string {
	var b bytes.Buffer
	if s, ok := j.Session(); ok {
		fmt.Fprintf(&b, "session %d boot %s ttl %v kappa %v voters %v key %x inc %d\n", s.ID, s.BootID, s.TTL, s.Kappa, s.Voters, s.Key, s.Incarnation)
	}
	for _, e := range j.Entries() {
		fmt.Fprintf(&b, "%s/%d %s boot %s session %d gen %d note %q\n", e.Service, e.Epoch, e.State, e.BootID, e.Session, e.Generation, e.Note)
	}
	return b.String()
}
