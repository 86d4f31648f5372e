package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Process is a process of a host, in whichever PID namespace below the host's it lives.
type Process struct {
	Pid     int    // as the machine sees it
	Program string // base name of its executable
	Nested  bool   // in a PID namespace below the host's own
}

// Processes gives every process of the host but its init.
func (h *Host) Processes() ([]Process, error) {
	initPid := h.Pid()
	if initPid == 0 {
		return nil, nil
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", initPid))
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", h.name, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", h.name, err)
	}
	network, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", initPid))
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", h.name, err)
	}
	var found []Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == initPid {
			continue
		}
		base := filepath.Join("/proc", entry.Name())
		ns, err := os.Readlink(filepath.Join(base, "ns/pid"))
		if err != nil {
			continue // ended meanwhile, or not ours to see
		}
		nested := false
		if ns != own {
			// A service may have a PID namespace of its own; it still has the host's network.
			if net, err := os.Readlink(filepath.Join(base, "ns/net")); err != nil || net != network {
				continue
			}
			if !inside(base, initPid) {
				continue
			}
			nested = true
		}
		exe, err := os.Readlink(filepath.Join(base, "exe"))
		if err != nil {
			continue
		}
		found = append(found, Process{Pid: pid, Program: strings.TrimSuffix(filepath.Base(exe), " (deleted)"), Nested: nested})
	}
	return found, nil
}

// inside reports whether the process has ids in at least two PID namespaces
// beyond the lab's, as a process below a host has (proc_pid_status(5), NSpid).
func inside(base string, initPid int) bool {
	count := func(path string) int {
		raw, err := os.ReadFile(path)
		if err != nil {
			return 0
		}
		for line := range strings.Lines(string(raw)) {
			if rest, found := strings.CutPrefix(line, "NSpid:"); found {
				return len(strings.Fields(rest))
			}
		}
		return 0
	}
	return count(filepath.Join(base, "status")) > count(fmt.Sprintf("/proc/%d/status", initPid))
}

// Programs gives the host's processes that run the program of that name.
func (h *Host) Programs(name string) ([]Process, error) {
	all, err := h.Processes()
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, p := range all {
		if p.Program == name {
			found = append(found, p)
		}
	}
	return found, nil
}

// Signal sends the signal to every process of the host that runs one of the
// programs, and says how many there were.
func (h *Host) Signal(signal syscall.Signal, programs ...string) (int, error) {
	var problems []error
	count := 0
	for _, program := range programs {
		found, err := h.Programs(program)
		if err != nil {
			return count, err
		}
		for _, p := range found {
			err := syscall.Kill(p.Pid, signal)
			if err != nil && !errors.Is(err, syscall.ESRCH) {
				problems = append(problems, fmt.Errorf("signal %s on %s: %w", program, h.name, err))
				continue
			}
			count++
		}
	}
	return count, errors.Join(problems...)
}

// Stop freezes the programs of the host with SIGSTOP; Cont lets them go on.
func (h *Host) Stop(programs ...string) (int, error) { return h.Signal(syscall.SIGSTOP, programs...) }

// Cont continues what Stop froze.
func (h *Host) Cont(programs ...string) (int, error) { return h.Signal(syscall.SIGCONT, programs...) }

// CanFreeze reports whether whole hosts can be frozen: as root, with a cgroup v2 mount.
func (h *Host) CanFreeze() bool { return h.lab.cgroups != "" }

// Freeze stops every process of the host by its control groups, as a
// hypervisor that pauses a machine would, but for the kernel; Thaw undoes it.
// Nothing can be started there meanwhile: Start would wait inside the kernel,
// and this whole program with it.
func (h *Host) Freeze() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frozen = true
	return h.freeze(true)
}

// Thaw lets a frozen host go on.
func (h *Host) Thaw() error {
	err := h.freeze(false)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frozen = err != nil
	return err
}

func (h *Host) freeze(on bool) error {
	if !h.CanFreeze() {
		return fmt.Errorf("freeze %s: no writable cgroup v2 mount", h.name)
	}
	groups, err := filepath.Glob(filepath.Join(h.lab.cgroups, h.cgroup("*")))
	if err != nil {
		return fmt.Errorf("freeze %s: %w", h.name, err)
	}
	var problems []error
	for _, group := range groups {
		problems = append(problems, freezeCgroup(group, on))
	}
	return errors.Join(problems...)
}
