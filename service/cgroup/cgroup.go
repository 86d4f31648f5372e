// Package cgroup is the little of cgroup v2 that a supervisor needs: find the
// hierarchy, make a group, put a child into it at birth, kill everything in it
// at once, and prove that it is empty.
//
// A group's emptiness is the kernel's own word: cgroup.events says "populated
// 0" only when no living process is left in the group or below it, whatever its
// members did about sessions, process groups and parents. (cgroups(7) and
// Documentation/admin-guide/cgroup-v2.rst.)
//
// It is a leaf: standard library and golang.org/x/sys only.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrUnavailable: there is no cgroup v2 mount, or it cannot be written here.
	ErrUnavailable = errors.New("cgroup v2 unavailable")
	// ErrPopulated: processes are still alive in the group.
	ErrPopulated = errors.New("cgroup not empty")
)

// Group is one directory of the hierarchy. It holds no resources; a Group may
// be copied, and may name a directory that is gone.
type Group struct {
	path string
}

// Open names the group at an absolute path without looking at it.
func Open(path string) *Group { return &Group{path: filepath.Clean(path)} }

// Path is the group's directory.
func (g *Group) Path() string { return g.path }

// Name is the last element of the group's path.
func (g *Group) Name() string { return filepath.Base(g.path) }

// Child names the group below this one, without making it.
func (g *Group) Child(name string) *Group { return &Group{path: filepath.Join(g.path, name)} }

// Create makes the group below this one; one that exists already is returned
// as it is, with whatever lives in it. The name is one path element.
func (g *Group) Create(name string) (*Group, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	c := g.Child(name)
	if err := os.Mkdir(c.path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create cgroup %s: %w", c.path, err)
	}
	return c, nil
}

// checkName refuses what would lead out of the group or into its own files.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..", strings.ContainsAny(name, "/\n\x00"), len(name) > 255:
		return fmt.Errorf("create cgroup: %q is no name for a group", name)
	case strings.HasPrefix(name, "cgroup."):
		return fmt.Errorf("create cgroup: %q: names that begin with \"cgroup.\" belong to the kernel", name)
	}
	return nil
}

// Exists reports whether the group's directory is there.
func (g *Group) Exists() bool {
	_, err := os.Stat(filepath.Join(g.path, "cgroup.procs"))
	return err == nil
}

// OpenDir opens the group's directory for syscall.SysProcAttr.CgroupFD, which
// places a child in the group at its birth (clone3, Linux 5.7). The caller closes it.
func (g *Group) OpenDir() (*os.File, error) {
	fd, err := unix.Open(g.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", g.path, err)
	}
	return os.NewFile(uintptr(fd), g.path), nil
}

// Add moves a process, with all its threads, into the group.
func (g *Group) Add(pid int) error { return g.write("cgroup.procs", strconv.Itoa(pid)) }

// Procs lists the processes in this group, not in those below it. A process
// of another PID namespace is listed as 0.
func (g *Group) Procs() ([]int, error) {
	b, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("list cgroup %s: %w", g.path, err)
	}
	var pids []int
	for _, line := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			return nil, fmt.Errorf("list cgroup %s: %w", g.path, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Children lists the groups right below this one.
func (g *Group) Children() ([]*Group, error) {
	entries, err := os.ReadDir(g.path)
	if err != nil {
		return nil, fmt.Errorf("list cgroup %s: %w", g.path, err)
	}
	var out []*Group
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, g.Child(e.Name()))
		}
	}
	return out, nil
}

// Empty reports whether no living process is left in the group and below it.
// A group whose directory is gone is empty: the kernel removes only empty ones.
func (g *Group) Empty() (bool, error) {
	b, err := os.ReadFile(filepath.Join(g.path, "cgroup.events"))
	if gone(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read cgroup %s: %w", g.path, err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		switch line {
		case "populated 0":
			return true, nil
		case "populated 1":
			return false, nil
		}
	}
	return false, fmt.Errorf("read cgroup %s: no \"populated\" in cgroup.events", g.path)
}

// Freeze stops or resumes everything in the group; it does not wait until all have stopped.
func (g *Group) Freeze(on bool) error {
	v := "0"
	if on {
		v = "1"
	}
	return g.write("cgroup.freeze", v)
}

// LimitTasks bounds the number of processes and threads in the group and below
// it, where the pids controller is at hand: it is enabled in the parent when
// that is allowed. An error says that there is no such bound.
func (g *Group) LimitTasks(max int) error {
	const file = "pids.max"
	if _, err := os.Stat(filepath.Join(g.path, file)); err != nil {
		parent := Open(filepath.Dir(g.path))
		if err := parent.write("cgroup.subtree_control", "+pids"); err != nil {
			return fmt.Errorf("enable the pids controller: %w", err)
		}
	}
	return g.write(file, strconv.Itoa(max))
}

// Remove deletes the group and those below it. It fails with ErrPopulated
// while anything lives in one of them. A group that is gone is no error.
func (g *Group) Remove() error {
	children, err := g.Children()
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := c.Remove(); err != nil {
			return err
		}
	}
	// A group stays busy for a moment after its last process was reaped.
	for deadline := time.Now().Add(200 * time.Millisecond); ; time.Sleep(time.Millisecond) {
		err := unix.Rmdir(g.path)
		switch {
		case err == nil || gone(err):
			return nil
		case errors.Is(err, unix.EBUSY) && time.Now().Before(deadline):
			continue
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("remove cgroup %s: %w", g.path, ErrPopulated)
		}
		return fmt.Errorf("remove cgroup %s: %w", g.path, err)
	}
}

func (g *Group) write(file, value string) error {
	f, err := os.OpenFile(filepath.Join(g.path, file), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write cgroup %s: %w", g.path, err)
	}
	_, err = f.WriteString(value)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write cgroup %s: %w", g.path, err)
	}
	return nil
}

// gone: reading a file of a removed group gives ENODEV when it was open already.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}
