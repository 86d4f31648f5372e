package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prefix begins the name of every directory and control group of a lab.
const prefix = "failoverd-lab-"

// keepWord tells the janitor to leave the directory alone.
const keepWord = "keep"

// janitor is the process that cleans up after a lab that could not do so.
type janitor struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// startJanitor starts the janitor of a lab in a session of its own, where
// neither a Ctrl-C nor the end of the lab reaches it.
func startJanitor(dir, cgroups string) (*janitor, error) {
	cmd := exec.Command("/proc/self/exe", dir, cgroups)
	cmd.Args[0] = roleJanitor
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start janitor: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start janitor: %w", err)
	}
	return &janitor{cmd: cmd, pipe: pipe}, nil
}

// stop lets the janitor finish what is left and waits for it.
func (j *janitor) stop(keep bool) error {
	if keep {
		_, _ = io.WriteString(j.pipe, keepWord) // a dead janitor removes nothing either
	}
	return errors.Join(j.pipe.Close(), j.cmd.Wait())
}

// runJanitor waits for the end of the lab that started it, then removes the
// lab's directory and control groups.
func runJanitor() {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	said, _ := io.ReadAll(os.Stdin)
	if err := sweep(os.Args[1], os.Args[2], string(said) == keepWord); err != nil {
		fmt.Fprintln(os.Stderr, "lab: left behind:", err)
		os.Exit(1)
	}
}

// sweep removes what a lab of that directory leaves. Processes of a dying lab
// may still write into it, hence the patience.
func sweep(dir, cgroups string, keep bool) error {
	err := removeCgroups(cgroups, filepath.Base(dir)+"-")
	if keep {
		return err
	}
	return errors.Join(err, wait(10*time.Second, 20*time.Millisecond, func() error { return os.RemoveAll(dir) }))
}

// sweepStale removes what labs left that were killed together with their
// janitor. A live lab holds a lock on its directory.
func sweepStale(tmp, cgroups string) error {
	dirs, err := filepath.Glob(filepath.Join(tmp, prefix+"*"))
	if err != nil {
		return fmt.Errorf("find stale labs: %w", err)
	}
	var problems []error
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		// A young directory may belong to a lab that has not locked it yet.
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
			continue
		}
		lock, err := lockDir(dir)
		if err != nil {
			continue // in use
		}
		if _, err := os.Stat(filepath.Join(dir, keepWord)); err != nil {
			problems = append(problems, sweep(dir, cgroups, false))
		}
		_ = lock.Close()
	}
	return errors.Join(problems...)
}

// lockDir takes the lock of a lab's directory, or fails at once if it is taken.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open lab directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock lab directory: %w", err)
	}
	return f, nil
}

// Leftovers lists what labs of this user that no longer run have left: their
// directories and control groups. It is empty on a clean machine.
func Leftovers() ([]string, error) {
	var found []string
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("find stale labs: %w", err)
	}
	live := map[string]bool{}
	for _, dir := range dirs {
		lock, err := lockDir(dir)
		if err != nil {
			live[filepath.Base(dir)] = true
			continue
		}
		_ = lock.Close()
		if _, err := os.Stat(filepath.Join(dir, keepWord)); err != nil {
			found = append(found, dir)
		}
	}
	groups, err := filepath.Glob(filepath.Join(cgroupMount(), prefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("find stale control groups: %w", err)
	}
	for _, group := range groups {
		owned := false
		for name := range live {
			owned = owned || strings.HasPrefix(filepath.Base(group), name+"-")
		}
		if !owned {
			found = append(found, group)
		}
	}
	return found, nil
}
