package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/internal/failpoint"
)

const (
	fileName = "journal"
	tempName = "journal.new"

	// growTo is the size from which the file is rewritten when most of it is history.
	growTo = 64 << 10
)

// disk is the directory that the journal is in: a few operations, so that tests
// can make each of them fail or be the last before a crash.
type disk interface {
	read(name string) ([]byte, error) // fs.ErrNotExist when absent
	create(name string) (diskFile, error)
	rename(from, to string) error
	remove(name string) error
	syncDir() error
	path(name string) string
}

type diskFile interface {
	io.Writer
	Truncate(size int64) error
	Sync() error
	Close() error
}

type osDisk struct{ dir string }

func (d osDisk) path(name string) string          { return filepath.Join(d.dir, name) }
func (d osDisk) read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }
func (d osDisk) rename(from, to string) error     { return os.Rename(d.path(from), d.path(to)) }
func (d osDisk) remove(name string) error         { return os.Remove(d.path(name)) }

// create makes a file anew, for appending, readable by its owner alone: the
// session's key is in it.
func (d osDisk) create(name string) (diskFile, error) {
	f, err := os.OpenFile(d.path(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d osDisk) syncDir() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// logFile is the file and what is known of it. It is used by one change at a time.
type logFile struct {
	disk   disk
	f      diskFile
	size   int64
	grow   int64 // growTo, less in tests
	failed error // wraps ErrFailed once that is so
	closed bool
}

// usable returns why nothing can be written any more, or nil.
func (l *logFile) usable() error {
	if l.closed {
		return ErrClosed
	}
	return l.failed
}

// fail makes every later call fail.
func (l *logFile) fail(what string, err error) error {
	l.failed = fmt.Errorf("%s: %w: %w", what, ErrFailed, err)
	return l.failed
}

// load reads the file. None is an empty journal: the name appears only after the
// contents were synced, so it was never there.
func (l *logFile) load() ([]record, error) {
	b, err := l.disk.read(fileName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	records, err := decode(b)
	switch {
	case errors.Is(err, ErrDamaged):
		return nil, fmt.Errorf("%s: %w; it says what this node may still be running, so it is not skipped: "+
			"make sure that none of the cluster's services runs here (after a reboot that is so), move the file away, start again",
			l.disk.path(fileName), err)
	case errors.Is(err, ErrNewer):
		return nil, fmt.Errorf("%s: %w; start the newer version again, stop the node with it, then downgrade", l.disk.path(fileName), err)
	}
	return records, err
}

// append makes a record durable. When the file has grown it does so by writing
// the live records and this one to a new file.
func (l *logFile) append(r record, live []record) error {
	if err := l.usable(); err != nil {
		return err
	}
	b, err := appendRecord(nil, r)
	if err != nil {
		return err
	}
	if l.size+int64(len(b)) > l.grow {
		kept, err := encode(live)
		if err != nil {
			return err
		}
		if l.size > 4*int64(len(kept)) {
			// The record is replayed on top of what it changes, as in the old file.
			return l.replace(append(kept, b...))
		}
	}
	failpoint.Here("journal.append.before")
	if n, err := l.f.Write(b); err != nil {
		// A full disk is no broken one: without the torn bytes the file is as before.
		if !full(err) {
			return l.fail("write record", err)
		}
		if n > 0 {
			if terr := l.f.Truncate(l.size); terr != nil {
				return l.fail("write record", errors.Join(err, terr))
			}
		}
		return fmt.Errorf("write record: %w; nothing was recorded, free some space", err)
	}
	failpoint.Here("journal.append.written")
	if err := l.f.Sync(); err != nil {
		return l.fail("sync record", err)
	}
	failpoint.Here("journal.append.synced")
	l.size += int64(len(b))
	return nil
}

// full reports whether a write failed for want of room or permission to write,
// which passes without a restart.
func full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}

// rewrite replaces the file by one that has only these records.
func (l *logFile) rewrite(live []record) error {
	b, err := encode(live)
	if err != nil {
		return err
	}
	return l.replace(b)
}

func encode(records []record) ([]byte, error) {
	b := []byte(magic)
	var err error
	for _, r := range records {
		if b, err = appendRecord(b, r); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// replace puts new contents in the file's place, so that after a crash at any
// moment either the old or the new contents are there whole.
func (l *logFile) replace(b []byte) error {
	failpoint.Here("journal.replace.before")
	f, err := l.disk.create(tempName)
	if err != nil {
		return fmt.Errorf("create %s: %w", tempName, err)
	}
	failpoint.Here("journal.replace.created")
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("write %s: %w", tempName, errors.Join(err, f.Close(), l.disk.remove(tempName)))
	}
	failpoint.Here("journal.replace.written")
	if err := f.Sync(); err != nil {
		return l.fail("sync "+tempName, errors.Join(err, f.Close()))
	}
	failpoint.Here("journal.replace.synced")
	if err := l.disk.rename(tempName, fileName); err != nil {
		return l.fail("rename "+tempName, errors.Join(err, f.Close()))
	}
	failpoint.Here("journal.replace.renamed")
	if err := l.disk.syncDir(); err != nil {
		return l.fail("sync directory", errors.Join(err, f.Close()))
	}
	failpoint.Here("journal.replace.done")
	if l.f != nil {
		// Nothing of the old file counts any more.
		_ = l.f.Close()
	}
	l.f, l.size = f, int64(len(b))
	return nil
}

func (l *logFile) close() error {
	if l.closed {
		return nil
	}
	l.closed = true
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}
