package guard

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initArg is the first argument of the program when it is to be an init.
const initArg = "init"

// controlFD is where an init and a hook's runner find their link to the guard.
const controlFD = 3

// initProcess is PID 1 of a unit's namespace. It starts the program, or the
// hooks, reaps everything, and ends the namespace by its own end: when the
// program has gone, when it was told to stop, when the guard is gone.
type initProcess struct {
	ctl      *net.UnixConn
	orders   chan orderIn
	children chan os.Signal

	kind     UnitKind
	main     int    // pid of the program; 0: none, or it has ended
	status   string // how the program ended
	code     int
	stopSig  syscall.Signal
	stopping bool
	swept    bool // the stop signal was sent to the rest
	timeout  <-chan time.Time
}

type orderIn struct {
	order
	files []*os.File
}

// initMain never returns before everything in the namespace may die.
func initMain() int {
	// This thread forks, so the capabilities that it drops its children lack;
	// and a parent-death signal belongs to the thread that asked for it.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "init: ask to die with the guard:", err)
		return 1
	}
	heedSignals()
	sparePrograms()
	unix.CloseOnExec(controlFD)
	ctl, err := packetConn(os.NewFile(controlFD, "control"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err, "(it is started by the guard, never by hand)")
		return 1
	}
	in := &initProcess{ctl: ctl, orders: make(chan orderIn), children: make(chan os.Signal, 1)}
	signal.Notify(in.children, unix.SIGCHLD)
	// Signals from inside the namespace reach PID 1 where it has a handler, and
	// Go has one for all; catching them keeps a stray kill from ending the service.
	// Caught and not ignored: what is ignored the program would inherit.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGABRT, unix.SIGALRM, unix.SIGPIPE, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGPWR)

	// If the guard died before the death signal was armed, its end of the
	// socket is closed, and the read below says so.
	var first order
	files, err := recvPacket(ctl, make([]byte, maxPacket), &first)
	closeAll(files)
	if err != nil || first.Op != "setup" {
		return 1
	}
	proc, text := in.setup(first)
	if err := in.start(first); err != nil {
		_ = sendPacket(ctl, news{Ev: "error", Text: err.Error()})
		return 1
	}
	if err := sendPacket(ctl, news{Ev: "up", Pid: in.main, Proc: proc, Text: text}); err != nil {
		return 1
	}
	go in.receive()
	return in.loop()
}

// receive passes orders on. Its end, when the guard's end is closed, is the
// second way by which the guard's death ends the namespace.
func (in *initProcess) receive() {
	defer close(in.orders)
	buf := make([]byte, maxPacket)
	for {
		var o order
		files, err := recvPacket(in.ctl, buf, &o)
		if err != nil {
			return
		}
		in.orders <- orderIn{o, files}
	}
}

func (in *initProcess) loop() int {
	if done := in.reap(); done {
		return in.end()
	}
	for {
		select {
		case o, ok := <-in.orders:
			if !ok {
				return 1
			}
			in.obey(o)
			closeAll(o.files)
		case <-in.children:
		case <-in.timeout:
			in.status = strings.TrimPrefix(in.status+", the rest killed after the stop timeout", ", ")
			return in.end()
		}
		if done := in.reap(); done {
			return in.end()
		}
	}
}

// end reports how the program ended; the return from it ends the namespace.
func (in *initProcess) end() int {
	_ = sendPacket(in.ctl, news{Ev: "exited", Status: in.status})
	return in.code
}

func (in *initProcess) obey(o orderIn) {
	switch o.Op {
	case "stop":
		if in.stopping {
			return
		}
		in.stopping = true
		if o.Timeout <= 0 {
			o.Timeout = time.Millisecond
		}
		in.timeout = time.After(o.Timeout)
		if in.main > 0 {
			// The program first, and alone: one that has workers ends them in its own order.
			_ = unix.Kill(in.main, in.stopSig)
		}
	case "signal":
		if in.main > 0 {
			_ = unix.Kill(in.main, syscall.Signal(o.Signal))
		}
	case "run":
		if err := in.run(o); err != nil {
			_ = sendPacket(in.ctl, news{Ev: "ran", ID: o.ID, Text: err.Error()})
			return
		}
		_ = sendPacket(in.ctl, news{Ev: "ran", ID: o.ID})
	}
}

