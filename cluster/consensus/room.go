package consensus

import (
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// roomPause lies between two attempts to write to a disk without room.
const roomPause = 100 * time.Millisecond

// noRoom reports whether a write was refused for want of room, or because the
// file system is read-only. Nothing was written then, and what was there is as
// it was: the same write may be tried again. A sync that fails for the same
// reason is not of this kind: it has no path, or another verb, and what is on
// the disk is unknown after it.
func noRoom(err error) bool {
	var refused *fs.PathError
	return errors.As(err, &refused) && refused.Op == "write" &&
		(errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS))
}

// patiently tries a call again for as long as the disk has no room for it, or
// until stop. To raft that is a disk that hangs: a leader steps down and another
// takes over, a follower falls behind, a holder goes on under its lease, and the
// node takes part again as soon as there is room. To end the daemon would not
// help: a new one needs room at once.
func (w *watch) patiently(stop <-chan struct{}, call func() error) error {
	defer w.begin()()
	err := call()
	if !noRoom(err) {
		return err
	}
	defer w.waiting(err)()
	tick := time.NewTicker(roomPause)
	defer tick.Stop()
	for noRoom(err) {
		select {
		case <-tick.C:
		case <-stop:
			return errStopping
		}
		err = call()
	}
	return err
}

// waiting notes that an access waits for room; the returned function notes its end.
func (w *watch) waiting(why error) (end func()) {
	w.mu.Lock()
	w.roomless++
	w.why = why
	first, tell := w.roomless == 1, w.tell
	w.mu.Unlock()
	if first && tell != nil {
		tell(why)
	}
	return func() {
		w.mu.Lock()
		w.roomless--
		last := w.roomless == 0
		w.mu.Unlock()
		if last && tell != nil {
			tell(nil)
		}
	}
}

// room is nil, or says why writes wait for room.
func (w *watch) room() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.roomless == 0 {
		return nil
	}
	return w.why
}

// tellRoom logs when the disk has no room any more, and when it has some again.
func (n *Node) tellRoom(why error) {
	dir := n.options.Directory.Path()
	if why == nil {
		n.log.Info("the disk takes writes again", "directory", dir)
		return
	}
	n.log.Error("the disk takes no writes; this node leads nothing and stores nothing until it does: free some space, or mount it for writing",
		"directory", dir, "error", why)
}
