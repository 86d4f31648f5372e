package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// runInit is the life of a host's init, process 1 of its PID namespace: it
// gives the host its own /proc, boot id and name, says so, and then reaps
// whatever is orphaned until it is killed or the lab is gone.
//
// Its arguments are the host's name and the file with the boot id.
func runInit() {
	if err := prepareHost(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
	// Process 1 is deaf to signals without a handler; a few would end a Go program.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGQUIT)
	go reapOrphans()
	fmt.Fprintln(os.Stdout, readyLine)
	// The other end of the pipe is the lab's: it closes when the lab ends, however it ends.
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// readyLine is what an init says when the host is up.
const readyLine = "ready"

func prepareHost(name, bootFile string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc (in a container it must not be masked): %w", err)
	}
	if err := unix.Mount(bootFile, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the boot id: %w", err)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	return nil
}

// reapOrphans waits for every child that a process of the host left behind.
func reapOrphans() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if pid <= 0 || err != nil {
				break
			}
		}
		<-children
	}
}
