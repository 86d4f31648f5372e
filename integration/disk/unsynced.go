package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// unsynced is what a power cut takes back. Changes are made at once, so that
// everybody reads what was written, and each leaves here how to undo it until a
// sync makes it last:
//
//   - of a file's contents, a sync of the file;
//   - of a name, a sync of its directory. The sync of a file that was made new
//     makes its name last too, and those of new directories above, as on ext4,
//     XFS and btrfs; a rename needs the sync of the directory.
type unsynced struct {
	// mu is held through every change, so that they have one order.
	mu      sync.Mutex
	on      bool
	aside   string // where removed files are kept; on the same file system
	next    int
	changes []change
}

// change is one thing to undo.
type change struct {
	file   inode // whose contents changed, or what was made
	dir    inode // in which a name changed; zero: none did
	made   bool  // the name is of something new
	whole  bool  // cannot be left out on its own: the file's length changed
	undo   func() error
	forget func() // lets go of what undo needs
}

// inode is a file's identity in the underlying directory.
type inode struct{ dev, ino uint64 }

func inodeOf(path string) inode {
	var st syscall.Stat_t
	if syscall.Lstat(path, &st) != nil {
		return inode{} // it is gone: nothing to remember of it
	}
	return inode{uint64(st.Dev), st.Ino}
}

func inodeOfFile(f *os.File) inode {
	var st syscall.Stat_t
	if syscall.Fstat(int(f.Fd()), &st) != nil {
		return inode{}
	}
	return inode{uint64(st.Dev), st.Ino}
}

// set switches the remembering on or off. Off makes everything last.
func (u *unsynced) set(on bool, dir string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.on == on {
		return nil
	}
	if on {
		aside, err := os.MkdirTemp(filepath.Dir(dir), ".removed-")
		if err != nil {
			return fmt.Errorf("make disk volatile: %w", err)
		}
		u.aside, u.on = aside, true
		return nil
	}
	for _, c := range u.changes {
		c.forget()
	}
	u.changes, u.on = nil, false
	return os.RemoveAll(u.aside)
}

func (u *unsynced) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.changes)
}

// note remembers a change. The caller holds mu.
func (u *unsynced) note(c change) {
	if c.forget == nil {
		c.forget = func() {}
	}
	u.changes = append(u.changes, c)
}

// last makes the changes last for which the function holds. The caller holds mu.
func (u *unsynced) last(lasts func(change) bool) {
	kept := u.changes[:0]
	for _, c := range u.changes {
		if lasts(c) {
			c.forget()
		} else {
			kept = append(kept, c)
		}
	}
	clear(u.changes[len(kept):])
	u.changes = kept
}

// syncFile makes a file's contents last, and its name if that is new. Above are
// the directories above it.
func (u *unsynced) syncFile(file inode, above []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.on {
		return
	}
	new := map[inode]bool{file: true}
	for _, dir := range above {
		new[inodeOf(dir)] = true
	}
	u.last(func(c change) bool {
		if c.dir == (inode{}) {
			return c.file == file
		}
		return c.made && new[c.file]
	})
}

// syncDir makes the names in a directory last.
func (u *unsynced) syncDir(dir inode) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last(func(c change) bool { return c.dir == dir && c.dir != (inode{}) })
}

// forget undoes, last in first out, what no sync has made last; with rng only
// some of what can be undone on its own.
func (u *unsynced) forget(rng *rand.Rand) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var problems []error
	for i := len(u.changes) - 1; i >= 0; i-- {
		c := u.changes[i]
		written := rng != nil && !c.whole && c.dir == (inode{}) && rng.IntN(2) == 0
		if !written {
			if err := c.undo(); err != nil && !errors.Is(err, fs.ErrNotExist) {
				problems = append(problems, err)
			}
		}
		c.forget()
	}
	u.changes = nil
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("forget what was not synced: %w", err)
	}
	return nil
}

// write writes to a file and notes what was there.
func (u *unsynced) write(f *os.File, data []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.on {
		return f.WriteAt(data, off)
	}
	c, err := contents(f, off, int64(len(data)))
	if err != nil {
		return 0, err
	}
	n, err := f.WriteAt(data, off)
	u.note(c)
	return n, err
}

// resize sets a file's length and notes what is cut off.
func (u *unsynced) resize(f *os.File, size int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.on {
		return f.Truncate(size)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	c, err := contents(f, size, max(info.Size()-size, 0))
	if err != nil {
		return err
	}
	c.whole = true
	u.note(c)
	return f.Truncate(size)
}

// contents is the change of a part of a file, before it is made.
func contents(f *os.File, off, length int64) (change, error) {
	info, err := f.Stat()
	if err != nil {
		return change{}, err
	}
	size := info.Size()
	before := make([]byte, max(0, min(length, size-off)))
	if _, err := f.ReadAt(before, off); err != nil && !errors.Is(err, io.EOF) {
		return change{}, err
	}
	// The handle that is written through may be closed before the power is cut.
	own, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDWR, 0)
	if err != nil {
		return change{}, err
	}
	return change{
		file: inodeOfFile(f), whole: off+length > size,
		undo: func() error {
			if err := own.Truncate(size); err != nil {
				return err
			}
			_, err := own.WriteAt(before, off)
			return err
		},
		forget: func() { _ = own.Close() },
	}, nil
}

// make notes what make has made under a path.
func (u *unsynced) make(path string, make func() error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	err := make()
	if err == nil && u.on {
		u.note(change{file: inodeOf(path), dir: inodeOf(filepath.Dir(path)), made: true, undo: func() error { return os.RemoveAll(path) }})
	}
	return err
}

// remove removes a file or an empty directory and keeps it aside.
func (u *unsynced) remove(path string, remove func() error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.on {
		return remove()
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	c := change{file: inodeOf(path), dir: inodeOf(filepath.Dir(path))}
	if info.IsDir() {
		c.undo = func() error { return os.Mkdir(path, info.Mode().Perm()) }
	} else {
		kept, err := u.keep(path)
		if err != nil {
			return err
		}
		c.undo = func() error { return os.Rename(kept, path) }
		c.forget = func() { _ = os.Remove(kept) } // gone when it was undone
	}
	if err := remove(); err != nil {
		return err
	}
	u.note(c)
	return nil
}

// rename renames and keeps what was under the new name aside.
func (u *unsynced) rename(from, to string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.on {
		return os.Rename(from, to)
	}
	kept := ""
	if info, err := os.Lstat(to); err == nil && !info.IsDir() {
		if kept, err = u.keep(to); err != nil {
			return err
		}
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	u.note(change{
		file: inodeOf(to), dir: inodeOf(filepath.Dir(to)),
		undo: func() error {
			err := os.Rename(to, from)
			if kept != "" {
				err = errors.Join(err, os.Rename(kept, to))
			}
			return err
		},
		forget: func() {
			if kept != "" {
				_ = os.Remove(kept) // gone when it was undone
			}
		},
	})
	return nil
}

// keep gives a file a second name out of the way.
func (u *unsynced) keep(path string) (string, error) {
	u.next++
	kept := filepath.Join(u.aside, strconv.Itoa(u.next))
	return kept, os.Link(path, kept)
}
