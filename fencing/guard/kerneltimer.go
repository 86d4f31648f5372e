package guard

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelTimer is a timer of the kernel that kills this process. It needs no
// thread of ours to run, and SIGKILL ends also what is stopped or frozen.
// (timer_create(2); raw system calls, since the C library's SIGEV_THREAD is not wanted.)
type kernelTimer struct {
	id int32
}

// sigevent as the kernel lays it out: 64 bytes.
type sigevent struct {
	value  uint64
	signo  int32
	notify int32 // 0: SIGEV_SIGNAL
	_      [48]byte
}

type itimerspec struct {
	interval, value unix.Timespec
}

const timerAbstime = 1

// newKernelTimer makes a disarmed timer. It refuses to serve PID 1, for which
// the kernel ignores a SIGKILL of its own namespace.
func newKernelTimer() (*kernelTimer, error) {
	if os.Getpid() == 1 {
		return nil, fmt.Errorf("make the kernel's timer: the guard is PID 1 of its namespace, which the kernel does not kill; start it below an init")
	}
	ev := sigevent{signo: int32(unix.SIGKILL)}
	var id int32
	_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ev)), uintptr(unsafe.Pointer(&id)))
	if errno != 0 {
		return nil, fmt.Errorf("make the kernel's timer: %w", errno)
	}
	return &kernelTimer{id: id}, nil
}

// arm makes the kernel kill this process when CLOCK_BOOTTIME reaches at; 0 disarms.
func (t *kernelTimer) arm(at time.Duration) error {
	spec := itimerspec{value: unix.NsecToTimespec(int64(at))}
	_, _, errno := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(t.id), timerAbstime, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("arm the kernel's timer: %w", errno)
	}
	return nil
}

func (t *kernelTimer) close() {
	unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(t.id), 0, 0)
}
