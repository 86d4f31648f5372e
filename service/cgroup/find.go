package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Find returns the top of the cgroup v2 hierarchy as it is mounted here. It is
// looked for in /proc/self/mountinfo, since hosts that also have version 1
// mount it in a place of their own. ErrUnavailable when there is none.
func Find() (*Group, error) {
	m, err := findMount()
	if err != nil {
		return nil, err
	}
	return Open(m.point), nil
}

// Own returns the group that this process belongs to. Below it a service
// manager that delegates lets us make groups of our own.
func Own() (*Group, error) {
	m, err := findMount()
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find the own cgroup: %w", err)
	}
	defer f.Close()
	path, err := ownPath(f)
	if err != nil {
		return nil, err
	}
	// The mount may show only a part of the tree (a bind mount, a container).
	rel, ok := strings.CutPrefix(path, strings.TrimSuffix(m.root, "/"))
	if !ok || (rel != "" && rel[0] != '/') || strings.Contains(rel, "/..") {
		return nil, fmt.Errorf("own cgroup %s lies outside of the mount of %s: %w", path, m.root, ErrUnavailable)
	}
	return Open(filepath.Join(m.point, rel)), nil
}

// Writable returns nil when groups can be made below g, else an error that
// wraps ErrUnavailable and says why. It tries, since ownership, read-only
// mounts and limits on depth all have a say.
func (g *Group) Writable() error {
	probe := g.Child("failover-probe-" + strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(probe.path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	if err := unix.Rmdir(probe.path); err != nil {
		return fmt.Errorf("%w: remove %s: %v", ErrUnavailable, probe.path, err)
	}
	return nil
}

type mount struct {
	root  string // the part of the hierarchy that is mounted
	point string
}

func findMount() (mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mount{}, fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	defer f.Close()
	return parseMountinfo(f)
}

// parseMountinfo picks the first cgroup2 mount. The format is that of
// proc_pid_mountinfo(5): optional fields up to a lone dash, then the type.
func parseMountinfo(r io.Reader) (mount, error) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for s.Scan() {
		left, right, ok := strings.Cut(s.Text(), " - ")
		if !ok {
			continue
		}
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 6 || len(r) < 1 || r[0] != "cgroup2" {
			continue
		}
		return mount{root: unescape(l[3]), point: unescape(l[4])}, nil
	}
	if err := s.Err(); err != nil {
		return mount{}, fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	return mount{}, fmt.Errorf("%w: no cgroup2 file system is mounted", ErrUnavailable)
}

// unescape undoes the octal escapes (\040 for a space) of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// ownPath reads the version 2 line of /proc/self/cgroup, "0::/path".
func ownPath(r io.Reader) (string, error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		if path, ok := strings.CutPrefix(s.Text(), "0::"); ok {
			return path, nil
		}
	}
	if err := s.Err(); err != nil {
		return "", fmt.Errorf("find the own cgroup: %w", err)
	}
	return "", fmt.Errorf("%w: this process is in no cgroup of version 2", ErrUnavailable)
}
