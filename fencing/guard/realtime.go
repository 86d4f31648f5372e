package guard

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

var errNotAsked = errors.New("not asked for")

// realtimePriority is low among the real-time ones: above every ordinary
// process, below the kernel's own threads.
const realtimePriority = 20

const (
	schedFIFO        = 1
	schedResetOnFork = 0x40000000
)

// setRealtime gives the calling thread SCHED_FIFO. Its children and new
// threads do not inherit it.
func setRealtime() error {
	param := struct{ priority int32 }{realtimePriority}
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedFIFO|schedResetOnFork, uintptr(unsafe.Pointer(&param)))
	if errno != 0 {
		return fmt.Errorf("real-time priority: %w (needs CAP_SYS_NICE or LimitRTPRIO)", errno)
	}
	return nil
}

// hurry puts all threads of this process before ordinary ones, as far as it is
// let; threads and children to come inherit it. What dies needs the processor
// once more to do so: with an ordinary priority and the processors busy, the
// way from the guard's death over its inits' to the last process was seen to
// take 80 ms.
func hurry() {
	const most = -20
	if entries, err := os.ReadDir("/proc/self/task"); err == nil {
		for _, e := range entries {
			if tid, err := strconv.Atoi(e.Name()); err == nil {
				_ = unix.Setpriority(unix.PRIO_PROCESS, tid, most)
			}
		}
	}
	// Where sessions are scheduled as groups (sched(7), autogroup), it is the
	// session's value that counts. That of a caller, who runs the guard by hand or
	// in a test, is not ours to raise.
	if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
		return
	}
	_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(most)), 0)
}

// sparePrograms makes what the calling thread forks from here on ordinary again.
func sparePrograms() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return
	}
	attr.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
	_ = unix.SchedSetAttr(0, attr, 0)
}

// lockMemory keeps in memory what the guard has touched and will touch, and
// all of its code, so that a machine short of memory does not have to read from
// a disk what ends a lease. Not all that is mapped: the Go heap reserves a
// hundred times what it uses.
func lockMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock memory: %w (needs CAP_IPC_LOCK or LimitMEMLOCK)", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("lock the program's code: %w", err)
	}
	for _, line := range strings.Split(string(maps), "\n") {
		var from, to uint64
		var perms string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); n != 3 || perms != "r-xp" || strings.HasSuffix(line, "]") {
			continue // "[vdso]" and the like are the kernel's
		}
		if _, _, errno := unix.Syscall(unix.SYS_MLOCK, uintptr(from), uintptr(to-from), 0); errno != 0 {
			return fmt.Errorf("lock the program's code: %w", errno)
		}
	}
	return nil
}
