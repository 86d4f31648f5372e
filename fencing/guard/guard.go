package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/service/cgroup"
)

// atDeadline is why a birth was killed at the deadline.
const atDeadline = "deadline"

// Options of a guard.
type Options struct {
	// Dir holds the socket, the lock, logs and records; one guard per directory.
	Dir string
	// Socket's path; default Dir/guard.sock.
	Socket string
	// Version of the program, shown.
	Version string
	// Init is the command that becomes an init or a hook's runner when "init"
	// is its last argument; default this program itself, which must call Helper first in main.
	Init []string
	// OpenGate prepares to shut a gate of package vip/gate; nil: none is shut from here.
	OpenGate func(table string) (Shutter, error)
	// Delete removes addresses from their interfaces; nil: none is.
	Delete func([]Address) error
	// Realtime asks for SCHED_FIFO on the deadline thread and for locked memory.
	Realtime bool
	// NoCgroup does without cgroups, for tests and for who must.
	NoCgroup bool
	// Log is told what an operator should know; nil: nobody.
	Log func(text string)
}

// Guard is the core of the program: New, Serve, Close.
type Guard struct {
	opts    Options
	boot    string
	lock    *os.File
	lease   *lease
	nursery *nursery
	events  *eventLog
	records *records
	groups  *cgroup.Group // parent of the units'; nil: none
	gates   *gates
	info    Info

	stable time.Duration // of good running, after which crashes are forgotten

	closing chan struct{}
	once    sync.Once
	wg      sync.WaitGroup // units and connections

	mu    sync.Mutex
	units map[string]*unit
	outs  map[string]*outputLog
	srv   *server
}

// New takes the directory's lock, ends what a dead predecessor left, and
// returns a guard that supervises nothing. ErrTaken when another one lives.
func New(o Options) (*Guard, error) {
	if o.Dir == "" {
		return nil, fmt.Errorf("%w: no directory", ErrRefused)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("find the guard's directory: %w", err)
	}
	o.Dir = dir
	if o.Socket == "" {
		o.Socket = filepath.Join(dir, SocketName)
	}
	if len(o.Init) == 0 {
		o.Init = []string{"/proc/self/exe", initArg}
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	g := &Guard{opts: o, stable: stableAfter, closing: make(chan struct{}), units: map[string]*unit{}, outs: map[string]*outputLog{}, events: newEventLog()}
	g.gates = &gates{open: o.OpenGate, remove: o.Delete, tell: g.trouble}
	if err := g.open(); err != nil {
		if g.lock != nil {
			g.lock.Close()
		}
		return nil, err
	}
	return g, nil
}

func (g *Guard) open() error {
	var err error
	for _, d := range []string{g.opts.Dir, filepath.Join(g.opts.Dir, logDir), filepath.Join(g.opts.Dir, recordDir)} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return fmt.Errorf("make the guard's directory: %w", err)
		}
	}
	if g.boot, err = bootID(); err != nil {
		return err
	}
	if g.lock, err = takeLock(g.opts.Dir); err != nil {
		return err
	}
	g.records = &records{dir: filepath.Join(g.opts.Dir, recordDir), boot: g.boot}
	var cgroupErr error
	if g.opts.NoCgroup {
		cgroupErr = errNotAsked
	} else {
		g.groups, cgroupErr = openGroups(g.opts.Dir)
	}
	left, err := g.records.clean(g.groups)
	if err != nil {
		return fmt.Errorf("end what a dead guard left behind: %w", err)
	}
	for _, text := range left {
		g.events.add(Event{Kind: EventLeftover, Text: text})
		g.opts.Log(text)
	}
	memErr := errNotAsked
	if g.opts.Realtime {
		memErr = lockMemory()
	}
	if g.lease, err = newLease(g.opts.Realtime, g.expired); err != nil {
		return err
	}
	rtErr := <-g.lease.realtime
	g.nursery = newNursery(g.opts.Init)
	g.info = Info{
		Version: g.opts.Version, Pid: os.Getpid(), BootID: g.boot, Leftovers: left,
		KernelTimer: g.lease.timer != nil, Realtime: rtErr == nil, MemoryLocked: memErr == nil,
	}
	if g.groups != nil {
		g.info.Cgroup = g.groups.Path()
	}
	g.info.CgroupText, g.info.KernelTimerText = text(cgroupErr), text(g.lease.timerErr)
	g.info.RealtimeText = strings.Join(notEmpty(text(rtErr), text(memErr)), "; ")
	return nil
}

func text(err error) string {
	if err == nil || err == errNotAsked {
		return ""
	}
	return err.Error()
}

// The names in the guard's directory.
const (
	SocketName = "guard.sock"
	lockName   = "guard.lock"
	logDir     = "log"
	recordDir  = "units"
)

// takeLock makes this the only guard of the directory, for the life of the process.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the guard's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w for %s", ErrTaken, dir)
		}
		return nil, fmt.Errorf("take the guard's lock: %w", err)
	}
	return f, nil
}

// Info says what this guard is and can.
func (g *Guard) Info() Info {
	i := g.info
	i.Session, i.Deadline, i.Lapses = g.lease.status()
	return i
}

// SetGates says what is shut and deleted at the deadline, in place of what was
// said before. An error says that a gate could not be prepared for; it is kept
// all the same and tried again at the deadline.
func (g *Guard) SetGates(want []Gate) error { return g.gates.set(want) }

// Extend moves the session's deadline. It takes no lock that anything slow holds.
func (g *Guard) Extend(session uint64, d Deadline) error { return g.lease.extend(session, d) }

// Release forgets the session and its deadline. Refused while any unit lives.
func (g *Guard) Release() error {
	for _, r := range g.List() {
		if !r.State.Gone() && r.Leased {
			return fmt.Errorf("%w: %s is %s", ErrConflict, r.Name, r.State)
		}
	}
	return g.lease.release()
}

func (g *Guard) trouble(text string) {
	g.events.add(Event{Kind: EventTrouble, Text: text})
	g.opts.Log(text)
}

// Close stops serving, kills what is left, waits for its end and gives the
// directory up. The order is for the living: a guard that dies instead leaves
// all of it to the kernel.
func (g *Guard) Close() error {
	var err error
	g.once.Do(func() {
		g.mu.Lock()
		close(g.closing)
		srv := g.srv
		g.mu.Unlock()
		if srv != nil {
			srv.close()
		}
		for _, r := range g.List() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			if serr := g.Stop(ctx, r.Name, time.Millisecond); serr != nil && err == nil {
				err = serr
			}
			cancel()
		}
		if err != nil {
			return // what is not proven keeps its deadline, its records and the lock
		}
		g.lease.close() // nothing is left that it could end
		if !waitWithin(&g.wg, cleanTimeout) {
			err = errors.New("end the guard: a gate or a disk does not answer")
			return
		}
		g.nursery.close()
		g.gates.close()
		for _, o := range g.outs {
			o.close()
		}
		if g.groups != nil {
			_ = g.groups.Remove() // an empty directory, cleaned by the next guard if not now
		}
		err = g.lock.Close()
	})
	return err
}

// waitWithin waits for a group and reports whether it ended in time.
func waitWithin(wg *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}
