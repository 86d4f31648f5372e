package guard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/failoverd/failoverd/internal/failpoint"
	"github.com/failoverd/failoverd/service/cgroup"
)

// nursery starts inits. It keeps one thread for ever: the kernel sends the
// parent-death signal when the *thread* that made the child ends, and Go ends
// threads as it likes.
type nursery struct {
	work chan func()
	done chan struct{}
	argv []string // of an init

	pids atomic.Uint64 // see firstPid
}

// reservedPids: the kernel gives out process IDs below it once, and begins
// there again when it has come to the end (RESERVED_PIDS, kernel/pid.c).
const reservedPids = 300

// firstPid spreads the process IDs of namespaces that follow each other. Each
// begins to count anew, and in the same place a file with the ID of a daemon of
// the last one would name some process of the next: a hook that looks there
// would find running what is gone, or kill itself.
func (n *nursery) firstPid(tasks int) int {
	const stride = 4099 // more than most services ever use, and no divisor of the range
	return reservedPids + int(n.pids.Add(stride)%uint64(max(tasks, 1)))
}

func newNursery(argv []string) *nursery {
	n := &nursery{work: make(chan func()), done: make(chan struct{}), argv: argv}
	n.pids.Store(rand.Uint64N(1 << 32))
	go func() {
		defer close(n.done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for f := range n.work {
			f()
		}
	}()
	return n
}

// close ends the thread, and with it, by the kernel, every init that is left.
func (n *nursery) close() {
	close(n.work)
	<-n.done
}

// birth is one life of a unit: an init and everything in its namespace.
type birth struct {
	unit   string
	leased bool
	group  *cgroup.Group // nil: none
	userNS bool
	proc   bool   // its own /proc
	text   string // why not
	ctl    *net.UnixConn
	out    *pump
	pid    int
	start  uint64 // of pid: clock ticks since boot

	mu      sync.Mutex
	process *os.Process
	doomed  string // why it was killed; empty: it was not
	status  string // how the program ended, by its init's word
	ran     map[uint64]chan string
	heard   chan struct{} // the init's last word was heard

	gone chan struct{} // closed when it is proven that nothing of it lives
}

// birthOptions says what is born.
type birthOptions struct {
	unit   string
	order  order
	leased bool
	output func([]byte)
	group  *cgroup.Group
	record func(*birth) error // called when the init lives and runs nothing yet
}

// setupTimeout bounds the time from the init's start to its program's.
const setupTimeout = 5 * time.Second

// bear starts an init and, in it, what the order says. Before, b must have
// been entered into the lease if it is leased. On error nothing of it is left,
// or b.gone tells when.
func (n *nursery) bear(b *birth, o birthOptions) error {
	b.unit, b.leased, b.group = o.unit, o.leased, o.group
	b.gone, b.heard, b.ran = make(chan struct{}), make(chan struct{}), map[uint64]chan string{}
	up, err := n.fork(b, o)
	if err != nil {
		close(b.gone)
		return err
	}
	failpoint.Here("guard.birth.forked")
	if err := o.record(b); err != nil {
		b.kill("not recorded")
		return err
	}
	failpoint.Here("guard.birth.recorded")
	o.order.FirstPid = n.firstPid(o.order.Tasks)
	if err := sendPacket(b.ctl, o.order); err != nil {
		b.kill("no link")
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	select {
	case first := <-up:
		b.proc, b.text = first.Proc, first.Text
		if first.Ev == "up" {
			return nil
		}
		b.kill("not started")
		if first.Text != "" {
			return &remoteError{text: first.Text, is: ErrStart}
		}
		if why := b.doomedBy(); why != "not started" {
			return fmt.Errorf("%w: killed while it started: %s", ErrStart, why)
		}
		return fmt.Errorf("%w: its init ended", ErrStart)
	case <-time.After(setupTimeout):
		b.kill("not started in time")
		return fmt.Errorf("%w: its init did not answer in %v", ErrStart, setupTimeout)
	}
}

// fork makes the init and starts the goroutines that listen to it and reap it.
// The channel gives the init's first word, or a zero one if it dies before.
func (n *nursery) fork(b *birth, o birthOptions) (<-chan news, error) {
	ours, theirs, err := packetPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	out, outW, err := newPump(o.output)
	if err != nil {
		ours.Close()
		return nil, err
	}
	defer outW.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		ours.Close()
		outW.Close()
		out.close()
		return nil, fmt.Errorf("start an init: %w", err)
	}
	defer null.Close()
	b.ctl, b.out = ours, out

	result := make(chan error, 1)
	n.work <- func() { result <- n.forkHere(b, []*os.File{null, outW, outW, theirs}) }
	if err := <-result; err != nil {
		ours.Close()
		outW.Close()
		out.close()
		return nil, err
	}
	up := make(chan news, 1)
	go b.listen(up)
	go b.reap()
	return up, nil
}

// forkHere runs on the nursery's thread.
func (n *nursery) forkHere(b *birth, files []*os.File) error {
	attr := &syscall.SysProcAttr{
		// No session of its own: it is scheduled with the guard's (see hurry).
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
	}
	var dir *os.File
	if b.group != nil {
		d, err := b.group.OpenDir()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrStart, err)
		}
		defer d.Close()
		dir = d
		attr.UseCgroupFD, attr.CgroupFD = true, int(d.Fd())
	}
	start := func() (*os.Process, error) {
		return os.StartProcess(n.argv[0], n.argv, &os.ProcAttr{Dir: "/", Env: baseEnvironment(), Files: files, Sys: attr})
	}
	p, err := start()
	if denied(err) {
		// An ordinary user may make these namespaces inside a user namespace,
		// as the same user; mounting its /proc takes the capability across exec.
		b.userNS = true
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
		p, err = start()
	}
	if err != nil && dir != nil && (errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.E2BIG)) {
		// Before Linux 5.7 nothing is born into a cgroup. The init does nothing
		// before it is told to, so moving it there now leaves nothing outside.
		attr.UseCgroupFD = false
		if p, err = start(); err == nil {
			if aerr := b.group.Add(p.Pid); aerr != nil {
				_ = p.Kill()
				_, _ = p.Wait()
				return fmt.Errorf("%w: %w", ErrStart, aerr)
			}
		}
	}
	if denied(err) {
		return fmt.Errorf("%w: %v; the guard needs CAP_SYS_ADMIN or user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)", ErrContainment, err)
	}
	if err != nil {
		return fmt.Errorf("%w: start an init: %w", ErrStart, err)
	}
	b.pid = p.Pid
	if st, err := readStat(p.Pid); err == nil {
		b.start = st.start
	}
	b.mu.Lock()
	b.process = p
	doomed := b.doomed != ""
	b.mu.Unlock()
	if doomed { // by the deadline, while it was being born
		_ = p.Kill()
	}
	return nil
}

