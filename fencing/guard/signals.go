package guard

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Values of a kernel sigaction's first field, the handler (signal(7)).
const (
	handlerDefault = 0
	handlerIgnore  = 1
)

// kernelAction is room for the kernel's sigaction of any architecture that we
// build for; the handler comes first in all of them. With a zero handler the
// other fields may be zero too.
type kernelAction [8]uintptr

// signals is how many there are, real-time signals included (signal(7)).
const signals = 64

// heedSignals sets back to its default what this process was told to ignore by
// whoever started it. An ignored signal survives execve(2), so a program would
// inherit it through daemon, guard and init alike; and Go leaves the signals of
// the C library (32 to 34) as it finds them.
func heedSignals() {
	for sig := uintptr(1); sig <= signals; sig++ {
		if handlerOf(sig) == handlerIgnore {
			setHandler(sig, handlerDefault)
		}
	}
}

func handlerOf(sig uintptr) uintptr {
	var old kernelAction
	if _, _, err := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&old)), signals/8, 0, 0); err != 0 {
		return handlerDefault // SIGKILL and SIGSTOP cannot be ignored
	}
	return old[0]
}

func setHandler(sig, handler uintptr) {
	action := kernelAction{handler}
	// It cannot fail for a signal whose handler was just read.
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&action)), 0, signals/8, 0, 0)
}
