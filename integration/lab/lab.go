package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what a lab is made of.
type Options struct {
	// Hosts are the names of the hosts to make; their addresses count from
	// 10.77.0.11. Default: a, b, c.
	Hosts []string
	// Log, when set, is told in words what the lab does.
	Log func(format string, args ...any)
	// Keep leaves the directory with its logs behind.
	Keep bool
	// Bin is where the programs are; default: bin beside go.mod.
	Bin string
}

// Lab is a set of hosts on one bridge.
type Lab struct {
	options Options
	dir     string
	lock    *os.File
	cgroups string // mount point of cgroup v2, "" when it cannot be used
	start   time.Time
	mono    int64 // CLOCK_MONOTONIC at start, in ns
	fabric  *fabric
	spawner *spawner
	janitor *janitor

	mu      sync.Mutex
	hosts   []*Host
	order   map[string]*Host
	faults  faults
	askings []*Asking
	address *addressView
	wire    *wireView
	data    []string
	closers []func() error
	closed  bool
}

// The lab's one network.
var (
	network   = netip.MustParsePrefix("10.77.0.0/24")
	firstHost = 11
)

// New makes the lab and its hosts, all switched on. Close it.
func New(o Options) (_ *Lab, err error) {
	rolesMutex.Lock()
	ready := entered
	rolesMutex.Unlock()
	if !ready {
		return nil, errors.New("lab.Enter must be called first in main or TestMain")
	}
	if len(o.Hosts) == 0 {
		o.Hosts = []string{"a", "b", "c"}
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	l := &Lab{options: o, start: time.Now(), mono: monotonic(), order: map[string]*Host{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := l.prepare(); err != nil {
		return nil, err
	}
	for _, name := range o.Hosts {
		if _, err := l.AddHost(name); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *Lab) prepare() error {
	if mount := cgroupMount(); mount != "" && unix.Access(mount, unix.W_OK) == nil && !Inner() {
		l.cgroups = mount
	}
	if err := sweepStale(os.TempDir(), l.cgroups); err != nil {
		l.options.Log("could not remove what an earlier lab left: %v", err)
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return fmt.Errorf("make lab directory: %w", err)
	}
	l.dir = dir
	if l.lock, err = lockDir(dir); err != nil {
		return err
	}
	if l.options.Keep {
		if err := os.WriteFile(filepath.Join(dir, keepWord), nil, 0o644); err != nil {
			return fmt.Errorf("mark lab directory: %w", err)
		}
	}
	if l.janitor, err = startJanitor(dir, l.cgroups); err != nil {
		return err
	}
	l.spawner = newSpawner()
	if l.fabric, err = newFabric(); err != nil {
		return err
	}
	return nil
}

// Close ends every host and removes everything. It can be called twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	closers, hosts := l.closers, l.hosts
	l.mu.Unlock()

	var problems []error
	for i := len(closers) - 1; i >= 0; i-- {
		problems = append(problems, closers[i]())
	}
	for _, h := range hosts {
		problems = append(problems, h.PowerOff())
	}
	if l.spawner != nil {
		l.spawner.stop()
	}
	if l.fabric != nil {
		l.fabric.close()
	}
	if l.dir != "" {
		problems = append(problems, sweep(l.dir, l.cgroups, l.options.Keep))
	}
	if l.janitor != nil {
		problems = append(problems, l.janitor.stop(l.options.Keep))
	}
	if l.lock != nil {
		_ = l.lock.Close()
	}
	return errors.Join(problems...)
}

// onClose registers what Close does first, last in first out.
func (l *Lab) onClose(fn func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, fn)
}

// Dir is the lab's directory; it goes with the lab.
func (l *Lab) Dir() string { return l.dir }

// Now is the time since the lab was made.
func (l *Lab) Now() time.Duration { return time.Since(l.start) }

// Clock is the wall clock at an instant of the lab, for comparison with what
// the product writes down.
func (l *Lab) Clock(at time.Duration) time.Time { return l.start.Add(at) }

// at turns a reading of CLOCK_MONOTONIC in ns, taken by any process of any
// host, into the lab's time.
func (l *Lab) at(mono int64) time.Duration { return time.Duration(mono - l.mono) }

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // cannot fail for this clock (clock_gettime(2))
	}
	return ts.Nano()
}

// Host gives the host of that name, or nil.
func (l *Lab) Host(name string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order[name]
}

// Hosts gives the hosts in the order they were made, clients and observers included.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Host(nil), l.hosts...)
}

// BinVariable names the environment variable that says where the programs to
// test are, for programs built another way than by make build.
const BinVariable = "FAILOVERD_LAB_BIN"

// Bin gives the directory of the project's programs: Options.Bin, else bin
// beside the go.mod above the working directory or above this program.
func (l *Lab) Bin() (string, error) {
	if l.options.Bin != "" {
		return l.options.Bin, nil
	}
	if dir := os.Getenv(BinVariable); dir != "" {
		return dir, nil
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "bin"), nil
}

// ModuleRoot gives the directory of the go.mod above the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find module root: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find module root: no go.mod above the working directory; run it inside the repository")
		}
	}
}