// reap collects the dead, and reports whether it is time to end.
func (in *initProcess) reap() bool {
	left := true
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil { // ECHILD: nothing else lives in the namespace
			left = false
			break
		}
		if pid == 0 {
			break
		}
		if pid == in.main {
			in.main, in.status, in.code = 0, statusText(ws), ws.ExitStatus()
			if ws.Signaled() {
				in.code = 128 + int(ws.Signal())
			}
		}
	}
	switch {
	case in.kind == KindProcess && in.main == 0 && !in.stopping:
		return true // by itself: whatever it leaves behind goes with it
	case !in.stopping:
		return false
	case !left:
		return true
	case in.main == 0 && !in.swept:
		// A shell that died of the signal leaves its child, which never got it.
		in.swept = true
		_ = unix.Kill(-1, in.stopSig)
	}
	return false
}

// setup makes the namespace a place of its own, as far as it is let: what is
// refused is told, not fatal.
func (in *initProcess) setup(o order) (proc bool, text string) {
	in.kind, in.stopSig = o.Kind, syscall.Signal(o.StopSignal)
	syscall.Umask(0o022)
	if err := mountProc(o.ShareMounts); err != nil {
		text = err.Error()
	} else {
		proc = true
	}
	if proc && o.Tasks > 0 {
		limitPids(o.Tasks)
	}
	if proc && o.FirstPid > 0 {
		// Refused where the kernel has no CONFIG_CHECKPOINT_RESTORE, or in a user
		// namespace without the capability: then IDs begin at the bottom.
		_ = os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(o.FirstPid)), 0)
	}
	// What a user namespace of ours needed in order to mount is nothing for the program.
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	return proc, text
}

// mountProc mounts a /proc that shows this namespace. The host's mounts go on
// arriving here; ours reach the host only when they are to be shared, and /proc never does.
func mountProc(share bool) error {
	if share {
		if err := unix.Mount("", "/proc", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("make /proc private: %w", err)
		}
	} else if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts slave: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// limitPids bounds the process IDs of this namespace, which bounds a fork bomb.
// Only since Linux 6.14 does the setting belong to the namespace: before, it is
// the whole machine's, and left alone.
func limitPids(tasks int) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil || !kernelAtLeast(unix.ByteSliceToString(u.Release[:]), 6, 14) {
		return
	}
	_ = os.WriteFile("/proc/sys/kernel/pid_max", []byte(strconv.Itoa(reservedPids+tasks)), 0)
}

// kernelAtLeast compares a release such as "6.18.4-arch1".
func kernelAtLeast(release string, major, minor int) bool {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err := strconv.Atoi(parts[0])
	if err != nil {
		return false
	}
	digits := parts[1]
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	b, err := strconv.Atoi(digits)
	if err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

// start starts the program of a process; hooks come later.
func (in *initProcess) start(o order) error {
	if in.kind == KindHooks {
		return nil
	}
	if o.Program == nil {
		return fmt.Errorf("%w: no command", ErrStart)
	}
	pid, err := o.Program.spawn([]uintptr{0, 1, 2}, &syscall.SysProcAttr{})
	if err != nil {
		return err
	}
	in.main = pid
	return nil
}

// run starts a hook's runner on the descriptors that came with the order.
func (in *initProcess) run(o orderIn) error {
	if len(o.files) < 2 || in.stopping {
		return fmt.Errorf("%w: the unit is stopping", ErrConflict)
	}
	attr := &syscall.SysProcAttr{Setsid: true}
	if len(o.files) > 2 {
		attr.UseCgroupFD, attr.CgroupFD = true, int(o.files[2].Fd())
	}
	out, link := o.files[0].Fd(), o.files[1].Fd()
	_, err := syscall.ForkExec("/proc/self/exe", []string{"failoverguard", hookArg},
		&syscall.ProcAttr{Dir: "/", Env: os.Environ(), Files: []uintptr{0, out, out, link}, Sys: attr})
	if err != nil {
		return fmt.Errorf("start the hook's runner: %w", err)
	}
	return nil
}
