package guard

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// procStat is the part of /proc/PID/stat that is of use (proc_pid_stat(5)).
type procStat struct {
	state  byte
	parent int
	start  uint64 // clock ticks since boot: with the PID, a process's identity
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The name stands in parentheses and may hold some itself.
	i := strings.LastIndexByte(string(b), ')')
	if i < 0 {
		return procStat{}, fmt.Errorf("read /proc/%d/stat: no name", pid)
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 || len(f[0]) != 1 {
		return procStat{}, fmt.Errorf("read /proc/%d/stat: too short", pid)
	}
	parent, err := strconv.Atoi(f[1])
	if err != nil {
		return procStat{}, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	return procStat{state: f[0][0], parent: parent, start: start}, nil
}

// descendants lists the living processes below this one, by the IDs that
// kill(2) takes here. Where no /proc of the namespace's own could be mounted,
// the one that is there shows the IDs of an outer namespace; the NSpid line of
// a process's status then tells the one that counts here.
func descendants() []int {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return nil
	}
	root, err := strconv.Atoi(self)
	if err != nil {
		return nil
	}
	level := len(nsPids(root)) - 1
	entries, err := os.ReadDir("/proc")
	if err != nil || level < 0 {
		return nil
	}
	below := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		st, err := readStat(pid)
		if err != nil || st.state == 'Z' || st.state == 'X' {
			continue
		}
		below[st.parent] = append(below[st.parent], pid)
	}
	var out []int
	for queue := below[root]; len(queue) > 0; {
		pid := queue[0]
		queue = append(queue[1:], below[pid]...)
		if level > 0 {
			ids := nsPids(pid)
			if len(ids) <= level {
				continue // gone meanwhile
			}
			pid = ids[level]
		}
		out = append(out, pid)
	}
	return out
}

// nsPids gives a process's IDs from the namespace of /proc inwards.
func nsPids(pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	for _, line := range strings.Split(string(b), "\n") {
		rest, ok := strings.CutPrefix(line, "NSpid:")
		if !ok {
			continue
		}
		var out []int
		for _, f := range strings.Fields(rest) {
			n, err := strconv.Atoi(f)
			if err != nil {
				return nil
			}
			out = append(out, n)
		}
		return out
	}
	return nil
}
