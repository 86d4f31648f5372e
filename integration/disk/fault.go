package disk

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Op is a kind of operation, or several of them.
type Op uint

// The kinds of operations.
const (
	Look   Op = 1 << iota // lookup, attributes, reading a directory
	Open                  // opening a file that exists
	Read                  // reading from a file; pages that the kernel has are not read again
	Write                 // writing to a file
	Sync                  // fsync, fdatasync and what O_SYNC and O_DSYNC add to a write
	Create                // making a file, directory, link or socket
	Resize                // truncate and fallocate
	Remove                // unlink, rmdir
	Rename
	Attr // mode, owner, times

	// Writes changes what is in the file system.
	Writes = Write | Create | Resize | Remove | Rename | Attr
	// Everything is all there is.
	Everything = Look | Open | Read | Writes | Sync
)

// Match says which operations a fault concerns. The path is relative to the
// root of the file system; "." is the root.
type Match func(op Op, path string) bool

// On matches these operations, on files with one of the base names, or on all.
func On(ops Op, names ...string) Match {
	return func(op Op, path string) bool {
		return op&ops != 0 && (len(names) == 0 || slices.Contains(names, filepath.Base(path)))
	}
}

// Fault is one thing that is wrong with a disk.
type Fault struct {
	match    Match
	hang     bool
	min, max time.Duration
	errno    syscall.Errno

	once  sync.Once
	ended chan struct{}
	hits  atomic.Int64
	held  atomic.Int64
}

// Hits is how many operations have met the fault.
func (f *Fault) Hits() int { return int(f.hits.Load()) }

// Held is how many operations wait in the fault now.
func (f *Fault) Held() int { return int(f.held.Load()) }

// End ends the fault; operations that it holds go on.
func (f *Fault) End() { f.once.Do(func() { close(f.ended) }) }

func (f *Fault) over() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

// Hang makes the operations wait until the fault ends, as those of a disk that
// does not answer: not even a killed process gets out of one before.
func (d *Disk) Hang(m Match) *Fault { return d.add(&Fault{match: m, hang: true}) }

// Slow makes each of the operations take between least and most longer.
func (d *Disk) Slow(m Match, least, most time.Duration) *Fault {
	return d.add(&Fault{match: m, min: least, max: max(least, most)})
}

// Fail makes the operations fail, without any effect on what is stored.
func (d *Disk) Fail(m Match, errno syscall.Errno) *Fault {
	return d.add(&Fault{match: m, errno: errno})
}

// NoSpace makes everything fail that writes (ENOSPC), as on a file system that
// never writes in place.
func (d *Disk) NoSpace() *Fault { return d.Fail(On(Write|Create|Resize), syscall.ENOSPC) }

// ReadOnly makes everything fail that changes something (EROFS), and opening
// for writing too.
func (d *Disk) ReadOnly() *Fault {
	return d.Fail(func(op Op, _ string) bool { return op&(Writes|openWrite) != 0 }, syscall.EROFS)
}

// openWrite is an opening for writing.
const openWrite Op = 1 << 20

// errDead is what every operation gets after the power cut.
const errDead = syscall.EIO

func (d *Disk) add(f *Fault) *Fault {
	f.ended = make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(slices.DeleteFunc(d.faults, (*Fault).over), f)
	return f
}

// Heal ends every fault.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.faults {
		f.End()
	}
	d.faults = nil
}

// meet lets an operation meet the faults that concern it and says how it fails, or 0.
func (d *Disk) meet(op Op, path string) syscall.Errno {
	d.mu.Lock()
	faults, dead := slices.Clone(d.faults), d.dead
	d.mu.Unlock()
	for _, f := range faults {
		if f.over() || !f.match(op, path) {
			continue
		}
		f.hits.Add(1)
		if errno := f.meet(dead); errno != 0 {
			return errno
		}
	}
	select {
	case <-dead:
		return errDead
	default:
		return 0
	}
}

func (f *Fault) meet(dead <-chan struct{}) syscall.Errno {
	if f.errno != 0 {
		return f.errno
	}
	var late <-chan time.Time // never, for a disk that hangs
	if !f.hang {
		t := time.NewTimer(f.min + rand.N(f.max-f.min+1))
		defer t.Stop()
		late = t.C
	}
	f.held.Add(1)
	defer f.held.Add(-1)
	select {
	case <-late:
	case <-f.ended:
	case <-dead:
		return errDead
	}
	return 0
}

// errnoOf is what the kernel gets for an error of the underlying directory.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return errno
	}
	return syscall.EIO
}
