package lab

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespaces are the open namespaces of a host. They are held by descriptor, so
// that no name is left in the file system and two labs cannot meet.
type namespaces struct {
	net, pid, mnt, uts, ipc *os.File
}

// openNamespaces opens those of a process. The caller closes them.
func openNamespaces(pid int) (*namespaces, error) {
	n := &namespaces{}
	for _, part := range []struct {
		file **os.File
		name string
	}{{&n.net, "net"}, {&n.pid, "pid"}, {&n.mnt, "mnt"}, {&n.uts, "uts"}, {&n.ipc, "ipc"}} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, part.name))
		if err != nil {
			n.close()
			return nil, fmt.Errorf("open %s namespace: %w", part.name, err)
		}
		*part.file = f
	}
	return n, nil
}

func (n *namespaces) close() {
	for _, f := range []*os.File{n.net, n.pid, n.mnt, n.uts, n.ipc} {
		if f != nil {
			_ = f.Close() // opened for reading: nothing can be lost
		}
	}
}

// onThread runs fn on a thread of its own that is thrown away afterwards,
// since what prepare does to a thread cannot be undone in every case.
func onThread(prepare, fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := prepare(); err != nil {
			result <- err
			return
		}
		result <- fn()
	}()
	return <-result
}

// inNet runs fn on a thread inside the network namespace.
func inNet(ns *os.File, fn func() error) error {
	return onThread(func() error { return setns(ns, unix.CLONE_NEWNET, "network") }, fn)
}

// enter puts the calling thread, which must be locked and thrown away
// afterwards, into the host: what it forks becomes a process of the host.
func (n *namespaces) enter() error {
	// The file system attributes are shared among threads; without this the
	// kernel refuses to change the mount namespace of one of them.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare file system attributes: %w", err)
	}
	for _, part := range []struct {
		file *os.File
		kind int
		name string
	}{
		{n.net, unix.CLONE_NEWNET, "network"}, {n.uts, unix.CLONE_NEWUTS, "host name"},
		{n.ipc, unix.CLONE_NEWIPC, "ipc"}, {n.pid, unix.CLONE_NEWPID, "pid"}, {n.mnt, unix.CLONE_NEWNS, "mount"},
	} {
		if err := setns(part.file, part.kind, part.name); err != nil {
			return err
		}
	}
	return nil
}

func setns(f *os.File, kind int, name string) error {
	if err := unix.Setns(int(f.Fd()), kind); err != nil {
		return fmt.Errorf("enter %s namespace: %w", name, err)
	}
	return nil
}

// newNet makes a network namespace and gives the open descriptor, which alone
// keeps it alive.
func newNet() (*os.File, error) {
	var ns *os.File
	err := onThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		f, err := os.Open("/proc/thread-self/ns/net")
		ns = f
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return ns, nil
}

// writeSysctl writes a setting of the network namespace of the calling thread.
// A setting that the kernel does not have is no error.
func writeSysctl(path, value string) error {
	err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
