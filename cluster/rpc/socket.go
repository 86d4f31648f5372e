package rpc

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxSocketPath is what fits into sun_path with its end (unix(7)).
const maxSocketPath = 107

// freshName is the socket's name until it is ready, beside its place; shorter
// than any name it could matter for.
const freshName = ".n"

// socketListener is a Unix socket that is removed by us alone, and only while
// it is still ours: a successor may have put its own in its place.
type socketListener struct {
	net.Listener
	path string
	file fs.FileInfo
}

// listenUnix makes the socket. It is made beside its place and moved there
// when its mode is right, so that nobody finds it too open or not yet listening.
func listenUnix(path string) (*socketListener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen on socket %s: the path is %d bytes too long for a socket: choose a shorter one", path, len(path)-maxSocketPath)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	switch err := os.Mkdir(dir, 0o750); {
	case err == nil:
		if err := os.Chmod(dir, 0o750); err != nil { // whatever the umask
			return nil, fmt.Errorf("make the socket's directory: %w", err)
		}
	case !errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	unlock, err := lockSocket(dir)
	if err != nil {
		return nil, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	defer unlock()
	if err := nobodyAnswers(path); err != nil {
		return nil, err
	}
	l, err := bindUnix(path)
	if err != nil {
		return nil, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	return l, nil
}

func bindUnix(path string) (_ *socketListener, err error) {
	fresh := filepath.Join(filepath.Dir(path), freshName)
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := os.Chmod(fresh, 0o660); err != nil {
		return nil, err
	}
	file, err := os.Lstat(fresh)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(fresh, path); err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	return &socketListener{Listener: limitConns(l, operatorLimits.conns), path: path, file: file}, nil
}

// remove takes the socket away if it is still this one.
func (l *socketListener) remove() {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
		_ = os.Remove(l.path) // what stays is found dead by the next start
	}
}

// nobodyAnswers returns nil when path is free or holds the socket of a dead daemon.
func nobodyAnswers(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket: remove it, or set another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = c.Close() // nothing was written
		return fmt.Errorf("another daemon answers on socket %s: stop it, or set another path", path)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil // bound by nobody: the rename replaces it
	}
	// A full queue is somebody, too: a daemon that is frozen for a while.
	return fmt.Errorf("somebody may be listening on socket %s (%w): stop the other daemon, or set another path", path, err)
}

// lockSocket keeps two starting daemons from replacing each other's socket. It
// locks the directory itself, which leaves no file behind.
func lockSocket(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(2 * time.Second)
	for {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = d.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(deadline) {
			_ = d.Close()
			return nil, fmt.Errorf("lock %s: %w", strings.TrimSuffix(dir, "/"), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
