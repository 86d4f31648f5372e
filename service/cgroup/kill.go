package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Kill sends SIGKILL to everything in the group and below it, also to what is
// frozen, stopped, or forking meanwhile. It does not wait: see WaitEmpty.
// Before Linux 5.14, which has no cgroup.kill, it freezes the group, so that
// nothing forks, and signals one by one; that takes a bounded time.
func (g *Group) Kill() error {
	err := g.write("cgroup.kill", "1")
	if err == nil {
		return nil
	}
	if !g.Exists() {
		return nil
	}
	if errors.Is(err, os.ErrNotExist) {
		return g.killEach()
	}
	return err
}

// killEach is Kill without cgroup.kill.
func (g *Group) killEach() error {
	if err := g.Freeze(true); err != nil {
		return err
	}
	// A fork that was under way when the group froze is found in a later round.
	for range 50 {
		n, err := g.signalAll(unix.SIGKILL)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	// The dying need no thaw, but a survivor of the loop must be seen as running.
	return g.Freeze(false)
}

// signalAll signals every process in the group and below it, and says how many there were.
func (g *Group) signalAll(sig unix.Signal) (int, error) {
	pids, err := g.Procs()
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n := 0
	for _, pid := range pids {
		if pid <= 0 {
			continue // of another PID namespace: kill(0) would hit ourselves
		}
		if err := unix.Kill(pid, sig); err == nil {
			n++
		} else if !errors.Is(err, unix.ESRCH) {
			return n, fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	children, err := g.Children()
	if gone(err) {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	for _, c := range children {
		m, err := c.signalAll(sig)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// WaitEmpty waits until nothing lives in the group and below it, or ctx ends;
// then the error wraps ErrPopulated and names what is left. The kernel wakes
// it (poll on cgroup.events); a slow look beside that covers a lost wake-up.
func (g *Group) WaitEmpty(ctx context.Context) error {
	fd, err := unix.Open(filepath.Join(g.path, "cgroup.events"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch cgroup %s: %w", g.path, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 256)
	for {
		// Reading through the watched descriptor is what arms the next wake-up.
		if _, err := unix.Pread(fd, buf, 0); gone(err) {
			return nil
		}
		empty, err := g.Empty()
		if err != nil {
			return err
		}
		if empty {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("cgroup %s still holds %s: %w (%w)", g.path, g.describe(), ErrPopulated, ctx.Err())
		}
		wait := 25 * time.Millisecond
		if d, ok := ctx.Deadline(); ok {
			wait = min(wait, max(time.Until(d), time.Millisecond))
		}
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, int(wait.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch cgroup %s: %w", g.path, err)
		}
	}
}

// Clear kills everything in the group, waits until it is empty and removes it.
// nil is a proof that nothing of it lives.
func (g *Group) Clear(ctx context.Context) error {
	if err := g.Kill(); err != nil {
		return err
	}
	if err := g.WaitEmpty(ctx); err != nil {
		return err
	}
	return g.Remove()
}

// describe names a few of the processes in the group, for an error.
func (g *Group) describe() string {
	pids, err := g.allProcs()
	if err != nil || len(pids) == 0 {
		return "processes"
	}
	text := ""
	for i, pid := range pids {
		if i == 4 {
			return fmt.Sprintf("%s and %d more", text, len(pids)-i)
		}
		if i > 0 {
			text += ", "
		}
		text += describeProcess(pid)
	}
	return text
}

func (g *Group) allProcs() ([]int, error) {
	pids, err := g.Procs()
	if err != nil {
		return nil, err
	}
	children, err := g.Children()
	if err != nil {
		return nil, err
	}
	for _, c := range children {
		more, err := c.allProcs()
		if err != nil && !gone(err) {
			return nil, err
		}
		pids = append(pids, more...)
	}
	return pids, nil
}

// describeProcess gives pid, name and state: a process in state D waits for a
// disk or a network file system and cannot be killed until that answers.
func describeProcess(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	s := string(b)
	var open, end = -1, -1
	for i := range s {
		if s[i] == '(' && open < 0 {
			open = i
		}
		if s[i] == ')' {
			end = i // the name may hold parentheses itself
		}
	}
	if open < 0 || end < open || end+2 >= len(s) {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%s, state %c)", pid, s[open+1:end], s[end+2])
}