func denied(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS)
}

// listen hears the init until its end.
func (b *birth) listen(up chan<- news) {
	defer close(b.heard)
	buf := make([]byte, maxPacket)
	for first := true; ; first = false {
		var n news
		files, err := recvPacket(b.ctl, buf, &n)
		closeAll(files)
		if first {
			up <- n // a zero one when it died before
		}
		if err != nil {
			b.mu.Lock()
			for _, ch := range b.ran {
				close(ch)
			}
			b.ran = nil
			b.mu.Unlock()
			return
		}
		b.mu.Lock()
		switch n.Ev {
		case "exited":
			b.status = n.Status
		case "ran":
			if ch, ok := b.ran[n.ID]; ok {
				delete(b.ran, n.ID)
				ch <- n.Text
			}
		}
		b.mu.Unlock()
	}
}

// reap waits for the init, which can be reaped only when its whole namespace
// is gone, then for the cgroup to be empty. Only that closes gone.
func (b *birth) reap() {
	// A Wait that fails would be a child reaped by somebody else: gone all the same.
	st, err := b.process.Wait()
	<-b.heard
	b.mu.Lock()
	if b.status == "" && b.doomed == "" {
		if err == nil {
			b.status = "its init ended: " + st.String()
		} else {
			b.status = "its init ended"
		}
	}
	b.mu.Unlock()
	if b.group != nil {
		for {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err := b.group.Clear(ctx)
			cancel()
			if err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	// Everything that could write is gone; what is in the pipe is still read.
	select {
	case <-b.out.done:
	case <-time.After(time.Second):
	}
	b.out.close()
	b.ctl.Close()
	close(b.gone)
}

// kill ends everything in the namespace at once; it does not wait. The init
// goes first, as that is one signal; the cgroup takes what may have been moved
// there from elsewhere.
func (b *birth) kill(why string) {
	b.signal(why)
	b.sweep()
}

// signal is the part of kill that cannot block.
func (b *birth) signal(why string) {
	b.mu.Lock()
	if b.doomed == "" {
		b.doomed = why
	}
	p := b.process
	b.mu.Unlock()
	if p != nil {
		_ = p.Kill() // gone already is as good
	}
}

func (b *birth) sweep() {
	if b.group != nil {
		_ = b.group.Kill()
	}
}

func (b *birth) doomedBy() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.doomed
}

// exit says how the program ended; for use after gone.
func (b *birth) exit() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

// tell sends the init an order.
func (b *birth) tell(o order, files ...*os.File) error { return sendPacket(b.ctl, o, files...) }

// awaitRun registers for the init's answer to a run order. The channel is
// closed when the init ends instead.
func (b *birth) awaitRun(id uint64) <-chan string {
	ch := make(chan string, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ran == nil {
		close(ch)
		return ch
	}
	b.ran[id] = ch
	return ch
}
