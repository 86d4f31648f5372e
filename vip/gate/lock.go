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
// Anybody on the host can sit on such a name: only a process of our own user
// or of root is believed; beside any other the gate opens without the lock.
func lockName(name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lock gate: %w", err)
	}
	lock := os.NewFile(uintptr(fd), "gate lock")
	addr := &unix.SockaddrUnix{Name: "@failoverd gate " + name}
	for end := time.Now().Add(lockWait); ; time.Sleep(lockWait / 50) {
		err := unix.Bind(fd, addr)
		if err == nil {
			// Listening is what lets others ask who we are; nobody is ever accepted.
			err = unix.Listen(fd, 0)
		}
		switch {
		case err == nil:
			return lock, nil
		case !errors.Is(err, unix.EADDRINUSE):
			return nil, errors.Join(fmt.Errorf("lock gate: %w", err), lock.Close())
		case time.Now().Before(end):
		case !heldByUs(addr):
			return lock, nil
		default:
			return nil, errors.Join(fmt.Errorf("%s: %w; stop that daemon, or give this one another name", name, ErrInUse), lock.Close())
		}
	}
}

// heldByUs reports whether who listens on the address is of our user, or root.
func heldByUs(addr unix.Sockaddr) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, addr)
	if errors.Is(err, unix.EAGAIN) {
		return true // its queue is full of others who asked
	}
	if err != nil {
		return false
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err != nil || peer.Uid == 0 || int(peer.Uid) == os.Geteuid()
}
