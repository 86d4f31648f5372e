package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ErrDenied says that this process cannot mount; the error that wraps it says why.
var ErrDenied = errors.New("no file systems can be mounted here")

// Disk is one breakable file system. It is safe for concurrent use.
type Disk struct {
	dir string // what is passed through to, and where it is mounted

	mounting sync.Mutex // never taken by what serves the kernel
	mount    *mount     // nil: not mounted

	mu     sync.Mutex
	faults []*Fault
	dead   chan struct{} // of the present mount; closed at the power cut

	lost unsynced
}

// New makes a disk over a directory, which is made if it is not there. Close it.
func New(dir string) (*Disk, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	return &Disk{dir: dir, dead: make(chan struct{})}, nil
}

// Dir is the directory below: what is stored, seen past all faults.
func (d *Disk) Dir() string { return d.dir }

// Volatile makes the disk remember how to forget what is not synced. It can be
// switched only while the disk is not mounted.
func (d *Disk) Volatile(on bool) error {
	d.mounting.Lock()
	defer d.mounting.Unlock()
	if d.mount != nil {
		return errors.New("make disk volatile: it is mounted")
	}
	return d.lost.set(on, d.dir)
}

// Unsynced is how many changes would be lost if the power were cut now.
func (d *Disk) Unsynced() int { return d.lost.count() }

// Mount mounts the disk over its directory in the mount namespace of a process;
// 0 is the calling thread's own. It is to be done after every boot of a host,
// before its daemon starts; where it was mounted before it is no more.
func (d *Disk) Mount(pid int) error {
	task := "thread-self"
	if pid != 0 {
		task = fmt.Sprint(pid)
	}
	ns, err := os.Open(filepath.Join("/proc", task, "ns/mnt"))
	if err != nil {
		return fmt.Errorf("mount disk: %w", err)
	}
	d.mounting.Lock()
	defer d.mounting.Unlock()
	if err := d.mount.detach(false); err != nil {
		_ = ns.Close()
		return fmt.Errorf("mount disk: %w", err)
	}
	d.mount = nil
	d.mu.Lock()
	d.dead = make(chan struct{})
	d.mu.Unlock()
	if d.mount, err = newMount(d, ns); err != nil {
		_ = ns.Close()
		return fmt.Errorf("mount disk over %s: %w", d.dir, err)
	}
	return nil
}

// Unmount takes the disk out of its namespace. Files that are open there stay
// open, and go on meeting faults.
func (d *Disk) Unmount() error { return d.taken().detach(false) }

// taken gives the mount to a caller who ends it.
func (d *Disk) taken() *mount {
	d.mounting.Lock()
	defer d.mounting.Unlock()
	m := d.mount
	d.mount = nil
	return m
}

// Abort unmounts the disk and has every operation that is under way in the
// kernel fail (fuse_abort_conn), also where this package would not answer.
func (d *Disk) Abort() error {
	m := d.taken()
	d.die()
	return m.detach(true)
}

// die has every operation fail from now on, those that hang too.
func (d *Disk) die() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.dead:
	default:
		close(d.dead)
	}
}

// Close ends every fault and takes the disk out of its namespace. What is open
// there can still be used; the last of it ends with the namespace.
func (d *Disk) Close() error {
	d.Heal()
	return errors.Join(d.Unmount(), d.lost.set(false, d.dir))
}

// Cut is a power cut: from now on no operation returns; off ends the processes
// that use the disk (lab.Host.PowerOff), and then everything that was not
// synced is forgotten. With rng only some of it is: a real disk has written
// back whatever it liked. The disk is not mounted afterwards, and has no faults.
func (d *Disk) Cut(off func() error, rng *rand.Rand) error {
	m := d.taken()
	if m == nil {
		return errors.New("cut the power of a disk: it is not mounted")
	}
	frozen := d.Hang(On(Everything))
	done := make(chan error, 1)
	go func() { done <- off() }()
	// The processes cannot end while they hang, and must not see an operation
	// fail before they are being killed.
	err, ended := m.doomed(done)
	d.die()
	if !ended {
		err = <-done
	}
	frozen.End()
	d.Heal()
	err = errors.Join(err, m.gone())
	return errors.Join(err, d.lost.forget(rng))
}

// doomed waits until the namespace's own process is being killed, or off has ended.
func (m *mount) doomed(done <-chan error) (err error, ended bool) {
	limit := time.After(5 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err, true
		case <-limit:
			return nil, false
		case <-tick.C:
			if m.pid == 0 || exiting(m.pid) {
				return nil, false
			}
		}
	}
}

// exiting reports whether a process is on its way out (PF_EXITING in the
// flags of proc_pid_stat(5)) or gone.
func exiting(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	// The name in parentheses may contain anything.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(fields) < 7 {
		return false
	}
	var flags uint64
	if _, err := fmt.Sscan(fields[6], &flags); err != nil {
		return false
	}
	const exits = 0x4
	return flags&exits != 0
}
