package lab

import (
	"time"

	"golang.org/x/sys/unix"
)

// urgent asks for a real-time priority for the calling thread, which must be
// thrown away afterwards: a measure must not stall with what it measures. An
// ordinary user does not get it; the measuring threads report their own stalls.
func urgent() {
	attr := &unix.SchedAttr{Policy: unix.SCHED_RR, Priority: 5}
	attr.Size = unix.SizeofSchedAttr
	if unix.SchedSetAttr(0, attr, 0) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -10)
	}
}

// poll waits for one of the descriptors, at most for d.
func poll(fds []unix.PollFd, d time.Duration) {
	ts := unix.NsecToTimespec(max(int64(d), 0))
	_, _ = unix.Ppoll(fds, &ts, nil) // EINTR is a wake-up like any other
}

// waker wakes a thread that polls.
type waker struct{ fd int }

func newWaker() (waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return waker{fd}, err
}

func (w waker) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(w.fd, one[:]) // full means it will wake anyway
}

func (w waker) drain() {
	var b [8]byte
	_, _ = unix.Read(w.fd, b[:])
}

func (w waker) close() { _ = unix.Close(w.fd) }
