package disk

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// mount is a disk in a namespace.
type mount struct {
	dir    string
	pid    int      // whose namespace it is; 0: not known
	ns     *os.File // keeps the namespace alive: closed as soon as possible
	served chan struct{}
}

// attrTime is how long the kernel may answer by itself what a file is like.
const attrTime = time.Second

func newMount(d *Disk, ns *os.File) (*mount, error) {
	m := &mount{dir: d.dir, ns: ns, served: make(chan struct{})}
	_, _ = fmt.Sscanf(ns.Name(), "/proc/%d/", &m.pid) // thread-self: not known
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: open /dev/fuse: %w", ErrDenied, err)
	}
	valid := attrTime
	root := newRoot(d)
	files := fs.NewNodeFS(root, &fs.Options{AttrTimeout: &valid, EntryTimeout: &valid})
	var server *fuse.Server
	err = m.within(func() error {
		options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other,default_permissions", fd, os.Geteuid(), os.Getegid())
		if err := unix.Mount("failoverd-disk", d.dir, "fuse.failoverd-disk", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("%w: mount: %w", ErrDenied, err)
		}
		var err error
		// The server takes the descriptor over.
		server, err = fuse.NewServer(files, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
			MaxBackground: 64, Logger: log.New(io.Discard, "", 0),
			// Otherwise the kernel would go past the faults.
			DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		})
		if err != nil {
			return errors.Join(err, unix.Unmount(d.dir, unix.MNT_DETACH))
		}
		go func() {
			defer close(m.served)
			server.Serve()
		}()
		m.noPolling()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// noPolling has the kernel learn that files here cannot be polled. Go's runtime
// polls what it opens, in a way that would keep this process from answering if
// it is the one that opens.
func (m *mount) noPolling() {
	const name = ".go-fuse-epoll-hack" // go-fuse knows it
	fd, err := unix.Open(filepath.Join(m.dir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) // the answer does not matter
	_ = unix.Close(fd)
}

// within runs fn on a thread of the namespace.
func (m *mount) within(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		// The kernel refuses to move a thread that shares its root with others.
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(m.ns.Fd()), unix.CLONE_NEWNS)
		}
		if err != nil {
			result <- fmt.Errorf("%w: enter mount namespace: %w", ErrDenied, err)
			return
		}
		result <- fn()
	}()
	return <-result
}

// detach takes the mount out of its namespace; with force it has every
// operation that is under way fail.
func (m *mount) detach(force bool) error {
	if m == nil {
		return nil
	}
	flags := unix.MNT_DETACH
	if force {
		flags |= unix.MNT_FORCE
	}
	err := m.within(func() error { return unix.Unmount(m.dir, flags) })
	if errors.Is(err, unix.EINVAL) {
		err = nil // it is no mount any more
	}
	_ = m.ns.Close()
	return err
}

// gone lets the namespace end and waits until nothing uses the disk any more.
func (m *mount) gone() error {
	err := m.detach(false)
	select {
	case <-m.served:
	case <-time.After(10 * time.Second):
		err = errors.Join(err, errors.New("something still uses the disk after the power cut"))
	}
	return err
}
