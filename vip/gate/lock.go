package gate

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait is for how long Open waits for a predecessor that is just exiting.
const lockWait = time.Second

// lockName claims a name among the gates of this network namespace: two that
// repair each other's tables would never come to rest. An abstract Unix socket
// belongs to a network namespace and goes with its process, however that ends.
func lockName(name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lock gate: %w", err)
	}
	addr := &unix.SockaddrUnix{Name: "@failoverd gate " + name}
	for end := time.Now().Add(lockWait); ; time.Sleep(lockWait / 50) {
		err := unix.Bind(fd, addr)
		if err == nil {
			return os.NewFile(uintptr(fd), "gate lock"), nil
		}
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(end) {
			unix.Close(fd)
			if errors.Is(err, unix.EADDRINUSE) {
				return nil, fmt.Errorf("%s: %w by another process in this network namespace; stop it, or give this one another name", name, ErrInUse)
			}
			return nil, fmt.Errorf("lock gate: %w", err)
		}
	}
}
