package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cgroupMount gives where cgroup v2 is mounted, or "" where it is not.
func cgroupMount() string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		// The file system's type follows a lone dash (proc_pid_mountinfo(5)).
		before, after, found := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if found && len(fields) >= 5 && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4]
		}
	}
	return ""
}

// makeCgroup makes the control group of that name below the mount.
func makeCgroup(mount, name string) (string, error) {
	path := filepath.Join(mount, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", fmt.Errorf("make control group: %w", err)
	}
	return path, nil
}

// freezeCgroup freezes or thaws everything in the group and waits until the
// kernel says so.
func freezeCgroup(path string, freeze bool) error {
	want := "0"
	if freeze {
		want = "1"
	}
	if err := os.WriteFile(filepath.Join(path, "cgroup.freeze"), []byte(want), 0); err != nil {
		return fmt.Errorf("freeze control group: %w", err)
	}
	return wait(2*time.Second, time.Millisecond, func() error {
		raw, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
		if err != nil {
			return err
		}
		if !strings.Contains(string(raw), "frozen "+want) {
			return fmt.Errorf("control group %s does not say frozen %s", path, want)
		}
		return nil
	})
}

// removeCgroups kills what lives in the groups whose name begins with the
// prefix and removes them, children first.
func removeCgroups(mount, prefix string) error {
	if mount == "" {
		return nil
	}
	roots, err := filepath.Glob(filepath.Join(mount, prefix+"*"))
	if err != nil {
		return fmt.Errorf("find control groups: %w", err)
	}
	var problems []error
	for _, root := range roots {
		if err := removeCgroupTree(root); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func removeCgroupTree(root string) error {
	// A frozen group dies of cgroup.kill as well; older kernels lack the file.
	_ = os.WriteFile(filepath.Join(root, "cgroup.kill"), []byte("1"), 0)
	return wait(5*time.Second, 5*time.Millisecond, func() error {
		var dirs []string
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // what vanishes while we walk is what we want
		})
		if err != nil {
			return err
		}
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := os.Remove(dirs[i]); err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("remove control group: %w", err)
			}
		}
		return nil
	})
}

// wait tries fn until it succeeds or the limit has passed, and gives its last error.
func wait(limit, pause time.Duration, fn func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := fn()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v: %w", limit, err)
		}
		time.Sleep(pause)
	}
}
