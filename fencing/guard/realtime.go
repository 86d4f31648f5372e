package guard

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

var errNotAsked = errors.New("not asked for")

// realtimePriority is low among the real-time ones: above every ordinary
// process, below the kernel's own threads.
const realtimePriority = 20

// setRealtime gives the calling thread SCHED_FIFO. Its children and new
// threads do not inherit it.
func setRealtime() error {
	const schedFIFO, resetOnFork = 1, 0x40000000
	param := struct{ priority int32 }{realtimePriority}
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedFIFO|resetOnFork, uintptr(unsafe.Pointer(&param)))
	if errno != 0 {
		return fmt.Errorf("real-time priority: %w (needs CAP_SYS_NICE or LimitRTPRIO)", errno)
	}
	return nil
}

// lockMemory keeps the guard's pages in memory, so that a machine short of it
// does not page in the code that ends a lease.
func lockMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT); err != nil {
		return fmt.Errorf("lock memory: %w (needs CAP_IPC_LOCK or LimitMEMLOCK)", err)
	}
	// The Go heap reserves far more than it uses: later pages only when touched.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock future memory: %w", err)
	}
	return nil
}
