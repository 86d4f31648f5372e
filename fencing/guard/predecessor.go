package guard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

// groupPrefix begins the name of a guard's own cgroup; the rest is of its directory.
const groupPrefix = "failoverguard-"

// openGroups makes the cgroup below which the units' are made: below the
// guard's own, as a service manager that delegates expects.
func openGroups(dir string) (*cgroup.Group, error) {
	own, err := cgroup.Own()
	if err != nil {
		return nil, err
	}
	if err := own.Writable(); err != nil {
		return nil, err
	}
	return own.Create(CgroupName(dir))
}

// CgroupName is the name of the cgroup that the guard of a directory (an
// absolute path) makes below the one that it was started in. A guard removes it
// when it ends, and the next one of the directory what a killed one left.
func CgroupName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return groupPrefix + hex.EncodeToString(sum[:6])
}

// makeGroup makes a unit's cgroup for its next life; nil where there are none.
func (g *Guard) makeGroup(s Spec) (*cgroup.Group, error) {
	if g.groups == nil {
		return nil, nil
	}
	group, err := g.groups.Create(groupName(s.Name))
	if err != nil {
		return nil, err
	}
	// No controller for it is no failure: the namespace has a bound of its own.
	_ = group.LimitTasks(s.Tasks)
	return group, nil
}

func groupName(unit string) string { return "unit-" + unit }

// record is what a guard writes down of a unit before it runs, for the guard after it.
type record struct {
	BootID  string `json:"boot_id"`
	Name    string `json:"name"`
	Session uint64 `json:"session"`
	Epoch   uint64 `json:"epoch"`
	Pid     int    `json:"pid"`
	Start   uint64 `json:"start"` // clock ticks: with the PID, the process's identity
	Cgroup  string `json:"cgroup,omitempty"`
}

// records keeps one file per living unit. They need not be synced: after a
// crash of the machine nothing that they name is left.
type records struct {
	dir  string
	boot string
	mu   sync.Mutex
}

func (r *records) add(s Spec, b *birth) error {
	rec := record{BootID: r.boot, Name: s.Name, Session: s.Session, Epoch: s.Epoch, Pid: b.pid, Start: b.start}
	if b.group != nil {
		rec.Cgroup = b.group.Path()
	}
	body, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode a unit's record: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	path := r.path(s.Name)
	if err := os.WriteFile(path+".new", body, 0o600); err != nil {
		return fmt.Errorf("write a unit's record: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write a unit's record: %w", err)
	}
	return nil
}

// remove forgets a unit that is gone. A file that stays names a process that
// is gone, which costs the next guard one look.
func (r *records) remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = os.Remove(r.path(name))
}

func (r *records) path(name string) string { return filepath.Join(r.dir, name+".json") }

// cleanTimeout bounds the end of a predecessor's process.
const cleanTimeout = 10 * time.Second

// clean ends what a dead predecessor left: the kernel has sent SIGKILL to its
// inits already; here it is waited for, so that a new guard begins with
// nothing running. It says in words what it found.
func (r *records) clean(groups *cgroup.Group) ([]string, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("read unit records: %w", err)
	}
	var found []string
	for _, e := range entries {
		path := filepath.Join(r.dir, e.Name())
		if strings.HasSuffix(e.Name(), ".json") {
			text, err := r.cleanOne(path, groups)
			if err != nil {
				return found, err
			}
			if text != "" {
				found = append(found, text)
			}
		}
		if err := os.Remove(path); err != nil {
			return found, fmt.Errorf("remove a unit's record: %w", err)
		}
	}
	if groups == nil {
		return found, nil
	}
	left, err := groups.Children()
	if err != nil {
		return found, err
	}
	for _, c := range left {
		empty, err := c.Empty()
		if err != nil {
			return found, err
		}
		if err := clearGroup(c); err != nil {
			return found, err
		}
		if !empty {
			found = append(found, fmt.Sprintf("killed what was left in cgroup %s", c.Path()))
		}
	}
	return found, nil
}

func (r *records) cleanOne(path string, groups *cgroup.Group) (string, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read a unit's record: %w", err)
	}
	var rec record
	if err := json.Unmarshal(body, &rec); err != nil || rec.BootID != r.boot {
		return "", nil // cut by a crash of the machine, or of another boot: nothing of it runs
	}
	alive, err := endProcess(rec.Pid, rec.Start)
	if err != nil {
		return "", fmt.Errorf("%w: %s of a dead guard: %w", ErrNotProven, rec.Name, err)
	}
	// A predecessor that ran in another cgroup made its groups there.
	if rec.Cgroup != "" && (groups == nil || filepath.Dir(rec.Cgroup) != groups.Path()) &&
		strings.HasPrefix(filepath.Base(filepath.Dir(rec.Cgroup)), groupPrefix) {
		if g := cgroup.Open(rec.Cgroup); g.Exists() {
			if err := clearGroup(g); err != nil {
				return "", err
			}
			_ = cgroup.Open(filepath.Dir(rec.Cgroup)).Remove()
		}
	}
	if !alive {
		return fmt.Sprintf("%s (session %d, epoch %d) had ended with its guard", rec.Name, rec.Session, rec.Epoch), nil
	}
	return fmt.Sprintf("killed %s (session %d, epoch %d), left by a dead guard", rec.Name, rec.Session, rec.Epoch), nil
}

func clearGroup(g *cgroup.Group) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanTimeout)
	defer cancel()
	return g.Clear(ctx)
}

// endProcess kills the process if it is still the one that was recorded, and
// waits until it and so its namespace is gone: a zombie has ended.
func endProcess(pid int, start uint64) (alive bool, err error) {
	same := func() bool {
		st, err := readStat(pid)
		return err == nil && st.start == start && st.state != 'Z' && st.state != 'X'
	}
	if pid <= 1 || !same() {
		return false, nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if !same() { // between the look and the open
		return false, nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return true, fmt.Errorf("kill process %d: %w", pid, err)
	}
	for end := time.Now().Add(cleanTimeout); same(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return true, fmt.Errorf("process %d does not end", pid)
		}
	}
	return true, nil
}
